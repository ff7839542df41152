//! Whether an attempt failed only because others before it, or a wait, had used up the time of its connection.
//!
//! Such a failure says nothing of the endpoint: it would have had more time as the first one.

use std::time::{Duration, Instant};

use crate::routing::Upstream;
use crate::telemetry::Outcome;

/// Of an attempt that has failed.
pub(super) fn was(
    outcome: Outcome,
    started: Instant,
    ended: Instant,
    deadline: Instant,
    upstream: &Upstream,
) -> bool {
    let whole = whole(upstream.retry.per_retry_timeout, upstream.timeouts.connect);
    is_timeout(outcome) && ended >= deadline && is_too_little(deadline.duration_since(started), whole)
}

fn is_timeout(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::ConnectTimeout | Outcome::TlsUpstreamTimeout)
}

/// What an attempt has that is the first.
fn whole(per_attempt: Option<Duration>, connect: Duration) -> Duration {
    per_attempt.map_or(connect, |per_attempt| per_attempt.min(connect))
}

/// A tenth less is as good as all: the ends of the attempts before, and pauses between rounds, come a little late.
fn is_too_little(had: Duration, whole: Duration) -> bool {
    had < whole - whole / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_first_has_all_and_who_comes_late_too_little() {
        for (per_attempt, connect, had, expected) in [
            // The only one, or the first of several.
            (None, ms(600), ms(600), false),
            (Some(ms(500)), ms(600), ms(600), false),
            (Some(ms(900)), ms(600), ms(600), false),
            (None, ms(600), ms(100), true),
            (Some(ms(500)), ms(600), ms(100), true),
            (Some(ms(500)), ms(600), Duration::ZERO, true),
            (Some(ms(900)), ms(600), ms(400), true),
            // Three times a second are three seconds, and the third is a little late.
            (Some(ms(1000)), ms(3000), ms(960), false),
            (Some(ms(1000)), ms(3000), ms(899), true),
            // Who is second and has all of its own time.
            (Some(ms(500)), ms(3000), ms(2500), false),
        ] {
            let judged = is_too_little(had, whole(per_attempt, connect));
            assert_eq!(judged, expected, "{per_attempt:?} {connect:?} {had:?}");
        }
    }

    #[test]
    fn only_who_does_not_answer_runs_out_of_time() {
        let timeouts: Vec<Outcome> =
            Outcome::ALL.into_iter().filter(|outcome| is_timeout(*outcome)).collect();
        assert_eq!(timeouts, [Outcome::ConnectTimeout, Outcome::TlsUpstreamTimeout]);
    }
}
