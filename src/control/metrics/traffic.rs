//! Connections by listener, route, upstream and endpoint.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::registry::Unit;

use crate::config::Name;
use crate::resilience::BreakerState;
use crate::routing::{Endpoint, Listener, RouteTable, Upstream};
use crate::telemetry::{EndpointLedger, Ledger, ListenerLedger, UpstreamLedger};

use super::{Family, Kind, Scrape};

pub(super) static LISTENERS: &[Family] = &[
    Family {
        name: "listener_connections",
        kind: Kind::Counter,
        unit: None,
        labels: &["listener", "outcome", "side"],
        help: "Connections that ended, by how and by whose doing.",
        samples: |scrape, samples| {
            listeners(scrape, |listener, ledger| {
                let mut outcomes = ledger.outcomes.iter();
                outcomes.try_for_each(|(outcome, count)| {
                    let (outcome, side) = (outcome.label(), outcome.side().label());
                    samples.put(&[&listener.name, outcome, side], *count)
                })
            })
        },
    },
    Family {
        name: "listener_active_connections",
        kind: Kind::Gauge,
        unit: None,
        labels: &["listener"],
        help: "Live connections.",
        samples: |scrape, samples| {
            listeners(scrape, |listener, _| samples.put(&[&listener.name], listener.state.places.taken()))
        },
    },
    Family {
        name: "listener_connection_limit",
        kind: Kind::Gauge,
        unit: None,
        labels: &["listener"],
        help: "How many there may be; only with `connection.limit`.",
        samples: |scrape, samples| {
            listeners(scrape, |listener, _| {
                listener.limit.map_or(Ok(()), |limit| samples.put(&[&listener.name], limit.limit.get()))
            })
        },
    },
    Family {
        name: "listener",
        kind: Kind::Counter,
        unit: Some(Unit::Bytes),
        labels: &["listener", "direction"],
        help: "Bytes of connections that ended.",
        samples: |scrape, samples| {
            listeners(scrape, |listener, ledger| {
                let (received, sent) = (ledger.bytes_received, ledger.bytes_sent);
                samples.put(&[&listener.name, "received"], received)?;
                samples.put(&[&listener.name, "sent"], sent)
            })
        },
    },
    Family {
        name: "listener_connection_duration",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: &["listener"],
        help: "From accepting a connection until its end.",
        samples: |scrape, samples| {
            listeners(scrape, |listener, ledger| samples.histogram(&[&listener.name], &ledger.duration))
        },
    },
    Family {
        name: "route_connections",
        kind: Kind::Counter,
        unit: None,
        labels: &["route"],
        help: "Connections that ended and had taken this route.",
        samples: |scrape, samples| {
            let listeners = scrape.table.listeners.iter();
            let mut routes = listeners.flat_map(|listener| &listener.routes);
            routes.try_for_each(|route| {
                let ledger = scrape.ledger.routes.get(&route.name);
                samples.put(&[&route.name], ledger.map_or(0, |ledger| ledger.connections))
            })
        },
    },
];

pub(super) static UPSTREAMS: &[Family] = &[
    Family {
        name: "upstream_connections",
        kind: Kind::Counter,
        unit: None,
        labels: &["upstream"],
        help: "Connections that ended and had been sent to this upstream, connected or not.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, ledger| samples.put(&[&upstream.name], ledger.connections))
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
        help: "Retries that were not made because `retry.budget` had none left; the connection ended with its last failure.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| samples.put(&[&upstream.name], upstream.state.retries_refused()))
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
        help: "Those of them that are healthy.",
        samples: |scrape, samples| {
            upstreams(scrape, |upstream, _| {
                let endpoints = upstream.endpoints.iter();
                let healthy = endpoints.filter(|endpoint| endpoint.state.health.is_healthy());
                samples.put(&[&upstream.name], healthy.count())
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

pub(super) static ENDPOINTS: &[Family] = &[
    Family {
        name: "endpoint_connections",
        kind: Kind::Counter,
        unit: None,
        labels: &["upstream", "endpoint"],
        help: "Connections that ended and had been connected to this endpoint.",
        samples: |scrape, samples| {
            endpoints(scrape, |row| samples.put(&row.labels(), row.ledger.connections))
        },
    },
    Family {
        name: "endpoint_active_connections",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream", "endpoint"],
        help: "Live connections and attempts.",
        samples: |scrape, samples| {
            endpoints(scrape, |row| samples.put(&row.labels(), row.endpoint.state.active()))
        },
    },
    Family {
        name: "endpoint_failures",
        kind: Kind::Counter,
        unit: None,
        labels: &["upstream", "endpoint", "outcome"],
        help: "Attempts that failed, by how; a connection may fail at several endpoints and succeed at another.",
        samples: |scrape, samples| {
            endpoints(scrape, |row| {
                let [upstream, address] = row.labels();
                let mut failures = row.ledger.failures.iter();
                failures.try_for_each(|(failure, count)| {
                    samples.put(&[upstream, address, failure.label()], *count)
                })
            })
        },
    },
    Family {
        name: "endpoint",
        kind: Kind::Counter,
        unit: Some(Unit::Bytes),
        labels: &["upstream", "endpoint", "direction"],
        help: "Bytes of connections that ended.",
        samples: |scrape, samples| {
            endpoints(scrape, |row| {
                let [upstream, address] = row.labels();
                let (received, sent) = (row.ledger.bytes_received, row.ledger.bytes_sent);
                samples.put(&[upstream, address, "received"], received)?;
                samples.put(&[upstream, address, "sent"], sent)
            })
        },
    },
    Family {
        name: "endpoint_unhealthy",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream", "endpoint"],
        help: "1 while the endpoint is unhealthy; a healthy one has no series.",
        samples: |scrape, samples| {
            let healthy = |row: &EndpointRow<'_>| row.endpoint.state.health.is_healthy();
            endpoints(scrape, |row| if healthy(row) { Ok(()) } else { samples.put(&row.labels(), true) })
        },
    },
    Family {
        name: "endpoint_breaker_openings",
        kind: Kind::Counter,
        unit: None,
        labels: &["upstream", "endpoint"],
        help: "How often the endpoint's breaker opened, failed probes included. One that never did has no series.",
        samples: |scrape, samples| {
            endpoints(scrape, |row| {
                match row.endpoint.breaker.as_ref().map_or(0, |breaker| breaker.openings()) {
                    0 => Ok(()),
                    openings => samples.put(&row.labels(), openings),
                }
            })
        },
    },
    Family {
        name: "endpoint_breaker_state",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream", "endpoint", "state"],
        help: "1 while the endpoint's breaker is in this state: `open` lets nothing through, `half_open` one attempt. \
               One that is closed, as it should be, has no series.",
        samples: |scrape, samples| {
            endpoints(scrape, |row| {
                let [upstream, address] = row.labels();
                match row.endpoint.breaker.as_ref().map(|breaker| breaker.state()) {
                    None | Some(BreakerState::Closed) => Ok(()),
                    Some(state) => samples.put(&[upstream, address, state.label()], true),
                }
            })
        },
    },
];

fn listeners(
    scrape: &Scrape<'_>,
    mut each: impl FnMut(&Listener, &ListenerLedger) -> fmt::Result,
) -> fmt::Result {
    let nothing = ListenerLedger::default();
    scrape.table.listeners.iter().try_for_each(|listener| {
        let ledger = scrape.ledger.listeners.get(&listener.name);
        each(listener, ledger.unwrap_or(&nothing))
    })
}

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

fn endpoints(scrape: &Scrape<'_>, each: impl FnMut(&EndpointRow<'_>) -> fmt::Result) -> fmt::Result {
    scrape.endpoints.iter().try_for_each(each)
}

/// An endpoint of the table, looked up and written out once for all families.
pub(super) struct EndpointRow<'a> {
    upstream: &'a str,
    address: String,
    endpoint: &'a Endpoint,
    ledger: &'a EndpointLedger,
}

impl<'a> EndpointRow<'a> {
    pub(super) fn all(table: &'a RouteTable, ledger: &'a Ledger) -> Vec<Self> {
        static NOTHING: EndpointLedger =
            EndpointLedger { connections: 0, bytes_received: 0, bytes_sent: 0, failures: BTreeMap::new() };
        let upstreams = table.upstreams.values();
        let rows = upstreams.flat_map(|upstream| {
            upstream.endpoints.iter().map(|endpoint| {
                let key = (Name::clone(&upstream.name), endpoint.address);
                Self {
                    upstream: &upstream.name,
                    address: endpoint.address.to_string(),
                    endpoint,
                    ledger: ledger.endpoints.get(&key).unwrap_or(&NOTHING),
                }
            })
        });
        rows.collect()
    }

    /// The values of the labels that all families of endpoints begin with.
    fn labels(&self) -> [&str; 2] {
        [self.upstream, &self.address]
    }
}
