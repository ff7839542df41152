//! Tells an endpoint's breaker how an attempt went, and the log when that makes a difference.
//!
//! A breaker that opens again after a failed probe says nothing new, so that a dead endpoint costs two lines.

use std::time::Instant;

use crate::resilience::Permit;
use crate::routing::{Endpoint, Upstream};
use crate::telemetry::{Outcome, Side};

/// Whether some endpoint may be tried by then: one that has a breaker, as all that could be chosen have.
pub(super) fn may_permit_by(upstream: &Upstream, deadline: Instant) -> bool {
    let mut breakers = upstream.endpoints.iter().filter_map(|endpoint| endpoint.breaker.as_ref());
    breakers.any(|breaker| breaker.may_permit_by(deadline))
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
    let is_news = !permit.is_probe();
    if permit.failed(Instant::now()) && is_news {
        tracing::warn!(
            upstream = %upstream.name,
            endpoint = %endpoint.address,
            last = outcome.label(),
            "the breaker is open: too many attempts in a row failed; connections go to other endpoints until a probe \
             succeeds",
        );
    }
}
