//! What the process did in the last two minutes, second by second: for whoever looks at it without a Prometheus.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::telemetry::{Ledger, WorkerCounters};

use super::shared::Shared;

const SECONDS: usize = 120;

/// How much there was of each until one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) accepted: u64,
    pub(super) ended: u64,
    /// Of these, connections that somebody should look at.
    pub(super) failed: u64,
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
    /// Live at that moment.
    pub(super) live: u64,
}

/// How much of each there is in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) accepted: f64,
    pub(super) ended: f64,
    pub(super) failed: f64,
    pub(super) bytes_received: f64,
    pub(super) bytes_sent: f64,
    /// Not in a second but at its end.
    pub(super) live: f64,
}

#[derive(Debug, Default)]
pub(super) struct History {
    moments: Mutex<VecDeque<(Instant, Totals)>>,
}

/// Takes the totals each second, for ever.
pub(super) async fn follow(shared: &Shared) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let last = shared.history.last();
        shared.history.enter(Instant::now(), Totals::read(shared, last));
    }
}

impl History {
    fn enter(&self, now: Instant, totals: Totals) {
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        moments.push_back((now, totals));
        let excess = moments.len().saturating_sub(SECONDS + 1);
        moments.drain(..excess);
    }

    fn last(&self) -> Totals {
        let moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        moments.back().map(|(_, totals)| *totals).unwrap_or_default()
    }

    /// Second by second, oldest first.
    pub(super) fn seconds(&self) -> Vec<Rates> {
        let moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        moments.iter().zip(moments.iter().skip(1)).map(|(from, to)| Rates::between(from, to)).collect()
    }

    /// Over the last `seconds`, as far as there are so many.
    pub(super) fn lately(&self, seconds: usize) -> Rates {
        let moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let first = moments.get(moments.len().saturating_sub(seconds + 1));
        let both = first.zip(moments.back());
        both.map(|(from, to)| Rates::between(from, to)).unwrap_or_default()
    }
}

impl Totals {
    fn read(shared: &Shared, last: Self) -> Self {
        let sum = |counter: fn(&WorkerCounters) -> &AtomicU64| {
            shared.counters.iter().map(|worker| counter(worker).load(Ordering::Relaxed)).sum()
        };
        let (ended, failed) = ended(shared).unwrap_or((last.ended, last.failed));
        Self {
            accepted: sum(|worker| &worker.accepted),
            ended,
            failed,
            bytes_received: sum(|worker| &worker.bytes_received),
            bytes_sent: sum(|worker| &worker.bytes_sent),
            live: sum(|worker| &worker.shown.active),
        }
    }
}

/// How many connections ended, and how many of them failed. `None`: a scrape is under way, and this thread waits for none.
fn ended(shared: &Shared) -> Option<(u64, u64)> {
    let total = match shared.ledger.try_lock() {
        Ok(total) => total,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    let workers = shared.counters.iter().map(|counters| counters.with_ledger(|ledger| count(ledger)));
    Some(workers.fold(count(&total), |(ended, failed), (more, failures)| (ended + more, failed + failures)))
}

fn count(ledger: &Ledger) -> (u64, u64) {
    let listeners = ledger.listeners.values().map(|listener| listener.tally.counts());
    listeners.fold((0, 0), |(ended, failed), (more, failures)| (ended + more, failed + failures))
}

impl Rates {
    fn between((from, before): &(Instant, Totals), (to, after): &(Instant, Totals)) -> Self {
        let seconds = to.saturating_duration_since(*from).as_secs_f64().max(1e-3);
        // What left the table takes its counts along.
        #[expect(clippy::cast_precision_loss, reason = "exact enough to look at")]
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        Self {
            accepted: rate(before.accepted, after.accepted),
            ended: rate(before.ended, after.ended),
            failed: rate(before.failed, after.failed),
            bytes_received: rate(before.bytes_received, after.bytes_received),
            bytes_sent: rate(before.bytes_sent, after.bytes_sent),
            live: rate(0, after.live) * seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_by_the_time_that_passed_and_only_the_last_seconds_are_kept() {
        let (history, start) = (History::default(), Instant::now());
        assert_eq!((history.seconds(), history.lately(5)), (Vec::new(), Rates::default()));
        for second in 0..500_u32 {
            // Late every time, and something leaves the table in between.
            let at = start + Duration::from_millis(2_000) * second;
            let ended = if second < 490 { u64::from(second) * 10 } else { 0 };
            history
                .enter(at, Totals { accepted: u64::from(second) * 40, ended, live: 7, ..Totals::default() });
        }
        let seconds = history.seconds();
        assert_eq!(seconds.len(), SECONDS);
        assert!(seconds.iter().all(|rates| rates.ended == 5.0 || rates.ended == 0.0), "{seconds:?}");
        let lately = history.lately(4);
        assert_eq!((lately.accepted, lately.live), (20.0, 7.0));
    }
}
