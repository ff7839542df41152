//! Tells an endpoint how long an attempt took.

use std::time::Instant;

use crate::routing::Endpoint;
use crate::telemetry::{Outcome, Side};

pub(super) fn succeeded(endpoint: &Endpoint, started: Instant) {
    let now = Instant::now();
    endpoint.state.latency.connected(now.saturating_duration_since(started), now);
}

/// Only what the endpoint did counts, as for its breaker.
pub(super) fn failed(endpoint: &Endpoint, started: Instant, outcome: Outcome) {
    if outcome.side() == Side::Upstream {
        let now = Instant::now();
        endpoint.state.latency.failed(now.saturating_duration_since(started), now);
    }
}

/// Another attempt was faster: this one would have taken longer.
pub(super) fn outpaced(endpoint: &Endpoint, started: Instant) {
    let now = Instant::now();
    endpoint.state.latency.exceeds(now.saturating_duration_since(started), now);
}
