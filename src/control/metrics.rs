//! Every metric: one list from which the exposition, what is sent by OTLP, and docs/metrics.md are made.
//!
//! Values are read at scrape, from what the workers write anyway. A scrape takes each worker's ledger by
//! swapping it for an empty one, so that a worker never waits for more than that. It does not run on the control
//! thread, which waits for none either.

mod certificates;
mod config;
mod kubernetes;
mod otlp;
mod process;
mod push;
mod samples;
mod text;
mod traces;
mod traffic;
mod workers;

use std::fmt::{self, Write};
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

use crate::routing::RouteTable;
use crate::telemetry::Ledger;

use super::shared::Shared;
use super::status::Report;
use samples::{Number, Output, Samples};
use text::Text;
use traffic::EndpointRow;

pub(super) use process::thread_cpu;
pub(super) use push::{Pushes, push, tick};
pub(super) use text::Dialect;

const PREFIX: &str = "sheave";

/// With more endpoints than that in the table, none has series of its own: they would be megabytes at each scrape.
const ENDPOINTS_MAX: usize = 20_000;

/// One metric family.
struct Family {
    /// Without prefix, unit and suffix.
    name: &'static str,
    kind: Kind,
    unit: Option<Unit>,
    labels: &'static [&'static str],
    help: &'static str,
    samples: fn(&Scrape<'_>, &mut Samples<'_>) -> fmt::Result,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
    /// A sum and a count.
    Summary,
}

#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    Seconds,
}

/// The families of one subject, in the order in which they are exposed and documented.
struct Group {
    title: &'static str,
    families: &'static [Family],
    /// Whether `metrics.perEndpoint` switches it.
    per_endpoint: bool,
}

static GROUPS: [Group; 10] = [
    group("Process", process::FAMILIES),
    group("Workers", workers::FAMILIES),
    group("Listeners and routes", traffic::LISTENERS),
    group("Upstreams", traffic::UPSTREAMS),
    Group { title: "Endpoints", families: traffic::ENDPOINTS, per_endpoint: true },
    group("Traces", traces::FAMILIES),
    group("Metrics sent by OTLP", push::FAMILIES),
    group("Table and configuration", config::FAMILIES),
    group("Certificates", certificates::FAMILIES),
    group("Kubernetes", kubernetes::FAMILIES),
];

const fn group(title: &'static str, families: &'static [Family]) -> Group {
    Group { title, families, per_endpoint: false }
}

/// What the samples of one scrape are read from.
struct Scrape<'a> {
    shared: &'a Shared,
    table: &'a RouteTable,
    report: Report,
    ledger: &'a Ledger,
    control_cpu: Duration,
    /// Empty when endpoints have no series of their own.
    endpoints: Vec<EndpointRow<'a>>,
    /// Endpoints that should have series of their own and are too many for it.
    left_out: usize,
}

/// Writes the exposition. `control_cpu` is what [`thread_cpu`] says on the control thread.
pub(super) fn expose(
    shared: &Shared,
    control_cpu: Duration,
    dialect: Dialect,
    to: &mut dyn Write,
) -> fmt::Result {
    let mut text = Text::new(dialect, to);
    read(shared, control_cpu, &mut text)?;
    text.end()
}

/// Puts out every sample there is.
fn read(shared: &Shared, control_cpu: Duration, output: &mut dyn Output) -> fmt::Result {
    let mut ledger = shared.ledger.lock().unwrap_or_else(PoisonError::into_inner);
    let table = shared.publisher.current();
    collect(shared, &table, &mut ledger);
    let report = shared.status.report();
    let endpoints: usize = table.upstreams.values().map(|upstream| upstream.endpoints.len()).sum();
    let wanted = report.config.metrics.per_endpoint;
    let per_endpoint = wanted && endpoints <= ENDPOINTS_MAX;
    let scrape = Scrape {
        shared,
        table: &table,
        report,
        ledger: &ledger,
        control_cpu,
        endpoints: if per_endpoint { EndpointRow::all(&table, &ledger) } else { Vec::new() },
        left_out: if wanted && !per_endpoint { endpoints } else { 0 },
    };
    let exposed = GROUPS.iter().filter(|group| per_endpoint || !group.per_endpoint);
    let mut families = exposed.flat_map(|group| group.families);
    families.try_for_each(|family| (family.samples)(&scrape, &mut Samples::begin(family, output)?))
}

/// Drops the series of what has left the table. `false`: a scrape is under way, whose ledger it is; it has done so
/// itself a moment ago.
pub(super) fn forget(shared: &Shared) -> bool {
    let mut ledger = match shared.ledger.try_lock() {
        Ok(ledger) => ledger,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return false,
    };
    collect(shared, &shared.publisher.current(), &mut ledger);
    true
}

/// Moves what the workers have entered into the total, without what is not in the table any more.
pub(super) fn collect(shared: &Shared, table: &RouteTable, total: &mut Ledger) {
    for counters in &shared.counters {
        total.merge(&counters.with_ledger(std::mem::take));
    }
    total.prune(table);
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
            Self::Summary => "summary",
        }
    }

    /// What the names of its samples end in, where they all end alike.
    fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Info => "_info",
            Self::Gauge | Self::Histogram | Self::Summary => "",
        }
    }
}

impl Unit {
    fn label(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
        }
    }

    /// As OTLP has it.
    fn symbol(self) -> &'static str {
        match self {
            Self::Bytes => "By",
            Self::Seconds => "s",
        }
    }
}

impl Family {
    /// The family's name in the exposition's `# TYPE` line.
    fn exposed_name(&self) -> String {
        let unit = self.unit.map(|unit| format!("_{}", unit.label()));
        format!("{PREFIX}_{}{}", self.name, unit.unwrap_or_default())
    }

    /// The name that queries use; those of a histogram and a summary take `_bucket`, `_sum` or `_count` yet.
    fn queried_name(&self) -> String {
        self.exposed_name() + self.kind.suffix()
    }
}

/// docs/metrics.md, which a test compares with this.
pub fn documentation() -> String {
    let mut text = String::from(INTRODUCTION);
    for group in &GROUPS {
        let _infallible = write!(text, "\n## {}\n\n", group.title);
        if group.per_endpoint {
            let _infallible = write!(
                text,
                "Only with `metrics.perEndpoint: true`, which is the default, and with at most {ENDPOINTS_MAX} endpoints \
                 in the table.\nAbove that `sheave_metrics_endpoints_left_out` says how many have no series; they are \
                 counted all the same.\n\n"
            );
        }
        text.push_str("| Metric | Type | Unit | Labels | Meaning |\n|---|---|---|---|---|\n");
        for family in group.families {
            let labels: Vec<String> = family.labels.iter().map(|l| format!("`{l}`")).collect();
            let _infallible = writeln!(
                text,
                "| `{}` | {} | {} | {} | {} |",
                family.queried_name(),
                family.kind.label(),
                family.unit.map_or("", Unit::label),
                labels.join(" "),
                family.help,
            );
        }
    }
    text
}

const INTRODUCTION: &str = "\
# Metrics

`GET /metrics` on the admin port, in OpenMetrics text format. This file is made from the list in the code:
`SHEAVE_BLESS=1 cargo test --lib control::tests::metrics` writes it anew. Who accepts `text/plain` and not OpenMetrics gets
the older format of Prometheus: `curl -H 'Accept: text/plain' localhost:9901/metrics | promtool check metrics`.

- Every name starts with `sheave_`; times are seconds and sizes bytes.
- By OTLP (docs/observability.md) the same is sent under the same names, but for `_total`: that is added by Prometheus and by
  the collector, to every sum that only grows.
- `outcome` and `side` are the words of the access log; docs/operations.md says what they mean.
- `direction` is `received` (from the client, handed to the endpoint) or `sent` (from the endpoint, handed to
  the client).
- `sheave_upstream_problem`, `sheave_endpoint_unhealthy`, `sheave_endpoint_ejected` and `sheave_endpoint_breaker_state` have
  series only while something is wrong. Alert on their presence, such as
  `count(sheave_endpoint_breaker_state{state=\"open\"}) by (upstream) > 2`; the alert ends with the series.
- Counters by listener, route, upstream and endpoint count connections that have ended, and disappear
  with what they count. Counters by `worker` count while it happens.
- A summary here is a sum and a count: one divided by the other is the mean.
- Buckets of histograms may have an exemplar: the newest connection whose trace is kept, by `trace_id`.
";
