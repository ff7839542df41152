//! Connections, attempts and endpoints by upstream.

use std::fmt;
use std::time::Instant;

use crate::resilience::BreakerState;
use crate::routing::{Rejection, Upstream};
use crate::telemetry::UpstreamLedger;

use super::super::{Family, Kind, Scrape, Unit};
use super::{bytes, outcomes};

pub(in crate::control::metrics) static UPSTREAMS: &[Family] = &[
    Family {
        name: "upstream_connections",
        kind: Kind::Counter,
        unit: None,
        labels: &["upstream", "outcome", "side"],
        help: "Connections that ended and had been sent to this upstream, connected or not, by how and by whose doing.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, ledger| outcomes(samples, &upstream.name, &ledger.tally))
        },
    },
    Family {
        name: "upstream",
        kind: Kind::Counter,
        unit: Some(Unit::Bytes),
        labels: &["upstream", "direction"],
        help: "Bytes of connections that ended.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, ledger| bytes(samples, &upstream.name, &ledger.tally))
        },
    },
    Family {
        name: "upstream_active_connections",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream"],
        help: "Live connections and attempts, of all its endpoints, those that leave included.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| {
                let endpoints = upstream.endpoints.iter().chain(&upstream.leaving);
                let active: usize = endpoints.map(|endpoint| endpoint.state.active()).sum();
                samples.put(&[&upstream.name], active)
            })
        },
    },
    Family {
        name: "upstream_retries",
        kind: Kind::Counter,
        unit: None,
        labels: &["upstream"],
        help: "Attempts after the first of their connection.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, ledger| samples.put(&[&upstream.name], ledger.retries))
        },
    },
    Family {
        name: "upstream_connect",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: &["upstream"],
        help: "From the first attempt until connected, retries included.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, ledger| samples.histogram(&[&upstream.name], &ledger.connect))
        },
    },
    Family {
        name: "upstream_first_byte",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: &["upstream"],
        help: "From connected until the endpoint's first byte.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, ledger| samples.histogram(&[&upstream.name], &ledger.first_byte))
        },
    },
    Family {
        name: "upstream_tls_handshakes",
        kind: Kind::Counter,
        unit: None,
        labels: &["upstream", "version", "kind"],
        help: "TLS handshakes with endpoints that were made, of connections that ended: full or resumed.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, ledger| {
                let mut handshakes = ledger.handshakes.iter();
                handshakes.try_for_each(|((version, kind), count)| {
                    samples.put(&[&upstream.name, version, kind], *count)
                })
            })
        },
    },
    Family {
        name: "upstream_endpoints",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream"],
        help: "Endpoints in the table.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| samples.put(&[&upstream.name], upstream.endpoints.len()))
        },
    },
    Family {
        name: "upstream_retries_refused",
        kind: Kind::Counter,
        unit: None,
        labels: &["upstream"],
        help: "Retries, hedged attempts included, that were not made because `retry.budget` had none left or as many \
               as `circuitBreaker.maxParallelRetries` were under way.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| samples.put(&[&upstream.name], upstream.state.retries_refused()))
        },
    },
    Family {
        name: "upstream_outpaced_attempts",
        kind: Kind::Counter,
        unit: None,
        labels: &["upstream"],
        help: "Attempts given up because the one beside them connected first: with `retry.hedgeAfter`.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, ledger| samples.put(&[&upstream.name], ledger.outpaced))
        },
    },
    Family {
        name: "upstream_connection_limit",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream"],
        help: "How many there may be; only with `circuitBreaker.maxConnections`.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| {
                let limit = upstream.limits.max_connections;
                limit.map_or(Ok(()), |limit| samples.put(&[&upstream.name], limit.get()))
            })
        },
    },
    Family {
        name: "upstream_limited_connections",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream"],
        help: "How many there are by the measure of that limit: from before their first attempt until their end.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| {
                let limit = upstream.limits.max_connections;
                limit.map_or(Ok(()), |_| samples.put(&[&upstream.name], upstream.state.active()))
            })
        },
    },
    Family {
        name: "upstream_endpoint_connection_limit",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream"],
        help: "How many each of its endpoints may have; only with `circuitBreaker.perEndpoint.maxConnections`.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| {
                let limit = upstream.limits.max_per_endpoint;
                limit.map_or(Ok(()), |limit| samples.put(&[&upstream.name], limit.get()))
            })
        },
    },
    Family {
        name: "upstream_pending_connections",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream"],
        help: "Connections that wait for a place; only with `circuitBreaker.maxPendingConnections`.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| match (upstream.limits.max_pending, upstream.state.queued()) {
                (0, 0) => Ok(()),
                (_, queued) => samples.put(&[&upstream.name], queued),
            })
        },
    },
    Family {
        name: "upstream_rejections",
        kind: Kind::Counter,
        unit: None,
        labels: &["upstream", "reason"],
        help: "Connections that got no place: `full` where none waits, `queue_full` where enough do, `queue_timeout` after \
               `circuitBreaker.pendingTimeout`. They end as `upstream_limit`.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| {
                Rejection::ALL.into_iter().try_for_each(|reason| match upstream.state.rejections(reason) {
                    0 => Ok(()),
                    count => samples.put(&[&upstream.name, reason.label()], count),
                })
            })
        },
    },
    Family {
        name: "upstream_excess_connections",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream"],
        help: "Connections that endpoints have above their fair share; only with `rebalance`.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| match upstream.rebalance {
                None => Ok(()),
                Some(_) => samples.put(
                    &[&upstream.name],
                    upstream.excess(Instant::now()).map(|(_, excess)| excess).sum::<usize>(),
                ),
            })
        },
    },
    Family {
        name: "upstream_rebalanced_connections",
        kind: Kind::Counter,
        unit: None,
        labels: &["upstream"],
        help: "Connections closed because their endpoint had more than its fair share; with `rebalance.dryRun`, \
               closings that the budget would have allowed while there was an excess. Only with `rebalance`.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| match upstream.rebalance {
                None => Ok(()),
                Some(_) => samples.put(&[&upstream.name], upstream.state.rebalanced()),
            })
        },
    },
    Family {
        name: "upstream_leaving_endpoints",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream"],
        help: "Endpoints that left the table and have live connections yet.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| {
                let left = upstream.leaving.iter().filter(|endpoint| endpoint.state.active() > 0);
                samples.put(&[&upstream.name], left.count())
            })
        },
    },
    Family {
        name: "upstream_problem",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream", "reason"],
        help: "1 while the upstream has not the endpoints it should have; docs/kubernetes.md says what each reason \
               means, `/table` says it in words.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| {
                let reason = upstream.problem.as_ref().map(|problem| problem.reason);
                reason.map_or(Ok(()), |reason| samples.put(&[&upstream.name, reason], true))
            })
        },
    },
    Family {
        name: "upstream_healthy_endpoints",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream"],
        help: "Those of them that are healthy: neither unhealthy by their probes nor ejected.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| {
                let endpoints = upstream.endpoints.iter();
                let healthy = endpoints.filter(|endpoint| endpoint.state.is_healthy());
                samples.put(&[&upstream.name], healthy.count())
            })
        },
    },
    Family {
        name: "upstream_ejected_endpoints",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream"],
        help: "Endpoints that `healthCheck.passive` has ejected.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| {
                let ejected = upstream.endpoints.iter().filter(|e| e.state.ejection.is_ejected());
                samples.put(&[&upstream.name], ejected.count())
            })
        },
    },
    Family {
        name: "upstream_open_breakers",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream"],
        help: "Endpoints whose breaker is open or half open.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| {
                let breakers = upstream.endpoints.iter().filter_map(|endpoint| endpoint.breaker.as_ref());
                let open = breakers.filter(|breaker| breaker.state() != BreakerState::Closed);
                samples.put(&[&upstream.name], open.count())
            })
        },
    },
    Family {
        name: "upstream_preferred_endpoints",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream"],
        help: "Endpoints that new connections go to first: the healthy ones (all, while the upstream panics) of the first \
               priority, and of those the near ones.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| {
                samples.put(&[&upstream.name], upstream.selection.first().count())
            })
        },
    },
    Family {
        name: "upstream_panics",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream"],
        help: "1 while fewer endpoints are healthy than `healthCheck.panicThreshold` asks for, and health is ignored.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| match upstream.selection.panics() {
                true => samples.put(&[&upstream.name], true),
                false => Ok(()),
            })
        },
    },
    Family {
        name: "upstream_probes",
        kind: Kind::Counter,
        unit: None,
        labels: &["upstream", "result"],
        help: "Probes of its endpoints; `result` is `success` or `failure`. Only with `healthCheck.active`.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| {
                let Some(probes) = scrape.shared.probes.of(&upstream.name) else { return Ok(()) };
                samples.put(&[&upstream.name, "success"], probes.succeeded)?;
                samples.put(&[&upstream.name, "failure"], probes.failed)
            })
        },
    },
];

fn upstreams(
    scrape: &Scrape<'_>,
    mut each: impl FnMut(&Upstream, &UpstreamLedger) -> fmt::Result,
) -> fmt::Result {
    let nothing = UpstreamLedger::default();
    scrape.table.upstreams.values().try_for_each(|upstream| {
        let ledger = scrape.ledger.upstreams.get(&upstream.name);
        each(upstream, ledger.unwrap_or(&nothing))
    })
}
