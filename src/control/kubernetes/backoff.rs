//! The pause after a failure towards the API server.

use std::time::Duration;

use crate::resilience::Backoff;

const FIRST: Duration = Duration::from_millis(200);
/// The longest pause: an API server that is back is noticed within a few seconds, also after an hour. With full jitter,
/// a thousand replicas ask it no more than a thousand times a second between them.
const LONGEST: Duration = Duration::from_secs(2);

/// Grows with each failure in a row.
pub(super) struct Pause {
    backoff: Backoff,
    random: fastrand::Rng,
}

impl Default for Pause {
    fn default() -> Self {
        Self { backoff: Backoff::new(FIRST, LONGEST), random: fastrand::Rng::new() }
    }
}

impl Pause {
    pub(super) async fn wait(&mut self) {
        // Not less: full jitter may say no time at all, and a server that refuses must not be asked in a loop.
        let wait = self.backoff.next_wait(&mut self.random).max(FIRST / 4);
        tokio::time::sleep(wait).await;
    }

    pub(super) fn reset(&mut self) {
        self.backoff = Backoff::new(FIRST, LONGEST);
    }
}
