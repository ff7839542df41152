//! How it is known which endpoints work.

use std::num::NonZeroU32;

use super::{Context, seconds};
use crate::config::raw::{self, Field, ProbeType};
use crate::config::scalar::GatewayDuration;
use crate::config::{ActiveCheck, HealthCheck, PassiveCheck, ProbeKind};

/// More failures, or successes, in a row than anybody waits for.
const MAX_THRESHOLD: u32 = 100;
/// More in a row is no sign of trouble any more, but trouble.
const MAX_FAILURES: u32 = 1_000;
/// Of the name of a gRPC service.
const MAX_SERVICE_BYTES: usize = 253;
/// Of statuses that mean healthy.
const MAX_STATUSES: usize = 100;

pub(super) fn health_check(cx: &Context<'_>, path: &str, raw: raw::HealthCheck) -> HealthCheck {
    let path = format!("{path}.healthCheck");
    let panic_threshold = raw.panic_threshold.or(50);
    HealthCheck {
        panic_threshold: cx.within(panic_threshold, &format!("{path}.panicThreshold"), 0, 100),
        active: raw.active.value().map(|raw| active(cx, &format!("{path}.active"), raw)),
        passive: raw.passive.value().and_then(|raw| passive(cx, &format!("{path}.passive"), raw)),
    }
}

fn passive(cx: &Context<'_>, path: &str, raw: raw::PassiveHealthCheck) -> Option<PassiveCheck> {
    let at = format!("{path}.consecutiveFailures");
    let consecutive_failures = cx.within(raw.consecutive_failures.or(5), &at, 0, MAX_FAILURES);
    let base_ejection_time = seconds(raw.base_ejection_time, 30);
    if base_ejection_time.is_zero() {
        cx.report.add(
            format!("{path}.baseEjectionTime"),
            "who is ejected for no time never is; write how long, like 30s, or consecutiveFailures: 0",
        );
    }
    let at = format!("{path}.maxEjectionPercent");
    let max_ejection_percent = cx.within(raw.max_ejection_percent.or(50), &at, 1, 100);
    Some(PassiveCheck {
        consecutive_failures: NonZeroU32::new(consecutive_failures)?,
        reset_within: seconds(raw.reset_within, 0),
        base_ejection_time,
        max_ejection_percent,
    })
}

fn active(cx: &Context<'_>, path: &str, raw: raw::ActiveHealthCheck) -> ActiveCheck {
    let interval = seconds(raw.interval, 5);
    let timeout = seconds(raw.timeout, 1);
    for (name, duration, example) in [("interval", interval, "5s"), ("timeout", timeout, "1s")] {
        if duration.is_zero() {
            cx.report.add(format!("{path}.{name}"), format_args!("no time at all; write one like {example}"));
        }
    }
    let threshold = |field: Field<u32>, default, name: &str| {
        cx.within(field.or(default), &format!("{path}.{name}"), 1, MAX_THRESHOLD)
    };
    let port = raw.port.value().filter(|port| {
        if *port == 0 {
            cx.report.add(format!("{path}.port"), "nothing listens on port 0; write the port to probe");
        }
        *port != 0
    });
    let kind = kind(cx, path, raw.r#type, raw.http, raw.grpc);
    ActiveCheck {
        unhealthy_threshold: threshold(raw.unhealthy_threshold, 3, "unhealthyThreshold"),
        healthy_threshold: threshold(raw.healthy_threshold, 2, "healthyThreshold"),
        kind,
        interval,
        jitter: raw
            .jitter
            .value()
            .map_or(std::time::Duration::from_secs(1), |GatewayDuration(jitter)| jitter),
        timeout,
        starts_healthy: !matches!(raw.initial_state.value(), Some(raw::InitialState::Unhealthy)),
        port,
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

fn http(cx: &Context<'_>, path: &str, raw: raw::HttpProbe) -> ProbeKind {
    let target = raw.path.value().unwrap_or_else(|| "/".to_owned());
    let is_visible = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if !target.starts_with('/') || !target.bytes().all(is_visible) {
        cx.report.add(
            format!("{path}.path"),
            format_args!(
                "{target:?} is no path; write one that begins with / and has no spaces, like /healthz"
            ),
        );
    }
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
    let is_absent = raw.expected_statuses.is_absent();
    let mut statuses: Vec<u16> =
        cx.items(raw.expected_statuses, &at).map(|(at, status)| status_code(cx, &at, status)).collect();
    if is_absent {
        statuses.push(200);
    } else if statuses.is_empty() || statuses.len() > MAX_STATUSES {
        cx.report.add(
            &at,
            format_args!(
                "{} statuses; write from 1 to {MAX_STATUSES} that mean healthy, like [200]",
                statuses.len()
            ),
        );
    }
    ProbeKind::Http { path: target, host, statuses }
}

fn status_code(cx: &Context<'_>, path: &str, status: u16) -> u16 {
    if !(200..=599).contains(&status) {
        cx.report.add(path, format_args!("{status} is no final status of HTTP; write one from 200 to 599"));
    }
    status
}
