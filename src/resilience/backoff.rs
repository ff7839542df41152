//! How long to wait before the next round of attempts: exponential, with full jitter.
//!
//! Full jitter (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015) spreads the
//! clients of a failed endpoint evenly instead of letting them return in step.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The waits of one connection, in order; it never ends, the number of attempts does.
#[derive(Debug)]
pub struct Backoff {
    ceilings: ExponentialBackoff,
    max_interval: Duration,
}

impl Backoff {
    pub fn new(base_interval: Duration, max_interval: Duration) -> Self {
        let ceilings = ExponentialBuilder::new()
            .with_min_delay(base_interval)
            .with_max_delay(max_interval)
            .with_factor(2.0)
            .without_max_times()
            .build();
        Self { ceilings, max_interval }
    }

    /// The next wait: anything up to a ceiling that doubles each time.
    pub fn next_wait(&mut self, random: &mut fastrand::Rng) -> Duration {
        let ceiling = self.ceilings.next().unwrap_or(self.max_interval).min(self.max_interval);
        ceiling.mul_f64(random.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_under_a_ceiling_that_doubles_up_to_the_maximum() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..100 {
            let mut backoff = Backoff::new(Duration::from_millis(25), Duration::from_millis(80));
            for ceiling in [25, 50, 80, 80, 80] {
                let wait = backoff.next_wait(&mut random);
                assert!(wait <= Duration::from_millis(ceiling), "{wait:?} is above {ceiling} ms");
            }
        }
    }

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        let mut random = fastrand::Rng::with_seed(1);
        let base = Duration::from_secs(1);
        let waits: Vec<Duration> =
            (0..1_000).map(|_| Backoff::new(base, base).next_wait(&mut random)).collect();
        assert!(waits.iter().any(|wait| *wait < base / 10) && waits.iter().any(|wait| *wait > base * 9 / 10));
    }
}
