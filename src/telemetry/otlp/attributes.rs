//! The attributes of spans, by the names of OpenTelemetry's conventions where there is one, else under `sheave.`
//! (<https://opentelemetry.io/docs/specs/semconv/>).

use std::net::SocketAddr;

use opentelemetry::{KeyValue, Value};

use crate::telemetry::{Attempt, ClientIdentity, ConnectionRecord, LongLived, Negotiated, TlsRecord};

/// More than the most that a span has.
const EXPECTED: usize = 34;

pub(super) struct Attributes(Vec<KeyValue>);

impl Attributes {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Of a whole connection.
    pub(super) fn of_connection(record: &ConnectionRecord) -> Self {
        let client = record.client.ip().to_canonical();
        let mut attributes = Self(Vec::with_capacity(EXPECTED));
        attributes.put("client.address", client.to_string());
        attributes.put("client.port", i64::from(record.client.port()));
        let via = record.via.as_deref();
        attributes.peer(via.map_or(record.client, |via| via.proxy));
        attributes.local(record.local);
        attributes.transport(record.client);
        let server_name = record.tls.as_deref().and_then(|tls| tls.server_name.as_deref());
        attributes.server(server_name, via.map(|via| via.destination).or(record.local));
        if let Some(tls) = record.tls.as_deref() {
            attributes.tls(tls);
        }
        attributes.put("sheave.connection.id", whole(record.id));
        attributes.put("sheave.worker", whole(record.worker as u64));
        attributes.put("sheave.listener", Value::String(record.listener.clone().into()));
        attributes.route(record);
        if let Some(endpoint) = record.endpoint {
            attributes.put("sheave.endpoint", endpoint.to_string());
        }
        attributes.put("sheave.attempts", whole(record.attempts.len() as u64));
        attributes.bytes(record);
        attributes.put("sheave.outcome", record.outcome.label());
        attributes.put("sheave.side", record.outcome.side().label());
        attributes
    }

    /// Of a connection that goes on.
    pub(super) fn of_long_lived(connection: &LongLived) -> Self {
        let mut attributes = Self(Vec::with_capacity(12));
        attributes.put("client.address", connection.client.ip().to_canonical().to_string());
        attributes.put("client.port", i64::from(connection.client.port()));
        attributes.put("sheave.connection.id", whole(connection.id));
        attributes.put("sheave.listener", Value::String(connection.listener.clone().into()));
        if let Some(upstream) = &connection.upstream {
            attributes.put("sheave.upstream", Value::String(upstream.clone().into()));
        }
        if let Some(endpoint) = connection.endpoint {
            attributes.put("sheave.endpoint", endpoint.to_string());
        }
        attributes.put("sheave.bytes.received", whole(connection.bytes_received));
        attributes.put("sheave.bytes.sent", whole(connection.bytes_sent));
        attributes
            .put("sheave.idle_ms", whole(u64::try_from(connection.idle.as_millis()).unwrap_or(u64::MAX)));
        attributes
    }

    /// Of one attempt, which is the connection's `number`th.
    pub(super) fn of_attempt(
        record: &ConnectionRecord,
        attempt: &Attempt,
        number: usize,
        hedged: bool,
    ) -> Self {
        let mut attributes = Self(Vec::with_capacity(17));
        let address = attempt.endpoint.ip().to_canonical().to_string();
        attributes.put("server.address", address);
        attributes.put("server.port", i64::from(attempt.endpoint.port()));
        attributes.peer(attempt.endpoint);
        attributes.local(attempt.local);
        attributes.transport(attempt.endpoint);
        if let Some(upstream) = &record.upstream {
            attributes.put("service.peer.name", Value::String(upstream.clone().into()));
        }
        if let Some(service) = record.service.as_deref() {
            attributes.put("service.peer.namespace", Value::String(service.namespace.clone().into()));
            attributes.put("k8s.namespace.name", Value::String(service.namespace.clone().into()));
            attributes.put("k8s.service.name", Value::String(service.name.clone().into()));
        }
        if let Some(pod) = &attempt.pod {
            attributes.put("k8s.pod.name", Value::String(pod.clone().into()));
        }
        attributes.put("sheave.attempt", whole(number as u64));
        attributes.put("sheave.hedged", hedged);
        if let Some(failure) = attempt.failure {
            attributes.put("sheave.result", failure.label());
        }
        attributes
    }

    pub(super) fn put(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.push(KeyValue::new(key, value));
    }

    pub(super) fn route(&mut self, record: &ConnectionRecord) {
        let names = [("sheave.route", &record.route), ("sheave.upstream", &record.upstream)];
        for (key, name) in names {
            if let Some(name) = name {
                self.put(key, Value::String(name.clone().into()));
            }
        }
    }

    pub(super) fn bytes(&mut self, record: &ConnectionRecord) {
        self.put("sheave.bytes.received", whole(record.bytes_received));
        self.put("sheave.bytes.sent", whole(record.bytes_sent));
    }

    fn peer(&mut self, peer: SocketAddr) {
        self.put("network.peer.address", peer.ip().to_canonical().to_string());
        self.put("network.peer.port", i64::from(peer.port()));
    }

    fn local(&mut self, local: Option<SocketAddr>) {
        if let Some(local) = local {
            self.put("network.local.address", local.ip().to_canonical().to_string());
            self.put("network.local.port", i64::from(local.port()));
        }
    }

    /// How it is spoken with `other`.
    fn transport(&mut self, other: SocketAddr) {
        self.put("network.transport", "tcp");
        self.put("network.type", if other.ip().to_canonical().is_ipv4() { "ipv4" } else { "ipv6" });
    }

    /// What the client wanted: by the name that it asked for, or else by the address that it connected to.
    fn server(&mut self, name: Option<&str>, address: Option<SocketAddr>) {
        match (name, address) {
            (Some(name), _) => self.put("server.address", name.to_owned()),
            (None, Some(address)) => self.put("server.address", address.ip().to_canonical().to_string()),
            (None, None) => {}
        }
        if let Some(address) = address {
            self.put("server.port", i64::from(address.port()));
        }
    }

    fn tls(&mut self, tls: &TlsRecord) {
        if let Some(made) = &tls.downstream {
            self.negotiated(made);
        }
        if let Some(client) = &tls.client {
            self.client(client);
        }
    }

    pub(super) fn negotiated(&mut self, made: &Negotiated) {
        self.put("tls.established", true);
        self.put("tls.protocol.name", "tls");
        self.put("tls.protocol.version", made.version.trim_start_matches("TLSv"));
        self.put("tls.cipher", made.cipher);
        self.put("tls.resumed", made.resumed);
        if let Some(alpn) = &made.alpn {
            self.put("tls.next_protocol", alpn.to_string());
            let (protocol, version) = match &**alpn {
                "h2" => ("http", Some("2")),
                "http/1.1" => ("http", Some("1.1")),
                other => (other, None),
            };
            self.put("network.protocol.name", protocol.to_lowercase());
            if let Some(version) = version {
                self.put("network.protocol.version", version);
            }
        }
    }

    fn client(&mut self, client: &ClientIdentity) {
        if let Some(name) = &client.common_name {
            self.put("tls.client.subject", format!("CN={name}"));
        }
        let hash: String = client.fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
        self.put("tls.client.hash.sha256", hash);
    }

    pub(super) fn into_vec(self) -> Vec<KeyValue> {
        self.0
    }
}

/// OTLP has signed numbers only.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
