//! Connections by listener and route.

use std::fmt;

use crate::resilience::Sources;
use crate::routing::{Listener, Route};
use crate::telemetry::{ListenerLedger, RouteLedger};

use super::super::{Family, Kind, Scrape, Unit};
use super::{bytes, outcomes};

pub(in crate::control::metrics) static LISTENERS: &[Family] = &[
    Family {
        name: "listener_connections",
        kind: Kind::Counter,
        unit: None,
        labels: &["listener", "outcome", "side"],
        help: "Connections that ended, by how and by whose doing.",
        samples: |scrape, samples| {
            listeners(scrape, |listener, ledger| outcomes(samples, &listener.name, &ledger.tally))
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
        name: "listener_sources",
        kind: Kind::Gauge,
        unit: None,
        labels: &["listener"],
        help: "Client addresses that are told apart; only with `connection.limitPerSource` or `ratePerSource`.",
        samples: |scrape, samples| {
            sources(scrape, |listener, sources| {
                samples.put(&[&listener.name], sources.map_or(0, Sources::known))
            })
        },
    },
    Family {
        name: "listener_uncounted_connections",
        kind: Kind::Counter,
        unit: None,
        labels: &["listener"],
        help: "Connections admitted without being counted for their client address, because all 65536 that are \
               told apart had connections; only with `connection.limitPerSource` or `ratePerSource`.",
        samples: |scrape, samples| {
            sources(scrape, |listener, sources| {
                samples.put(&[&listener.name], sources.map_or(0, Sources::uncounted))
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
            listeners(scrape, |listener, ledger| bytes(samples, &listener.name, &ledger.tally))
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
        name: "listener_tls_handshakes",
        kind: Kind::Counter,
        unit: None,
        labels: &["listener", "version", "kind"],
        help: "TLS handshakes with clients that were made here, of connections that ended: full or resumed. \
               (Those that failed are connections with an outcome of that name.)",
        samples: |scrape, samples| {
            listeners(scrape, |listener, ledger| {
                let mut handshakes = ledger.handshakes.iter();
                handshakes.try_for_each(|((version, kind), count)| {
                    samples.put(&[&listener.name, version, kind], *count)
                })
            })
        },
    },
    Family {
        name: "listener_tls_handshake_duration",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: &["listener"],
        help: "From accepting a connection until the TLS handshake with its client was made.",
        samples: |scrape, samples| {
            listeners(scrape, |listener, ledger| samples.histogram(&[&listener.name], &ledger.handshake))
        },
    },
    Family {
        name: "route_connections",
        kind: Kind::Counter,
        unit: None,
        labels: &["route", "outcome", "side"],
        help: "Connections that ended and had taken this route, by how and by whose doing.",
        samples: |scrape, samples| {
            routes(scrape, |route, ledger| outcomes(samples, &route.name, &ledger.tally))
        },
    },
    Family {
        name: "route",
        kind: Kind::Counter,
        unit: Some(Unit::Bytes),
        labels: &["route", "direction"],
        help: "Bytes of connections that ended.",
        samples: |scrape, samples| routes(scrape, |route, ledger| bytes(samples, &route.name, &ledger.tally)),
    },
    Family {
        name: "route_connection_duration",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: &["route"],
        help: "From accepting a connection until its end.",
        samples: |scrape, samples| {
            routes(scrape, |route, ledger| samples.histogram(&[&route.name], &ledger.duration))
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

fn routes(scrape: &Scrape<'_>, mut each: impl FnMut(&Route, &RouteLedger) -> fmt::Result) -> fmt::Result {
    let nothing = RouteLedger::default();
    let mut routes = scrape.table.listeners.iter().flat_map(|listener| &listener.routes);
    routes.try_for_each(|route| each(route, scrape.ledger.routes.get(&route.name).unwrap_or(&nothing)))
}

/// Those whose clients are told apart.
fn sources(
    scrape: &Scrape<'_>,
    mut each: impl FnMut(&Listener, Option<&Sources>) -> fmt::Result,
) -> fmt::Result {
    let mut limited = scrape.table.listeners.iter().filter(|listener| listener.sources.is_some());
    limited.try_for_each(|listener| each(listener, listener.state.sources().map(|sources| &**sources)))
}
