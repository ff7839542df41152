//! Which connections are too many for their endpoint, and how fast some of them may be closed. Pure.

use std::time::{Duration, Instant};

/// An endpoint may have this much more than its fair share, in per cent, and one connection: what comes and goes by itself
/// is not worth anybody's reconnecting.
const TOLERANCE_PERCENT: u64 = 2;
/// A minute, and what a closing may lag behind its moment: so no minute has more closings than it may.
const MINUTE: Duration = Duration::from_millis(61_500);
/// Closings that nobody could carry out in this time are not made up for.
const LAG_MAX: Duration = Duration::from_secs(1);
/// More at once would be no pace.
const DUE_MAX: usize = 10_000;

/// An endpoint that takes new connections, as far as fairness goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub weight: u64,
    pub active: usize,
}

/// How many connections each has above its fair share.
pub fn excess(shares: &[Share]) -> Vec<usize> {
    let total: u64 = shares.iter().map(|share| share.active as u64).sum();
    let weights: u64 = shares.iter().map(|share| share.weight).sum();
    let above = |share: &Share| {
        let fair = u128::from(total) * u128::from(share.weight) * u128::from(100 + TOLERANCE_PERCENT)
            / (u128::from(weights.max(1)) * 100);
        share.active.saturating_sub(usize::try_from(fair).unwrap_or(usize::MAX).saturating_add(1))
    };
    shares.iter().map(above).collect()
}

/// Spaces closings evenly, so that a minute has no more of them than it may.
#[derive(Debug, Default)]
pub struct ClosePace {
    last: Option<Instant>,
}

impl ClosePace {
    /// How many are due by then, if claimed one after the other.
    pub fn due(&self, per_minute: f64, by: Instant) -> usize {
        let mut pace = Self { last: self.last };
        let due = (0..DUE_MAX).take_while(|_| pace.claim(per_minute, by)).count();
        // Somebody has to claim in vain, because that starts the clock: for the first time, or again after a pause.
        if due == 0 && pace.last != self.last { 1 } else { due }
    }

    /// Whether one more is due by then; it then counts as closed. The first question in a while only starts the clock, so
    /// that who defers to others does not come first because nobody has asked yet.
    pub fn claim(&mut self, per_minute: f64, by: Instant) -> bool {
        let interval = Duration::try_from_secs_f64(MINUTE.as_secs_f64() / per_minute).ok();
        let Some(due) = interval.and_then(|interval| self.last?.checked_add(interval)) else {
            self.last.get_or_insert(by);
            return false;
        };
        if due > by {
            return false;
        }
        let is_in_time = by - due < LAG_MAX;
        self.last = Some(if is_in_time { due } else { by });
        is_in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shares(active: &[usize]) -> Vec<Share> {
        active.iter().map(|active| Share { weight: 1, active: *active }).collect()
    }

    #[test]
    fn only_what_is_above_the_fair_share_and_worth_it_is_too_much() {
        assert_eq!(excess(&shares(&[1_000, 1_000, 0, 0])), [489, 489, 0, 0]);
        assert_eq!(excess(&shares(&[505, 500, 495, 500])), [0; 4]);
        assert_eq!(excess(&shares(&[2, 1, 0])), [0; 3], "one more is not worth a reconnect");
        assert_eq!(excess(&[Share { weight: 3, active: 75 }, Share { weight: 1, active: 25 }]), [0, 0]);
        assert_eq!(excess(&[Share { weight: 0, active: 5 }]), [4], "a weight of 0 takes none");
        assert_eq!(excess(&[]), [0; 0]);
    }

    #[test]
    fn nothing_a_minute_is_nothing() {
        let now = Instant::now();
        assert!(!ClosePace::default().claim(0.0, now));
        let mut pace = ClosePace::default();
        assert!(!pace.claim(1e-9, now) && !pace.claim(1e-9, now + Duration::from_secs(1_000_000)));
    }

    #[test]
    fn after_a_pause_it_goes_on() {
        // As workers do: they claim when something is due.
        let mut pace = ClosePace::default();
        let mut closed_by = |by: Instant| (0..pace.due(600.0, by)).filter(|_| pace.claim(600.0, by)).count();
        let now = Instant::now();
        let mut close = |from: u64| {
            (0..20).map(|tick| closed_by(now + Duration::from_millis(from + tick * 250))).sum::<usize>()
        };
        assert_eq!([close(0), close(60_000)], [46, 46], "5 seconds less the first look, 61.5 for 600");
    }

    proptest! {
        /// Whatever the rhythm in which workers look, no minute has more closings than it may; and with a look now and
        /// then it has nearly as many.
        #[test]
        fn a_minute_has_no_more_than_its_budget(
            per_minute in 1..2_000_u32,
            pauses in prop::collection::vec(1..400_u64, 600),
        ) {
            let (mut pace, mut now) = (ClosePace::default(), Instant::now());
            let start = now;
            let mut closed: Vec<Instant> = Vec::new();
            for pause in pauses {
                now += Duration::from_millis(pause);
                while pace.claim(f64::from(per_minute), now) {
                    closed.push(now);
                }
            }
            // Of so many and one more in a row, the last is a minute after the first.
            for (first, last) in closed.iter().zip(closed.iter().skip(per_minute as usize)) {
                prop_assert!(*last - *first >= Duration::from_secs(60), "{:?} for {per_minute}", *last - *first);
            }
            let wanted = (now - start).as_secs_f64() / 61.5 * f64::from(per_minute);
            prop_assert!(closed.len() as f64 >= wanted * 0.95 - 2.0, "{} of {wanted}", closed.len());
        }

        /// Closing all that is too much makes the spread even, and never turns it over.
        #[test]
        fn without_the_excess_the_spread_is_even(active in prop::collection::vec(0..5_000_usize, 1..20)) {
            let fair = active.iter().sum::<usize>().div_ceil(active.len());
            for (active, excess) in active.iter().zip(excess(&shares(&active))) {
                prop_assert!(excess == 0 || active - excess >= fair, "{active} less {excess} of {fair}");
                prop_assert!(active - excess <= fair + fair / 50 + 2, "{active} less {excess} of {fair}");
            }
        }
    }
}
