//! A circuit breaker per endpoint, in the electrical sense: closed lets traffic through.
//!
//! failsafe's state machine decides; it lets every call through while half-open, so this wrapper admits
//! exactly one attempt as the probe and holds the others back until that one has a verdict.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use failsafe::failure_policy::{self, ConsecutiveFailures};
use failsafe::{Instrument, StateMachine};

/// Opens after this many failures in a row.
const CONSECUTIVE_FAILURES: u32 = 5;
/// How long it stays open: at first, and at most after doubling with each failed probe.
const OPEN_FOR_BASE: Duration = Duration::from_secs(1);
const OPEN_FOR_MAX: Duration = Duration::from_secs(30);

/// Shared by all workers; one short lock per attempt.
pub struct Breaker {
    machine: StateMachine<ConsecutiveFailures<OpenTimes>, Watch>,
    watch: Watch,
    probing: AtomicBool,
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
    pub fn new(consecutive_failures: u32, open_for_base: Duration, open_for_max: Duration) -> Self {
        let watch = Watch::default();
        let open_for = OpenTimes {
            next: open_for_base.min(open_for_max),
            max: open_for_max,
            random: fastrand::Rng::default(),
        };
        let policy = failure_policy::consecutive_failures(consecutive_failures, open_for);
        let machine = StateMachine::new(policy, watch.clone());
        Self { machine, watch, probing: AtomicBool::new(false) }
    }

    pub fn state(&self) -> BreakerState {
        match self.watch.0.load(Ordering::Acquire) {
            Watch::CLOSED => BreakerState::Closed,
            Watch::OPEN => BreakerState::Open,
            _ => BreakerState::HalfOpen,
        }
    }

    /// Asks leave for an attempt. `None`: open, or half-open with its probe under way.
    pub fn permit(&self) -> Option<Permit<'_>> {
        if !self.machine.is_call_permitted() {
            return None;
        }
        let probe = self.state() == BreakerState::HalfOpen;
        if probe && self.probing.swap(true, Ordering::AcqRel) {
            return None;
        }
        Some(Permit { breaker: self, probe })
    }
}

impl Permit<'_> {
    pub fn succeeded(self) {
        self.breaker.machine.on_success();
    }

    pub fn failed(self) {
        self.breaker.machine.on_error();
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.probing.store(false, Ordering::Release);
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new(CONSECUTIVE_FAILURES, OPEN_FOR_BASE, OPEN_FOR_MAX)
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
#[derive(Clone, Debug)]
struct OpenTimes {
    next: Duration,
    max: Duration,
    random: fastrand::Rng,
}

impl Iterator for OpenTimes {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(self.max);
        Some(whole.mul_f64(f64::midpoint(1.0, self.random.f64())))
    }
}

/// Follows the machine's transitions, so that reading the state takes no lock.
#[derive(Clone, Default)]
struct Watch(Arc<AtomicU8>);

impl Watch {
    const CLOSED: u8 = 0;
    const OPEN: u8 = 1;
    const HALF_OPEN: u8 = 2;
}

impl Instrument for Watch {
    fn on_call_rejected(&self) {}

    fn on_open(&self) {
        self.0.store(Self::OPEN, Ordering::Release);
    }

    fn on_half_open(&self) {
        self.0.store(Self::HALF_OPEN, Ordering::Release);
    }

    fn on_closed(&self) {
        self.0.store(Self::CLOSED, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn tripped() -> Breaker {
        let breaker = Breaker::new(2, Duration::from_millis(2), Duration::from_millis(4));
        for _ in 0..2 {
            breaker.permit().unwrap().failed();
        }
        breaker
    }

    fn half_open(breaker: &Breaker) -> Permit<'_> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(permit) = breaker.permit() {
                return permit;
            }
            assert!(Instant::now() < deadline, "never half-open: {breaker:?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let breaker = Breaker::new(2, Duration::from_secs(1), Duration::from_secs(2));
        breaker.permit().unwrap().failed();
        breaker.permit().unwrap().succeeded();
        breaker.permit().unwrap().failed();
        assert_eq!(breaker.state(), BreakerState::Closed);
        breaker.permit().unwrap().failed();
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.permit().is_none());
    }

    #[test]
    fn one_probe_at_a_time_while_half_open() {
        let breaker = tripped();
        let probe = half_open(&breaker);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.permit().is_none(), "a second attempt must wait for the probe");
        drop(probe);
        half_open(&breaker).succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_failed_probe_opens_it_again() {
        let breaker = tripped();
        half_open(&breaker).failed();
        assert_eq!(breaker.state(), BreakerState::Open);
    }
}
