//! Tells an endpoint's breaker how an attempt went, and the log when that makes a difference.
//!
//! A breaker that opens again after a failed probe says nothing new, so that a dead endpoint costs two lines.

use std::time::Instant;

use crate::resilience::{Breaker, BreakerState, Permit};
use crate::routing::{Endpoint, Upstream};
use crate::telemetry::{Outcome, Side};

/// Whether some endpoint may be tried by then: one that has a breaker, as all that could be chosen have. When none was let be tried
/// for as long as a connection may take, those who come learn at once that there is none.
pub(super) fn may_permit_by(upstream: &Upstream, deadline: Instant) -> bool {
    let (now, patience) = (Instant::now(), upstream.timeouts.connect);
    breakers(upstream).any(|breaker| breaker.may_permit_by(deadline, now, patience))
}

/// Of the endpoints that may be chosen.
fn breakers(upstream: &Upstream) -> impl Iterator<Item = &Breaker> {
    let members = upstream.selection.all().filter_map(|index| upstream.endpoints.get(index));
    members.filter_map(|endpoint| {
        let breaker: &Breaker = endpoint.breaker.as_ref()?;
        Some(breaker)
    })
}

/// Whether that closed the breaker.
pub(super) fn succeeded(permit: Option<Permit<'_>>, upstream: &Upstream, endpoint: &Endpoint) -> bool {
    let closes = permit.is_some_and(Permit::succeeded);
    if closes {
        tracing::info!(
            upstream = %upstream.name,
            endpoint = %endpoint.address,
            "the breaker is closed: the endpoint can be connected to again",
        );
    }
    closes
}

/// Only what the endpoint did counts: a client that left and a lack of local ports say nothing of it.
pub(super) fn failed(permit: Option<Permit<'_>>, upstream: &Upstream, endpoint: &Endpoint, outcome: Outcome) {
    if outcome.side() != Side::Upstream {
        return;
    }
    let Some(permit) = permit else { return };
    let is_probe = permit.is_probe();
    let alone = is_probe && breakers(upstream).all(|breaker| breaker.state() != BreakerState::Closed);
    let now = Instant::now();
    let opens = if alone { permit.failed_alone(now) } else { permit.failed(now) };
    if opens && !is_probe {
        tracing::warn!(
            upstream = %upstream.name,
            endpoint = %endpoint.address,
            last = outcome.label(),
            "the breaker is open: too many attempts in a row failed; connections go to other endpoints until a probe \
             succeeds",
        );
    }
}
