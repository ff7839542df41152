//! Connections and verdicts by endpoint.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::resilience::BreakerState;
use crate::routing::{Endpoint, RouteTable};
use crate::telemetry::{EndpointLedger, Ledger, Total};

use super::super::{Family, Kind, Scrape, Unit};

pub(in crate::control::metrics) static ENDPOINTS: &[Family] = &[
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
        name: "endpoint_connect",
        kind: Kind::Summary,
        unit: Some(Unit::Seconds),
        labels: &["upstream", "endpoint"],
        help: "How long attempts took that connected. (A sum and a count: histograms are by upstream.)",
        samples: |scrape, samples| {
            endpoints(scrape, |row| {
                let Total { time, count } = row.ledger.connect;
                samples.summary(&row.labels(), time.as_secs_f64(), count)
            })
        },
    },
    Family {
        name: "endpoint_first_byte",
        kind: Kind::Summary,
        unit: Some(Unit::Seconds),
        labels: &["upstream", "endpoint"],
        help: "From connected until the endpoint's first byte.",
        samples: |scrape, samples| {
            endpoints(scrape, |row| {
                let Total { time, count } = row.ledger.first_byte;
                samples.summary(&row.labels(), time.as_secs_f64(), count)
            })
        },
    },
    Family {
        name: "endpoint_unhealthy",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream", "endpoint"],
        help: "1 while its probes say that the endpoint is unhealthy; a healthy one has no series.",
        samples: |scrape, samples| {
            let healthy = |row: &EndpointRow<'_>| row.endpoint.state.health.is_healthy();
            endpoints(scrape, |row| if healthy(row) { Ok(()) } else { samples.put(&row.labels(), true) })
        },
    },
    Family {
        name: "endpoint_ejected",
        kind: Kind::Gauge,
        unit: None,
        labels: &["upstream", "endpoint"],
        help: "1 while `healthCheck.passive` has the endpoint ejected; others have no series.",
        samples: |scrape, samples| {
            endpoints(scrape, |row| match row.endpoint.state.ejection.is_ejected() {
                true => samples.put(&row.labels(), true),
                false => Ok(()),
            })
        },
    },
    Family {
        name: "endpoint_ejections",
        kind: Kind::Counter,
        unit: None,
        labels: &["upstream", "endpoint"],
        help: "How often the endpoint was ejected. One that never was has no series.",
        samples: |scrape, samples| {
            endpoints(scrape, |row| match row.endpoint.state.ejection.count() {
                0 => Ok(()),
                count => samples.put(&row.labels(), count),
            })
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

fn endpoints(scrape: &Scrape<'_>, each: impl FnMut(&EndpointRow<'_>) -> fmt::Result) -> fmt::Result {
    scrape.endpoints.iter().try_for_each(each)
}

/// An endpoint of the table, looked up and written out once for all families.
pub(in crate::control::metrics) struct EndpointRow<'a> {
    upstream: &'a str,
    address: String,
    endpoint: &'a Endpoint,
    ledger: &'a EndpointLedger,
}

impl<'a> EndpointRow<'a> {
    pub(in crate::control::metrics) fn all(table: &'a RouteTable, ledger: &'a Ledger) -> Vec<Self> {
        const NONE: Total = Total { time: Duration::ZERO, count: 0 };
        static NOTHING: EndpointLedger = EndpointLedger {
            connections: 0,
            bytes_received: 0,
            bytes_sent: 0,
            failures: BTreeMap::new(),
            connect: NONE,
            first_byte: NONE,
        };
        let upstreams = table.upstreams.values();
        let rows = upstreams.flat_map(|upstream| {
            let ledgers = ledger.endpoints.get(&upstream.name);
            upstream.endpoints.iter().map(move |endpoint| Self {
                upstream: &upstream.name,
                address: endpoint.address.to_string(),
                endpoint,
                ledger: ledgers.and_then(|ledgers| ledgers.get(&endpoint.address)).unwrap_or(&NOTHING),
            })
        });
        rows.collect()
    }

    /// The values of the labels that all families of endpoints begin with.
    fn labels(&self) -> [&str; 2] {
        [self.upstream, &self.address]
    }
}
