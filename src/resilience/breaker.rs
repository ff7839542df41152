//! A circuit breaker per endpoint, in the electrical sense: closed lets traffic through.
//!
//! failsafe's state machine decides; it lets every call through while half-open, so this wrapper admits
//! exactly one attempt as the probe and holds the others back until that one has a verdict. While all is well, which is
//! nearly always, an attempt costs two loads and no lock.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use failsafe::failure_policy::{self, ConsecutiveFailures};
use failsafe::{Instrument, StateMachine};

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// It opens after this many failures in a row.
    pub consecutive_failures: NonZeroU32,
    /// How long it stays open: at first, and at most after doubling with each failed probe.
    pub base_interval: Duration,
    pub max_interval: Duration,
}

/// A handle to one: all workers share it. It is kept by value, so that a choice gets to what the watch has seen in one step.
#[derive(Clone)]
pub struct Breaker {
    watch: Watch,
    core: Arc<Core>,
}

struct Core {
    policy: BreakerPolicy,
    inner: Mutex<Inner>,
}

type Machine = StateMachine<ConsecutiveFailures<OpenTimes>, Watch>;

struct Inner {
    /// Made at the first failure: most endpoints have none, and it takes half as much memory as all else of them.
    machine: Option<Machine>,
    probing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

/// Leave for one attempt. Dropped without a verdict (the client left), it changes nothing.
#[derive(Debug)]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Breaker {
    pub fn new(policy: BreakerPolicy, now: Instant) -> Self {
        let inner = Mutex::new(Inner { machine: None, probing: false });
        Self { watch: Watch::new(now), core: Arc::new(Core { policy, inner }) }
    }

    /// Whether both are handles to the same one.
    #[cfg(test)]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }

    pub fn policy(&self) -> &BreakerPolicy {
        &self.core.policy
    }

    pub fn state(&self) -> BreakerState {
        self.watch.state()
    }

    /// How often it has opened.
    pub fn openings(&self) -> u64 {
        self.watch.0.openings.load(Ordering::Relaxed)
    }

    /// Whether asking leave now has a chance. It takes no lock: a choice among many endpoints asks it of each.
    pub fn may_permit(&self, now: Instant) -> bool {
        match self.state() {
            BreakerState::Closed => true,
            BreakerState::Open => self.watch.is_over(now),
            BreakerState::HalfOpen => !self.watch.0.probing.load(Ordering::Acquire),
        }
    }

    /// Whether it may let an attempt through by `deadline`: its time is over then, or its probe has a verdict. One that was
    /// last closed longer ago than `patience` is not waited for.
    pub fn may_permit_by(&self, deadline: Instant, now: Instant, patience: Duration) -> bool {
        match self.state() {
            BreakerState::Closed => true,
            _ if self.watch.is_closed_no_longer(now, patience) => false,
            BreakerState::Open => self.watch.is_over(deadline),
            BreakerState::HalfOpen => true,
        }
    }

    /// When its open time ends, if that is yet to come.
    pub fn open_until(&self, now: Instant) -> Option<Instant> {
        let is_open = self.state() == BreakerState::Open && !self.watch.is_over(now);
        is_open.then(|| self.watch.end()).flatten()
    }

    /// Whether a probe may be made now, where there is to be one.
    pub fn awaits_probe(&self, now: Instant) -> bool {
        self.state() != BreakerState::Closed && self.may_permit(now)
    }

    /// Asks leave for an attempt. `None`: open, or half-open with its probe under way.
    pub fn permit(&self) -> Option<Permit<'_>> {
        if self.state() == BreakerState::Closed {
            return Some(Permit { breaker: self, probe: false });
        }
        let mut inner = self.inner();
        if !self.machine(&mut inner).is_call_permitted() {
            return None;
        }
        let probe = self.state() == BreakerState::HalfOpen;
        if probe && inner.probing {
            return None;
        }
        self.set_probing(&mut inner, probe);
        Some(Permit { breaker: self, probe })
    }

    fn set_probing(&self, inner: &mut Inner, probing: bool) {
        inner.probing = probing;
        self.watch.0.probing.store(probing, Ordering::Release);
    }

    fn machine<'a>(&self, inner: &'a mut Inner) -> &'a Machine {
        inner.machine.get_or_insert_with(|| {
            let policy = &self.core.policy;
            let open_for = OpenTimes {
                next: policy.base_interval.min(policy.max_interval),
                base: policy.base_interval.min(policy.max_interval),
                max: policy.max_interval,
                random: fastrand::Rng::default(),
                watch: self.watch.clone(),
            };
            let failures = failure_policy::consecutive_failures(policy.consecutive_failures.get(), open_for);
            StateMachine::new(failures, self.watch.clone())
        })
    }

    /// The machine tells its transitions only after it has let go of its own lock; under this one they are seen in order.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.core.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// Whether the breaker is half-open, and this the one attempt that decides.
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    /// The attempt connected. Whether that closed the breaker.
    pub fn succeeded(self) -> bool {
        let watch = &self.breaker.watch.0;
        if !self.probe && !watch.failing.load(Ordering::Acquire) {
            return false;
        }
        let mut inner = self.breaker.inner();
        let before = self.breaker.state();
        watch.failing.store(false, Ordering::Release);
        self.breaker.machine(&mut inner).on_success();
        before != BreakerState::Closed && self.breaker.state() == BreakerState::Closed
    }

    /// The attempt failed, and that was the endpoint's doing. Whether that opened the breaker.
    pub fn failed(self, now: Instant) -> bool {
        self.fail(now, false)
    }

    /// The same of a probe where no other endpoint lets attempts through: a longer time would spare nobody an attempt, and hold
    /// up the return of all.
    pub fn failed_alone(self, now: Instant) -> bool {
        self.fail(now, true)
    }

    fn fail(self, now: Instant, alone: bool) -> bool {
        let mut inner = self.breaker.inner();
        let before = self.breaker.state();
        // What began before the breaker opened says nothing about its probe.
        if before == BreakerState::HalfOpen && !self.probe {
            return false;
        }
        self.breaker.watch.0.failing.store(true, Ordering::Release);
        self.breaker.watch.0.alone.store(alone, Ordering::Release);
        self.breaker.machine(&mut inner).on_error();
        let opens = before != BreakerState::Open && self.breaker.state() == BreakerState::Open;
        if opens {
            self.breaker.watch.opened(now, before == BreakerState::Closed);
        }
        opens
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.set_probing(&mut self.breaker.inner(), false);
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Breaker").field(&self.state()).finish()
    }
}

impl BreakerState {
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// How long each opening in a row lasts: doubling, and half of it random so that replicas do not probe in step.
/// (failsafe's own and backon's do not fit: the one refuses times under a second, the other cannot be cloned.)
#[derive(Clone)]
struct OpenTimes {
    next: Duration,
    base: Duration,
    max: Duration,
    random: fastrand::Rng,
    watch: Watch,
}

impl Iterator for OpenTimes {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let whole = if self.watch.0.alone.load(Ordering::Acquire) { self.base } else { self.next };
        self.next = whole.saturating_mul(2).min(self.max);
        let open_for = whole.mul_f64(f64::midpoint(1.0, self.random.f64()));
        self.watch.0.open_for.store(microseconds(open_for), Ordering::Release);
        Some(open_for)
    }
}

/// Follows the machine, so that looking takes no lock.
#[derive(Clone)]
struct Watch(Arc<Seen>);

struct Seen {
    state: AtomicU8,
    probing: AtomicBool,
    /// Something failed since the last success.
    failing: AtomicBool,
    /// What failed last had no other endpoint beside it.
    alone: AtomicBool,
    /// How long it opens for, in microseconds.
    open_for: AtomicU64,
    born: Instant,
    /// Until when it stays open, in microseconds since `born`.
    until: AtomicU64,
    /// When it was last closed, in the same.
    closed_until: AtomicU64,
    openings: AtomicU64,
}

impl Watch {
    const CLOSED: u8 = 0;
    const OPEN: u8 = 1;
    const HALF_OPEN: u8 = 2;

    fn state(&self) -> BreakerState {
        match self.0.state.load(Ordering::Acquire) {
            Self::CLOSED => BreakerState::Closed,
            Self::OPEN => BreakerState::Open,
            _ => BreakerState::HalfOpen,
        }
    }

    fn new(now: Instant) -> Self {
        Self(Arc::new(Seen {
            state: AtomicU8::new(Self::CLOSED),
            probing: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            alone: AtomicBool::new(false),
            open_for: AtomicU64::new(0),
            born: now,
            until: AtomicU64::new(0),
            closed_until: AtomicU64::new(0),
            openings: AtomicU64::new(0),
        }))
    }

    fn opened(&self, now: Instant, was_closed: bool) {
        let now = self.since_birth(now);
        if was_closed {
            self.0.closed_until.store(now, Ordering::Release);
        }
        // Both were rounded down.
        let until = now.saturating_add(self.0.open_for.load(Ordering::Acquire)).saturating_add(1);
        self.0.until.store(until, Ordering::Release);
    }

    fn is_over(&self, now: Instant) -> bool {
        self.since_birth(now) > self.0.until.load(Ordering::Acquire)
    }

    /// The first moment in which it is over; `None`: beyond what a clock can say.
    fn end(&self) -> Option<Instant> {
        let after = self.0.until.load(Ordering::Acquire).saturating_add(1);
        self.0.born.checked_add(Duration::from_micros(after))
    }

    fn is_closed_no_longer(&self, now: Instant, patience: Duration) -> bool {
        let until = self.0.closed_until.load(Ordering::Acquire);
        self.since_birth(now) > until.saturating_add(microseconds(patience))
    }

    fn since_birth(&self, now: Instant) -> u64 {
        microseconds(now.saturating_duration_since(self.0.born))
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Instrument for Watch {
    fn on_call_rejected(&self) {}

    fn on_open(&self) {
        self.0.openings.fetch_add(1, Ordering::Relaxed);
        self.0.state.store(Self::OPEN, Ordering::Release);
    }

    fn on_half_open(&self) {
        self.0.state.store(Self::HALF_OPEN, Ordering::Release);
    }

    fn on_closed(&self) {
        self.0.state.store(Self::CLOSED, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
