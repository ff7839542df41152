//! The PROXY protocol on a connection: the header that a proxy in front sends, and the one that endpoints get.

use std::borrow::Cow;
use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::{Protocol, ProxyIn, ProxyMode, ProxyOut};
use crate::proxy_protocol::{
    self, Addresses, ClientFacts, Facts, Found, HEADER_MAX, Header, Malformed, TlsFacts, TraceParent,
};
use crate::telemetry::{Outcome, TlsRecord, span_id, trace_id};
use crate::worker::runtime::{SocketHandle, Stream};

use super::peek::{Peeked, peek, take};
use super::{Context, Live};

/// A whole header has to be there this long after accept, where no TLS handshake follows that has its own time: a proxy
/// sends it with the first segment.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A client of plain TCP that sends nothing for so long has no header, where that is optional: it may wait to be spoken to
/// first. Longer than the loss of one segment takes to be repaired.
const SILENCE: Duration = Duration::from_secs(1);

/// Whether a header may still say that the client is another one than who connected.
///
/// # Errors
/// It has to, and would not be believed.
pub(super) fn may_speak_for_others(proxy: &ProxyIn, live: &Live) -> Result<bool, Outcome> {
    match (is_trusted(proxy, live.from.ip()), proxy.mode) {
        (false, ProxyMode::Require) => Err(Outcome::ProxyHeaderUntrusted),
        (is_trusted, _) => Ok(is_trusted),
    }
}

/// Takes the header off the connection, if one comes, and learns from it who the client is. Not a byte that follows is read.
pub(super) async fn receive(
    context: &Context,
    live: &Live,
    downstream: &Stream,
    proxy: &ProxyIn,
) -> Result<(), Outcome> {
    match wait(context, live, downstream, proxy.mode).await? {
        None => Ok(()),
        Some(_) if !is_trusted(proxy, live.from.ip()) => Err(Outcome::ProxyHeaderUntrusted),
        Some(Ok(header)) => {
            take(context, downstream, header.length)?;
            if let Some(addresses) = header.addresses {
                live.introduce(addresses, header.parent);
            }
            Ok(())
        }
        Some(Err(malformed)) => {
            let (listener, from) = (&live.accepted_by.name, live.from);
            tracing::debug!(%listener, %from, "no PROXY protocol header: {malformed}");
            Err(Outcome::ProxyHeaderInvalid)
        }
    }
}

/// Whether who is said to have connected would be believed by `proxy`, and let in.
pub(super) fn is_believed(proxy: &ProxyIn, live: &Live) -> bool {
    let needs_trust = proxy.mode == ProxyMode::Require || live.named().is_some();
    !needs_trust || is_trusted(proxy, live.from.ip())
}

/// Whether `proxy` believes who connects from this address.
pub(super) fn is_trusted(proxy: &ProxyIn, from: IpAddr) -> bool {
    let from = from.to_canonical();
    proxy.trusted.iter().any(|net| net.contains(&from))
}

/// `None`: there is none, and none is needed.
async fn wait(
    context: &Context,
    live: &Live,
    downstream: &Stream,
    mode: ProxyMode,
) -> Result<Option<Result<Header, Malformed>>, Outcome> {
    let listener = &live.accepted_by;
    let (time, silence) = match listener.protocol {
        Protocol::Tcp => (TIMEOUT, SILENCE),
        // Who speaks TLS speaks first.
        Protocol::Tls => (listener.timeouts.tls_handshake, listener.timeouts.tls_handshake),
    };
    let seen = Cell::new(Found::Unclear);
    let judge = |bytes: &[u8]| match proxy_protocol::read(bytes) {
        Ok(found @ (Found::Unclear | Found::Part)) => {
            seen.set(found);
            None
        }
        settled => Some(settled),
    };
    let mut patience = if mode == ProxyMode::Optional { silence } else { time };
    let peeked = loop {
        let peeked = peek(context, live, downstream, live.accepted + patience, HEADER_MAX, &judge).await?;
        // What has begun as a header has the rest of the time to end as one.
        if !matches!(peeked, Peeked::TimedOut) || seen.get() != Found::Part || patience == time {
            break peeked;
        }
        patience = time;
    };
    match (peeked, seen.get()) {
        (Peeked::Enough(Ok(Found::Header(header))), _) => Ok(Some(Ok(header))),
        (Peeked::Enough(Err(malformed)), _) => Ok(Some(Err(malformed))),
        (Peeked::Ended, Found::Part) => Ok(Some(Err(Malformed::CutShort))),
        (Peeked::TimedOut, Found::Part) => Err(Outcome::ProxyHeaderTimeout),
        _ if mode == ProxyMode::Optional => Ok(None),
        (Peeked::TimedOut, _) => Err(Outcome::ProxyHeaderTimeout),
        _ => Ok(Some(Err(Malformed::Absent))),
    }
}

/// Sends the header, before anything else that the endpoint gets. A socket that has just been connected has room for it.
pub(super) fn introduce(context: &Context, live: &Live, upstream: &Stream, out: &ProxyOut) -> io::Result<()> {
    let connected_to = live.named().map(|named| named.destination);
    let connected_to = connected_to.or_else(|| live.with_downstream(SocketHandle::local_address).flatten());
    let header = match connected_to {
        Some(destination) => Cow::Owned(live.with_tls(|tls| write(context, live, destination, tls, out))),
        None => Cow::Borrowed(proxy_protocol::local(out.version)),
    };
    let written = upstream.try_write(&header)?;
    if written == header.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn write(
    context: &Context,
    live: &Live,
    destination: SocketAddr,
    tls: Option<&TlsRecord>,
    out: &ProxyOut,
) -> Vec<u8> {
    let made = tls.and_then(|tls| tls.downstream.as_ref());
    let client = tls.and_then(|tls| tls.client.as_ref());
    let trace = live.trace();
    let is_sampled = context.sampling.keeps(trace, live.parent());
    let traceparent = TraceParent { trace: trace.get(), span: span_id(live.id), is_sampled };
    let facts = Facts {
        addresses: Addresses { source: live.client(), destination },
        authority: live.server_name(),
        alpn: made.and_then(|made| made.alpn.as_deref()).map(str::as_bytes),
        // The connection's own, also where many share a trace.
        unique_id: &trace_id(live.id).to_string(),
        traceparent: &traceparent.to_string(),
        tls: made.map(|made| TlsFacts {
            version: made.version,
            cipher: made.cipher,
            client: client.map(|client| ClientFacts {
                common_name: client.common_name.as_deref(),
                names: &client.names,
                fingerprint: &client.fingerprint,
            }),
        }),
    };
    proxy_protocol::write(out, &facts)
}
