//! Hears the workers' acknowledgements: who waits for a generation is told, and how long changes took is measured.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use crate::routing::publish::Publisher;
use crate::telemetry::Histogram;

use super::generations::Generations;
use super::kubernetes::Stamp;

/// Changes whose table the workers have not taken yet. More wait only for a worker that is stuck.
const WAITING_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct Propagation {
    reached: watch::Sender<u64>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By generation, oldest first.
    waiting: VecDeque<(u64, Stamp)>,
    measured: Measured,
}

/// From a change in the cluster until all workers had it.
#[derive(Debug, Default, Clone)]
pub(super) struct Measured {
    /// Since the change, as far as the cluster says when that was.
    pub(super) since_change: Histogram,
    /// Since this process received it.
    pub(super) since_receipt: Histogram,
    /// Changes of which the cluster does not say when they happened.
    pub(super) undated: u64,
    /// Changes that happened after they had arrived: the clocks differ by more than the way took.
    pub(super) skewed: u64,
}

impl Propagation {
    pub(super) fn new() -> Self {
        Self { reached: watch::Sender::new(0), inner: Mutex::default() }
    }

    /// These changes are in the table of `generation`. To be called before it is published.
    pub(super) fn expect(&self, generation: u64, stamps: impl Iterator<Item = Stamp>) {
        self.with(|inner| {
            inner.waiting.extend(stamps.map(|stamp| (generation, stamp)));
            let excess = inner.waiting.len().saturating_sub(WAITING_MAX);
            inner.waiting.drain(..excess);
        });
    }

    /// Listens to the workers, for ever.
    pub(super) async fn follow(&self, publisher: &Publisher, generations: &Generations) {
        loop {
            let (reached, now) = (publisher.acknowledged(), Instant::now());
            self.acknowledged(reached, now, SystemTime::now());
            generations.acknowledged(reached, now);
            self.reached.send_if_modified(|before| std::mem::replace(before, reached) != reached);
            if !publisher.acknowledgement().await {
                // All workers are gone, which is the main thread's business.
                return std::future::pending().await;
            }
        }
    }

    /// Resolves once all workers have `generation` or a newer one.
    pub(super) async fn reaches(&self, generation: u64) {
        let mut reached = self.reached.subscribe();
        if reached.wait_for(|reached| *reached >= generation).await.is_err() {
            std::future::pending().await
        }
    }

    pub(super) fn measured(&self) -> Measured {
        self.with(|inner| inner.measured.clone())
    }

    fn acknowledged(&self, generation: u64, now: Instant, wall: SystemTime) {
        self.with(|inner| {
            while inner.waiting.front().is_some_and(|(expected, _)| *expected <= generation) {
                let Some((_, stamp)) = inner.waiting.pop_front() else { return };
                inner.measured.enter(stamp, now, wall);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Measured {
    fn enter(&mut self, stamp: Stamp, now: Instant, wall: SystemTime) {
        self.since_receipt.observe(now.saturating_duration_since(stamp.received));
        match stamp.changed_at.map(|changed_at| wall.duration_since(changed_at)) {
            Some(Ok(since_change)) => self.since_change.observe(since_change),
            Some(Err(_later)) => self.skewed += 1,
            None => self.undated += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_change_is_measured_when_all_have_its_table_and_odd_clocks_are_told_apart() {
        let propagation = Propagation::new();
        let (now, wall) = (Instant::now(), SystemTime::now());
        let stamp = |changed_at| Stamp { changed_at, received: now };
        propagation.expect(2, [stamp(Some(wall)), stamp(None)].into_iter());
        propagation.expect(3, [stamp(Some(wall + Duration::from_secs(60)))].into_iter());
        propagation.acknowledged(1, now, wall);
        assert_eq!(propagation.measured().since_receipt.count(), 0);
        propagation.acknowledged(2, now + Duration::from_millis(2), wall + Duration::from_millis(20));
        let measured = propagation.measured();
        assert_eq!((measured.since_receipt.count(), measured.since_change.count()), (2, 1));
        assert!((measured.since_change.sum() - 0.02).abs() < 1e-6);
        assert_eq!((measured.undated, measured.skewed), (1, 0));
        propagation.acknowledged(7, now, wall);
        let measured = propagation.measured();
        assert_eq!((measured.since_receipt.count(), measured.skewed), (3, 1), "{measured:?}");
    }
}
