//! The endpoint's side: the handshake that belongs to the attempt to connect to it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, Error};

use crate::telemetry::Outcome;
use crate::tls::{ClientSide, Engine};
use crate::worker::runtime::{self, Stream};

use super::super::connect::{Failed, LOOK_INTERVAL, look_after};
use super::super::secure::Secure;
use super::super::{Context, Live};
use super::{explain, read_now, would_block};

/// Shakes hands with an endpoint that is connected, by `deadline`.
pub(in crate::connection) async fn shake_hands(
    context: &Context,
    live: &Live,
    upstream: &Stream,
    tls: &ClientSide,
    deadline: Instant,
) -> Result<Rc<Secure>, Failed> {
    let (Some(config), Some(name)) = (tls.config(), tls.server_name()) else {
        live.note_failure(tls.problem().unwrap_or("there are no authorities to trust").into());
        return Err(Failed::Attempt(Outcome::TlsUnavailable));
    };
    // What the client and this process agreed to speak is what the endpoint is to speak.
    let chosen = live.downstream_alpn();
    let is_chosen = chosen.is_some();
    let alpn = chosen.map_or_else(|| config.alpn_protocols.clone(), |alpn| vec![alpn]);
    let fail = |error: &Error| {
        live.note_failure(describe(error, name));
        match error {
            Error::AlertReceived(AlertDescription::NoApplicationProtocol) if is_chosen => {
                Failed::Choice(Outcome::TlsUpstreamFailed)
            }
            _ => Failed::Attempt(Outcome::TlsUpstreamFailed),
        }
    };
    let secure =
        Secure::new(Engine::connect(Arc::clone(config), name.clone(), alpn).map_err(|error| fail(&error))?);
    let mut bytes = Vec::new();
    loop {
        take_turn(context, live, deadline).await?;
        {
            let mut scratch = context.secure_scratch.borrow_mut();
            let result = secure.receive(upstream, &mut bytes, &mut scratch);
            secure.keep_early(&scratch.plaintext);
            result.map_err(|error| fail(&error))?;
        }
        // What does not fit goes with what comes next; a handshake's few kilobytes always do.
        if secure.is_established() {
            return Ok(secure);
        }
        bytes.clear();
        read(context, live, upstream, &mut bytes, deadline).await?;
    }
}

/// Waits for the turn to compute. If it does not come in time, that is not the endpoint's doing.
async fn take_turn(context: &Context, live: &Live, deadline: Instant) -> Result<(), Failed> {
    let turn = runtime::timeout_at(deadline, context.handshakes.turn()).await;
    look_after(live).map_err(Failed::Connection)?;
    turn.ok_or(Failed::Connection(Outcome::HandshakeLimit))
}

/// Reads on, without losing sight of the client and of verdicts from outside.
async fn read(
    context: &Context,
    live: &Live,
    upstream: &Stream,
    bytes: &mut Vec<u8>,
    deadline: Instant,
) -> Result<(), Failed> {
    loop {
        let look = deadline.min(Instant::now() + LOOK_INTERVAL);
        if runtime::timeout_at(look, upstream.read_ready()).await.is_some() {
            match read_now(context, upstream, bytes) {
                Ok(1..) => return Ok(()),
                Err(error) if would_block(&error) => {}
                Ok(0) => {
                    live.note_failure("the endpoint ended the connection within the TLS handshake".into());
                    return Err(Failed::Attempt(Outcome::TlsUpstreamFailed));
                }
                Err(error) => {
                    live.note_failure(format!("within the TLS handshake: {error}").into());
                    return Err(Failed::Attempt(Outcome::TlsUpstreamFailed));
                }
            }
        }
        look_after(live).map_err(Failed::Connection)?;
        if Instant::now() >= deadline {
            return Err(Failed::Attempt(Outcome::TlsUpstreamTimeout));
        }
    }
}

/// What went wrong, with the name that the endpoint should have had.
fn describe(error: &Error, name: &ServerName<'_>) -> Box<str> {
    match error {
        Error::InvalidCertificate(_) => {
            format!("{}; the endpoint was asked for as {}", explain(error), name.to_str()).into()
        }
        error => explain(error),
    }
}
