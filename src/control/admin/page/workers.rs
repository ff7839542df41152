//! How the work is spread over the workers, and the last tables that they got.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use maud::{Markup, html};

use crate::control::generations::{Change, Changes, Generation};
use crate::control::shared::Shared;
use crate::telemetry::WorkerCounters;
use crate::telemetry::logging::rfc3339;

use super::{charts, format};

pub(super) fn section(shared: &Shared) -> Markup {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let most = shared.counters.iter().map(|worker| load(&worker.shown.active)).max().unwrap_or(0);
    let acknowledged = shared.publisher.acknowledged_by_worker();
    let workers = shared.counters.iter().zip(shared.heartbeat_ages()).zip(acknowledged).enumerate();
    html! {
        section id="workers" aria-labelledby="workers-title" {
            h2 id="workers-title" { "Workers" }
            div class="card scroll" tabindex="0" role="group" aria-labelledby="workers-title" {
                table {
                    caption { "One thread for each core: its connections, and whether it keeps up" }
                    thead { tr {
                        th scope="col" { "Worker" }
                        th scope="col" { "Runtime" }
                        th scope="col" class="n" { "Live" }
                            th scope="col" class="load" { span class="hidden" { "Beside the most" } }
                        th scope="col" class="n" { "Accepted" }
                        th scope="col" class="n" { "Given away" }
                        th scope="col" class="n" { "Received" }
                        th scope="col" class="n" { "Sent" }
                        th scope="col" class="n" { "Loop lag" }
                        th scope="col" class="n" { "Table" }
                        th scope="col" { "State" }
                    } }
                    tbody {
                        @for (index, ((worker, heartbeat), table)) in workers {
                            tr id={ "worker-" (index) } {
                                th scope="row" { (index) }
                                td { (runtime(worker)) }
                                td class="n" { (format::count(load(&worker.shown.active))) }
                                td class="load" { (charts::bar(load(&worker.shown.active) as f64, most as f64)) }
                                td class="n" { (format::count(load(&worker.accepted))) }
                                td class="n" { (format::count(load(&worker.given_away))) }
                                td class="n" { (format::bytes(load(&worker.bytes_received) as f64)) }
                                td class="n" { (format::bytes(load(&worker.bytes_sent) as f64)) }
                                td class="n" { (format::short(Duration::from_micros(load(&worker.loop_lag_us)).as_secs_f64())) }
                                td class="n" { (format::count(table)) }
                                td { (state(worker, heartbeat, shared.tuning.stalled_after)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn runtime(worker: &WorkerCounters) -> Markup {
    html! {
        @if let Some(runtime) = worker.runtime.get() {
            (runtime.driver)
            @if runtime.rung != runtime.driver { " " span class="quiet" { (runtime.rung) } }
            @if let Some(core) = runtime.core { " " span class="quiet" { "core " (core) } }
        }
    }
}

fn state(worker: &WorkerCounters, heartbeat: Duration, stalled_after: Duration) -> Markup {
    let (class, word) = if heartbeat > stalled_after {
        ("bad", "stuck")
    } else if worker.shown.runs_late.load(Ordering::Relaxed) {
        ("bad", "runs late")
    } else if worker.is_accept_paused() {
        ("warn", "full")
    } else {
        ("ok", "keeps up")
    };
    html! { span class={ "pill " (class) } { (word) } }
}

pub(super) fn tables(shared: &Shared) -> Markup {
    html! {
        section id="tables" aria-labelledby="tables-title" {
            h2 id="tables-title" { "Tables" }
            div class="card scroll" tabindex="0" role="group" aria-labelledby="tables-title" {
                table {
                    caption { "The last route tables, newest first: what each changed, and how long until all workers had it" }
                    thead { tr {
                        th scope="col" { "Generation" }
                        th scope="col" { "Published" }
                        th scope="col" { "Because of" }
                        th scope="col" { "Changed" }
                        th scope="col" class="n" { "On all workers after" }
                    } }
                    tbody { @for generation in shared.generations.newest() { (table_row(&generation)) } }
                }
            }
        }
    }
}

fn table_row(generation: &Generation) -> Markup {
    let ago = SystemTime::now().duration_since(generation.at).unwrap_or_default();
    let changes = changes(&generation.changes);
    html! {
        tr id={ "table-" (generation.number) } {
            th scope="row" { (format::count(generation.number)) }
            td { time datetime=(rfc3339(generation.at)) { (format::long(ago)) " ago" } }
            td { (generation.cause.label()) }
            td {
                @if changes.is_empty() { span class="quiet" { "no names" } }
                @for change in changes { span class="tag" { (change) } " " }
            }
            td class="n" {
                @match generation.acknowledged {
                    Some(after) => (format::short(after.as_secs_f64())),
                    None => span class="pill warn" { "not yet" },
                }
            }
        }
    }
}

fn changes(changes: &Changes) -> Vec<String> {
    let parts = [
        (changes.listeners, "listener"),
        (changes.routes, "route"),
        (changes.upstreams, "upstream"),
        (changes.endpoints, "endpoint"),
    ];
    let mut texts: Vec<String> = parts.into_iter().filter_map(|(change, what)| text(change, what)).collect();
    if changes.upstreams_changed > 0 {
        texts.push(format!("{} changed", format::counted(changes.upstreams_changed, "upstream")));
    }
    texts
}

/// `+2 −1 endpoints`.
fn text(change: Change, what: &str) -> Option<String> {
    let signed = |sign: char, count: usize| format!("{sign}{}", format::count(count as u64));
    let counts: Vec<String> = [('+', change.added), ('−', change.removed)]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(sign, count)| signed(sign, count))
        .collect();
    let plural = if change.added + change.removed == 1 { "" } else { "s" };
    (!counts.is_empty()).then(|| format!("{} {what}{plural}", counts.join(" ")))
}

/// How long what matters takes.
pub(super) fn latencies(shared: &Shared, ledger: &crate::telemetry::Ledger) -> Markup {
    let (mut connect, mut first_byte) =
        (crate::telemetry::Histogram::default(), crate::telemetry::Histogram::default());
    for upstream in ledger.upstreams.values() {
        connect.merge(&upstream.connect);
        first_byte.merge(&upstream.first_byte);
    }
    let measured = shared.propagation.measured();
    let reloads = shared.status.report().propagation;
    html! {
        section id="latency" aria-labelledby="latency-title" {
            h2 id="latency-title" { "Latency" }
            div class="charts" {
                (charts::distribution("Connect", "from the first attempt until an endpoint had accepted", &connect))
                (charts::distribution("First byte", "from connected until the endpoint’s first byte", &first_byte))
                (charts::distribution("Propagation", "from a change’s arrival until every worker routes by it", &measured.since_receipt))
                @if measured.since_change.count() > 0 {
                    (charts::distribution("Since the change", "from the change in the cluster until every worker routes by it", &measured.since_change))
                } @else {
                    (charts::distribution("Reload", "from publishing a configuration’s table until every worker routes by it", &reloads))
                }
            }
        }
    }
}
