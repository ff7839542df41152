//! Counts what the clients saw, and makes the report of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::load::{Aim, Failure, Served};
use crate::pace;
use crate::report::{Failures, Held, Latency, Report, Second, Target};

const SAMPLES_MAX: usize = 8;
const SECONDS_MAX: usize = 300;

/// Behind a lock that one thread takes: the HTTP side reads while the clients write, on the same runtime.
pub(crate) struct Tally(Mutex<State>);

struct State {
    since: u64,
    targets: BTreeMap<String, Counts>,
}

#[derive(Default)]
struct Counts {
    /// What is reported as it is counted.
    target: Target,
    latencies: Latencies,
    seconds: VecDeque<Second>,
}

impl Tally {
    pub(crate) fn new(aims: &[Aim]) -> Self {
        let targets = aims.iter().map(|aim| {
            let held = Held { wanted: aim.held, ..Held::default() };
            let target = Target { address: aim.address.to_string(), held, ..Target::default() };
            (aim.name.clone(), Counts { target, ..Counts::default() })
        });
        Self(Mutex::new(State { since: pace::now(), targets: targets.collect() }))
    }

    /// Counts from zero: only what is begun from now on, and what is held goes on being held.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        state.since = pace::now();
        for counts in state.targets.values_mut() {
            let old = std::mem::take(counts);
            let Held { wanted, now, pods, .. } = old.target.held;
            let held = Held { wanted, now, pods, ..Held::default() };
            counts.target = Target { address: old.target.address, held, ..Target::default() };
        }
    }

    pub(crate) fn report(&self) -> Report {
        let state = self.state();
        let now = pace::now();
        let targets =
            state.targets.iter().map(|(name, counts)| (name.clone(), counts.report(state.since, now)));
        Report { now, since: state.since, targets: targets.collect() }
    }

    pub(crate) fn attempted(&self, target: &str) {
        self.count(target, |counts, now, _| {
            counts.target.attempted += 1;
            counts.second(now).attempted += 1;
        });
    }

    pub(crate) fn succeeded(&self, target: &str, served: &Served) {
        self.count(target, |counts, now, since| {
            if served.at.saturating_sub(served.after) < since {
                return;
            }
            counts.target.ok += 1;
            counts.second(now).ok += 1;
            counts.target.untidy_ends += u64::from(served.is_untidy);
            *counts.target.pods.entry(served.pod.clone()).or_default() += 1;
            counts.latencies.add(served.took);
            let gap = now.saturating_sub(counts.target.last_ok.unwrap_or(since));
            counts.target.longest_gap = counts.target.longest_gap.max(gap);
            counts.target.last_ok = Some(now);
        });
    }

    pub(crate) fn failed(&self, target: &str, failure: Failure) {
        self.count(target, |counts, now, since| {
            let begin = failure.sample.at.saturating_sub(failure.sample.after);
            if begin < since {
                return;
            }
            counts.target.failed += 1;
            counts.second(now).failed += 1;
            let target = &mut counts.target;
            target.first_failed_begin = Some(target.first_failed_begin.unwrap_or(begin).min(begin));
            target.last_failed_begin = target.last_failed_begin.max(Some(begin));
            note(&mut counts.target.failures, failure);
        });
    }

    pub(crate) fn held(&self, target: &str, pod: &str) {
        self.count(target, |counts, _, _| {
            let held = &mut counts.target.held;
            held.now += 1;
            held.opened += 1;
            *held.pods.entry(pod.to_owned()).or_default() += 1;
        });
    }

    pub(crate) fn not_held(&self, target: &str, failure: Failure) {
        self.count(target, |counts, _, _| note(&mut counts.target.held.not_opened, failure));
    }

    pub(crate) fn held_ended(&self, target: &str, end: Failure) {
        self.count(target, |counts, now, _| {
            counts.second(now).held_ended += 1;
            let held = &mut counts.target.held;
            held.now -= 1;
            let pod = end.sample.pod.clone();
            if let Some(live) = held.pods.get_mut(&pod) {
                *live -= 1;
                held.pods.retain(|_, live| *live > 0);
            }
            *held.ended_by_pod.entry(end.kind.to_owned()).or_default().entry(pod).or_default() += 1;
            note(&mut held.ended, end);
        });
    }

    fn count(&self, target: &str, count: impl FnOnce(&mut Counts, u64, u64)) {
        let mut state = self.state();
        let since = state.since;
        if let Some(counts) = state.targets.get_mut(target) {
            count(counts, pace::now(), since);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while counting")
    }
}

fn note(failures: &mut BTreeMap<String, Failures>, failure: Failure) {
    let of_kind = failures.entry(failure.kind.to_owned()).or_default();
    of_kind.count += 1;
    of_kind.slowest = of_kind.slowest.max(failure.sample.after);
    if of_kind.samples.len() < SAMPLES_MAX {
        of_kind.samples.push(failure.sample);
    }
}

impl Counts {
    fn second(&mut self, now: u64) -> &mut Second {
        let second = now / 1000;
        // A clock that was set back counts into the newest.
        if self.seconds.back().is_none_or(|last| last.second < second) {
            if self.seconds.len() == SECONDS_MAX {
                self.seconds.pop_front();
            }
            self.seconds.push_back(Second { second, ..Second::default() });
        }
        self.seconds.back_mut().expect("one was pushed if there was none")
    }

    fn report(&self, since: u64, now: u64) -> Target {
        let mut target = self.target.clone();
        target.latency = self.latencies.summary();
        target.seconds = self.seconds.iter().cloned().collect();
        let gap = now.saturating_sub(target.last_ok.unwrap_or(since));
        target.longest_gap = target.longest_gap.max(gap);
        target
    }
}

/// A histogram whose buckets are at most a sixteenth wider than the one before.
#[derive(Default)]
struct Latencies {
    buckets: BTreeMap<u32, u64>,
    count: u64,
    max: Duration,
}

impl Latencies {
    fn add(&mut self, latency: Duration) {
        let microseconds = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX).max(16);
        let shift = 27 - microseconds.leading_zeros();
        // The upper end, so that no percentile flatters.
        let bucket = (((microseconds >> shift) + 1) << shift).max(microseconds);
        *self.buckets.entry(bucket).or_default() += 1;
        self.count += 1;
        self.max = self.max.max(latency);
    }

    fn summary(&self) -> Latency {
        let max = self.max.as_secs_f64() * 1000.0;
        Latency { p50: self.quantile(0.5).min(max), p99: self.quantile(0.99).min(max), max }
    }

    /// Milliseconds.
    fn quantile(&self, quantile: f64) -> f64 {
        let wanted = (self.count as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        let bucket = self.buckets.iter().find(|(_, count)| {
            seen += **count;
            seen >= wanted
        });
        bucket.map_or(0.0, |(microseconds, _)| f64::from(*microseconds) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Sample;

    fn aim() -> Aim {
        "web=192.0.2.1:80,rate=10,held=3".parse().unwrap()
    }

    fn failure(kind: &'static str) -> Failure {
        Failure { kind, sample: Sample { at: pace::now(), pod: "a".to_owned(), ..Sample::default() } }
    }

    fn served() -> Served {
        Served {
            at: pace::now() + 2,
            after: 2,
            took: Duration::from_millis(2),
            pod: "a".to_owned(),
            is_untidy: false,
        }
    }

    #[test]
    fn failures_are_dated_by_their_begin() {
        let tally = Tally::new(&[aim()]);
        tally.succeeded("web", &served());
        let now = pace::now();
        for (at, after) in [(1000, 10), (1100, 500), (1200, 0), (1300, 2000)] {
            let sample = Sample { at: now + at, after, ..Sample::default() };
            tally.failed("web", Failure { kind: "reset", sample });
        }
        let target = tally.report().targets["web"].clone();
        assert_eq!(
            (target.first_failed_begin, target.last_failed_begin),
            (Some(now + 600), Some(now + 1200))
        );
        // The last was begun before the clients' counting was.
        assert_eq!((target.ok, target.failed, target.failures["reset"].count), (1, 3, 3));
        assert_eq!(target.failures["reset"].slowest, 500);
    }

    #[test]
    fn a_reset_keeps_what_is_held() {
        let tally = Tally::new(&[aim()]);
        tally.held("web", "a");
        tally.held("web", "a");
        tally.failed("web", failure("refused"));
        tally.held_ended("web", failure("announced"));
        tally.reset();
        let target = tally.report().targets["web"].clone();
        assert_eq!((target.held.wanted, target.held.now, target.held.pods["a"]), (3, 1, 1));
        assert_eq!((target.failed, target.held.ended.len(), target.address.as_str()), (0, 0, "192.0.2.1:80"));
    }

    #[test]
    fn latencies_are_within_a_sixteenth() {
        let mut latencies = Latencies::default();
        for milliseconds in 1..=100 {
            latencies.add(Duration::from_millis(milliseconds));
        }
        let summary = latencies.summary();
        assert!((50.0..=53.2).contains(&summary.p50), "{summary:?}");
        assert!((99.0..=100.0).contains(&summary.p99), "{summary:?}");
        assert!((summary.max - 100.0).abs() < 0.01, "{summary:?}");
    }
}
