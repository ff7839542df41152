//! What one connection was: written once, at its end.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::config::Name;

use super::Outcome;

/// Everything worth knowing about a connection that ended.
#[derive(Debug, Clone)]
pub struct ConnectionRecord {
    /// Unique in this process.
    pub id: u64,
    pub worker: usize,
    pub client: SocketAddr,
    /// The proxy in front that named the client, if one did.
    pub via: Option<SocketAddr>,
    pub listener: Name,
    pub route: Option<Name>,
    pub upstream: Option<Name>,
    /// The endpoint that carried it; the failed ones are in `attempts`.
    pub endpoint: Option<SocketAddr>,
    pub attempts: Vec<Attempt>,
    /// Bytes from the client that were handed to the endpoint.
    pub bytes_received: u64,
    /// Bytes from the endpoint that were handed to the client.
    pub bytes_sent: u64,
    pub timeline: Timeline,
    pub outcome: Outcome,
}

/// One try to connect to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub endpoint: SocketAddr,
    /// Since the connection was accepted.
    pub started: Duration,
    pub ended: Duration,
    /// `None`: it connected.
    pub failure: Option<Outcome>,
}

/// When what happened; all but the first as time since `accepted`.
#[derive(Debug, Clone)]
pub struct Timeline {
    pub accepted: SystemTime,
    pub routed: Option<Duration>,
    pub connect_started: Option<Duration>,
    pub connect_ended: Option<Duration>,
    pub first_byte_downstream: Option<Duration>,
    pub first_byte_upstream: Option<Duration>,
    pub ended: Duration,
}

impl ConnectionRecord {
    /// Whether it is worth a line whatever the sample: it failed, or it took more than one attempt.
    pub fn is_notable(&self) -> bool {
        self.outcome.is_error() || self.attempts.len() > 1
    }
}
