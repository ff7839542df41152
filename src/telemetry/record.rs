//! What one connection was: written once, at its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::{Name, ServicePort, SubjectAltName};

use super::{Outcome, TraceId, Wants};

/// Everything worth knowing about a connection that ended.
#[derive(Debug, Clone)]
pub struct ConnectionRecord {
    /// Unique in this process.
    pub id: u64,
    pub trace: TraceId,
    /// `None`: nobody has said that it is part of another's trace.
    pub parent: Option<Parent>,
    /// Who is to get this record.
    pub wants: Wants,
    pub worker: usize,
    pub client: SocketAddr,
    /// The proxy in front that named the client, if one did.
    pub via: Option<Arc<Via>>,
    /// Where it was accepted; `None`: nobody has looked, because no traces are kept.
    pub local: Option<SocketAddr>,
    pub listener: Name,
    pub route: Option<Name>,
    pub upstream: Option<Name>,
    /// The Service whose endpoints the upstream has, if it follows one.
    pub service: Option<Arc<ServicePort>>,
    /// The endpoint that carried it; the failed ones are in `attempts`.
    pub endpoint: Option<SocketAddr>,
    pub attempts: Vec<Attempt>,
    /// Bytes from the client that were handed to the endpoint.
    pub bytes_received: u64,
    /// Bytes from the endpoint that were handed to the client.
    pub bytes_sent: u64,
    /// `None`: no TLS was spoken that this process has seen. Apart, because most connections have none.
    pub tls: Option<Box<TlsRecord>>,
    pub timeline: Timeline,
    pub outcome: Outcome,
}

/// Who has handed on a connection that is another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    pub proxy: SocketAddr,
    /// What the client had connected to, as the proxy says.
    pub destination: SocketAddr,
}

/// A connection that lives long, for its trace: what it has done so far.
#[derive(Debug, Clone)]
pub struct LongLived {
    pub id: u64,
    pub trace: TraceId,
    pub client: SocketAddr,
    pub listener: Name,
    pub upstream: Option<Name>,
    pub endpoint: Option<SocketAddr>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub idle: Duration,
    /// The time that this is told of.
    pub from: SystemTime,
    pub to: SystemTime,
}

/// What workers tell.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are of the first kind, and a box costs each an allocation"
)]
pub enum Report {
    Ended(ConnectionRecord),
    Lives(Box<LongLived>),
}

/// The span that a connection is a part of, in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    pub span: u64,
    /// Whether whoever made it keeps the trace.
    pub is_sampled: bool,
}

/// One try to connect to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub endpoint: SocketAddr,
    /// What the endpoint is called in its cluster.
    pub pod: Option<Name>,
    /// From where it connected; `None` too where nobody has looked, because no traces are kept. Apart, so that the others need no
    /// room for it.
    pub local: Option<Box<SocketAddr>>,
    /// Since the connection was accepted.
    pub started: Duration,
    /// When it was connected and its TLS handshake began, if it came to that.
    pub handshake_started: Option<Duration>,
    pub ended: Duration,
    /// `None`: it connected.
    pub failure: Option<Outcome>,
    /// What its failure says beyond its name.
    pub reason: Option<Box<str>>,
}

/// What TLS a connection spoke, on either side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsRecord {
    /// The name that the client asked for.
    pub server_name: Option<Box<str>>,
    /// With the client, if TLS ended here.
    pub downstream: Option<Negotiated>,
    /// With the endpoint.
    pub upstream: Option<Negotiated>,
    /// The client's certificate, if it showed one and that was accepted.
    pub client: Option<ClientIdentity>,
    /// Since the connection was accepted: when the client's handshake was over, that is, its ClientHello where TLS ends elsewhere.
    pub handshake_ended: Option<Duration>,
    /// What went wrong, beyond the outcome's name.
    pub failure: Option<Box<str>>,
}

/// What a handshake came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// Such as `TLSv1.3`.
    pub version: &'static str,
    /// As the IANA calls it, such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
    pub alpn: Option<Box<str>>,
    pub resumed: bool,
}

/// Who a client is by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The names in it, such as `db.example.com`, `spiffe://example.org/web` or `10.0.0.1`.
    pub names: Vec<SubjectAltName>,
    /// The common name of its subject.
    pub common_name: Option<Box<str>>,
    /// SHA-256 of all of it.
    pub fingerprint: [u8; 32],
}

/// When what happened; all but the first as time since `accepted`.
#[derive(Debug, Clone)]
pub struct Timeline {
    pub accepted: SystemTime,
    /// When a header of the PROXY protocol had come, where one was waited for.
    pub proxy_ended: Option<Duration>,
    pub routed: Option<Duration>,
    pub connect_started: Option<Duration>,
    pub connect_ended: Option<Duration>,
    pub first_byte_downstream: Option<Duration>,
    pub first_byte_upstream: Option<Duration>,
    /// When the end of the client's stream was passed on to the endpoint.
    pub half_close_downstream: Option<Duration>,
    /// When the end of the endpoint's was passed on to the client.
    pub half_close_upstream: Option<Duration>,
    /// From when on it was to end: the process, its listener or its endpoint was leaving, or a table does not permit it.
    pub drain_started: Option<Duration>,
    pub ended: Duration,
}

impl Negotiated {
    /// `full`, or `resumed`: at about a fifth of the price.
    pub fn kind(&self) -> &'static str {
        if self.resumed { "resumed" } else { "full" }
    }
}

impl ConnectionRecord {
    /// Whether it is worth a line whatever the sample: it failed, or it took more than one attempt.
    pub fn is_notable(&self) -> bool {
        self.outcome.is_error() || self.attempts.len() > 1
    }

    /// What the endpoint that carried it is called in its cluster.
    pub fn pod(&self) -> Option<&Name> {
        let of_it = |attempt: &&Attempt| Some(attempt.endpoint) == self.endpoint && attempt.failure.is_none();
        self.attempts.iter().find(of_it)?.pod.as_ref()
    }

    /// When it had its endpoint. The timeline alone also has the end of the last attempt where all failed.
    pub fn connected(&self) -> Option<Duration> {
        self.timeline.connect_ended.filter(|_| self.endpoint.is_some())
    }

    /// How long its client had to wait: for an endpoint, or then for the first answer. Who asked and got none has waited to the
    /// end.
    pub fn longest_wait(&self) -> Duration {
        let timeline = &self.timeline;
        let Some(connected) = timeline.connect_ended else {
            // Who knew where to go has waited for a place in vain.
            return timeline.routed.map_or(Duration::ZERO, |_| timeline.ended);
        };
        let first_bytes = [timeline.first_byte_downstream, timeline.first_byte_upstream];
        connected.max(wait_for_answer(connected, first_bytes, timeline.ended))
    }
}

/// How long a client has waited for the first answer, all since it was accepted. `first_bytes`: its own, and the endpoint's.
pub fn wait_for_answer(
    connected: Duration,
    [asked, answered]: [Option<Duration>; 2],
    now: Duration,
) -> Duration {
    let answer = match answered {
        // Who speaks first is not waited for.
        Some(answered) => Some((asked.filter(|asked| *asked < answered).unwrap_or_default(), answered)),
        None => asked.map(|asked| (asked, now)),
    };
    answer.map(|(asked, answered)| answered.saturating_sub(asked.max(connected))).unwrap_or_default()
}

#[cfg(test)]
impl ConnectionRecord {
    /// One that nothing went wrong with.
    pub(crate) fn example() -> Self {
        let endpoint = SocketAddr::from(([127, 0, 0, 1], 2));
        let milliseconds = Duration::from_millis;
        Self {
            id: 1,
            trace: super::trace_id(1),
            parent: None,
            wants: Wants::default(),
            worker: 0,
            client: ([127, 0, 0, 1], 1).into(),
            via: None,
            local: None,
            listener: "a".into(),
            route: Some("a".into()),
            upstream: Some("a".into()),
            service: None,
            endpoint: Some(endpoint),
            attempts: vec![Attempt {
                endpoint,
                pod: None,
                local: None,
                started: milliseconds(1),
                handshake_started: None,
                ended: milliseconds(2),
                failure: None,
                reason: None,
            }],
            bytes_received: 0,
            bytes_sent: 0,
            tls: None,
            timeline: Timeline {
                accepted: SystemTime::UNIX_EPOCH,
                proxy_ended: None,
                routed: Some(milliseconds(1)),
                connect_started: Some(milliseconds(1)),
                connect_ended: Some(milliseconds(2)),
                first_byte_downstream: Some(milliseconds(3)),
                first_byte_upstream: Some(milliseconds(4)),
                half_close_downstream: None,
                half_close_upstream: None,
                drain_started: None,
                ended: milliseconds(5),
            },
            outcome: Outcome::DownstreamClosed,
        }
    }
}
