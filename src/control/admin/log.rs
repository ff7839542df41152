//! `/log`: what is logged, and a change of it while the process runs, until the next one or until it ends.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::config::LogLevel;

use super::query::{BadRequest, Parameters, bad_request};
use super::{Admin, guard};

/// In the words of the file.
const LEVEL: &str = "log.level";
const ENABLED: &str = "accessLog.enabled";
const SAMPLE: &str = "accessLog.sample";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InForce {
    log: Log,
    access_log: AccessLog,
    /// What is not as the process started with.
    changed: Vec<&'static str>,
}

#[derive(Serialize)]
struct Log {
    level: &'static str,
}

#[derive(Serialize)]
struct AccessLog {
    enabled: bool,
    sample: f64,
}

/// What is asked for; `None`: as it is.
#[derive(Debug, Default, PartialEq)]
struct Change {
    level: Option<LogLevel>,
    enabled: Option<bool>,
    sample: Option<f64>,
}

pub(super) async fn show(
    State(admin): State<Admin>,
    parameters: Parameters,
) -> Result<Json<InForce>, BadRequest> {
    parameters.finish("none; a change takes a POST")?;
    Ok(Json(in_force(&admin)))
}

pub(super) async fn change(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Response {
    if !admin.shared.started_with.admin.allow_changes {
        let text = "only with admin.allowChanges: true in the configuration, from the start\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    if let Err(refusal) = guard::refuse_pages(&headers) {
        return refusal.into_response();
    }
    match parse(parameters) {
        Ok(change) => {
            apply(&admin, &change, peer);
            Json(in_force(&admin)).into_response()
        }
        Err(error) => error.into_response(),
    }
}

pub(super) async fn only_get_and_post() -> Response {
    let text = "GET shows what is logged, and a POST changes it: curl -X POST '.../log?log.level=debug'\n";
    let allow = [(header::ALLOW, "GET, HEAD, POST")];
    (StatusCode::METHOD_NOT_ALLOWED, allow, text).into_response()
}

/// All of it, or an error and nothing.
fn parse(mut parameters: Parameters) -> Result<Change, BadRequest> {
    let change = Change {
        level: parameters.take(LEVEL).map(|text| parse_level(&text)).transpose()?,
        enabled: parameters.take(ENABLED).map(|text| parse_enabled(&text)).transpose()?,
        sample: parameters.take(SAMPLE).map(|text| parse_sample(&text)).transpose()?,
    };
    let known = format!("{LEVEL}, {ENABLED} and {SAMPLE}");
    parameters.finish(&known)?;
    if change == Change::default() {
        return Err(bad_request(&format!("nothing to change; there is {known}")));
    }
    Ok(change)
}

fn parse_level(text: &str) -> Result<LogLevel, BadRequest> {
    let level = LogLevel::ALL.into_iter().find(|level| level.label() == text);
    level.ok_or_else(|| {
        let known: Vec<&str> = LogLevel::ALL.into_iter().map(LogLevel::label).collect();
        bad_request(&format!("{LEVEL}: {text:?} is not a level; write one of {}", known.join(", ")))
    })
}

fn parse_enabled(text: &str) -> Result<bool, BadRequest> {
    text.parse().map_err(|_| bad_request(&format!("{ENABLED}: {text:?} is neither true nor false")))
}

fn parse_sample(text: &str) -> Result<f64, BadRequest> {
    match text.parse() {
        Ok(sample @ 0.0..=1.0) if f64::is_sign_positive(sample) => Ok(sample),
        _ => Err(bad_request(&format!(
            "{SAMPLE}: {text:?} is not a share; write a number from 0 (none) to 1 (all)"
        ))),
    }
}

fn apply(admin: &Admin, change: &Change, peer: SocketAddr) {
    let share = &admin.shared.telemetry.sampling.log;
    if let Some(sample) = change.sample {
        share.set(sample);
    }
    if let Some(enabled) = change.enabled {
        share.switch(enabled);
    }
    let log = &admin.shared.log;
    let level = change.level.unwrap_or_else(|| log.get());
    let say = || {
        tracing::warn!(
            %peer, log_level = level.label(), access_log = share.is_on(), sample = share.get(), "logging was changed"
        );
    };
    // While the more talkative of the two levels is in force, so that the log says why it falls silent.
    if level < log.get() {
        say();
        log.set(level);
    } else {
        log.set(level);
        say();
    }
}

fn in_force(admin: &Admin) -> InForce {
    let shared = &admin.shared;
    let started_with = &shared.started_with;
    let share = &shared.telemetry.sampling.log;
    let (level, enabled, sample) = (shared.log.get(), share.is_on(), share.get());
    #[expect(clippy::float_cmp, reason = "the very number that was set")]
    let changed = [
        (LEVEL, level != started_with.log.level),
        (ENABLED, enabled != started_with.access_log.enabled),
        (SAMPLE, sample != started_with.access_log.sample),
    ];
    InForce {
        log: Log { level: level.label() },
        access_log: AccessLog { enabled, sample },
        changed: changed.into_iter().filter_map(|(name, is_changed)| is_changed.then_some(name)).collect(),
    }
}
