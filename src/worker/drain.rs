//! The end of a worker: listeners close, idle connections first and paced, then the rest, then the worker.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::connection::Live;
use crate::shutdown::Phase;
use crate::telemetry::Outcome;

use super::Worker;
use super::runtime;

/// How often the worker looks which connections to close next.
const TICK: Duration = Duration::from_millis(25);
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
    worker.slots.close_all(worker);
    // Looked at anew each time: a second signal brings the deadline forward.
    while let Phase::Draining { since, until } = worker.drain.phase() {
        let now = Instant::now();
        if now >= until || is_done(worker) {
            break;
        }
        close_idle(worker, &Pace { since, until }, now);
        runtime::sleep(TICK.min(until - now)).await;
    }
    cut(worker).await;
}

fn is_done(worker: &Worker) -> bool {
    worker.context.registry.len() == 0 && worker.slots.accepting.get() == 0
}

fn close_idle(worker: &Worker, pace: &Pace, now: Instant) {
    let coarse = crate::connection::CoarseTime::now();
    let mut idle: Vec<(Duration, Rc<Live>)> = worker
        .context
        .registry
        .all()
        .into_iter()
        .map(|live| (live.idle_for(coarse), live))
        .filter(|(idle_for, _)| *idle_for >= pace.idle_after())
        .collect();
    idle.sort_by_key(|(idle_for, _)| std::cmp::Reverse(*idle_for));
    for (_, live) in idle.iter().take(pace.share(idle.len(), now)) {
        live.end(Outcome::Drain);
    }
}

/// What is left when the time is over.
async fn cut(worker: &Worker) {
    let deadline = Instant::now() + CUT_GRACE;
    while worker.context.registry.len() > 0 && Instant::now() < deadline {
        for live in worker.context.registry.all() {
            live.end(Outcome::Drain);
        }
        runtime::sleep(TICK).await;
    }
}

/// How fast idle connections are closed: evenly over the first half of the time there is, so that their clients do not
/// all come back to one other replica at once.
struct Pace {
    since: Instant,
    until: Instant,
}

impl Pace {
    /// A connection counts as idle after this long without a byte.
    fn idle_after(&self) -> Duration {
        ((self.until - self.since) / 10).min(Duration::from_secs(1))
    }

    /// How many of `idle` connections to close at `now`.
    fn share(&self, idle: usize, now: Instant) -> usize {
        let half = self.since + (self.until - self.since) / 2;
        let ticks_left = half.saturating_duration_since(now).as_millis() / TICK.as_millis();
        idle.div_ceil(usize::try_from(ticks_left).unwrap_or(usize::MAX).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connections_are_spread_over_the_first_half() {
        let since = Instant::now();
        let pace = Pace { since, until: since + Duration::from_secs(10) };
        let mut idle = 1_000;
        let mut closed_by_quarter = 0;
        for tick in 0..200 {
            let share = pace.share(idle, since + TICK * tick);
            idle -= share;
            if tick < 100 {
                closed_by_quarter += share;
            }
        }
        assert_eq!(idle, 0, "all are closed after half of the time");
        assert!((400..=600).contains(&closed_by_quarter), "{closed_by_quarter} of 1000 after a quarter");
    }

    #[test]
    fn late_or_without_time_all_go_at_once() {
        let since = Instant::now();
        let pace = Pace { since, until: since };
        assert_eq!(pace.share(7, since), 7);
        assert_eq!(pace.share(0, since), 0);
    }
}
