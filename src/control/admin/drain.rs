//! `POST /drain`: the same end that SIGTERM brings, for a preStop hook or an operator on the host.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::control::Event;
use crate::shutdown::Phase;

use super::{Admin, guard};

pub(super) async fn request(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    let shared = &admin.shared;
    if !may_ask(peer, shared.started_with.admin.allow_changes) {
        let text = "only from this host; admin.allowChanges: true lets others ask for it as well\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    if let Err(refusal) = guard::refuse_pages(&headers) {
        return refusal.into_response();
    }
    let phase = shared.drain.phase();
    // Asking again must not count as the second signal, which ends the process at once.
    if phase == Phase::Serving {
        tracing::info!(%peer, "drain requested");
        if let Err(flume::TrySendError::Disconnected(_)) = shared.events.try_send(Event::DrainRequested) {
            let text = "the process is ending already\n";
            return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
        }
    }
    let body = json!({ "phase": phase.label(), "drainRequested": true });
    (StatusCode::ACCEPTED, Json(body)).into_response()
}

fn may_ask(peer: SocketAddr, allow_changes: bool) -> bool {
    allow_changes || peer.ip().to_canonical().is_loopback()
}

pub(super) async fn only_post() -> Response {
    let text = "a drain ends the process, so it takes a POST: curl -X POST .../drain\n";
    let allow = [(header::ALLOW, "POST")];
    (StatusCode::METHOD_NOT_ALLOWED, allow, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_may_ask_only_when_the_configuration_says_so() {
        let may_ask = |peer: &str, allow| may_ask(peer.parse().unwrap(), allow);
        for local in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(may_ask(local, false), "{local}");
        }
        assert!(!may_ask("192.0.2.1:1", false));
        assert!(may_ask("192.0.2.1:1", true));
    }
}
