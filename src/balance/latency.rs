//! How long an endpoint takes to be connected to and to answer: the decayed peak of each.
//!
//! What is slow counts at once, and is forgotten little by little while faster ones follow, or while none does (as in
//! Finagle's balancer of that name, `com.twitter.finagle.loadbalancer.PeakEwma`).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// After this long two thirds of what was are forgotten.
const DECAY: f32 = 10.0;
/// Faster ones are all the same: their differences are noise of the kernel.
const FASTEST: f32 = 100e-6;
/// What is left of a peak after a minute without another.
const REMEMBERED: f32 = 0.0025;
/// A failed attempt counts as one that took so many times as long as it was thought to take, ...
const PENALTY: f32 = 10.0;
/// ... and at least this long, in seconds, ...
const PENALTY_MIN: f32 = 10e-3;
/// ... but not longer than this, unless it did take longer.
const PENALTY_MAX: f32 = 10.0;

/// Written by every attempt, and by the first byte of every connection; read by every choice.
#[derive(Debug, Default)]
pub struct Latency {
    /// What times below count from: the first attempt.
    epoch: OnceLock<Instant>,
    /// Each a peak in seconds (the bits of an `f32`, above), and when, in milliseconds, it was that. 0: nothing is known.
    connect: AtomicU64,
    first_byte: AtomicU64,
}

impl Latency {
    /// A connect took this long.
    pub fn connected(&self, took: Duration, now: Instant) {
        self.enter(&self.connect, now, |peak| decayed(peak, took));
    }

    /// From a client's first byte to the endpoint's it took this long.
    pub fn answered(&self, took: Duration, now: Instant) {
        self.enter(&self.first_byte, now, |peak| decayed(peak, took));
    }

    /// An attempt was given up after this long.
    pub fn exceeds(&self, took: Duration, now: Instant) {
        self.enter(&self.connect, now, |peak| took.as_secs_f32().max(peak.map_or(FASTEST, Peak::now)));
    }

    /// An attempt failed after this long, and by the endpoint's doing.
    pub fn failed(&self, took: Duration, now: Instant) {
        self.enter(&self.connect, now, |peak| {
            let expected = peak.map_or(0.0, Peak::now);
            (expected * PENALTY).clamp(PENALTY_MIN, PENALTY_MAX).max(took.as_secs_f32())
        });
    }

    /// How long a client waits for it, in seconds: for the connection, and then for the first byte as far as that is known.
    /// `None`: it was never tried.
    pub fn seconds(&self, now: Instant) -> Option<f32> {
        let first_byte = self.peak(&self.first_byte, now).map_or(0.0, Peak::now);
        Some(self.peak(&self.connect, now)?.now() + first_byte)
    }

    /// How long connecting takes, in seconds. `None`: nothing is known, or nothing any more.
    pub fn connect_seconds(&self, now: Instant) -> Option<f32> {
        self.peak(&self.connect, now).filter(Peak::is_remembered).map(Peak::now)
    }

    /// How long its first byte takes, in seconds; in the same way.
    pub fn first_byte_seconds(&self, now: Instant) -> Option<f32> {
        self.peak(&self.first_byte, now).filter(Peak::is_remembered).map(Peak::now)
    }

    fn peak(&self, cell: &AtomicU64, now: Instant) -> Option<Peak> {
        let epoch = self.epoch.get()?;
        unpack(cell.load(Ordering::Relaxed), millis_since(*epoch, now))
    }

    fn enter(&self, cell: &AtomicU64, now: Instant, next: impl Fn(Option<Peak>) -> f32) {
        let millis = millis_since(*self.epoch.get_or_init(|| now), now);
        let update = |word| Some(pack(next(unpack(word, millis)), millis));
        let _always_ok = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }
}

/// The peak once something has taken this long.
fn decayed(peak: Option<Peak>, took: Duration) -> f32 {
    let took = took.as_secs_f32().max(FASTEST);
    match peak {
        Some(Peak { was, left }) if took < was => was * left + took * (1.0 - left),
        _ => took,
    }
}

#[derive(Debug, Clone, Copy)]
struct Peak {
    was: f32,
    /// The part of it that is not forgotten yet.
    left: f32,
}

impl Peak {
    fn now(self) -> f32 {
        (self.was * self.left).max(FASTEST)
    }

    /// Not when it is so old that the fastest is all that is left of whatever it was.
    fn is_remembered(&self) -> bool {
        self.left > REMEMBERED
    }
}

fn pack(seconds: f32, millis: u32) -> u64 {
    u64::from(seconds.to_bits()) << 32 | u64::from(millis)
}

#[expect(clippy::cast_possible_truncation, reason = "each is one half of the bits")]
fn unpack(cell: u64, millis: u32) -> Option<Peak> {
    let was = f32::from_bits((cell >> 32) as u32);
    // Another thread may have been here with a later time: no more than nothing is forgotten then. It counts round
    // after 49 days, which costs a peak that is as old its decay.
    let age = millis.wrapping_sub(cell as u32).cast_signed().max(0);
    #[expect(clippy::cast_precision_loss, reason = "far more precise than what decays")]
    let left = (-(age as f32) / 1000.0 / DECAY).exp();
    (was > 0.0).then_some(Peak { was, left })
}

#[expect(clippy::cast_possible_truncation, reason = "counts round, and differences are right all the same")]
fn millis_since(epoch: Instant, now: Instant) -> u32 {
    now.saturating_duration_since(epoch).as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn is_near(seconds: Option<f32>, expected: f32) -> bool {
        seconds.is_some_and(|seconds| (seconds / expected - 1.0).abs() < 0.01)
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_little_by_little() {
        let (latency, start) = (Latency::default(), Instant::now());
        assert_eq!(latency.seconds(start), None);
        latency.connected(MS, start);
        latency.connected(100 * MS, start + MS);
        assert!(is_near(latency.seconds(start + MS), 0.1));
        assert!(is_near(latency.seconds(start + Duration::from_secs(10)), 0.0368), "while there are none");
        // And while there are faster ones: after ten seconds as much of them is in it as is gone of the peak.
        latency.connected(MS, start + Duration::from_secs(10));
        assert!(is_near(latency.seconds(start + Duration::from_secs(10)), 0.0368 + 0.000_632));
        assert!(is_near(latency.seconds(start + Duration::from_secs(3600)), FASTEST));
    }

    #[test]
    fn who_answers_late_is_slow_too() {
        let (latency, start) = (Latency::default(), Instant::now());
        latency.answered(50 * MS, start);
        assert_eq!(latency.seconds(start), None, "nobody ever connected");
        latency.connected(MS, start);
        assert!(is_near(latency.seconds(start), 0.051));
        assert!(is_near(latency.connect_seconds(start), 0.001));
        assert!(is_near(latency.first_byte_seconds(start), 0.05));
        let later = start + Duration::from_secs(61);
        assert!(latency.seconds(later).is_some(), "it still is compared by what is left");
        assert_eq!((latency.connect_seconds(later), latency.first_byte_seconds(later)), (None, None));
    }

    #[test]
    fn what_was_given_up_took_longer() {
        let (latency, now) = (Latency::default(), Instant::now());
        latency.exceeds(10 * MS, now);
        latency.exceeds(MS, now);
        assert!(is_near(latency.seconds(now), 0.01));
    }

    #[test]
    fn failures_in_a_row_weigh_more_and_more() {
        let (latency, now) = (Latency::default(), Instant::now());
        let after = |took: Duration| {
            latency.failed(took, now);
            latency.seconds(now)
        };
        for expected in [0.01, 0.1, 1.0, 10.0, 10.0] {
            assert!(is_near(after(MS), expected), "{expected}");
        }
        assert!(is_near(after(15_000 * MS), 15.0), "it did take so long");
        assert!(is_near(after(MS), 10.0), "and ten seconds are the most that a guess is worth");
        latency.connected(MS, now + Duration::from_secs(10));
        assert!(is_near(latency.seconds(now + Duration::from_secs(10)), 3.68));
    }

    proptest! {
        /// Whatever comes, in whatever order of times: between the fastest and the slowest that was.
        #[test]
        fn stays_between_what_was(connects in prop::collection::vec((1_u64..5_000_000, 0_u64..100_000), 1..50)) {
            let (latency, start) = (Latency::default(), Instant::now());
            let mut slowest = FASTEST;
            for (micros, millis) in connects {
                let (took, now) = (Duration::from_micros(micros), start + Duration::from_millis(millis));
                latency.connected(took, now);
                slowest = slowest.max(took.as_secs_f32());
                let seconds = latency.seconds(now).unwrap();
                prop_assert!((FASTEST..=slowest * 1.001).contains(&seconds), "{seconds} of {slowest}");
            }
        }
    }
}
