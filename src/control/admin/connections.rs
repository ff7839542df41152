//! `/connections`: the oldest live connections, as the workers tell them.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::telemetry::LiveConnection;

use super::Admin;
use super::query::{BadRequest, Parameters, bad_request};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;

#[derive(Serialize)]
pub(super) struct Connections {
    /// Whether every worker answered in time.
    complete: bool,
    connections: Vec<Connection>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection {
    id: u64,
    worker: usize,
    client: SocketAddr,
    listener: String,
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
    parameters.finish("limit")?;
    let deadline = tokio::time::sleep(admin.shared.tuning.live);
    let oldest = admin.shared.live.oldest(limit, deadline).await;
    Ok(Json(Connections {
        complete: oldest.complete,
        connections: oldest.connections.into_iter().map(Into::into).collect(),
    }))
}

fn parse_limit(text: &str) -> Result<usize, BadRequest> {
    match text.parse() {
        Ok(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Ok(_) | Err(_) => Err(bad_request(&format!("limit: {text:?} is not a number from 1 to {LIMIT_MAX}"))),
    }
}

impl From<LiveConnection> for Connection {
    fn from(live: LiveConnection) -> Self {
        Self {
            id: live.id,
            worker: live.worker,
            client: live.client,
            listener: live.listener.to_string(),
            upstream: live.upstream.map(|name| name.to_string()),
            endpoint: live.endpoint,
            age_seconds: live.age.as_secs_f64(),
            idle_seconds: live.idle.as_secs_f64(),
            bytes_received: live.bytes_received,
            bytes_sent: live.bytes_sent,
        }
    }
}
