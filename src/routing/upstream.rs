//! A named group of endpoints balanced as one.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::balance::Selection;
use crate::config::{
    HealthCheck, Keepalive, LoadBalancer, Name, ProxyOut, Rebalance, Retry, ServicePort, UpstreamDrain,
    UpstreamLimits, UpstreamTimeouts,
};

use crate::resilience::{Budget, BudgetPolicy, ClosePace, Share, excess};
use crate::tls::ClientSide;

use super::{Endpoint, Place, Places, Queue, Ticket};

/// An upstream and its policies.
#[derive(Debug)]
pub struct Upstream {
    pub name: Name,
    /// The Service whose endpoints these are; `None`: they are listed.
    pub service: Option<Arc<ServicePort>>,
    pub endpoints: Vec<Endpoint>,
    /// Endpoints that left, with connections that still lived when this was compiled. One that comes back
    /// is the same endpoint.
    pub leaving: Vec<Endpoint>,
    /// Why its endpoints are not as they should be, if so.
    pub problem: Option<Problem>,
    pub load_balancer: LoadBalancer,
    /// In which new endpoints get less than their share; `None`: they get it at once.
    pub slow_start: Option<Duration>,
    /// Which of `endpoints` are chosen from.
    pub selection: Selection,
    pub timeouts: UpstreamTimeouts,
    pub keepalive: Keepalive,
    /// `None`: plain TCP is spoken to endpoints.
    pub tls: Option<Arc<ClientSide>>,
    pub retry: Retry,
    pub health: HealthCheck,
    /// The PROXY protocol header that endpoints get; `None`: none.
    pub proxy: Option<ProxyOut>,
    pub drain: UpstreamDrain,
    pub rebalance: Option<Rebalance>,
    pub limits: UpstreamLimits,
    pub state: Arc<UpstreamState>,
}

impl Upstream {
    /// The endpoints that have connections above their fair share, and how many.
    pub fn excess(&self, now: Instant) -> impl Iterator<Item = (&Endpoint, usize)> + '_ {
        let taking: Vec<&Endpoint> = self.taking(now).collect();
        let share = |endpoint: &&Endpoint| Share {
            weight: u64::from(endpoint.weight) * u64::from(self.share(endpoint, now)),
            active: endpoint.state.active(),
        };
        let shares: Vec<Share> = taking.iter().map(share).collect();
        taking.into_iter().zip(excess(&shares)).filter(|(_, excess)| *excess > 0)
    }

    /// In which time new endpoints get less than their share. None in a panic: those that are back are the ones that are well
    /// then, and starting slowly they would leave their clients to the others.
    pub fn slow_start_now(&self) -> Option<Duration> {
        self.slow_start.filter(|_| !self.selection.panics())
    }

    /// How much of its weight counts now, in thousandths: one that is new gets its share little by little.
    fn share(&self, endpoint: &Endpoint, now: Instant) -> u32 {
        self.slow_start_now().map_or(1_000, |window| endpoint.start.share(window, now))
    }

    /// How many connections are to be closed by then.
    pub fn rebalance_due(&self, rebalance: Rebalance, by: Instant) -> usize {
        let pace = self.state.rebalance.lock().unwrap_or_else(PoisonError::into_inner);
        pace.due(self.rebalance_per_minute(rebalance, by), by)
    }

    fn rebalance_per_minute(&self, rebalance: Rebalance, now: Instant) -> f64 {
        let connections: usize = self.taking(now).map(|endpoint| endpoint.state.active()).sum();
        #[expect(clippy::cast_precision_loss, reason = "exact for more connections than there are ports")]
        let connections = connections as f64;
        connections * rebalance.percent_per_minute / 100.0
    }

    /// Whether one more connection is to be closed by then for its endpoint's excess; it now counts as closed.
    pub fn claim_rebalance(&self, rebalance: Rebalance, by: Instant) -> bool {
        let per_minute = self.rebalance_per_minute(rebalance, by);
        let mut pace = self.state.rebalance.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = pace.claim(per_minute, by);
        self.state.rebalanced.fetch_add(u64::from(is_due), Ordering::Relaxed);
        is_due
    }

    /// The endpoints that new connections go to first. One whose breaker waits for its probe is one of them: it may have so
    /// many connections that nobody chooses it for the probe.
    fn taking(&self, now: Instant) -> impl Iterator<Item = &Endpoint> {
        let members = self.selection.first().filter_map(|index| self.endpoints.get(index));
        members.filter(move |endpoint| endpoint.may_be_tried(now))
    }
}

/// What keeps an upstream from having the endpoints that it should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// One of a few words, for metrics.
    pub reason: &'static str,
    /// What is wrong, by name, and what to do.
    pub text: Arc<str>,
}

impl Problem {
    /// Nothing was found yet.
    pub const WAITING: &'static str = "waiting";
}

impl Upstream {
    /// Whether nothing was found of its endpoints yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.problem.as_ref().is_some_and(|problem| problem.reason == Problem::WAITING)
    }
}

/// What outlives a table.
#[derive(Debug, Default)]
pub struct UpstreamState {
    cursor: AtomicUsize,
    connections: AtomicU64,
    budget: Mutex<Budget>,
    retries_refused: AtomicU64,
    /// Those under way.
    retries: Arc<Places>,
    active: AtomicUsize,
    /// How many there may be by the newest table; 0: any number.
    limit: AtomicUsize,
    queue: Arc<Queue>,
    rebalance: Mutex<ClosePace>,
    rebalanced: AtomicU64,
    /// In the order of [`Rejection::ALL`].
    rejections: [AtomicU64; Rejection::ALL.len()],
}

/// One connection, counted on its upstream until dropped.
#[derive(Debug)]
pub struct UpstreamPlace {
    state: Arc<UpstreamState>,
}

/// Why a connection got no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// All places are taken, and nobody may wait for one.
    Full,
    /// As many wait already as may.
    QueueFull,
    /// It waited long enough.
    QueueTimeout,
}

impl Rejection {
    pub const ALL: [Self; 3] = [Self::Full, Self::QueueFull, Self::QueueTimeout];

    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
        }
    }
}

impl UpstreamState {
    /// Counts a connection that is to be made.
    pub fn begin(&self, now: Instant) {
        let connections = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        if connections.is_multiple_of(Budget::MARK_EVERY) {
            self.budget().mark(connections, now);
        }
    }

    /// Asks for a retry, which lasts until the place is given back. `None`: there are enough; that is counted.
    pub fn begin_retry(&self, retry: &Retry, limits: &UpstreamLimits, now: Instant) -> Option<Place> {
        let place = self.retries.try_take(limits.max_parallel_retries.map_or(usize::MAX, NonZeroUsize::get));
        let policy = BudgetPolicy { percent: retry.budget_percent, min_per_second: retry.budget_floor };
        let connections = self.connections.load(Ordering::Relaxed);
        let granted = place.filter(|_| self.budget().withdraw(policy, connections, now));
        self.retries_refused.fetch_add(u64::from(granted.is_none()), Ordering::Relaxed);
        granted
    }

    /// A retry that was granted does not count against the budget any more.
    pub fn refund_retry(&self) {
        self.budget().refund();
    }

    /// Retries that the budget, or the limit of parallel ones, did not have.
    pub fn retries_refused(&self) -> u64 {
        self.retries_refused.load(Ordering::Relaxed)
    }

    pub(super) fn new(places: Option<NonZeroUsize>) -> Self {
        let state = Self::default();
        state.limit(places);
        state
    }

    /// A table with this limit of places is published: who waits sees it, whatever table it came with.
    pub(super) fn limit(&self, places: Option<NonZeroUsize>) {
        self.limit.store(places.map_or(0, NonZeroUsize::get), Ordering::SeqCst);
        self.freed();
    }

    /// Takes a place unless all are taken: exact across workers.
    pub fn take_place(self: &Arc<Self>) -> Option<UpstreamPlace> {
        let more = |active: usize| self.has_more_than(active).then_some(active + 1);
        self.active.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(UpstreamPlace { state: Arc::clone(self) })
    }

    /// Connections that have a place.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Whether there is a place now, as far as looking tells.
    pub fn has_place(&self) -> bool {
        self.has_more_than(self.active.load(Ordering::SeqCst))
    }

    fn has_more_than(&self, active: usize) -> bool {
        let limit = self.limit.load(Ordering::SeqCst);
        limit == 0 || active < limit
    }

    /// Joins those who wait for a place.
    pub fn queue(&self, limit: usize) -> Option<Ticket> {
        self.queue.join(limit)
    }

    /// How many wait for a place.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Something became free that a connection waits for.
    pub fn freed(&self) {
        self.queue.call();
    }

    /// Gives something back that a connection may wait for: a place of an endpoint, the leave to probe one. Who waits is called
    /// after that and not before: it would look, see nothing, and not be called again.
    pub fn give_back(&self, what: impl Sized) {
        drop(what);
        self.freed();
    }

    /// Connections closed for the excess of their endpoints, or that would have been.
    pub fn rebalanced(&self) -> u64 {
        self.rebalanced.load(Ordering::Relaxed)
    }

    /// Counts a connection that got no place.
    pub fn reject(&self, rejection: Rejection) {
        self.rejections[rejection as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many got none for this reason.
    pub fn rejections(&self, rejection: Rejection) -> u64 {
        self.rejections[rejection as usize].load(Ordering::Relaxed)
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next turn of round robin, one for the whole process.
    pub fn turn(&self) -> usize {
        self.cursor.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for UpstreamPlace {
    fn drop(&mut self) {
        self.state.active.fetch_sub(1, Ordering::SeqCst);
        self.state.freed();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Looks, when it is given back, whether somebody was called for it already.
    struct Lent<'a> {
        ticket: &'a Ticket,
        called_early: &'a mut bool,
    }

    impl Drop for Lent<'_> {
        fn drop(&mut self) {
            *self.called_early = self.ticket.called().now_or_never().is_some();
        }
    }

    #[test]
    fn who_waits_is_called_once_it_is_given_back() {
        let state = UpstreamState::new(None);
        let ticket = state.queue(1).unwrap();
        assert!(ticket.called().now_or_never().is_some(), "it looks once after it joined");
        let mut called_early = false;
        state.give_back(Lent { ticket: &ticket, called_early: &mut called_early });
        assert!(!called_early);
        assert!(ticket.called().now_or_never().is_some());
    }
}
