//! The client's side: what it says first, and the handshake with it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, ServerConfig};

use crate::telemetry::Outcome;
use crate::tls::client_hello::{ClientHello, NoHello, Reader};
use crate::tls::{Engine, ServerSide, plain_alert};
use crate::worker::runtime::{self, Stream};

use super::super::secure::Secure;
use super::super::{Context, Live, live::Direction};
use super::{Room, explain, read_some};

/// How a connection ends before it has an endpoint.
pub(in crate::connection) enum Ended {
    /// With a reset, so that nobody takes it for an answer.
    Cut(Outcome),
    /// It was told why, by an alert, and gets time to read it.
    Told(Outcome),
}

/// A client that was told goodbye has this long to take note of it.
const LINGER: Duration = Duration::from_secs(1);
/// What it may send meanwhile.
const LINGER_BYTES_MAX: usize = 64 * 1024;

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        Self::Cut(outcome)
    }
}

/// What the client says first, and all bytes that came so far, which are held in `room`.
pub(in crate::connection) async fn greet(
    context: &Context,
    live: &Live,
    downstream: &Stream,
    room: &mut Room<'_>,
) -> Result<(ClientHello, Vec<u8>), Ended> {
    let mut bytes = Vec::new();
    let mut reader = Reader::default();
    loop {
        read(context, live, downstream, &mut bytes).await?;
        if !room.hold(bytes.capacity()) {
            return Err(Ended::Cut(Outcome::HandshakeLimit));
        }
        match reader.read(&bytes) {
            Ok(Some(hello)) => return Ok((hello, bytes)),
            Ok(None) => {}
            Err(error) => {
                live.note_tls(|tls| tls.failure = Some(error.to_string().into()));
                return Err(refuse(downstream, error));
            }
        }
    }
}

/// Reads on; the end of the client's stream is an error here.
async fn read(
    context: &Context,
    live: &Live,
    downstream: &Stream,
    bytes: &mut Vec<u8>,
) -> Result<(), Outcome> {
    let outcome = match read_some(context, downstream, bytes).await {
        Ok(1..) => {
            live.arrived(Direction::Received);
            return Ok(());
        }
        Ok(0) => Outcome::DownstreamClosed,
        Err(_) => Outcome::DownstreamReset,
    };
    Err(live.verdict().unwrap_or(outcome))
}

fn refuse(downstream: &Stream, error: NoHello) -> Ended {
    match error {
        // Whoever speaks something else would not understand.
        NoHello::NotTls => Ended::Cut(Outcome::NotTls),
        NoHello::Ssl2 => tell(downstream, AlertDescription::ProtocolVersion, Outcome::NotTls),
        NoHello::TooLarge => tell(downstream, AlertDescription::DecodeError, Outcome::ClientHelloTooLarge),
        NoHello::Malformed(_) => tell(downstream, AlertDescription::DecodeError, Outcome::TlsHandshakeFailed),
    }
}

/// Tells a client with whom no handshake was begun why there will be none.
pub(in crate::connection) fn tell(downstream: &Stream, alert: AlertDescription, outcome: Outcome) -> Ended {
    // There is room for seven bytes, or the client is gone.
    let _gone = downstream.try_write(&plain_alert(alert));
    Ended::Told(outcome)
}

/// The handshake with a client, of which these bytes have come. They are held in `room`. Of the protocols that the listener
/// offers, only those are agreed on that are wanted.
pub(in crate::connection) async fn shake_hands(
    context: &Context,
    live: &Live,
    downstream: &Stream,
    tls: &ServerSide,
    is_wanted: impl Fn(&[u8]) -> bool,
    mut bytes: Vec<u8>,
    mut room: Room<'_>,
) -> Result<Rc<Secure>, Ended> {
    let fail = |text: Box<str>| live.note_tls(|tls| tls.failure = Some(text));
    let Some(config) = tls.config() else {
        fail(tls.problem().unwrap_or("there is no certificate").into());
        return Err(tell(downstream, AlertDescription::InternalError, Outcome::TlsUnavailable));
    };
    let engine = Engine::accept(restricted(config, is_wanted)).map_err(|error| {
        fail(explain(&error));
        Outcome::Internal
    })?;
    let secure = Secure::new(engine);
    let end = |id| {
        context.registry.end(id, Outcome::HandshakeLimit);
    };
    let Some(under_way) = context.handshakes.begin(live.id, Instant::now(), end) else {
        return Err(Ended::Cut(Outcome::HandshakeLimit));
    };
    loop {
        context.handshakes.turn().await;
        if let Some(outcome) = live.verdict() {
            return Err(outcome.into());
        }
        let result = {
            let mut scratch = context.secure_scratch.borrow_mut();
            let result = secure.receive(downstream, &mut bytes, &mut scratch);
            secure.keep_early(&scratch.plaintext);
            result
        };
        if let Err(error) = result {
            fail(explain(&error));
            return Err(Ended::Told(Outcome::TlsHandshakeFailed));
        }
        under_way.waits(Some(Instant::now()));
        if secure.cleared(downstream).await.is_err() {
            return Err(live.verdict().unwrap_or(Outcome::DownstreamReset).into());
        }
        if secure.is_established() {
            return match recheck(&secure, tls) {
                Ok(()) => Ok(secure),
                Err(error) => {
                    fail(explain(&error));
                    // With a reset, the library having no alert to offer any more, and because clients forget a session that ended
                    // in one.
                    Err(Ended::Cut(Outcome::TlsHandshakeFailed))
                }
            };
        }
        // Who waits holds nothing but what is not understood yet.
        bytes = Vec::new();
        room.hold(secure.held());
        read(context, live, downstream, &mut bytes).await?;
        under_way.waits(None);
        if !room.hold(secure.held() + bytes.capacity()) {
            return Err(Ended::Cut(Outcome::HandshakeLimit));
        }
    }
}

fn restricted(config: &Arc<ServerConfig>, is_wanted: impl Fn(&[u8]) -> bool) -> Arc<ServerConfig> {
    if config.alpn_protocols.iter().all(|protocol| is_wanted(protocol)) {
        return Arc::clone(config);
    }
    let mut restricted = ServerConfig::clone(config);
    restricted.alpn_protocols.retain(|protocol| is_wanted(protocol));
    Arc::new(restricted)
}

/// Whether a client that was remembered may still come: the certificate that it showed the first time is not looked at again in
/// a resumed handshake, and each makes new tickets, so that one which is over would be good for ever.
fn recheck(secure: &Secure, tls: &ServerSide) -> Result<(), rustls::Error> {
    if !tls.asks_clients() {
        return Ok(());
    }
    secure.with_engine(|engine| match engine.is_resumed() {
        true => tls.admits_client(engine.certificates(), UnixTime::now()),
        false => Ok(()),
    })
}

impl Ended {
    /// Ends the connection this way.
    pub(in crate::connection) async fn end(self, context: &Context, downstream: &Stream) -> Outcome {
        match self {
            Self::Cut(outcome) => {
                downstream.abort();
                outcome
            }
            Self::Told(outcome) => {
                downstream.finish_writing();
                linger(context, downstream).await;
                outcome
            }
        }
    }
}

/// Waits for the client to end. With bytes of it unread the kernel would send a reset, before which the alert might be lost.
async fn linger(context: &Context, downstream: &Stream) {
    let until = Instant::now() + LINGER;
    let mut read = 0;
    while read < LINGER_BYTES_MAX {
        match runtime::timeout_at(until, downstream.read_ready()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
        match downstream.try_read(&mut context.scratch.borrow_mut()) {
            Ok(length @ 1..) => read += length,
            Err(error) if super::would_block(&error) => {}
            Ok(0) | Err(_) => return,
        }
    }
}
