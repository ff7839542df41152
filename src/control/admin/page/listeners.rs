//! The listeners and their routes, with what came through each.

use maud::{Markup, html};

use crate::config::TlsMode;
use crate::routing::{Listener, Route, RouteTable};
use crate::telemetry::{Ledger, ListenerLedger, Tally};

use super::format;

/// More are counted, not shown: a table is for reading.
const ROWS_MAX: usize = 200;

pub(super) fn section(table: &RouteTable, ledger: &Ledger) -> Markup {
    html! {
        section id="listeners" aria-labelledby="listeners-title" {
            h2 id="listeners-title" { "Listeners" }
            div class="card scroll" tabindex="0" role="group" aria-labelledby="listeners-title" {
                table {
                    caption { "Where connections are accepted, and what became of them" }
                    thead { tr {
                        th scope="col" { "Listener" }
                        th scope="col" { "Address" }
                        th scope="col" { "Protocol" }
                        th scope="col" class="n" { "Live" }
                        th scope="col" class="n" { "Ended" }
                        th scope="col" class="n" { "Failed" }
                        th scope="col" class="n" { "Received" }
                        th scope="col" class="n" { "Sent" }
                    } }
                    tbody {
                        @for listener in table.listeners.iter().take(ROWS_MAX) {
                            (row(listener, ledger.listeners.get(&listener.name)))
                        }
                    }
                }
            }
            (more(table.listeners.len()))
        }
        (routes(table, ledger))
    }
}

fn row(listener: &Listener, ledger: Option<&ListenerLedger>) -> Markup {
    let tally = ledger.map(|ledger| &ledger.tally);
    let (received, sent) = tally.map_or((0, 0), |tally| (tally.bytes_received, tally.bytes_sent));
    let live = listener.state.places.taken();
    html! {
        tr id={ "listener-" (listener.name) } {
            th scope="row" { (listener.name) }
            td class="mono" { (listener.address) }
            td {
                (listener.protocol.label())
                @if listener.proxy.is_some() { " " span class="tag" { "PROXY" } }
            }
            td class="n" {
                (format::count(live as u64))
                @if let Some(limit) = listener.limit {
                    span class="quiet" { " / " (format::count(limit.limit.get() as u64)) }
                }
            }
            (counts(tally))
            td class="n" { (format::bytes(received as f64)) }
            td class="n" { (format::bytes(sent as f64)) }
        }
    }
}

fn routes(table: &RouteTable, ledger: &Ledger) -> Markup {
    let routes = || {
        table.listeners.iter().flat_map(|listener| listener.routes.iter().map(move |route| (listener, route)))
    };
    html! {
        section id="routes" aria-labelledby="routes-title" {
            h2 id="routes-title" { "Routes" }
            div class="card scroll" tabindex="0" role="group" aria-labelledby="routes-title" {
                table {
                    caption { "Which clients go to which upstreams" }
                    thead { tr {
                        th scope="col" { "Route" }
                        th scope="col" { "Listener" }
                        th scope="col" { "Clients" }
                        th scope="col" { "TLS" }
                        th scope="col" { "Upstreams by weight" }
                        th scope="col" class="n" { "Ended" }
                        th scope="col" class="n" { "Failed" }
                    } }
                    tbody {
                        @for (listener, route) in routes().take(ROWS_MAX) { (route_row(listener, route, ledger)) }
                    }
                }
            }
            (more(routes().count()))
        }
    }
}

fn route_row(listener: &Listener, route: &Route, ledger: &Ledger) -> Markup {
    let whole: u64 = route.backends.iter().map(|backend| u64::from(backend.weight)).sum();
    html! {
        tr id={ "route-" (route.name) } {
            th scope="row" { (route.name) }
            td { (listener.name) }
            td {
                @if route.hostnames.is_empty() && route.sources.is_empty() { span class="quiet" { "all" } }
                @for hostname in route.hostnames.iter() { span class="tag mono" { (hostname) } " " }
                @for source in route.sources.iter() { span class="tag mono" { (source) } " " }
            }
            td { (route.tls_mode.map_or("none", TlsMode::label)) }
            td {
                @for backend in &route.backends {
                    span class="tag" {
                        (backend.upstream.name)
                        @if route.backends.len() > 1 {
                            " " span class="quiet" { (format::percent(u64::from(backend.weight), whole)) }
                        }
                    }
                    " "
                }
            }
            (counts(ledger.routes.get(&route.name).map(|ledger| &ledger.tally)))
        }
    }
}

/// Two cells: how many ended, and how many of them failed.
fn counts(tally: Option<&Tally>) -> Markup {
    let (ended, failed) = tally.map_or((0, 0), Tally::counts);
    html! {
        td class="n" { (format::count(ended)) }
        td class={ "n" @if failed > 0 { " bad-text" } } {
            (format::count(failed))
            @if failed > 0 { span class="quiet" { " (" (format::percent(failed, ended)) ")" } }
        }
    }
}

fn more(all: usize) -> Markup {
    html! {
        @if let Some(more @ 1..) = all.checked_sub(ROWS_MAX) {
            p class="quiet" { "and " (format::count(more as u64)) " more, which /table has" }
        }
    }
}
