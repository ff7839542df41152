//! Tells an endpoint's breaker how an attempt went, and the log when that makes a difference.
//!
//! A breaker that opens again after a failed probe says nothing new, so that a dead endpoint costs two lines.

use std::time::{Duration, Instant};

use crate::resilience::{Breaker, BreakerState, Permit};
use crate::routing::{Endpoint, Upstream};
use crate::telemetry::{Outcome, Side};

/// A breaker decides by a clock of its own, which it reads a moment after the attempt has failed.
const OWN_CLOCK: Duration = Duration::from_millis(1);

/// Whether some endpoint may be tried by then: one that has a breaker, as all that could be chosen have. When none was let be tried
/// for as long as a connection may take, those who come learn at once that there is none.
pub(super) fn may_permit_by(upstream: &Upstream, deadline: Instant) -> bool {
    let (now, patience) = (Instant::now(), upstream.timeouts.connect);
    breakers(upstream).any(|breaker| breaker.may_permit_by(deadline, now, patience))
}

/// When to look again for an endpoint to try: in the next round, or before that when an open time ends. All that was wrong may be
/// over by then, and the next round may be too late.
pub(super) fn next_look(upstream: &Upstream, next_round: Instant, now: Instant) -> Instant {
    let ends = breakers(upstream).filter_map(|breaker| breaker.open_until(now));
    ends.map(|end| end + OWN_CLOCK).fold(next_round, Instant::min)
}

/// Whether the time of this endpoint's breaker is over, so that it is to be probed however lately it has failed.
pub(super) fn awaits_probe(upstream: &Upstream, index: usize, now: Instant) -> bool {
    let breaker = upstream.endpoints.get(index).and_then(|endpoint| endpoint.breaker.as_ref());
    breaker.is_some_and(|breaker| breaker.awaits_probe(now))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::routing::{Findings, RouteTable, compile};

    /// Of three endpoints, each of which a failure closes to attempts for one to two seconds.
    fn upstream() -> Arc<Upstream> {
        let text = "listeners: [{name: a, address: \"127.0.0.1:1\"}]\n\
                    routes: [{name: a, listener: a, backendRefs: [{upstream: a}]}]\n\
                    upstreams: [{name: a, endpoints: [{address: \"127.0.0.1:2\"}, {address: \"127.0.0.1:3\"}, \
                    {address: \"127.0.0.1:4\"}], circuitBreaker: {perEndpoint: {consecutiveFailures: 1, openFor: \
                    {baseInterval: 2s, maxInterval: 2s}}}}]\n";
        let config = Config::parse(text, "test").unwrap();
        let table = compile(&config, &Findings::default(), &RouteTable::empty(), Instant::now());
        Arc::clone(&table.upstreams["a"])
    }

    #[test]
    fn a_pause_does_not_outlast_the_time_of_a_breaker() {
        let (upstream, start) = (upstream(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let round = at(60);
        let look = |now| next_look(&upstream, round, now);
        assert_eq!(look(start), round, "all are closed");
        let fail = |index: usize, now| {
            let breaker = upstream.endpoints[index].breaker.as_ref().unwrap();
            assert!(breaker.permit().unwrap().failed(now));
        };
        fail(0, at(1));
        fail(1, at(10));
        let (first, moment) = (look(at(1)), Duration::from_millis(2));
        assert!(first >= at(2) && first <= at(3) + moment, "{:?}", first - start);
        assert!(awaits_probe(&upstream, 0, first) && !awaits_probe(&upstream, 0, first - moment));
        assert!(!awaits_probe(&upstream, 1, first) && !awaits_probe(&upstream, 2, first));
        // Nobody came: it is not waited for again.
        let second = look(first);
        assert!(second >= at(11) && second <= at(12) + moment, "{:?}", second - start);
        assert_eq!(look(second), round);
        assert_eq!(
            next_look(&upstream, first - moment, at(1)),
            first - moment,
            "the next round comes before"
        );
    }
}
