//! What tests ask for over HTTP: an endpoint's status and its sudden death; the clients' report, and single tries.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::TcpListener;

use crate::load::{Aim, exchange};
use crate::report::{Report, Sample, Trial};
use crate::tally::Tally;

/// For an endpoint.
pub(crate) async fn control(
    listener: TcpListener,
    status: impl Fn() -> String + Clone + Send + Sync + 'static,
) {
    let router = Router::new()
        .route("/status", get(move || std::future::ready(status())))
        .route("/abort", post(abort));
    axum::serve(listener, router).await.expect("HTTP is served until the end");
}

/// As SIGKILL does it: no answer, no last words, no warning to Kubernetes; the kernel closes what was open. The first
/// process of a container cannot send itself that signal, and another one could stop to dump core.
#[expect(clippy::disallowed_methods, reason = "to skip the drain is what it is for")]
async fn abort() {
    std::process::exit(137);
}

/// For the clients.
pub(crate) async fn report(listener: TcpListener, tally: Arc<Tally>) {
    let router = Router::new()
        .route(
            "/report",
            get(|State(tally): State<Arc<Tally>>| async move { Json::<Report>(tally.report()) }),
        )
        .route("/reset", post(|State(tally): State<Arc<Tally>>| async move { tally.reset() }))
        .route("/try", get(tries))
        .with_state(tally);
    axum::serve(listener, router).await.expect("HTTP is served until the end");
}

/// `GET /try?aim=ADDRESS[,greet]&count=5`: so many connections, one after the other.
#[derive(Deserialize)]
struct Tries {
    aim: String,
    #[serde(default = "once")]
    count: usize,
    /// For each.
    #[serde(default = "five_seconds")]
    seconds: u64,
}

async fn tries(Query(tries): Query<Tries>) -> Result<Json<Vec<Trial>>, String> {
    let aim: Aim = format!("try={}", tries.aim).parse()?;
    let mut trials = Vec::new();
    for number in 0..tries.count.min(1000) {
        let outcome = exchange(&aim, number as u64, Duration::from_secs(tries.seconds)).await;
        trials.push(match outcome {
            Ok(served) => {
                let seen = Sample { at: served.at, after: served.after, ..Sample::default() };
                Trial { pod: served.pod, failure: String::new(), seen }
            }
            Err(failure) => {
                Trial { pod: String::new(), failure: failure.kind.to_owned(), seen: failure.sample }
            }
        });
    }
    Ok(Json(trials))
}

fn once() -> usize {
    1
}

fn five_seconds() -> u64 {
    5
}
