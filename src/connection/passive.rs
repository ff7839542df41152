//! What a connection says of its endpoint, for passive health.
//!
//! A connect that fails, and where `resetWithin` asks for it a reset (or in TLS a refusal) before any answer, speak against the endpoint; its first
//! byte speaks for it. What the client or this process does says nothing.

use std::time::{Duration, Instant};

use crate::routing::{Endpoint, EndpointState, Upstream};
use crate::telemetry::{Outcome, Side};

use super::live::Direction;
use super::{Context, Live};

/// An attempt connected. Where resets count, that alone is no success yet.
pub(super) fn connected(upstream: &Upstream, endpoint: &Endpoint) {
    if upstream.health.passive.as_ref().is_some_and(|check| check.reset_within.is_zero()) {
        endpoint.state.ejection.succeeded();
    }
}

/// Something failed; it counts if that was the endpoint's doing.
pub(super) fn failed(context: &Context, upstream: &Upstream, state: &EndpointState, outcome: Outcome) {
    let Some(check) = &upstream.health.passive else { return };
    if outcome.side() == Side::Upstream && state.ejection.failed(outcome.label(), check.consecutive_failures)
    {
        context.verdicts.suspect(&upstream.name);
    }
}

/// A connection that had an endpoint has ended, as its relay saw it.
pub(super) fn ended(context: &Context, live: &Live, connected: Option<Instant>, outcome: Outcome) {
    let (Some(upstream), Some(state), Some(connected)) = (live.upstream(), live.endpoint_state(), connected)
    else {
        return;
    };
    let Some(check) = &upstream.health.passive else { return };
    // The first byte has told already.
    if check.reset_within.is_zero() || live.first_byte(Direction::Sent).is_some() {
        return;
    }
    // Whoever speaks TLS has sent something: that is no question yet where TLS ends here.
    let has_sent = match live.is_secure(Side::Downstream) {
        true => live.bytes(Direction::Received) > 0,
        false => live.first_byte(Direction::Received).is_some(),
    };
    let has_asked = has_sent || live.ended_first() != Some(Side::Downstream);
    let outcome = live.verdict().unwrap_or(outcome);
    match judge(outcome, has_asked, connected.elapsed(), check.reset_within) {
        Some(true) => state.ejection.succeeded(),
        Some(false) => failed(context, upstream, state, outcome),
        None => {}
    }
}

/// Whether a connection without any byte of the endpoint speaks for it or against it. `has_asked`: no client has left before it
/// had sent anything.
fn judge(outcome: Outcome, has_asked: bool, lasted: Duration, reset_within: Duration) -> Option<bool> {
    match outcome {
        _ if lasted >= reset_within => Some(true),
        // In TLS 1.3 an endpoint says only after the handshake that it does not accept its client.
        Outcome::UpstreamReset | Outcome::UpstreamTlsError | Outcome::UpstreamTruncated if has_asked => {
            Some(false)
        }
        // Who leaves without a question was given no answer: balancers in front look like that whether a port is open.
        Outcome::DownstreamClosed | Outcome::UpstreamClosed if has_asked => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reset_that_comes_early_and_of_itself_speaks_against_it() {
        let within = Duration::from_millis(100);
        let (early, late) = (Duration::from_millis(99), Duration::from_millis(100));
        let (reset, client) = (Outcome::UpstreamReset, Outcome::DownstreamReset);
        for (outcome, has_asked, lasted, expected) in [
            (reset, true, early, Some(false)),
            (reset, true, late, Some(true)),
            (reset, false, early, None),
            (Outcome::UpstreamTlsError, true, early, Some(false)),
            (Outcome::UpstreamTruncated, true, early, Some(false)),
            (Outcome::UpstreamTruncated, false, early, None),
            (Outcome::DownstreamTruncated, true, early, None),
            (client, true, early, None),
            (client, true, late, Some(true)),
            (Outcome::IdleTimeout, true, early, None),
            (Outcome::Drain, true, early, None),
            (Outcome::Internal, true, early, None),
            (Outcome::DownstreamClosed, true, early, Some(true)),
            (Outcome::DownstreamClosed, false, early, None),
            (Outcome::DownstreamClosed, false, late, Some(true)),
            (Outcome::UpstreamClosed, true, early, Some(true)),
            (Outcome::UpstreamClosed, false, early, None),
        ] {
            let judged = judge(outcome, has_asked, lasted, within);
            assert_eq!(judged, expected, "{outcome:?} {has_asked} {lasted:?}");
        }
    }
}
