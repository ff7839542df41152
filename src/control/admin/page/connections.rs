//! The live connections: sorted, filtered, and closed one by one where the configuration permits that.

use maud::{Markup, html};

use crate::telemetry::{LiveConnection, LiveList, LiveOrder};

use super::format;
use super::wish::{CONNECTIONS_MAX, Wish};

pub(super) fn section(list: &LiveList, wish: &Wish, may_close: bool) -> Markup {
    html! {
        section id="connections" aria-labelledby="connections-title" {
            div class="title" {
                h2 id="connections-title" { "Live connections" }
                div class="controls" {
                    label for="filter" { "Filter" }
                    input id="filter" form="view" name="filter" type="search" value=(wish.filter) autocomplete="off"
                        placeholder="address, listener, upstream, name" spellcheck="false" maxlength="300";
                }
            }
            div class="card scroll" tabindex="0" role="group" aria-labelledby="connections-title" {
                table {
                    caption {
                        (format::counted(list.matching, "connection"))
                        @if !wish.filter.is_empty() { " with “" (wish.filter) "”" }
                        @if list.connections.len() < list.matching { "; the first " (list.connections.len()) " by this order" }
                        @if !list.complete { "; not every worker answered in time" }
                    }
                    thead { tr {
                        th scope="col" { "Client" }
                        th scope="col" { "Listener" }
                        th scope="col" { "Upstream" }
                        th scope="col" { "Endpoint" }
                        (sortable("Age", LiveOrder::Age, wish))
                        (sortable("Idle", LiveOrder::Idle, wish))
                        (sortable("Received", LiveOrder::Received, wish))
                        (sortable("Sent", LiveOrder::Sent, wish))
                        @if may_close { th scope="col" { span class="hidden" { "Close" } } }
                    } }
                    tbody { @for connection in &list.connections { (row(connection, may_close)) } }
                }
                @if list.connections.is_empty() { p class="nothing" { "none" } }
            }
            @if list.connections.len() < list.matching && wish.connections < CONNECTIONS_MAX {
                p class="more" { button form="view" name="connections" value=(CONNECTIONS_MAX) { "Show more" } }
            }
        }
    }
}

/// A column whose head sorts by it; again, and it sorts the other way.
fn sortable(title: &str, order: LiveOrder, wish: &Wish) -> Markup {
    let is_current = wish.order == order;
    let (direction, arrow) = match (is_current, wish.ascending) {
        (false, _) => (None, "↕"),
        (true, false) => (Some("descending"), "↓"),
        (true, true) => (Some("ascending"), "↑"),
    };
    let reverse = if is_current && !wish.ascending { "-" } else { "" };
    html! {
        th scope="col" class="n" aria-sort=[direction] {
            button id={ "sort-" (order.label()) } class="sort" form="view" name="sort" value={ (reverse) (order.label()) } {
                (title) " " span aria-hidden="true" { (arrow) }
            }
        }
    }
}

fn row(live: &LiveConnection, may_close: bool) -> Markup {
    html! {
        tr id={ "connection-" (live.id) } {
            th scope="row" class="mono" {
                (live.client)
                " " span class="quiet" { "#" (live.id) " on worker " (live.worker) }
            }
            td {
                (live.listener)
                @if let Some(name) = &live.server_name { " " span class="quiet mono name" { (name) } }
            }
            td { @if let Some(upstream) = &live.upstream { (upstream) } @else { span class="quiet" { "none yet" } } }
            td class="mono" { @if let Some(endpoint) = live.endpoint { (endpoint) } @else { span class="quiet" { "none yet" } } }
            td class="n" { (format::long(live.age)) }
            td class="n" { (format::long(live.idle)) }
            td class="n" { (format::bytes(live.bytes_received as f64)) }
            td class="n" { (format::bytes(live.bytes_sent as f64)) }
            @if may_close {
                td class="act" {
                    button class="close" data-close=(live.id) data-client=(live.client) aria-label={ "Close connection " (live.id) " of " (live.client) } { "Close" }
                }
            }
        }
    }
}
