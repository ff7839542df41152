//! The upstreams and their endpoints, what is wrong with them first.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Instant;

use maud::{Markup, html};

use crate::config::{LoadBalancer, PortRef, ServicePort};
use crate::control::probes::Counts;
use crate::control::shared::Shared;
use crate::resilience::BreakerState;
use crate::routing::{Endpoint, RouteTable, Upstream};
use crate::telemetry::{EndpointLedger, Ledger, UpstreamLedger};

use super::wish::Wish;
use super::{charts, format};

/// Upstreams on one page, and the endpoints of each of them.
const UPSTREAMS: usize = 20;
const ENDPOINTS_OF_EACH: usize = 8;
/// Endpoints on one page of the only upstream.
const ENDPOINTS: usize = 100;

pub(super) fn section(shared: &Shared, table: &RouteTable, ledger: &Ledger, wish: &Wish) -> Markup {
    let only = table.upstreams.get(&*wish.upstream);
    let meant: Vec<&Upstream> = match only {
        Some(upstream) => vec![upstream],
        None => {
            let matches = |upstream: &&Upstream| {
                let name = upstream.name.to_ascii_lowercase();
                name.contains(&wish.upstreams)
            };
            table.upstreams.values().map(|upstream| &**upstream).filter(matches).collect()
        }
    };
    let from = if only.is_some() { 0 } else { wish.from };
    let shown = meant.iter().skip(from).take(UPSTREAMS);
    html! {
        section id="upstreams" aria-labelledby="upstreams-title" {
            div class="title" {
                h2 id="upstreams-title" { "Upstreams" }
                div class="controls" {
                    @if only.is_some() {
                        button form="view" name="upstream" value="" { "All upstreams" }
                    } @else {
                        label for="upstreams-filter" { "Filter" }
                        input id="upstreams-filter" form="view" name="upstreams" type="search" value=(wish.upstreams)
                            placeholder="part of a name" autocomplete="off" spellcheck="false" maxlength="100";
                    }
                }
            }
            @for upstream in shown { (one(shared, upstream, ledger, wish, only.is_some())) }
            @if meant.is_empty() { p class="nothing" { "no upstream has such a name" } }
            @if only.is_none() { (pages("upstreams", from, UPSTREAMS, meant.len())) }
        }
    }
}

fn one(shared: &Shared, upstream: &Upstream, ledger: &Ledger, wish: &Wish, is_only: bool) -> Markup {
    let now = Instant::now();
    let probes = shared.probes.of(&upstream.name);
    let first: HashSet<usize> = upstream.selection.first().collect();
    let mut rows: Vec<Row<'_>> = upstream
        .endpoints
        .iter()
        .enumerate()
        .map(|(index, endpoint)| Row::new(upstream, endpoint, first.contains(&index), probes.as_ref(), now))
        .collect();
    let available = rows.iter().filter(|row| matches!(row.state.class, "ok" | "warn")).count();
    let leaving = upstream.leaving.iter().filter(|endpoint| endpoint.state.active() > 0);
    rows.extend(leaving.map(|endpoint| Row::leaving(endpoint, now)));
    rows.sort_by_key(|row| row.state.rank());
    let (from, limit) = if is_only { (wish.from, ENDPOINTS) } else { (0, ENDPOINTS_OF_EACH) };
    let most = rows.iter().map(|row| row.endpoint.state.active()).max().unwrap_or(0);
    let title = format!("upstream-{}", upstream.name);
    html! {
        article class="card" id=(title) aria-label={ "Upstream " (upstream.name) } {
            (head(upstream, available, ledger.upstreams.get(&upstream.name)))
            @if let Some(problem) = &upstream.problem {
                p class="notice bad" { strong { (problem.reason) } " " (problem.text) }
            }
            @if upstream.selection.panics() {
                p class="notice warn" { strong { "panic" } " so few endpoints are healthy that health is ignored" }
            }
            @if rows.is_empty() {
                p class="nothing" { "no endpoints" }
            } @else {
                div class="scroll" tabindex="0" role="group" aria-label={ "Endpoints of " (upstream.name) } {
                    table class="endpoints" {
                        caption class="hidden" { "Endpoints of " (upstream.name) ", what is wrong first" }
                        thead { tr {
                            th scope="col" class="w-address" { "Endpoint" }
                            th scope="col" class="w-state" { "State" }
                            th scope="col" class="w-breaker" { "Breaker" }
                            th scope="col" class="n" { "Weight" }
                            th scope="col" class="n" { "Live" }
                            th scope="col" class="load" { span class="hidden" { "Beside the most" } }
                            th scope="col" class="n" { "Connect" }
                            th scope="col" class="w-zone" { "Zone" }
                            th scope="col" class="n" { "Ended" }
                            th scope="col" class="n" { "Failures" }
                        } }
                        tbody {
                            @for row in rows.iter().skip(from).take(limit) {
                                (row.show(upstream, most, ledger.endpoints.get(&upstream.name), now))
                            }
                        }
                    }
                }
            }
            @if is_only {
                (pages("endpoints", from, ENDPOINTS, rows.len()))
            } @else if rows.len() > limit {
                p { button form="view" name="upstream" value=(upstream.name) { "All " (format::counted(rows.len(), "endpoint")) } }
            }
        }
    }
}

fn head(upstream: &Upstream, available: usize, ledger: Option<&UpstreamLedger>) -> Markup {
    let all = upstream.endpoints.len();
    let class = match available {
        available if available == all && all > 0 => "ok",
        0 => "bad",
        _ => "warn",
    };
    html! {
        header class="upstream" {
            h3 { (upstream.name) }
            span class={ "pill " (class) } { (format::count(available as u64)) " of " (format::count(all as u64)) " available" }
            span class="quiet" {
                (balancer(upstream.load_balancer))
                @if let Some(service) = &upstream.service { " · Service " span class="mono" { (name_of(service)) } }
                @if let Some(nearness) = upstream.selection.nearness() { " · " (nearness.label()) " first" }
            }
            dl class="facts" {
                (fact("live", &with_limit(upstream)))
                @if upstream.state.queued() > 0 { (fact("waiting", &format::count(upstream.state.queued() as u64))) }
                @if let Some(ledger) = ledger {
                    (fact("ended", &format::count(ledger.tally.counts().0)))
                    @if ledger.retries > 0 { (fact("retries", &format::count(ledger.retries))) }
                    @if ledger.connect.count() > 0 {
                        (fact("connect p50", &format::short(ledger.connect.quantile(0.5).unwrap_or(0.0))))
                        (fact("p99", &format::short(ledger.connect.quantile(0.99).unwrap_or(0.0))))
                    }
                }
            }
        }
    }
}

fn fact(what: &str, value: &str) -> Markup {
    html! { div { dt { (what) } dd { (value) } } }
}

fn with_limit(upstream: &Upstream) -> String {
    let live: usize = upstream.endpoints.iter().map(|endpoint| endpoint.state.active()).sum();
    let live = format::count(live as u64);
    match upstream.limits.max_connections {
        Some(limit) => format!("{live} / {}", format::count(limit.get() as u64)),
        None => live,
    }
}

fn balancer(balancer: LoadBalancer) -> &'static str {
    match balancer {
        LoadBalancer::RoundRobin => "round robin",
        LoadBalancer::LeastConnections => "least connections",
        LoadBalancer::Random => "random",
        LoadBalancer::PeakEwma => "peak EWMA",
        LoadBalancer::ConsistentHash { .. } => "consistent hash",
    }
}

fn name_of(service: &ServicePort) -> String {
    let port = match &service.port {
        PortRef::Number(number) => number.to_string(),
        PortRef::Name(name) => name.to_string(),
    };
    format!("{}/{}:{port}", service.namespace, service.name)
}

/// An endpoint and what there is to say of it.
struct Row<'a> {
    endpoint: &'a Endpoint,
    state: State,
}

/// Whether it takes connections, and if not, why.
struct State {
    word: &'static str,
    class: &'static str,
    why: String,
}

impl State {
    fn new(class: &'static str, word: &'static str, why: String) -> Self {
        Self { word, class, why }
    }

    /// What is wrong comes first.
    fn rank(&self) -> u8 {
        match self.class {
            "bad" => 0,
            "warn" => 1,
            "ok" => 2,
            _ => 3,
        }
    }
}

impl<'a> Row<'a> {
    fn new(
        upstream: &Upstream,
        endpoint: &'a Endpoint,
        is_first: bool,
        probes: Option<&Counts>,
        now: Instant,
    ) -> Self {
        let state = &endpoint.state;
        let breaker = endpoint.breaker.as_ref().map(|breaker| breaker.state());
        let share = upstream.slow_start_now().map(|window| endpoint.start.share(window, now) / 10);
        let state = if !state.health.is_healthy() {
            let failure = probes.and_then(|probes| probes.failure(endpoint.address));
            State::new("bad", "unhealthy", failure.map(|failure| failure.to_string()).unwrap_or_default())
        } else if let Some(until) = state.ejection.until() {
            let left = until.saturating_duration_since(now);
            let why = format!("{}; back in {}", state.ejection.last_failure(), format::long(left));
            State::new("bad", "ejected", why)
        } else if breaker == Some(BreakerState::Open) {
            State::new("bad", "breaker open", "its connections failed; one will be tried".to_owned())
        } else if breaker == Some(BreakerState::HalfOpen) {
            State::new("warn", "breaker half-open", "one attempt finds out whether it is back".to_owned())
        } else if endpoint.weight == 0 {
            State::new("off", "no weight", "takes no new connections".to_owned())
        } else if endpoint.is_full() {
            State::new("warn", "full", "as many connections as it may have".to_owned())
        } else if !is_first {
            let why = if endpoint.priority > 0 {
                format!("priority {}", endpoint.priority)
            } else {
                "others are nearer".to_owned()
            };
            State::new("off", "spare", why)
        } else if let Some(percent @ ..100) = share {
            State::new("warn", "warming up", format!("new: {percent} % of its share"))
        } else {
            State::new("ok", "healthy", String::new())
        };
        Self { endpoint, state }
    }

    fn leaving(endpoint: &'a Endpoint, now: Instant) -> Self {
        let left = endpoint.state.leave_by().map(|by| by.saturating_duration_since(now));
        let why = left.map(|left| format!("gone in {} at the latest", format::long(left)));
        Self { endpoint, state: State::new("off", "draining", why.unwrap_or_default()) }
    }

    fn show(
        &self,
        upstream: &Upstream,
        most: usize,
        ledgers: Option<&BTreeMap<SocketAddr, EndpointLedger>>,
        now: Instant,
    ) -> Markup {
        let Self { endpoint, state } = self;
        let ledger = ledgers.and_then(|ledgers| ledgers.get(&endpoint.address));
        let failures: u64 = ledger.iter().flat_map(|ledger| ledger.failures.values()).sum();
        let reasons = ledger.iter().flat_map(|ledger| &ledger.failures);
        let reasons: Vec<String> = reasons
            .map(|(outcome, count)| format!("{} {}", format::count(*count), outcome.label()))
            .collect();
        let active = endpoint.state.active();
        let breaker = endpoint.breaker.as_ref().map(|breaker| breaker.state().label().replace('_', "-"));
        let topology = &endpoint.topology;
        html! {
            tr id={ "endpoint-" (upstream.name) "-" (endpoint.address) } {
                th scope="row" class="mono" { (endpoint.address) }
                td {
                    span class={ "pill " (state.class) } { (state.word) }
                    @if !state.why.is_empty() { " " span class="quiet why" { (state.why) } }
                }
                td { (breaker.as_deref().unwrap_or("none")) }
                td class="n" { (endpoint.weight) }
                td class="n" {
                    (format::count(active as u64))
                    @if let Some(limit) = endpoint.max_connections { span class="quiet" { " / " (limit) } }
                }
                td class="load" { (charts::bar(charts::px(active), charts::px(most))) }
                td class="n" {
                    @if let Some(seconds) = endpoint.state.latency.connect_seconds(now) { (format::short(seconds.into())) }
                    @else { span class="quiet" { "not yet" } }
                }
                td {
                    (topology.zone.as_deref().unwrap_or_default())
                    @if let Some(node) = &topology.node { " " span class="quiet" { (node) } }
                }
                td class="n" { (format::count(ledger.map_or(0, |ledger| ledger.connections))) }
                td class={ "n" @if failures > 0 { " bad-text" } } title=[(failures > 0).then(|| reasons.join(", "))] {
                    (format::count(failures))
                }
            }
        }
    }
}

/// The way to the others, where not all are shown.
fn pages(what: &str, from: usize, step: usize, all: usize) -> Markup {
    let until = from.saturating_add(step).min(all);
    html! {
        @if all > step {
            nav class="pages" aria-label={ "Pages of " (what) } {
                button form="view" name="from" value=(from.saturating_sub(step)) disabled[from == 0] { "Previous" }
                span { (format::count(from.saturating_add(1).min(all) as u64)) "–" (format::count(until as u64)) " of " (format::count(all as u64)) }
                button form="view" name="from" value=(from.saturating_add(step)) disabled[until >= all] { "Next" }
            }
        }
    }
}
