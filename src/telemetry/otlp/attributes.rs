//! The attributes of spans, by the names of OpenTelemetry's conventions where there is one, else under `sheave.`
//! (<https://opentelemetry.io/docs/specs/semconv/>).

use std::fmt::{self, Display};
use std::net::SocketAddr;

use crate::telemetry::{Attempt, ClientIdentity, ConnectionRecord, LongLived, Negotiated, TlsRecord};

use super::span::Span;

/// Of a whole connection.
pub(super) fn of_connection(span: &mut Span<'_>, record: &ConnectionRecord) {
    span.show("client.address", record.client.ip().to_canonical());
    span.put("client.port", record.client.port());
    let via = record.via.as_deref();
    peer(span, via.map_or(record.client, |via| via.proxy));
    local(span, record.local);
    transport(span, record.client);
    let server_name = record.tls.as_deref().and_then(|tls| tls.server_name.as_deref());
    server(span, server_name, via.map(|via| via.destination).or(record.local));
    if let Some(tls) = record.tls.as_deref() {
        of_tls(span, tls);
    }
    span.put("sheave.connection.id", record.id);
    span.put("sheave.worker", record.worker as u64);
    span.put("sheave.listener", &*record.listener);
    route(span, record);
    if let Some(endpoint) = record.endpoint {
        span.show("sheave.endpoint", endpoint);
    }
    span.put("sheave.attempts", record.attempts.len() as u64);
    bytes(span, record);
    span.put("sheave.outcome", record.outcome.label());
    span.put("sheave.side", record.outcome.side().label());
}

/// Of a connection that goes on.
pub(super) fn of_long_lived(span: &mut Span<'_>, connection: &LongLived) {
    span.show("client.address", connection.client.ip().to_canonical());
    span.put("client.port", connection.client.port());
    span.put("sheave.connection.id", connection.id);
    span.put("sheave.listener", &*connection.listener);
    if let Some(upstream) = &connection.upstream {
        span.put("sheave.upstream", &**upstream);
    }
    if let Some(endpoint) = connection.endpoint {
        span.show("sheave.endpoint", endpoint);
    }
    span.put("sheave.bytes.received", connection.bytes_received);
    span.put("sheave.bytes.sent", connection.bytes_sent);
    span.put("sheave.idle_ms", u64::try_from(connection.idle.as_millis()).unwrap_or(u64::MAX));
}

/// Of one attempt, which is the connection's `number`th.
pub(super) fn of_attempt(
    span: &mut Span<'_>,
    record: &ConnectionRecord,
    attempt: &Attempt,
    number: usize,
    hedged: bool,
) {
    span.show("server.address", attempt.endpoint.ip().to_canonical());
    span.put("server.port", attempt.endpoint.port());
    peer(span, attempt.endpoint);
    local(span, attempt.local.as_deref().copied());
    transport(span, attempt.endpoint);
    if let Some(upstream) = &record.upstream {
        span.put("service.peer.name", &**upstream);
    }
    if let Some(service) = record.service.as_deref() {
        span.put("service.peer.namespace", &*service.namespace);
        span.put("k8s.namespace.name", &*service.namespace);
        span.put("k8s.service.name", &*service.name);
    }
    if let Some(pod) = &attempt.pod {
        span.put("k8s.pod.name", &**pod);
    }
    span.put("sheave.attempt", number as u64);
    span.put("sheave.hedged", hedged);
    if let Some(failure) = attempt.failure {
        span.put("sheave.result", failure.label());
    }
}

pub(super) fn route(span: &mut Span<'_>, record: &ConnectionRecord) {
    let names = [("sheave.route", &record.route), ("sheave.upstream", &record.upstream)];
    for (key, name) in names {
        if let Some(name) = name {
            span.put(key, &**name);
        }
    }
}

pub(super) fn bytes(span: &mut Span<'_>, record: &ConnectionRecord) {
    span.put("sheave.bytes.received", record.bytes_received);
    span.put("sheave.bytes.sent", record.bytes_sent);
}

pub(super) fn negotiated(span: &mut Span<'_>, made: &Negotiated) {
    span.put("tls.established", true);
    span.put("tls.protocol.name", "tls");
    span.put("tls.protocol.version", made.version.trim_start_matches("TLSv"));
    span.put("tls.cipher", made.cipher);
    span.put("tls.resumed", made.resumed);
    if let Some(alpn) = &made.alpn {
        span.put("tls.next_protocol", &**alpn);
        let (protocol, version) = match &**alpn {
            "h2" => ("http", Some("2")),
            "http/1.1" => ("http", Some("1.1")),
            other => (other, None),
        };
        span.put("network.protocol.name", &*protocol.to_lowercase());
        if let Some(version) = version {
            span.put("network.protocol.version", version);
        }
    }
}

fn peer(span: &mut Span<'_>, peer: SocketAddr) {
    span.show("network.peer.address", peer.ip().to_canonical());
    span.put("network.peer.port", peer.port());
}

fn local(span: &mut Span<'_>, local: Option<SocketAddr>) {
    if let Some(local) = local {
        span.show("network.local.address", local.ip().to_canonical());
        span.put("network.local.port", local.port());
    }
}

/// How it is spoken with `other`.
fn transport(span: &mut Span<'_>, other: SocketAddr) {
    span.put("network.transport", "tcp");
    span.put("network.type", if other.ip().to_canonical().is_ipv4() { "ipv4" } else { "ipv6" });
}

/// What the client wanted: by the name that it asked for, or else by the address that it connected to.
fn server(span: &mut Span<'_>, name: Option<&str>, address: Option<SocketAddr>) {
    match (name, address) {
        (Some(name), _) => span.put("server.address", name),
        (None, Some(address)) => span.show("server.address", address.ip().to_canonical()),
        (None, None) => {}
    }
    if let Some(address) = address {
        span.put("server.port", address.port());
    }
}

fn of_tls(span: &mut Span<'_>, tls: &TlsRecord) {
    if let Some(made) = &tls.downstream {
        negotiated(span, made);
    }
    if let Some(client) = &tls.client {
        if let Some(name) = &client.common_name {
            span.show("tls.client.subject", format_args!("CN={name}"));
        }
        span.show("tls.client.hash.sha256", Fingerprint(client));
    }
}

/// As the conventions have it: capital hexadecimal digits.
struct Fingerprint<'a>(&'a ClientIdentity);

impl Display for Fingerprint<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fingerprint.iter().try_for_each(|byte| write!(formatter, "{byte:02X}"))
    }
}
