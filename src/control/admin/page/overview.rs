//! What the process is and how it fares, in a few numbers: for `/status` and for the top of the page.

use std::time::{Duration, Instant};

use maud::{Markup, html};
use serde::Serialize;

use crate::control::generations::Generation;
use crate::control::history::Rates;
use crate::control::shared::Shared;
use crate::resilience::BreakerState;
use crate::routing::RouteTable;
use crate::telemetry::logging::rfc3339;

use super::{charts, format};

/// Over how many seconds the rates are.
const LATELY: usize = 5;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::control::admin) struct Overview {
    version: &'static str,
    pub(super) phase: &'static str,
    started_at: String,
    uptime_seconds: u64,
    pub(super) generation: u64,
    /// In the workers' order.
    acknowledged_generations: Vec<u64>,
    connections: usize,
    max_connections: usize,
    per_second: PerSecond,
    pub(super) endpoints: Endpoints,
    tables: Vec<Table>,
}

/// Over the last seconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PerSecond {
    accepted: f64,
    ended: f64,
    failed: f64,
    bytes_received: f64,
    bytes_sent: f64,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoints {
    pub(super) total: usize,
    pub(super) unhealthy: usize,
    pub(super) ejected: usize,
    pub(super) breakers_open: usize,
    pub(super) leaving: usize,
    /// Those that new connections may go to, as far as the above says.
    pub(super) available: usize,
}

/// One of the last tables.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    generation: u64,
    cause: &'static str,
    at: String,
    /// `null`: not all workers have it yet.
    acknowledged_after_seconds: Option<f64>,
}

impl Overview {
    pub(in crate::control::admin) fn new(shared: &Shared) -> Self {
        let (table, lately) = (shared.publisher.current(), shared.history.lately(LATELY));
        let active = shared.counters.iter().map(|worker| {
            usize::try_from(worker.shown.active.load(std::sync::atomic::Ordering::Relaxed))
                .unwrap_or(usize::MAX)
        });
        let round = |number: f64| (number * 100.0).round() / 100.0;
        Self {
            version: env!("CARGO_PKG_VERSION"),
            phase: shared.drain.phase().label(),
            started_at: rfc3339(shared.started_at).to_string(),
            uptime_seconds: shared.started.elapsed().as_secs(),
            generation: table.generation,
            acknowledged_generations: shared.publisher.acknowledged_by_worker(),
            connections: active.sum(),
            max_connections: shared.limits.max,
            per_second: PerSecond {
                accepted: round(lately.accepted),
                ended: round(lately.ended),
                failed: round(lately.failed),
                bytes_received: round(lately.bytes_received),
                bytes_sent: round(lately.bytes_sent),
            },
            endpoints: Endpoints::count(&table, Instant::now()),
            tables: shared.generations.newest().iter().map(Table::from).collect(),
        }
    }

    /// The workers that do not have the newest table yet.
    fn behind(&self) -> Vec<String> {
        let workers = self.acknowledged_generations.iter().enumerate();
        let behind = workers.filter(|(_, acknowledged)| **acknowledged < self.generation);
        behind.map(|(worker, _)| worker.to_string()).collect()
    }

    /// The numbers at the top.
    pub(super) fn tiles(&self, seconds: &[Rates]) -> Markup {
        let line = |label: &str, value: fn(&Rates) -> f64, class: &str| {
            let values: Vec<f64> = seconds.iter().map(value).collect();
            charts::spark(&format!("{label}, over the last two minutes"), &values, class)
        };
        let now = &self.per_second;
        let (ended, failed) = (format::whole(now.ended * 1e3), format::whole(now.failed * 1e3));
        let failing = if now.failed > 0.0 { "bad" } else { "" };
        html! {
            div class="tiles" {
                (tile("Live connections", "", html! { (format::count(self.connections as u64)) },
                    html! { "of at most " (format::count(self.max_connections as u64)) },
                    line("Live connections", |rates| rates.live, "")))
                (tile("Accepted", "", html! { (format::per_second(now.accepted)) small { " /s" } },
                    html! { (format::per_second(now.ended)) " /s ended" },
                    line("Accepted connections per second", |rates| rates.accepted, "")))
                (tile("Failed", failing, html! { (format::per_second(now.failed)) small { " /s" } },
                    html! { (format::percent(failed, ended)) " of those that ended" },
                    line("Failed connections per second", |rates| rates.failed, "failed")))
                (tile("From clients", "", html! { (format::bytes(now.bytes_received)) small { " /s" } },
                    html! { "handed to endpoints" },
                    line("Bytes from clients per second", |rates| rates.bytes_received, "")))
                (tile("To clients", "", html! { (format::bytes(now.bytes_sent)) small { " /s" } },
                    html! { "from endpoints" },
                    line("Bytes to clients per second", |rates| rates.bytes_sent, "")))
                (self.endpoints.tile())
                (self.table_tile())
            }
        }
    }

    fn table_tile(&self) -> Markup {
        let behind = self.behind();
        let note = match &*behind {
            [] => "all workers have it".to_owned(),
            [one] => format!("worker {one} has an older one"),
            many => format!("workers {} have an older one", many.join(", ")),
        };
        let class = if behind.is_empty() { "" } else { "warn" };
        tile(
            "Table",
            class,
            html! { small { "generation " } (format::count(self.generation)) },
            html! { (note) },
            html! {},
        )
    }

    pub(super) fn uptime(&self) -> Duration {
        Duration::from_secs(self.uptime_seconds)
    }

    pub(super) fn started_at(&self) -> &str {
        &self.started_at
    }

    pub(super) fn version(&self) -> &str {
        self.version
    }
}

/// A number, what it is, what to compare it with, and how it came to be.
fn tile(title: &str, class: &str, number: Markup, note: Markup, chart: Markup) -> Markup {
    html! {
        div class={ "card tile " (class) } {
            h3 { (title) }
            p class="number" { (number) }
            p class="quiet" { (note) }
            (chart)
        }
    }
}

impl Endpoints {
    fn count(table: &RouteTable, now: Instant) -> Self {
        let mut endpoints = Self::default();
        for upstream in table.upstreams.values() {
            endpoints.leaving +=
                upstream.leaving.iter().filter(|endpoint| endpoint.state.active() > 0).count();
            for endpoint in &upstream.endpoints {
                let unhealthy = !endpoint.state.health.is_healthy();
                let ejected = endpoint.state.ejection.is_ejected();
                let breaker = endpoint.breaker.as_ref().map(|breaker| breaker.state());
                let is_open = breaker.is_some_and(|state| state != BreakerState::Closed);
                endpoints.total += 1;
                endpoints.unhealthy += usize::from(unhealthy);
                endpoints.ejected += usize::from(ejected);
                endpoints.breakers_open += usize::from(is_open);
                let available = !unhealthy && !ejected && endpoint.may_be_tried(now);
                endpoints.available += usize::from(available);
            }
        }
        endpoints
    }

    fn tile(&self) -> Markup {
        let parts = [
            (self.unhealthy, "unhealthy"),
            (self.ejected, "ejected"),
            (self.breakers_open, "with an open breaker"),
            (self.leaving, "leaving"),
        ];
        let parts: Vec<String> = parts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{} {what}", format::count(count as u64)))
            .collect();
        let class = match (self.available, self.total) {
            (available, total) if available == total => "",
            (0, _) => "bad",
            _ => "warn",
        };
        let note = if parts.is_empty() { "all available".to_owned() } else { parts.join(", ") };
        let number = html! {
            (format::count(self.available as u64)) small { " of " (format::count(self.total as u64)) }
        };
        #[expect(clippy::cast_precision_loss, reason = "exact enough to draw")]
        let bar = charts::bar(self.available as f64, self.total as f64);
        tile("Endpoints", class, number, html! { (note) }, bar)
    }
}

impl From<&Generation> for Table {
    fn from(generation: &Generation) -> Self {
        Self {
            generation: generation.number,
            cause: generation.cause.label(),
            at: rfc3339(generation.at).to_string(),
            acknowledged_after_seconds: generation.acknowledged.map(|after| after.as_secs_f64()),
        }
    }
}
