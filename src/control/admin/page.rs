//! The status page: all of it is made here, as HTML; a small script asks for it again and puts in what has changed.
//!
//! It asks nothing of anybody else and needs no script to be read. What comes from outside (names of the configuration and of
//! the cluster, what clients ask for) gets into it as text only, which the templates see to. It is made on a helper thread, and
//! of much it shows the first: the parameters in its address say which.

mod charts;
mod connections;
mod failures;
mod format;
mod listeners;
mod notices;
mod overview;
mod upstreams;
mod wish;
mod workers;

use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::control::metrics;
use crate::control::shared::Shared;
use crate::telemetry::LiveList;

use super::query::{BadRequest, Parameters};
use super::{Admin, list};
use overview::Overview;
use wish::Wish;

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
const ICON: &str = include_str!("page/icon.svg");

/// Only what this port has itself, no script or style within the page, and in no frame of another one.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// `GET /`: the page for a browser, the list of what there is for all others.
pub(super) async fn show(
    State(admin): State<Admin>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, BadRequest> {
    let accepts = headers.get_all(header::ACCEPT).iter();
    if !accepts.filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/html")) {
        let text = format!("sheave {}\n\n{}", env!("CARGO_PKG_VERSION"), list());
        return Ok(([(header::VARY, "Accept")], text).into_response());
    }
    let wish = Wish::parse(parameters)?;
    // One at a time, so that many viewers take one helper thread.
    let turn = Arc::clone(&admin.viewing).lock_owned().await;
    let live = super::connections::list(&admin, wish.of_connections()).await;
    let page = tokio::task::spawn_blocking(move || {
        let page = page(&admin.shared, &wish, &live).into_string();
        drop(turn);
        page
    });
    let page = page.await.map_err(|error| {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("the page could not be made: {error}\n"))
    })?;
    Ok(answer("text/html; charset=utf-8", page))
}

/// `GET /status`: the numbers of the top of the page.
pub(super) async fn status(State(admin): State<Admin>) -> Json<Overview> {
    Json(Overview::new(&admin.shared))
}

pub(super) async fn style() -> Response {
    answer("text/css; charset=utf-8", STYLE)
}

pub(super) async fn script() -> Response {
    answer("text/javascript; charset=utf-8", SCRIPT)
}

pub(super) async fn icon() -> Response {
    answer("image/svg+xml", ICON)
}

fn answer(kind: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "Accept"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// All of the page.
fn page(shared: &Shared, wish: &Wish, live: &LiveList) -> Markup {
    let overview = Overview::new(shared);
    let body = body(shared, &overview, wish, live);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Sheave · " (overview.phase) }
                link rel="icon" href="/page/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/page/page.css";
                script type="module" src="/page/page.js" {}
            }
            body {
                a class="skip" href="#overview" { "To the content" }
                (top(&overview))
                (body)
                footer { p class="quiet" {
                    "The same for programs: " a href="/status" { "/status" } ", " a href="/table" { "/table" } ", "
                    a href="/connections" { "/connections" } ", " a href="/metrics" { "/metrics" }
                } }
            }
        }
    }
}

fn top(overview: &Overview) -> Markup {
    let class = if overview.phase == "serving" { "ok" } else { "warn" };
    html! {
        header class="top" {
            div class="brand" {
                (PreEscaped(ICON))
                h1 { "Sheave" }
                span class="quiet" { (overview.version()) }
            }
            div id="phase" class="phase" {
                span class={ "pill " (class) } { (overview.phase) }
                " "
                span class="quiet" { "up " time datetime=(overview.started_at()) { (format::long(overview.uptime())) } }
            }
            div class="live" {
                p id="contact" class="contact" role="status" {}
                button id="pause" type="button" aria-pressed="false" { "Pause" }
            }
            nav aria-label="Sections" {
                ul {
                    @for (id, title) in SECTIONS { li { a href={ "#" (id) } { (title) } } }
                }
            }
        }
    }
}

const SECTIONS: [(&str, &str); 9] = [
    ("overview", "Overview"),
    ("listeners", "Listeners"),
    ("routes", "Routes"),
    ("upstreams", "Upstreams"),
    ("connections", "Connections"),
    ("failures", "Failures"),
    ("workers", "Workers"),
    ("tables", "Tables"),
    ("latency", "Latency"),
];

fn body(shared: &Shared, overview: &Overview, wish: &Wish, live: &LiveList) -> Markup {
    let table = shared.publisher.current();
    let may_close = shared.started_with.admin.allow_changes;
    // Where somebody reads the metrics slowly, this waits with them: on a thread that has nothing else to do.
    let mut ledger = shared.ledger.lock().unwrap_or_else(PoisonError::into_inner);
    metrics::collect(shared, &table, &mut ledger);
    html! {
        main id="page" {
            // All controls belong to it, wherever they are; the first button is what Enter in a field presses.
            form id="view" action="/" method="get" hidden {
                button { "Show" }
                input type="hidden" name="sort" value=(wish.sort());
                input type="hidden" name="upstream" value=(wish.upstream);
            }
            section id="overview" aria-labelledby="overview-title" {
                h2 id="overview-title" class="hidden" { "Overview" }
                (notices::show(shared, &table))
                (overview.tiles(&shared.history.seconds()))
            }
            (listeners::section(&table, &ledger))
            (upstreams::section(shared, &table, &ledger, wish))
            (connections::section(live, wish, may_close))
            (failures::section(shared))
            (workers::section(shared))
            (workers::tables(shared))
            (workers::latencies(shared, &ledger))
        }
    }
}
