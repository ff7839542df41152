//! A named group of endpoints balanced as one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::balance::Schedule;
use crate::config::{Keepalive, LoadBalancer, Name, Retry, UpstreamTimeouts};

use super::Endpoint;

/// An upstream and its policies.
#[derive(Debug)]
pub struct Upstream {
    pub name: Name,
    pub endpoints: Vec<Endpoint>,
    pub load_balancer: LoadBalancer,
    /// The order in which round robin visits `endpoints`, by weight.
    pub schedule: Schedule,
    pub timeouts: UpstreamTimeouts,
    pub keepalive: Keepalive,
    pub retry: Retry,
    /// How long connections to an endpoint that left keep going.
    pub drain_timeout: Duration,
    pub state: Arc<UpstreamState>,
}

/// What outlives a table.
#[derive(Debug, Default)]
pub struct UpstreamState {
    cursor: AtomicUsize,
}

impl UpstreamState {
    /// The next turn of round robin, one for the whole process.
    pub fn turn(&self) -> usize {
        self.cursor.fetch_add(1, Ordering::Relaxed)
    }
}
