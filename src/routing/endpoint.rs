//! One address of an upstream, and the state that all workers and all tables share about it.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::balance::{Latency, Seat, Start};
use crate::config::{Name, UpstreamDrain};
use crate::resilience::{Breaker, CloseRate, Ejection, Health};

/// An endpoint as one table sees it. Its identity is (upstream name, address).
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// What it is called in its cluster, if it is a pod.
    pub pod: Option<Name>,
    /// Share of connections relative to its neighbours; 0 takes none.
    pub weight: u32,
    pub topology: Arc<Topology>,
    /// Higher ones are spares for lower ones.
    pub priority: u32,
    /// Connections and attempts at once; `None`: any number.
    pub max_connections: Option<NonZeroUsize>,
    /// Since when it takes connections.
    pub start: Start,
    /// `None`: attempts are made however many have failed.
    pub breaker: Option<Breaker>,
    pub state: Arc<EndpointState>,
}

/// Where an endpoint runs and for whom it is meant, as far as its source says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Topology {
    pub zone: Option<Name>,
    pub node: Option<Name>,
    /// The zones, and the nodes, whose clients should prefer this endpoint.
    pub for_zones: Vec<Name>,
    pub for_nodes: Vec<Name>,
}

/// What is known of an endpoint; carried over from table to table by identity and exact for the process,
/// because every worker counts in the same place: a handful of atomics per connection, none per byte.
#[derive(Debug, Default)]
pub struct EndpointState {
    active: AtomicUsize,
    /// What its probes say.
    pub health: Health,
    /// Of connecting.
    pub latency: Latency,
    /// Where it is looked for when the least loaded one is.
    pub seat: Seat,
    /// What its connections say.
    pub ejection: Ejection,
    /// Whether there is a departure: most have none, and looking must not take a lock then.
    leaves: AtomicBool,
    /// In a box, as most have none.
    departure: Mutex<Option<Box<Departure>>>,
}

/// An endpoint that has left the table, and how its connections end.
#[derive(Debug)]
struct Departure {
    since: Instant,
    /// When they have to be gone.
    by: Instant,
    /// How fast some are closed before that; `None`: none are.
    rate: Option<CloseRate>,
}

/// Longer than any worker lags behind, and than most connections look for an endpoint.
const LATELY: Duration = Duration::from_secs(10);

/// One connection, or one attempt to make one, counted on its endpoint until dropped.
#[derive(Debug)]
pub struct Reservation {
    state: Arc<EndpointState>,
}

impl Endpoint {
    /// Whether an attempt may be made now, as far as looking tells.
    pub fn may_be_tried(&self, now: Instant) -> bool {
        self.breaker.as_ref().is_none_or(|breaker| breaker.may_permit(now))
    }

    /// Whether it holds as many connections as it may.
    pub fn is_full(&self) -> bool {
        self.max_connections.is_some_and(|max| self.state.active() >= max.get())
    }

    /// Counts one more, unless it is full.
    pub fn reserve(&self) -> Option<Reservation> {
        match self.max_connections {
            None => Some(self.state.reserve()),
            Some(max) => self.state.reserve_below(max.get()),
        }
    }
}

impl EndpointState {
    pub fn new(healthy: bool) -> Self {
        Self { health: Health::new(healthy), ..Self::default() }
    }

    /// Whether it may be chosen, as far as probes and connections tell.
    pub fn is_healthy(&self) -> bool {
        self.health.is_healthy() && !self.ejection.is_ejected()
    }

    /// Connections and attempts that hold this endpoint now.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::SeqCst)
    }

    /// Counts one more.
    pub fn reserve(self: &Arc<Self>) -> Reservation {
        self.active.fetch_add(1, Ordering::SeqCst);
        Reservation { state: Arc::clone(self) }
    }

    /// Counts one more unless there are `limit`: exact across workers.
    fn reserve_below(self: &Arc<Self>, limit: usize) -> Option<Reservation> {
        let more = |active: usize| (active < limit).then_some(active + 1);
        self.active.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Reservation { state: Arc::clone(self) })
    }

    /// Counts one more if there are still `seen`: what makes a choice by count exact across workers.
    pub fn reserve_if(self: &Arc<Self>, seen: usize) -> Option<Reservation> {
        self.active.compare_exchange(seen, seen + 1, Ordering::SeqCst, Ordering::Relaxed).ok()?;
        Some(Reservation { state: Arc::clone(self) })
    }

    /// It has left the table: its connections end as `drain` says. The first call stands until [`Self::stay`].
    pub fn leave(&self, drain: UpstreamDrain, now: Instant) {
        self.departure().get_or_insert_with(|| {
            Box::new(Departure {
                since: now,
                by: now + drain.timeout,
                rate: drain.close_per_second.map(|per_second| CloseRate::new(per_second, now)),
            })
        });
        self.leaves.store(true, Ordering::Release);
    }

    /// It is in the table (again): its connections live on.
    pub fn stay(&self) {
        *self.departure() = None;
        self.leaves.store(false, Ordering::Release);
    }

    /// Whether it has left the table.
    pub fn has_left(&self) -> bool {
        self.leaves.load(Ordering::Acquire)
    }

    /// Whether it left a moment ago, so that a worker may not know it yet.
    pub(super) fn left_lately(&self, now: Instant) -> bool {
        self.departure()
            .as_ref()
            .is_some_and(|departure| now.saturating_duration_since(departure.since) < LATELY)
    }

    /// When its connections have to be gone, if it has left the table.
    pub fn leave_by(&self) -> Option<Instant> {
        self.has_left().then(|| self.departure().as_ref().map(|departure| departure.by)).flatten()
    }

    /// When it left the table, if it has.
    pub fn left_at(&self) -> Option<Instant> {
        self.has_left().then(|| self.departure().as_ref().map(|departure| departure.since)).flatten()
    }

    /// Whether its connections are closed one by one before they have to be gone.
    pub fn leaves_paced(&self) -> bool {
        self.has_left() && self.departure().as_ref().is_some_and(|departure| departure.rate.is_some())
    }

    /// Whether one more of its connections was to be closed by then, and may be closed now; it then counts as closed.
    pub fn claim_close(&self, by: Instant, now: Instant) -> bool {
        let mut departure = self.departure();
        let rate = departure.as_mut().and_then(|departure| departure.rate.as_mut());
        rate.is_some_and(|rate| rate.claim(by, now))
    }

    fn departure(&self) -> MutexGuard<'_, Option<Box<Departure>>> {
        self.departure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Told to those who wait for it right after: `routing::Queue::call` says why in this order.
        let active = self.state.active.fetch_sub(1, Ordering::SeqCst) - 1;
        self.state.seat.ended(active);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_exact_when_threads_reserve_at_once() {
        let endpoint = Endpoint {
            address: ([127, 0, 0, 1], 1).into(),
            pod: None,
            weight: 1,
            topology: Arc::default(),
            priority: 0,
            max_connections: NonZeroUsize::new(7),
            start: Start::Original,
            breaker: None,
            state: Arc::default(),
        };
        let held: Vec<Reservation> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..100).filter_map(|_| endpoint.reserve()).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!((held.len(), endpoint.state.active(), endpoint.is_full()), (7, 7, true));
        drop(held);
        assert!(!endpoint.is_full() && endpoint.reserve().is_some());
    }

    #[test]
    fn connections_of_a_leaving_endpoint_are_closed_at_its_pace() {
        let state = EndpointState::default();
        let now = Instant::now();
        assert!(!state.claim_close(now, now), "it stays");
        state.leave(UpstreamDrain { timeout: Duration::from_secs(60), close_per_second: Some(2.0) }, now);
        let claims = |after: u64| {
            let at = now + Duration::from_millis(after);
            (0..10).filter(|_| state.claim_close(at, at)).count()
        };
        assert_eq!([400, 500, 900, 1_000, 1_500].map(claims), [0, 1, 0, 1, 1]);
        state.stay();
        assert_eq!(claims(9_000), 0);
        assert!(state.leave_by().is_none());
    }

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
