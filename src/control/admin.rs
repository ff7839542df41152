//! The admin port: the status page, probes, metrics, the table, who is connected, and the request to drain.
//!
//! One request per connection and a bound on everything, so that no client can take the port from the
//! others: when it is full, the oldest connection makes room. It reads; only `POST /drain` and `DELETE /connections/{id}` ask
//! for a change.

mod certificates;
mod connections;
mod drain;
mod guard;
mod log;
mod page;
mod probes;
mod query;
mod scrape;
mod table;

use std::collections::VecDeque;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::shared::Shared;

/// How long a client may take to send its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last, reading the answer included.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// After an error of accepting that is not the client's.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the index and the answer to an unknown path list.
const ENDPOINTS: [(&str, &str); 13] = [
    ("GET /livez", "200 while every worker's loop turns"),
    ("GET /readyz", "200 while the process accepts connections; ?verbose shows each check"),
    ("GET /healthz/lb", "as /readyz, but 503 as soon as the end is announced"),
    ("GET /startupz", "200 once every worker has had a table"),
    ("GET /metrics", "OpenMetrics"),
    ("GET /table", "listeners, routes, upstreams and endpoints as they are now (JSON)"),
    (
        "GET /connections",
        "live connections (JSON); ?limit=1..10000, default 100; ?sort=age|idle|received|sent; ?filter=text",
    ),
    ("DELETE /connections/{id}", "closes one; only with admin.allowChanges"),
    ("GET /log", "what is logged (JSON)"),
    (
        "POST /log",
        "changes it: ?log.level=debug, accessLog.enabled=true, accessLog.sample=0.1; with admin.allowChanges",
    ),
    ("POST /drain", "ends the process as SIGTERM does; from this host only, unless admin.allowChanges"),
    ("GET /status", "how the process fares, in a few numbers (JSON)"),
    ("GET /", "the status page for a browser, this list for others"),
];

#[derive(Clone)]
struct Admin {
    shared: Arc<Shared>,
    /// Held by the scrape under way.
    scraping: Arc<tokio::sync::Mutex<()>>,
    /// Held by the status page that is being made.
    viewing: Arc<tokio::sync::Mutex<()>>,
}

/// Serves for ever.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let router = router(Arc::clone(&shared));
    let mut live: VecDeque<AbortHandle> = VecDeque::new();
    let mut failing = false;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "the admin port cannot accept; trying again");
                }
                failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        failing = false;
        live.retain(|connection| !connection.is_finished());
        if live.len() >= shared.limits.admin
            && let Some(oldest) = live.pop_front()
        {
            oldest.abort();
            // Its task lets go of the socket only when it has its turn.
            tokio::task::yield_now().await;
        }
        live.push_back(tokio::spawn(serve_connection(stream, peer, router.clone())).abort_handle());
    }
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, router: Router) {
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(|mut request: hyper::Request<_>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        hyper::service::Service::call(&router, request)
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, %peer, "an admin connection failed"),
        Err(_) => tracing::debug!(%peer, "an admin connection took too long"),
    }
}

fn router(shared: Arc<Shared>) -> Router {
    // What shows who is connected, and what changes something.
    let guarded = Router::new()
        .route("/", get(page::show))
        .route("/status", get(page::status))
        .route("/page/page.css", get(page::style))
        .route("/page/page.js", get(page::script))
        .route("/page/icon.svg", get(page::icon))
        .route("/table", get(table::show))
        .route("/connections", get(connections::show))
        .route("/connections/{id}", delete(connections::close).fallback(connections::only_delete))
        .route("/log", get(log::show).post(log::change).fallback(log::only_get_and_post))
        .route("/drain", post(drain::request).fallback(drain::only_post))
        .route_layer(axum::middleware::from_fn(guard::known_host));
    Router::new()
        .route("/livez", get(probes::live))
        .route("/readyz", get(probes::ready))
        .route("/healthz/lb", get(probes::load_balancer))
        .route("/startupz", get(probes::started))
        .route("/metrics", get(scrape::show))
        .merge(guarded)
        .method_not_allowed_fallback(only_get)
        .fallback(unknown)
        .layer(axum::middleware::map_response(as_named))
        .with_state(Admin { shared, scraping: Arc::default(), viewing: Arc::default() })
}

/// Text with the names of strangers in it is never to be taken for a page.
async fn as_named(mut response: Response) -> Response {
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

async fn unknown(request: Request) -> (StatusCode, String) {
    let path = request.uri().path();
    let text = format!("there is no {path} here\n\n{}", list());
    (StatusCode::NOT_FOUND, text)
}

async fn only_get(request: Request) -> Response {
    let text = format!("{} does not take {}; use GET\n", request.uri().path(), request.method());
    let allow = [(header::ALLOW, "GET, HEAD")];
    (StatusCode::METHOD_NOT_ALLOWED, allow, text).into_response()
}

fn list() -> String {
    ENDPOINTS.iter().fold(String::new(), |mut text, (endpoint, what)| {
        let _infallible = writeln!(text, "{endpoint:<24} {what}");
        text
    })
}
