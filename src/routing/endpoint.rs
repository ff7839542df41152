//! One address of an upstream, and the state that all workers and all tables share about it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::resilience::{Breaker, Health};

/// An endpoint as one table sees it. Its identity is (upstream name, address).
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// Share of connections relative to its neighbours; 0 takes none.
    pub weight: u32,
    pub state: Arc<EndpointState>,
}

/// What is known of an endpoint; carried over from table to table by identity and exact for the process,
/// because every worker counts in the same place: a handful of atomics per connection, none per byte.
#[derive(Debug, Default)]
pub struct EndpointState {
    active: AtomicUsize,
    pub breaker: Breaker,
    pub health: Health,
    /// Set once it has left the table: when its connections have to be gone.
    pub leave_by: OnceLock<Instant>,
}

/// One connection, or one attempt to make one, counted on its endpoint until dropped.
#[derive(Debug)]
pub struct Reservation {
    state: Arc<EndpointState>,
}

impl EndpointState {
    /// Connections and attempts that hold this endpoint now.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// Counts one more.
    pub fn reserve(self: &Arc<Self>) -> Reservation {
        self.active.fetch_add(1, Ordering::AcqRel);
        Reservation { state: Arc::clone(self) }
    }

    /// Counts one more if there are still `seen`: what makes a choice by count exact across workers.
    pub fn reserve_if(self: &Arc<Self>, seen: usize) -> Option<Reservation> {
        self.active.compare_exchange(seen, seen + 1, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        Some(Reservation { state: Arc::clone(self) })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.state.active.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_counts_until_dropped() {
        let state = Arc::new(EndpointState::default());
        let first = state.reserve();
        assert!(state.reserve_if(0).is_none(), "the count moved on, so the choice must be made again");
        let second = state.reserve_if(1);
        assert_eq!(state.active(), 2);
        drop((first, second));
        assert_eq!(state.active(), 0);
    }
}
