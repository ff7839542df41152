//! A named group of endpoints balanced as one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::balance::Selection;
use crate::config::{
    HealthCheck, Keepalive, LoadBalancer, Name, Retry, ServicePort, UpstreamDrain, UpstreamTimeouts,
};

use super::Endpoint;

/// An upstream and its policies.
#[derive(Debug)]
pub struct Upstream {
    pub name: Name,
    /// The Service whose endpoints these are; `None`: they are listed.
    pub service: Option<ServicePort>,
    pub endpoints: Vec<Endpoint>,
    /// Endpoints that left, with connections that still lived when this was compiled. One that comes back
    /// is the same endpoint.
    pub leaving: Vec<Endpoint>,
    /// Why its endpoints are not as they should be, if so.
    pub problem: Option<Problem>,
    pub load_balancer: LoadBalancer,
    /// Which of `endpoints` are chosen from.
    pub selection: Selection,
    pub timeouts: UpstreamTimeouts,
    pub keepalive: Keepalive,
    pub retry: Retry,
    pub health: HealthCheck,
    pub drain: UpstreamDrain,
    pub state: Arc<UpstreamState>,
}

/// What keeps an upstream from having the endpoints that it should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// One of a few words, for metrics.
    pub reason: &'static str,
    /// What is wrong, by name, and what to do.
    pub text: Arc<str>,
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
