//! The straight path of a connection whose client speaks TLS: its ClientHello says where it goes, and its route where TLS ends.
//!
//! Here: shake hands with the client, then connect, then relay what was encrypted. Or at the endpoint: connect, hand on
//! what was read as it came, and relay as without TLS.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use rustls::AlertDescription;

use crate::config::{StartTls, TlsMode};
use crate::routing::Place;
use crate::telemetry::{ClientIdentity, Outcome, Side};
use crate::tls::Facts;
use crate::tls::client_hello::ClientHello;
use crate::tls::postgres::ALPN;
use crate::worker::runtime::Stream;

use super::connect::connect;
use super::handshake::{Ended, Room, greet, shake_hands, tell};
use super::live::Flag;
use super::postgres::{self, Asks};
use super::record::Recorder;
use super::relay::{End, run_after, run_secure};
use super::secure::Secure;
use super::{Context, Entry, Live, choose_upstream, passive};

/// What the client's side is after its handshake.
enum Client<'a> {
    /// TLS ends here.
    Terminated(Rc<Secure>),
    /// TLS ends at the endpoint, which is to get these bytes first.
    PassedThrough(Vec<u8>, Room<'a>),
}

pub(super) async fn forward(
    context: &Context,
    live: &Live,
    downstream: &Stream,
    place: &Cell<Option<Place>>,
    entry: Entry,
    recorder: &mut Recorder,
) -> Outcome {
    let client = match meet(context, live, downstream, place).await {
        Ok(client) => client,
        Err(ended) => return ended.end(context, downstream).await,
    };
    let connected = match choose_upstream(context, live, entry, recorder) {
        Ok(upstream) => connect(context, live, upstream, recorder).await,
        Err(outcome) => Err(outcome),
    };
    let connected = match connected {
        Ok(connected) => connected,
        Err(outcome) => {
            downstream.abort();
            return outcome;
        }
    };
    let upstream = connected.end();
    let outcome = match client {
        Client::Terminated(secure) => {
            let downstream = End { stream: downstream, secure: Some(&secure) };
            run_secure(context, live, downstream, upstream, Vec::new()).await
        }
        Client::PassedThrough(first, room) if upstream.secure.is_some() => {
            drop(room);
            let downstream = End { stream: downstream, secure: None };
            run_secure(context, live, downstream, upstream, first).await
        }
        Client::PassedThrough(first, room) => {
            drop(room);
            run_after(context, live, downstream, upstream.stream, first).await
        }
    };
    passive::ended(context, live, recorder.connected_at(), outcome);
    outcome
}

/// Hears whom the client asks for, and shakes hands with it unless somebody else is to do that.
async fn meet<'a>(
    context: &'a Context,
    live: &Live,
    downstream: &Stream,
    place: &Cell<Option<Place>>,
) -> Result<Client<'a>, Ended> {
    live.set(Flag::ShakesHands, true);
    context.registry.schedule(live);
    let start = live.accepted_by.tls.as_ref().and_then(|tls| tls.start_tls());
    let asks = match start {
        None => Asks::No,
        // In a box: few listeners have it.
        Some(StartTls::Postgres) => Box::pin(postgres::greet(context, live, downstream)).await?,
    };
    let is_direct = start == Some(StartTls::Postgres) && asks == Asks::No;
    let mut room = context.handshakes.room();
    let (mut hello, bytes) = greet(context, live, downstream, &mut room).await?;
    let is_nameless = hello.server_name.is_none();
    live.set_server_name(hello.server_name.take());
    live.set_alpn(hello.alpn.clone());
    live.note_tls(|_| {});
    let Some((listener, route)) = live.accepted_by.find(live.asked()) else {
        return Err(turn_away(live, downstream, is_nameless));
    };
    if !live.choose_listener(listener) {
        if route.tls_mode == Some(TlsMode::Passthrough) {
            note_end(live);
        }
        return Err(Ended::Cut(Outcome::Limit));
    }
    if !Arc::ptr_eq(listener, &live.accepted_by) {
        // Who accepted it has its place for others again.
        drop(place.take());
    }
    let client = match (route.tls_mode, &listener.tls) {
        (Some(TlsMode::Terminate), Some(tls)) => {
            check(live, downstream, &hello, is_direct)?;
            let is_wanted =
                |protocol: &[u8]| if is_direct { protocol == ALPN } else { route.takes(protocol) };
            let secure = shake_hands(context, live, downstream, tls, is_wanted, bytes, room).await?;
            live.secure(Side::Downstream, &secure);
            live.set(Flag::HoldsBytes, secure.has_early());
            secure.with_engine(|engine| live.set_chain(engine.certificates()));
            live.note_tls(|tls| {
                tls.downstream = secure.negotiated();
                tls.client = identity(&secure);
            });
            Client::Terminated(secure)
        }
        _ => Client::PassedThrough(bytes, room),
    };
    // With TLS of this process's own, endpoints are asked however the client came to it.
    live.asks.set(match (&client, start) {
        (Client::Terminated(_), Some(StartTls::Postgres)) => Asks::BeforeTls,
        _ => asks,
    });
    live.set(Flag::ShakesHands, false);
    note_end(live);
    Ok(client)
}

/// The client's part is over, be it a handshake or just its ClientHello.
fn note_end(live: &Live) {
    live.note_tls(|tls| tls.handshake_ended = Some(live.accepted.elapsed()));
}

/// Nothing has a route for what it asks for.
fn turn_away(live: &Live, downstream: &Stream, is_nameless: bool) -> Ended {
    // Otherwise a handshake was to come.
    if live.accepted_by.tls.as_ref().is_some_and(|tls| tls.mode() == TlsMode::Passthrough) {
        note_end(live);
    }
    let alert = if is_nameless {
        // "Servers requiring this extension SHOULD respond to a ClientHello lacking [it] with" this (RFC 8446 9.2).
        AlertDescription::MissingExtension
    } else {
        AlertDescription::UnrecognisedName
    };
    tell(downstream, alert, Outcome::NoRoute)
}

/// Turns away whom a handshake with this process would let in, or would turn away for another reason than the true one.
fn check(live: &Live, downstream: &Stream, hello: &ClientHello, is_direct: bool) -> Result<(), Ended> {
    let (alert, failure) = if !hello.speaks_tls12_or_later {
        // The library would find something else to complain about first.
        (AlertDescription::ProtocolVersion, "it speaks no version of TLS that is still permitted")
    } else if is_direct && !hello.alpn.iter().any(|protocol| **protocol == *ALPN) {
        // As servers do: otherwise who speaks another protocol could be led here, and its words taken for PostgreSQL's.
        let failure =
            "who begins with TLS has to offer the ALPN protocol postgresql (sslnegotiation=direct does)";
        (AlertDescription::NoApplicationProtocol, failure)
    } else {
        return Ok(());
    };
    live.note_failure(failure.into());
    Err(tell(downstream, alert, Outcome::TlsHandshakeFailed))
}

/// Who the client is, by the certificate that it showed and that was accepted.
fn identity(secure: &Secure) -> Option<ClientIdentity> {
    let facts =
        secure.with_engine(|engine| engine.certificates().first().and_then(|first| Facts::of(first)))?;
    Some(ClientIdentity {
        names: facts.names,
        common_name: facts.common_name.map(Into::into),
        fingerprint: facts.fingerprint,
    })
}
