//! How it is known which endpoints work.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Context, seconds};
use crate::config::errors::quoted;
use crate::config::raw::{self, Field, ProbeType};
use crate::config::{ActiveCheck, HealthCheck, PassiveCheck, ProbeKind};

/// A verdict that takes longer to come is none.
const MAX_PROBE_TIME: Duration = Duration::from_secs(3_600);
/// What is reset so late after connecting was not refused.
const MAX_RESET_WITHIN: Duration = Duration::from_secs(60);
/// The first time; later ones are up to ten times as long.
const MAX_EJECTION: Duration = Duration::from_secs(24 * 3_600);
/// Of the name of a gRPC service.
const MAX_SERVICE_BYTES: usize = 253;
/// Of what a probe asks for.
const MAX_TARGET_BYTES: usize = 4_096;
/// Of statuses that mean healthy.
const MAX_STATUSES: usize = 100;

pub(super) fn health_check(cx: &Context<'_>, path: &str, raw: raw::HealthCheck) -> HealthCheck {
    let path = format!("{path}.healthCheck");
    HealthCheck {
        panic_threshold: raw.panic_threshold.number(50),
        active: raw.active.value().map(|raw| active(cx, &format!("{path}.active"), raw)),
        passive: raw.passive.value().and_then(|raw| passive(cx, &format!("{path}.passive"), raw)),
    }
}

fn passive(cx: &Context<'_>, path: &str, raw: raw::PassiveHealthCheck) -> Option<PassiveCheck> {
    let at = format!("{path}.baseEjectionTime");
    let base_ejection_time = cx.no_longer(seconds(raw.base_ejection_time, 30), &at, MAX_EJECTION);
    if base_ejection_time.is_zero() {
        cx.report.add(
            at,
            "who is ejected for no time never is; write how long, like 30s, or consecutiveFailures: 0",
        );
    }
    let at = format!("{path}.resetWithin");
    let reset_within = cx.no_longer(seconds(raw.reset_within, 0), &at, MAX_RESET_WITHIN);
    Some(PassiveCheck {
        consecutive_failures: NonZeroU32::new(raw.consecutive_failures.number(5))?,
        reset_within,
        base_ejection_time,
        max_ejection_percent: raw.max_ejection_percent.number(50),
    })
}

fn active(cx: &Context<'_>, path: &str, raw: raw::ActiveHealthCheck) -> ActiveCheck {
    let time = |field, default, name: &str| {
        cx.no_longer(seconds(field, default), &format!("{path}.{name}"), MAX_PROBE_TIME)
    };
    let interval = time(raw.interval, 5, "interval");
    let jitter = time(raw.jitter, 1, "jitter");
    let timeout = time(raw.timeout, 1, "timeout");
    for (name, duration, example) in [("interval", interval, "5s"), ("timeout", timeout, "1s")] {
        if duration.is_zero() {
            cx.report.add(format!("{path}.{name}"), format_args!("no time at all; write one like {example}"));
        }
    }
    let kind = kind(cx, path, raw.r#type, raw.http, raw.grpc);
    ActiveCheck {
        unhealthy_threshold: raw.unhealthy_threshold.number(3),
        healthy_threshold: raw.healthy_threshold.number(2),
        kind,
        interval,
        jitter,
        timeout,
        starts_healthy: !matches!(raw.initial_state.value(), Some(raw::InitialState::Unhealthy)),
        port: raw.port.value().and_then(|port| u16::try_from(u32::from(port)).ok()),
    }
}

fn kind(
    cx: &Context<'_>,
    path: &str,
    kind: Field<ProbeType>,
    http_probe: Field<raw::HttpProbe>,
    grpc_probe: Field<raw::GrpcProbe>,
) -> ProbeKind {
    // One that is wrong has been reported, and what goes with it cannot be judged.
    let is_known = !kind.is_wrong();
    let kind = kind.or(ProbeType::Tcp);
    if is_known && !matches!(kind, ProbeType::Http) && !http_probe.is_absent() {
        cx.report.add(format!("{path}.http"), "only probes of type HTTP ask for this; write type: HTTP");
    }
    if is_known && !matches!(kind, ProbeType::Grpc) && !grpc_probe.is_absent() {
        cx.report.add(format!("{path}.grpc"), "only probes of type GRPC ask for this; write type: GRPC");
    }
    match kind {
        ProbeType::Tcp => ProbeKind::Tcp,
        ProbeType::Tls => ProbeKind::Tls,
        ProbeType::Http => http(cx, &format!("{path}.http"), http_probe.or_default()),
        ProbeType::Grpc => grpc(cx, &format!("{path}.grpc"), grpc_probe.or_default()),
    }
}

fn grpc(cx: &Context<'_>, path: &str, raw: raw::GrpcProbe) -> ProbeKind {
    let service = raw.service.or_default();
    if service.len() > MAX_SERVICE_BYTES || service.chars().any(char::is_control) {
        cx.report.add(
            format!("{path}.service"),
            format_args!(
                "{service:?} is no name of a service; write one like shop.v1.Cart, or \"\" for all of it"
            ),
        );
    }
    ProbeKind::Grpc { service }
}

/// What a request line cannot have is refused here: all probes would fail by it.
fn check_target(cx: &Context<'_>, path: &str, target: &str) {
    if !target.starts_with('/') {
        cx.report.add(
            path,
            format_args!("{} is no path; write one that begins with /, like /healthz", quoted(target)),
        );
    } else if target.len() > MAX_TARGET_BYTES {
        cx.report.add(
            path,
            format_args!("{} bytes are too many; write {MAX_TARGET_BYTES} or fewer", target.len()),
        );
    } else if let Some(wrong) = unfit(target) {
        let encoded: String = wrong.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
        cx.report.add(path, format_args!("{} is no path; write {encoded} for {wrong:?}", quoted(target)));
    }
}

/// The first character of it that has to be encoded. (Some that RFC 3986 forbids are common, and clients take them.)
fn unfit(target: &str) -> Option<char> {
    let query = target.find('?').unwrap_or(target.len());
    let fits = |(at, character): (usize, char)| {
        let quote = if at < query { '`' } else { '"' };
        character.is_ascii_graphic() && !matches!(character, '#' | '<' | '>') && character != quote
    };
    let (_, wrong) = target.char_indices().find(|indexed| !fits(*indexed))?;
    Some(wrong)
}

fn http(cx: &Context<'_>, path: &str, raw: raw::HttpProbe) -> ProbeKind {
    let target = raw.path.value().unwrap_or_else(|| "/".to_owned());
    check_target(cx, &format!("{path}.path"), &target);
    let host = raw.hostname.value().filter(|host| !host.is_empty());
    if let Some(host) = &host
        && !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
    {
        cx.report.add(
            format!("{path}.hostname"),
            format_args!("{host:?} is no host name; write one like pg.db.svc, with :port if need be"),
        );
    }
    let at = format!("{path}.expectedStatuses");
    let written = raw.expected_statuses.get().map(Vec::len);
    if written.is_some_and(|count| !(1..=MAX_STATUSES).contains(&count)) {
        let count = written.unwrap_or_default();
        cx.report.add(
            &at,
            format_args!("{count} statuses; write from 1 to {MAX_STATUSES} that mean healthy, like [200]"),
        );
    }
    let statuses = match written {
        Some(_) => cx
            .items(raw.expected_statuses, &at)
            .filter_map(|(_, status)| u16::try_from(u32::from(status)).ok())
            .collect(),
        None => vec![200],
    };
    ProbeKind::Http { path: target, host, statuses }
}
