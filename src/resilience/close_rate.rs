//! How fast the connections of an endpoint that left are closed. Pure: the time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
/// Closings that nobody could carry out for longer than this are not made up for. It is more than workers take from one look to the
/// next, and less than those with busy connections defer to those with idle ones: what is late is not theirs for that.
const LAG_MAX: Duration = Duration::from_millis(150);
/// Closings that come within this count as one, at the time of the last of them: so few are remembered however many there may be.
const BUNCH: Duration = Duration::from_millis(10);

/// Spaces closings evenly, and never has more of them in a second than it may.
#[derive(Debug)]
pub struct CloseRate {
    interval: Duration,
    /// How many in any second: as many as it is called for, or the next whole number.
    most: usize,
    /// When the last one was due.
    last: Instant,
    /// What was closed in the last second, the oldest first.
    recent: VecDeque<Bunch>,
}

#[derive(Debug)]
struct Bunch {
    since: Instant,
    upto: Instant,
    closed: usize,
}

impl CloseRate {
    pub fn new(per_second: f64, now: Instant) -> Self {
        let interval = Duration::try_from_secs_f64(per_second.recip()).unwrap_or(Duration::MAX);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number above 0")]
        let most = per_second.ceil().max(1.0) as usize;
        Self { interval, most, last: now, recent: VecDeque::new() }
    }

    /// Whether one more was due by then, which may be before `now`, and may be closed now; it then counts as closed.
    pub fn claim(&mut self, by: Instant, now: Instant) -> bool {
        let Some(due) = self.last.checked_add(self.interval).filter(|due| *due <= by) else { return false };
        while self.recent.front().is_some_and(|bunch| now.saturating_duration_since(bunch.upto) >= SECOND) {
            self.recent.pop_front();
        }
        if self.recent.iter().map(|bunch| bunch.closed).sum::<usize>() >= self.most {
            return false;
        }
        self.last = by.checked_sub(LAG_MAX).map_or(due, |earliest| due.max(earliest));
        match self.recent.back_mut().filter(|bunch| now.saturating_duration_since(bunch.since) < BUNCH) {
            Some(bunch) => {
                bunch.upto = bunch.upto.max(now);
                bunch.closed += 1;
            }
            None => self.recent.push_back(Bunch { since: now, upto: now, closed: 1 }),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// How many are closed at a time.
    fn closes(rate: &mut CloseRate, now: Instant) -> usize {
        (0..1_000_000).take_while(|_| rate.claim(now, now)).count()
    }

    #[test]
    fn they_are_spaced_evenly() {
        let start = Instant::now();
        let mut rate = CloseRate::new(2.5, start);
        let closed: Vec<u64> =
            (0..2_000).step_by(50).filter(|at| closes(&mut rate, start + ms(*at)) > 0).collect();
        assert_eq!(closed, [400, 800, 1_200, 1_600]);
        let mut rare = CloseRate::new(0.1, start);
        assert_eq!([9_999, 10_000, 19_999, 20_000].map(|at| closes(&mut rare, start + ms(at))), [0, 1, 0, 1]);
        let mut never = CloseRate::new(1e-300, start);
        assert_eq!(closes(&mut never, start + ms(1_000_000_000)), 0);
    }

    /// Three were due at once then, and with the ten of the next second they were 13.
    #[test]
    fn after_a_stall_no_second_has_more() {
        let start = Instant::now();
        let mut rate = CloseRate::new(10.0, start);
        let ticks = (100..=1_000).chain(1_300..=4_000);
        let closed: Vec<u64> = ticks
            .filter(|at| at % 100 == 0)
            .flat_map(|at| std::iter::repeat_n(at, closes(&mut rate, start + ms(at))))
            .collect();
        for from in 0..3_000 {
            let within = closed.iter().filter(|at| (from..from + 1_000).contains(*at)).count();
            assert!(within <= 10, "{within} from {from} on: {closed:?}");
        }
        assert!(closed.len() >= 37, "{closed:?}");
    }

    #[test]
    fn a_long_stall_is_not_made_up_for() {
        let start = Instant::now();
        let mut rate = CloseRate::new(10.0, start);
        let closed = closes(&mut rate, start + ms(60_000));
        assert_eq!(closed, 2);
        let after = (1..=100).map(|tick| closes(&mut rate, start + ms(60_000 + tick * 100))).sum::<usize>();
        assert!((95..=100).contains(&after), "{after}");
    }

    #[test]
    fn who_defers_to_others_gets_what_they_leave() {
        let start = Instant::now();
        let mut rate = CloseRate::new(10.0, start);
        assert!(!rate.claim(start + ms(50), start + ms(350)));
        assert!(rate.claim(start + ms(100), start + ms(400)));
        assert!(!rate.claim(start + ms(101), start + ms(401)));
        assert!(rate.claim(start + ms(401), start + ms(401)), "the second was due at 200 ms");
    }

    #[test]
    fn few_are_remembered() {
        let start = Instant::now();
        let mut rate = CloseRate::new(100_000.0, start);
        for tick in 1..2_500 {
            closes(&mut rate, start + ms(tick));
            assert!(rate.recent.len() <= 102, "{}", rate.recent.len());
        }
    }

    proptest! {
        /// Whatever the rhythm in which workers look, and however many of them, no second has more than it may; and where no look
        /// comes late it has nearly as many.
        #[test]
        fn no_second_has_more_than_it_may(
            per_second in prop_oneof![0.2..5.0_f64, 5.0..500.0_f64],
            pauses in prop::collection::vec(prop_oneof![9 => 1..100_u64, 1 => 100..1_500_u64], 300),
        ) {
            let start = Instant::now();
            let (mut rate, mut now) = (CloseRate::new(per_second, start), start);
            let (mut closed, mut late) = (Vec::new(), Duration::ZERO);
            for pause in pauses {
                now += ms(pause);
                late += ms(pause).saturating_sub(ms(100));
                closed.extend(std::iter::repeat_n(now, closes(&mut rate, now)));
            }
            let most = per_second.ceil() as usize;
            for (from, first) in closed.iter().enumerate() {
                let within = closed[from..].iter().take_while(|at| **at - *first < SECOND).count();
                prop_assert!(within <= most, "{within} of {most}");
            }
            let in_time = (now - start).saturating_sub(late).as_secs_f64();
            prop_assert!(closed.len() as f64 >= in_time * per_second * 0.8 - 2.0, "{} in {in_time} s", closed.len());
        }
    }
}
