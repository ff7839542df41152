//! Every metric: one list from which both the exposition and docs/metrics.md are made.
//!
//! Values are read at scrape, from what the workers write anyway. A scrape takes each worker's ledger by
//! swapping it for an empty one, so that a worker never waits for more than that. It does not run on the control
//! thread, which waits for none either.

mod certificates;
mod config;
mod kubernetes;
mod process;
mod traffic;
mod workers;

use std::fmt::{self, Write};
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::routing::RouteTable;
use crate::telemetry::{Histogram, Ledger};

use super::shared::Shared;
use super::status::Report;
use traffic::EndpointRow;

pub(super) use process::thread_cpu;

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
    samples: fn(&Scrape<'_>, &mut Samples<'_, '_>) -> fmt::Result,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// The families of one subject, in the order in which they are exposed and documented.
struct Group {
    title: &'static str,
    families: &'static [Family],
    /// Whether `metrics.perEndpoint` switches it.
    per_endpoint: bool,
}

static GROUPS: [Group; 8] = [
    group("Process", process::FAMILIES),
    group("Workers", workers::FAMILIES),
    group("Listeners and routes", traffic::LISTENERS),
    group("Upstreams", traffic::UPSTREAMS),
    Group { title: "Endpoints", families: traffic::ENDPOINTS, per_endpoint: true },
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
pub(super) fn expose(shared: Arc<Shared>, control_cpu: Duration, to: &mut impl Write) -> fmt::Result {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Everything { shared, control_cpu }));
    prometheus_client::encoding::text::encode(to, &registry)
}

#[derive(Debug)]
struct Everything {
    shared: Arc<Shared>,
    control_cpu: Duration,
}

impl Collector for Everything {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut ledger = self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.shared.publisher.current();
        collect(&self.shared, &table, &mut ledger);
        let report = self.shared.status.report();
        let endpoints: usize = table.upstreams.values().map(|upstream| upstream.endpoints.len()).sum();
        let wanted = report.config.metrics.per_endpoint;
        let per_endpoint = wanted && endpoints <= ENDPOINTS_MAX;
        let scrape = Scrape {
            shared: &self.shared,
            table: &table,
            report,
            ledger: &ledger,
            control_cpu: self.control_cpu,
            endpoints: if per_endpoint { EndpointRow::all(&table, &ledger) } else { Vec::new() },
            left_out: if wanted && !per_endpoint { endpoints } else { 0 },
        };
        let exposed = GROUPS.iter().filter(|group| per_endpoint || !group.per_endpoint);
        for family in exposed.flat_map(|group| group.families) {
            let encoder = encoder.encode_descriptor(
                family.name,
                family.help,
                family.unit.as_ref(),
                family.kind.into(),
            )?;
            (family.samples)(&scrape, &mut Samples { family, encoder })?;
        }
        Ok(())
    }
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
fn collect(shared: &Shared, table: &RouteTable, total: &mut Ledger) {
    for counters in &shared.counters {
        total.merge(&counters.with_ledger(std::mem::take));
    }
    total.prune(table);
}

/// Where a family puts its samples; label values go with the family's labels by position.
struct Samples<'a, 'e> {
    family: &'a Family,
    encoder: MetricEncoder<'e>,
}

enum Number {
    Whole(u64),
    Real(f64),
}

impl Samples<'_, '_> {
    fn put(&mut self, values: &[&str], number: impl Into<Number>) -> fmt::Result {
        let (kind, number) = (self.family.kind, number.into());
        self.with(values, |encoder| match (kind, number) {
            (Kind::Counter, Number::Whole(number)) => {
                encoder.encode_counter::<NoLabelSet, _, f64>(&number, None)
            }
            (Kind::Counter, Number::Real(number)) => {
                encoder.encode_counter::<NoLabelSet, _, f64>(&number, None)
            }
            (_, Number::Whole(number)) => encoder.encode_gauge(&number),
            (_, Number::Real(number)) => encoder.encode_gauge(&number),
        })
    }

    fn histogram(&mut self, values: &[&str], histogram: &Histogram) -> fmt::Result {
        self.with(values, |encoder| {
            let (sum, count) = (histogram.sum(), histogram.count());
            encoder.encode_histogram::<NoLabelSet>(sum, count, &histogram.buckets(), None)
        })
    }

    fn info(&mut self, values: &[&str]) -> fmt::Result {
        let labels = self.labels(values);
        self.encoder.encode_info(&labels)
    }

    fn labels<'v>(&self, values: &'v [&'v str]) -> Labels<'v> {
        Labels { names: self.family.labels, values }
    }

    fn with(
        &mut self,
        values: &[&str],
        encode: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        if self.family.labels.is_empty() {
            return encode(&mut self.encoder);
        }
        let labels = self.labels(values);
        encode(&mut self.encoder.encode_family(&labels)?)
    }
}

/// Names and values, paired by position.
struct Labels<'a> {
    names: &'static [&'static str],
    values: &'a [&'a str],
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut pairs = self.names.iter().zip(self.values);
        pairs.try_for_each(|(name, value)| (*name, *value).encode(encoder.encode_label()))
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self::Whole(number as u64)
    }
}

impl From<bool> for Number {
    fn from(yes: bool) -> Self {
        Self::Whole(yes.into())
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<Duration> for Number {
    fn from(duration: Duration) -> Self {
        Self::Real(duration.as_secs_f64())
    }
}

impl From<SystemTime> for Number {
    fn from(time: SystemTime) -> Self {
        time.duration_since(UNIX_EPOCH).unwrap_or_default().into()
    }
}

impl From<Kind> for MetricType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Self::Counter,
            Kind::Gauge => Self::Gauge,
            Kind::Histogram => Self::Histogram,
            Kind::Info => Self::Info,
        }
    }
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

impl Family {
    /// The family's name in the exposition's `# TYPE` line.
    fn exposed_name(&self) -> String {
        let unit = self.unit.as_ref().map(|unit| format!("_{}", unit.as_str()));
        format!("{PREFIX}_{}{}", self.name, unit.unwrap_or_default())
    }

    /// The name that queries use; that of a histogram takes `_bucket`, `_sum` or `_count` yet.
    fn queried_name(&self) -> String {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.exposed_name() + suffix
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
                family.unit.as_ref().map_or("", Unit::as_str),
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
`SHEAVE_BLESS=1 cargo test --lib control::tests::metrics` writes it anew.

- Every name starts with `sheave_`; times are seconds and sizes bytes.
- `outcome` and `side` are the words of the access log; docs/operations.md says what they mean.
- `direction` is `received` (from the client, handed to the endpoint) or `sent` (from the endpoint, handed to
  the client).
- `sheave_upstream_problem`, `sheave_endpoint_unhealthy`, `sheave_endpoint_ejected` and `sheave_endpoint_breaker_state` have
  series only while something is wrong. Alert on their presence, such as
  `count(sheave_endpoint_breaker_state{state=\"open\"}) by (upstream) > 2`; the alert ends with the series.
- Counters by listener, route, upstream and endpoint count connections that have ended, and disappear
  with what they count. Counters by `worker` count while it happens.
";
