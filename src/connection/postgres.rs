//! What PostgreSQL has before TLS (`tls.startTls: postgres`), with clients and with endpoints: a question and an answer in
//! plain text.
//!
//! Nothing is ever read beyond them, so that nobody can slip plain text in before TLS that would count as said within it.

use std::time::Instant;

use crate::telemetry::Outcome;
use crate::tls::postgres::{First, NO, REQUEST_LEN, SSL_REQUEST, YES, read, refusal};
use crate::worker::runtime::{self, Stream};

use super::connect::{Failed, LOOK_INTERVAL, look_after};
use super::handshake::Ended;
use super::live::Direction;
use super::peek::{Peeked, peek, take};
use super::relay::would_block;
use super::{Context, Live};

/// How a client asks: for GSSAPI first, then for TLS.
const REQUESTS_MAX: usize = 2;

/// Whether endpoints are to be asked for TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Asks {
    #[default]
    No,
    /// Where TLS is spoken to them on this process's own account.
    BeforeTls,
    /// The client has asked, and TLS goes through.
    Yes,
}

/// Hears how a client comes to TLS, up to where TLS begins.
pub(super) async fn greet(context: &Context, live: &Live, downstream: &Stream) -> Result<Asks, Ended> {
    let deadline = live.accepted + live.accepted_by.timeouts.tls_handshake;
    let judge = |bytes: &[u8]| Some(read(bytes)).filter(|first| *first != First::Unclear);
    for _ in 0..REQUESTS_MAX {
        let first = match peek(context, live, downstream, deadline, REQUEST_LEN, judge).await? {
            Peeked::Enough(first) => first,
            Peeked::Ended => First::Other,
            Peeked::TimedOut => return Err(Outcome::TlsHandshakeTimeout.into()),
        };
        live.arrived(Direction::Received);
        match first {
            First::Tls => return Ok(Asks::No),
            First::SslRequest => {
                answer(context, downstream, YES)?;
                return Ok(Asks::Yes);
            }
            First::GssRequest => answer(context, downstream, NO)?,
            First::Startup => {
                live.note_failure("the client would go on without TLS (its sslmode)".into());
                // There is room for it, or the client is gone.
                let _gone = downstream.try_write(&refusal());
                return Err(Ended::Told(Outcome::PlaintextRefused));
            }
            First::Cancel => {
                live.note_failure("a request to cancel a query came without TLS".into());
                return Err(Outcome::PlaintextRefused.into());
            }
            First::Unclear | First::Other => break,
        }
    }
    live.note_failure("the client speaks neither PostgreSQL nor TLS".into());
    Err(Outcome::NotTls.into())
}

fn answer(context: &Context, downstream: &Stream, answer: u8) -> Result<(), Outcome> {
    take(context, downstream, REQUEST_LEN)?;
    match downstream.try_write(&[answer]) {
        Ok(1) => Ok(()),
        _ => Err(Outcome::DownstreamReset),
    }
}

/// Asks an endpoint for TLS.
pub(super) async fn ask(live: &Live, upstream: &Stream, deadline: Instant) -> Result<(), Failed> {
    let failed = |reason: &str| {
        live.note_failure(reason.into());
        Err(Failed::Attempt(Outcome::TlsUpstreamFailed))
    };
    if !matches!(upstream.try_write(&SSL_REQUEST), Ok(REQUEST_LEN)) {
        return failed("the endpoint cannot be asked for TLS: it has left already");
    }
    let mut answer = [0];
    loop {
        let look = deadline.min(Instant::now() + LOOK_INTERVAL);
        if runtime::timeout_at(look, upstream.read_ready()).await.is_some() {
            match upstream.try_read(&mut answer) {
                Ok(1) if answer == [YES] => return Ok(()),
                Ok(1) if answer == [NO] => return failed("the endpoint speaks no TLS: turn on `ssl` there"),
                Ok(1) => {
                    return failed(
                        "the endpoint answered an SSLRequest with something else: is it PostgreSQL?",
                    );
                }
                Ok(_) => return failed("the endpoint ended the connection when it was asked for TLS"),
                Err(error) if would_block(&error) => {}
                Err(error) => return failed(&format!("when the endpoint was asked for TLS: {error}")),
            }
        }
        look_after(live).map_err(Failed::Connection)?;
        if Instant::now() >= deadline {
            live.note_failure("the endpoint did not say whether it speaks TLS".into());
            return Err(Failed::Attempt(Outcome::TlsUpstreamTimeout));
        }
    }
}

impl Asks {
    /// Whether to ask an endpoint with which TLS is spoken, or not, on this process's own account.
    pub(super) fn now(self, speaks_tls: bool) -> bool {
        match self {
            Self::No => false,
            Self::BeforeTls => speaks_tls,
            Self::Yes => true,
        }
    }
}
