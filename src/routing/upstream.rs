//! A named group of endpoints balanced as one.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::balance::Selection;
use crate::config::{
    HealthCheck, Keepalive, LoadBalancer, Name, Retry, ServicePort, UpstreamDrain, UpstreamTimeouts,
};

use crate::resilience::{Budget, BudgetPolicy};

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
    connections: AtomicU64,
    budget: Mutex<Budget>,
    retries_refused: AtomicU64,
}

impl UpstreamState {
    /// Counts a connection that is to be made.
    pub fn begin(&self, now: Instant) {
        let connections = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        if connections.is_multiple_of(Budget::MARK_EVERY) {
            self.budget().mark(connections, now);
        }
    }

    /// Asks for a retry. Whether the budget has one; a refusal is counted.
    pub fn may_retry(&self, policy: BudgetPolicy, now: Instant) -> bool {
        let connections = self.connections.load(Ordering::Relaxed);
        let granted = self.budget().withdraw(policy, connections, now);
        self.retries_refused.fetch_add(u64::from(!granted), Ordering::Relaxed);
        granted
    }

    /// Retries that the budget did not have.
    pub fn retries_refused(&self) -> u64 {
        self.retries_refused.load(Ordering::Relaxed)
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next turn of round robin, one for the whole process.
    pub fn turn(&self) -> usize {
        self.cursor.fetch_add(1, Ordering::Relaxed)
    }
}
