//! Spinning before sleeping (`workers.busyPoll`): after an event the loop looks for the next one for a while and does not
//! wait for it. To fall asleep and to be woken takes longer than most answers of a near endpoint.
//!
//! What wakes a worker is an event, and so is whatever makes a task run. What is spent on looking in vain is no work of the
//! worker's, and is summed up apart.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

thread_local! {
    /// How often tasks of this thread have run.
    static RUNS: Cell<u64> = const { Cell::new(0) };
    static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// How long this thread has looked for events in vain, without sleeping.
pub(crate) fn spent() -> Duration {
    SPENT.get()
}

pin_project! {
    /// A task whose runs are counted.
    pub(super) struct Counted<F> {
        #[pin]
        task: F,
    }
}

impl<F> Counted<F> {
    pub(super) fn new(task: F) -> Self {
        Self { task }
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        RUNS.set(RUNS.get().wrapping_add(1));
        self.project().task.poll(context)
    }
}

/// One thread's loop, as far as sleeping goes.
pub(super) struct Spin {
    time: Duration,
    until: Instant,
    runs: u64,
    slept: bool,
    /// Processor time of this thread at the last look, if that was in vain.
    vain_at: Option<Duration>,
}

impl Spin {
    pub(super) fn new(time: Duration) -> Self {
        Self { time, until: Instant::now(), runs: 0, slept: true, vain_at: None }
    }

    /// To be called once per turn, before the tasks run: whether the loop is not to wait for events after them.
    pub(super) fn turn(&mut self) -> bool {
        let (spins, in_vain) = self.look(RUNS.get(), Instant::now(), thread_cpu);
        SPENT.set(SPENT.get() + in_vain);
        spins
    }

    /// The same of a given number of runs and time, and how much processor time was spent in vain since the last look. That is read
    /// only where nothing has happened, so that who has work does not wait for it.
    fn look(&mut self, runs: u64, now: Instant, cpu: impl FnOnce() -> Duration) -> (bool, Duration) {
        let is_vain = runs == self.runs && !self.slept;
        if !is_vain {
            self.until = now + self.time;
        }
        let spins = now < self.until;
        let vain_at = is_vain.then(cpu);
        let spent = vain_at.zip(self.vain_at).map(|(now, before)| now.saturating_sub(before));
        (self.runs, self.slept, self.vain_at) = (runs, !spins, vain_at);
        (spins, spent.unwrap_or_default())
    }
}

/// Processor time of this thread so far.
pub(crate) fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_spins_for_a_while_after_each_event_and_then_sleeps() {
        let start = Instant::now();
        let mut spin = Spin::new(Duration::from_micros(50));
        for (micros, runs, expected) in [
            // The beginning is an event.
            (0, 0, (true, 0)),
            (10, 1, (true, 0)),
            // Since when it looks in vain.
            (12, 1, (true, 0)),
            (30, 1, (true, 18)),
            (59, 1, (true, 29)),
            (60, 1, (false, 1)),
            // It slept and was woken. What its tasks did since then counts only in the next turn.
            (900, 1, (true, 0)),
            (905, 3, (true, 0)),
            (906, 3, (true, 0)),
            (954, 3, (true, 48)),
            (955, 3, (false, 1)),
        ] {
            let time = Duration::from_micros(micros);
            let (spins, spent) = spin.look(runs, start + time, || time);
            assert_eq!((spins, spent.as_micros()), expected, "at {micros}");
        }
    }
}
