//! The end of a worker: listeners close, idle connections first and paced, then the rest, then the worker.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::connection::{CoarseTime, Live};
use crate::shutdown::Phase;
use crate::telemetry::Outcome;

use super::{Worker, runtime, share};

/// How often the worker looks which connections to close next.
const TICK: Duration = Duration::from_millis(25);
/// The same with so many connections that looking at all of them is work.
const MANY: usize = 10_000;
const TICK_OF_MANY: Duration = Duration::from_millis(200);
/// A few idle connections are no crowd: they need not hold up the end of the process.
const LEAST_PER_SECOND: f64 = 1.0;
/// A cut connection's task ends within a turn of the loop; this is for the one that does not.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// Waits for the drain, and carries it out.
pub(super) async fn follow(worker: &Rc<Worker>) {
    loop {
        if let Phase::Draining { .. } = worker.drain.phase() {
            drain(worker).await;
            worker.end(Ok(()));
            return;
        }
        if !worker.drain.changed().await {
            return;
        }
    }
}

async fn drain(worker: &Rc<Worker>) {
    if let Phase::Draining { since, until } = worker.drain.phase() {
        worker.context.draining_since.set(Some(since));
        worker.slots.close_all(worker, until - since);
    }
    let mut pace = Pace::default();
    // Looked at anew each time: a second signal brings the deadline forward.
    while let Phase::Draining { since, until } = worker.drain.phase() {
        let now = Instant::now();
        if now >= until || is_done(worker) {
            break;
        }
        let tick = if worker.context.registry.len() > MANY { TICK_OF_MANY } else { TICK };
        let window = Window { since, until };
        let idle = idle_connections(worker, window.idle_after());
        for live in idle.iter().take(pace.share(idle.len(), tick, window.first_half_left(now))) {
            live.end(Outcome::Drain);
        }
        runtime::sleep(tick.min(until - now)).await;
    }
    cut(worker).await;
}

fn is_done(worker: &Worker) -> bool {
    worker.context.registry.len() == 0
        && worker.slots.accepting.get() == 0
        && worker.crew.has_nothing_waiting()
}

/// Those that may be closed before their time, the longest idle first. One that waits for its endpoint's answer is not
/// idle, however long that takes.
fn idle_connections(worker: &Worker, idle_after: Duration) -> Vec<Rc<Live>> {
    let now = CoarseTime::now();
    let mut idle = worker.context.registry.all();
    idle.retain(|live| !live.awaits_answer() && live.idle_for(now) >= idle_after);
    idle.sort_by_cached_key(|live| std::cmp::Reverse(live.idle_for(now)));
    idle
}

/// What is left when the time is over.
async fn cut(worker: &Worker) {
    let deadline = Instant::now() + CUT_GRACE;
    share::take_rest(worker);
    while worker.context.registry.len() > 0 && Instant::now() < deadline {
        for live in worker.context.registry.all() {
            live.end(Outcome::Drain);
        }
        runtime::sleep(TICK).await;
    }
}

/// The time that a drain has.
struct Window {
    since: Instant,
    until: Instant,
}

impl Window {
    /// A connection counts as idle after this long without a byte.
    fn idle_after(&self) -> Duration {
        ((self.until - self.since) / 10).min(Duration::from_secs(1))
    }

    fn first_half_left(&self, now: Instant) -> Duration {
        (self.since + (self.until - self.since) / 2).saturating_duration_since(now)
    }
}

/// How fast idle connections are closed: evenly over the first half of the time there is, so that their clients do not
/// all come back to one other replica at once.
#[derive(Default)]
struct Pace {
    /// Closings that are due, of which only whole ones can be done.
    due: f64,
}

impl Pace {
    /// How many of `idle` connections to close in this tick, with `left` of the time to close them in.
    fn share(&mut self, idle: usize, tick: Duration, left: Duration) -> usize {
        if left <= tick {
            return idle;
        }
        if idle == 0 {
            self.due = 0.0;
            return 0;
        }
        #[expect(clippy::cast_precision_loss, reason = "exact for more connections than there are ports")]
        let per_second = (idle as f64 / left.as_secs_f64()).max(LEAST_PER_SECOND);
        self.due += per_second * tick.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and idle + 1")]
        let whole = self.due.floor() as usize;
        self.due = self.due.fract();
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each of `idle` connections is closed, as the number of the tick, with 400 ticks in the first half.
    fn closed_at(mut idle: usize) -> Vec<u32> {
        let mut pace = Pace::default();
        let mut closed = Vec::new();
        for tick in 0..=400 {
            let share = pace.share(idle, TICK, TICK * (400 - tick)).min(idle);
            idle -= share;
            closed.extend(std::iter::repeat_n(tick, share));
        }
        assert_eq!(idle, 0, "all are closed after the first half");
        closed
    }

    #[test]
    fn many_are_spread_evenly_over_the_first_half() {
        for idle in [1_000, 60] {
            let closed = closed_at(idle);
            for (quarter, ticks) in [(1, 100), (2, 200), (3, 300)] {
                let share = closed.iter().filter(|tick| **tick < ticks).count() * 4;
                let even = idle * quarter;
                assert!(
                    share.abs_diff(even) <= 4 + idle / 50,
                    "{share} of {idle} x4 after quarter {quarter}"
                );
            }
        }
    }

    #[test]
    fn a_few_go_one_a_second() {
        assert_eq!(closed_at(4), [39, 79, 119, 159]);
    }

    #[test]
    fn late_all_go_at_once() {
        assert_eq!(Pace::default().share(7, TICK, Duration::ZERO), 7);
        assert_eq!(Pace::default().share(0, TICK, Duration::ZERO), 0);
    }
}
