//! When a process is so short of memory, or a worker so short of time, that new connections would only harm those that
//! are there: the decisions, and what the threads tell each other of them.
//!
//! Pure: readings are arguments.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Memory, as a cgroup has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryReading {
    /// Bytes that cannot be had back for the asking.
    pub used: u64,
    /// Bytes that there may be.
    pub limit: u64,
}

/// A bound that readings are held against, one after the other. It is passed after some in a row that reach it, and kept again
/// only after some in a row that are clearly below, so that what sways around it does not make it sway.
#[derive(Debug, Clone)]
pub struct Watermark<T> {
    high: T,
    low: T,
    /// Readings in a row that it takes.
    to_rise: u32,
    to_fall: u32,
    in_a_row: u32,
    is_passed: bool,
}

/// What the control side says of the memory, for all workers.
#[derive(Debug, Default)]
pub struct MemoryState {
    is_short: AtomicBool,
    used: AtomicU64,
    /// 0: there is no limit.
    limit: AtomicU64,
}

impl Watermark<u64> {
    /// Of readings of memory, a second apart: it falls after three that are a fiftieth below.
    pub fn of_memory(percent: NonZeroU32) -> Self {
        let high = u64::from(percent.get()) * 100;
        Self { high, low: high - high / 50, to_rise: 1, to_fall: 3, in_a_row: 0, is_passed: false }
    }

    /// Takes in a reading. `None`: there is no limit, or none that can be read.
    pub fn enter_memory(&mut self, reading: Option<MemoryReading>) -> Option<bool> {
        self.enter(reading.map_or(0, MemoryReading::ten_thousandths))
    }
}

impl Watermark<Duration> {
    /// Of how late a worker's timer fires. What is measured is over already, so that one stall says little: it rises after
    /// two in a row, and falls after five that are below half of it.
    pub fn of_lag(bound: Duration) -> Self {
        Self { high: bound, low: bound / 2, to_rise: 2, to_fall: 5, in_a_row: 0, is_passed: false }
    }
}

impl<T: PartialOrd> Watermark<T> {
    /// Takes in a reading. Whether the bound is passed, if this changed it.
    pub fn enter(&mut self, reading: T) -> Option<bool> {
        let (is_against, needed) = match self.is_passed {
            true => (reading < self.low, self.to_fall),
            false => (reading >= self.high, self.to_rise),
        };
        self.in_a_row = if is_against { self.in_a_row + 1 } else { 0 };
        if self.in_a_row < needed {
            return None;
        }
        self.in_a_row = 0;
        self.is_passed = !self.is_passed;
        Some(self.is_passed)
    }
}

impl MemoryReading {
    fn ten_thousandths(self) -> u64 {
        let share = u128::from(self.used) * 10_000 / u128::from(self.limit.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

impl MemoryState {
    /// Whether new connections are refused for it.
    pub fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }

    pub fn set_short(&self, is_short: bool) {
        self.is_short.store(is_short, Ordering::Relaxed);
    }

    /// The last reading; `None`: there is no limit, or nobody reads.
    pub fn last(&self) -> Option<MemoryReading> {
        let limit = self.limit.load(Ordering::Relaxed);
        (limit > 0).then(|| MemoryReading { used: self.used.load(Ordering::Relaxed), limit })
    }

    pub fn set_last(&self, reading: Option<MemoryReading>) {
        let MemoryReading { used, limit } = reading.unwrap_or(MemoryReading { used: 0, limit: 0 });
        self.used.store(used, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn milliseconds(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    /// The changes, each with the number of the reading that made it.
    fn changes<T: PartialOrd>(
        mut watermark: Watermark<T>,
        readings: impl IntoIterator<Item = T>,
    ) -> Vec<(usize, bool)> {
        let readings = readings.into_iter().enumerate();
        readings.filter_map(|(number, reading)| Some((number, watermark.enter(reading)?))).collect()
    }

    fn memory(percent: u32) -> Watermark<u64> {
        Watermark::of_memory(NonZeroU32::new(percent).unwrap())
    }

    #[test]
    fn memory_passes_at_once_and_comes_back_in_time() {
        let readings = [9_499, 9_500, 9_600, 9_309, 9_309, 9_310, 9_309, 9_309, 9_309, 9_500];
        assert_eq!(changes(memory(95), readings), [(1, true), (8, false), (9, true)]);
    }

    #[test]
    fn memory_is_a_share_of_its_limit() {
        let mut watermark = memory(100);
        let reading = |used, limit| Some(MemoryReading { used, limit });
        assert_eq!(watermark.enter_memory(reading(u64::MAX - 1, u64::MAX)), None);
        assert_eq!(watermark.enter_memory(reading(4_096, 4_096)), Some(true));
        // Without a limit there is nothing to be short of.
        assert_eq!(watermark.enter_memory(None), None);
        assert_eq!(watermark.enter_memory(None), None);
        assert_eq!(watermark.enter_memory(None), Some(false));
        assert_eq!(watermark.enter_memory(reading(1, 0)), Some(true));
    }

    #[test]
    fn one_stall_is_over_when_it_is_measured() {
        let lags = |lags: &[u64]| {
            changes(Watermark::of_lag(milliseconds(500)), lags.iter().copied().map(milliseconds))
        };
        assert_eq!(lags(&[0, 30_000, 0, 700, 499, 700]), []);
        assert_eq!(
            lags(&[500, 500, 9_000, 249, 249, 249, 249, 250, 0, 0, 0, 0, 0]),
            [(1, true), (12, false)]
        );
    }

    proptest! {
        /// It changes only with a reading that speaks for it, and never more often than the readings in a row allow.
        #[test]
        fn it_never_flutters(lags in prop::collection::vec(0..1_000_u64, 0..300)) {
            let changes = changes(Watermark::of_lag(milliseconds(500)), lags.iter().copied().map(milliseconds));
            let mut before = None;
            for (number, is_passed) in changes {
                let needed = if is_passed { 2 } else { 5 };
                let from = number + 1 - needed;
                prop_assert!(before.is_none_or(|before| before < from));
                let speaks_for_it = |lag: &u64| if is_passed { *lag >= 500 } else { *lag < 250 };
                prop_assert!(lags[from..=number].iter().all(speaks_for_it));
                before = Some(number);
            }
        }
    }
}
