//! The table and the reloads that made it.

use super::{Family, Kind, Unit};

pub(super) static FAMILIES: &[Family] = &[
    Family {
        name: "table_generation",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "The generation of the published table; it grows by one with each.",
        samples: |scrape, samples| samples.put(&[], scrape.table.generation),
    },
    Family {
        name: "table_acknowledged_generation",
        kind: Kind::Gauge,
        unit: None,
        labels: &["worker"],
        help: "The generation that the worker routes by.",
        samples: |scrape, samples| {
            let acknowledged = scrape.shared.publisher.acknowledged_by_worker();
            let mut acknowledged = acknowledged.into_iter().enumerate();
            acknowledged.try_for_each(|(worker, generation)| samples.put(&[&worker.to_string()], generation))
        },
    },
    Family {
        name: "table_propagation",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "From publishing a reloaded table until all workers had it.",
        samples: |scrape, samples| samples.histogram(&[], &scrape.report.propagation),
    },
    Family {
        name: "table_objects",
        kind: Kind::Gauge,
        unit: None,
        labels: &["kind"],
        help: "How many there are in the table: `listener`, `route`, `upstream`, `endpoint`.",
        samples: |scrape, samples| {
            let table = &scrape.table;
            let routes: usize = table.listeners.iter().map(|l| l.routes.len()).sum();
            let endpoints: usize = table.upstreams.values().map(|u| u.endpoints.len()).sum();
            samples.put(&["listener"], table.listeners.len())?;
            samples.put(&["route"], routes)?;
            samples.put(&["upstream"], table.upstreams.len())?;
            samples.put(&["endpoint"], endpoints)
        },
    },
    Family {
        name: "metrics_endpoints_left_out",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Endpoints in the table that should have series of their own and have none, because there are too many; \
               0 also where `metrics.perEndpoint` is false.",
        samples: |scrape, samples| samples.put(&[], scrape.left_out),
    },
    Family {
        name: "config_reloads",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Reloads that published a table.",
        samples: |scrape, samples| samples.put(&[], scrape.report.reloads),
    },
    Family {
        name: "config_reload_failures",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Reloads that failed and left the table as it was.",
        samples: |scrape, samples| samples.put(&[], scrape.report.failures),
    },
    Family {
        name: "config_last_reload_successful",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "1 unless the last reload failed; `/readyz?verbose` says why it did.",
        samples: |scrape, samples| samples.put(&[], scrape.report.error.is_none()),
    },
    Family {
        name: "config_last_reload_timestamp",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "When the last reload was (or the start, before any), since the Unix epoch.",
        samples: |scrape, samples| samples.put(&[], scrape.report.last_at),
    },
    Family {
        name: "config_last_reload_success_timestamp",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "When the configuration that is in effect was loaded, since the Unix epoch.",
        samples: |scrape, samples| samples.put(&[], scrape.report.last_success_at),
    },
    Family {
        name: "config_restart_needed",
        kind: Kind::Gauge,
        unit: None,
        labels: &["section"],
        help: "1 for each section of the file that changed and takes effect with a restart.",
        samples: |scrape, samples| {
            let mut sections = scrape.report.restart.iter();
            sections.try_for_each(|section| samples.put(&[section], true))
        },
    },
];
