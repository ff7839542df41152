//! `/connections`: live connections, as the workers tell them, and the way to close one.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::telemetry::{Closed, LiveConnection, LiveList, LiveOrder, LiveWish, Outcome};

use super::query::{BadRequest, Parameters, bad_request};
use super::{Admin, guard};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;
/// The longest name that a client may ask for, and some.
const FILTER_MAX: usize = 300;

#[derive(Serialize)]
pub(super) struct Connections {
    /// Whether every worker answered in time.
    complete: bool,
    /// How many match the filter, those beyond the limit included.
    matching: usize,
    connections: Vec<Connection>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection {
    id: u64,
    worker: usize,
    client: SocketAddr,
    listener: String,
    /// What the client asked for in TLS; absent where that was not seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<Box<str>>,
    upstream: Option<String>,
    endpoint: Option<SocketAddr>,
    age_seconds: f64,
    idle_seconds: f64,
    bytes_received: u64,
    bytes_sent: u64,
}

pub(super) async fn show(
    State(admin): State<Admin>,
    mut parameters: Parameters,
) -> Result<Json<Connections>, BadRequest> {
    let limit = match parameters.take("limit") {
        None => LIMIT_DEFAULT,
        Some(text) => parse_limit(&text)?,
    };
    let (order, ascending) = take_sort(&mut parameters)?;
    let filter = take_filter(&mut parameters, "filter")?;
    parameters.finish("limit, sort and filter")?;
    let wish = LiveWish { limit, order, ascending, filter };
    let LiveList { connections, matching, complete } = list(&admin, wish).await;
    let connections = connections.into_iter().map(Into::into).collect();
    Ok(Json(Connections { complete, matching, connections }))
}

/// Asks the workers, as long as that takes within bounds.
pub(super) async fn list(admin: &Admin, wish: LiveWish) -> LiveList {
    admin.shared.live.list(wish, tokio::time::sleep(admin.shared.tuning.live)).await
}

/// `DELETE /connections/{id}`: ends a connection, for an operator who has found it to be the one to end.
pub(super) async fn close(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let refused = |status: StatusCode, text: String| (status, text).into_response();
    if let Err(refusal) = guard::refuse_other_pages(&headers) {
        return refusal.into_response();
    }
    if !admin.shared.started_with.admin.allow_changes {
        let text = "connections are closed by hand only with admin.allowChanges: true\n";
        return refused(StatusCode::FORBIDDEN, text.into());
    }
    let Ok(id) = id.parse::<u64>() else {
        let text = format!("{id:?} is not the id of a connection; GET /connections has them\n");
        return refused(StatusCode::BAD_REQUEST, text);
    };
    match admin.shared.live.close(id, tokio::time::sleep(admin.shared.tuning.live)).await {
        Closed::Yes => {
            tracing::info!(connection = id, %peer, "connection closed by hand");
            Json(json!({ "id": id, "outcome": Outcome::AdminClosed.label() })).into_response()
        }
        Closed::NotLive => refused(StatusCode::NOT_FOUND, format!("connection {id} is not live\n")),
        Closed::Unknown => {
            let text =
                format!("not every worker answered in time: whether connection {id} ends is not known\n");
            refused(StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

pub(super) async fn only_delete() -> Response {
    let text = "a connection is closed by DELETE; GET /connections shows those that are live\n";
    let allow = [(header::ALLOW, "DELETE")];
    (StatusCode::METHOD_NOT_ALLOWED, allow, text).into_response()
}

fn parse_limit(text: &str) -> Result<usize, BadRequest> {
    match text.parse() {
        Ok(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Ok(_) | Err(_) => Err(bad_request(&format!("limit: {text:?} is not a number from 1 to {LIMIT_MAX}"))),
    }
}

/// `sort=idle`: the longest idle first; `sort=-idle`: last.
pub(super) fn take_sort(parameters: &mut Parameters) -> Result<(LiveOrder, bool), BadRequest> {
    let Some(text) = parameters.take("sort").filter(|text| !text.is_empty()) else {
        return Ok((LiveOrder::Age, false));
    };
    let (name, ascending) = text.strip_prefix('-').map_or((&*text, false), |name| (name, true));
    let order = LiveOrder::ALL.into_iter().find(|order| order.label() == name);
    let order = order.ok_or_else(|| {
        let known = LiveOrder::ALL.map(LiveOrder::label).join(", ");
        bad_request(&format!("sort: {text:?} is none of {known}, each with a - before it for the reverse"))
    })?;
    Ok((order, ascending))
}

/// In lower case; empty: none.
pub(super) fn take_filter(parameters: &mut Parameters, name: &str) -> Result<String, BadRequest> {
    let text = parameters.take(name).unwrap_or_default();
    if text.len() > FILTER_MAX {
        return Err(bad_request(&format!("{name}: longer than {FILTER_MAX} bytes")));
    }
    Ok(text.trim().to_ascii_lowercase())
}

impl From<LiveConnection> for Connection {
    fn from(live: LiveConnection) -> Self {
        Self {
            id: live.id,
            worker: live.worker,
            client: live.client,
            listener: live.listener.to_string(),
            server_name: live.server_name,
            upstream: live.upstream.map(|name| name.to_string()),
            endpoint: live.endpoint,
            age_seconds: live.age.as_secs_f64(),
            idle_seconds: live.idle.as_secs_f64(),
            bytes_received: live.bytes_received,
            bytes_sent: live.bytes_sent,
        }
    }
}
