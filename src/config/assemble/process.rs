//! What concerns the process as a whole.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use super::{Context, seconds, unless_zero};
use crate::config::errors::quoted;
use crate::config::raw::{self, Field};
use crate::config::scalar::{AutoBool, AutoCount, GatewayDuration, SpinTime};
use crate::config::{
    AccessLog, Admin, Drain, Driver, Kubernetes, Limits, Location, Log, LogFormat, LogLevel, Metrics,
    MetricsOtlp, Name, OtlpProtocol, Overload, Tracing, Workers,
};

/// More threads than any machine has cores.
const MAX_WORKERS: usize = 1024;
const LOOP_LAG: Duration = Duration::from_millis(500);
/// Nobody waits longer for the end of a process.
const MAX_DRAIN: Duration = Duration::from_secs(24 * 3_600);
/// A worker that is so late is no use to anybody.
const MAX_LOOP_LAG: Duration = Duration::from_secs(60);
const MIN_LOOP_LAG: Duration = Duration::from_millis(10);
/// To sleep and to be woken takes some 50 us: beyond a few milliseconds only a core is spent.
const MAX_BUSY_POLL: Duration = Duration::from_millis(10);
/// Making all of them costs something.
const MIN_METRICS_INTERVAL: Duration = Duration::from_secs(1);
const ADMIN_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

pub(super) fn workers(cx: &Context<'_>, raw: raw::Workers) -> Workers {
    let count = raw.count.or(AutoCount(None)).0;
    if count.is_some_and(|count| count.get() > MAX_WORKERS) {
        cx.report.add(
            "workers.count",
            format_args!("too many threads; write at most {MAX_WORKERS}, or auto for one per core"),
        );
    }
    let busy_poll = raw.busy_poll.value().map_or(Duration::ZERO, |time| time.0);
    if busy_poll > MAX_BUSY_POLL {
        cx.report.add(
            "workers.busyPoll",
            format_args!(
                "{} is longer than spinning can help; write at most {}, 0s not to spin",
                SpinTime(busy_poll),
                SpinTime(MAX_BUSY_POLL)
            ),
        );
    }
    Workers {
        count,
        pin: raw.pin.or(true),
        driver: match raw.driver.or(raw::Driver::Auto) {
            raw::Driver::Auto => Driver::Auto,
            raw::Driver::IoUring => Driver::IoUring,
            raw::Driver::Epoll => Driver::Epoll,
        },
        busy_poll: unless_zero(busy_poll),
    }
}

/// Port 0 is fine here: the log says which one it became.
pub(super) fn admin(raw: raw::Admin) -> Admin {
    Admin {
        address: raw.address.value().map_or(ADMIN_ADDRESS, |address| address.0),
        allow_changes: raw.allow_changes.or(false),
    }
}

pub(super) fn drain(cx: &Context<'_>, raw: raw::Drain) -> Drain {
    Drain {
        delay: cx.no_longer(seconds(raw.delay, 5), "drain.delay", MAX_DRAIN),
        timeout: cx.no_longer(seconds(raw.timeout, 60), "drain.timeout", MAX_DRAIN),
    }
}

pub(super) fn limits(cx: &Context<'_>, raw: raw::Limits) -> Limits {
    let max_connections: Option<NonZeroUsize> = raw.max_connections.or(AutoCount(None)).0;
    let overload = raw.overload.or_default();
    let percent = overload.memory_percent.number(95);
    let loop_lag = overload.loop_lag.value().map_or(LOOP_LAG, |lag| lag.0);
    let loop_lag = cx.no_longer(loop_lag, "limits.overload.loopLag", MAX_LOOP_LAG);
    if !loop_lag.is_zero() && loop_lag < MIN_LOOP_LAG {
        cx.report.add(
            "limits.overload.loopLag",
            format_args!(
                "{} is how late a loop runs at any time; write 10ms or more, or 0s for no bound",
                GatewayDuration(loop_lag)
            ),
        );
    }
    let overload = Overload { memory_percent: NonZeroU32::new(percent), loop_lag: unless_zero(loop_lag) };
    Limits { max_connections, overload }
}

pub(super) fn log(raw: raw::Log) -> Log {
    Log {
        level: match raw.level.or(raw::LogLevel::Info) {
            raw::LogLevel::Error => LogLevel::Error,
            raw::LogLevel::Warn => LogLevel::Warn,
            raw::LogLevel::Info => LogLevel::Info,
            raw::LogLevel::Debug => LogLevel::Debug,
            raw::LogLevel::Trace => LogLevel::Trace,
        },
        format: log_format(raw.format.or(raw::LogFormat::Json)),
    }
}

fn log_format(raw: raw::LogFormat) -> LogFormat {
    match raw {
        raw::LogFormat::Json => LogFormat::Json,
        raw::LogFormat::Text => LogFormat::Text,
    }
}

pub(super) fn access_log(cx: &Context<'_>, raw: raw::AccessLog) -> AccessLog {
    let sample = share(cx, raw.sample.or(1.0), "accessLog.sample");
    let format = log_format(raw.format.or(raw::LogFormat::Json));
    AccessLog { enabled: raw.enabled.or(true), sample, format }
}

pub(super) fn tracing(cx: &Context<'_>, raw: raw::Tracing) -> Tracing {
    let (endpoint, protocol) = receiver(cx, "tracing.endpoint", raw.endpoint, raw.protocol);
    Tracing {
        enabled: raw.enabled.or(false),
        endpoint,
        protocol,
        sample: share(cx, raw.sample.or(0.1), "tracing.sample"),
        slower_than: unless_zero(seconds(raw.slower_than, 1)),
    }
}

/// Of OTLP: its URL, and how it is spoken to.
fn receiver(
    cx: &Context<'_>,
    path: &str,
    endpoint: Field<String>,
    protocol: Field<raw::OtlpProtocol>,
) -> (String, OtlpProtocol) {
    let (protocol, default) = match protocol.or(raw::OtlpProtocol::Grpc) {
        raw::OtlpProtocol::Grpc => (OtlpProtocol::Grpc, "http://localhost:4317"),
        raw::OtlpProtocol::HttpProtobuf => (OtlpProtocol::HttpProtobuf, "http://localhost:4318"),
    };
    let endpoint = endpoint.or(default.to_owned());
    if endpoint.contains(['@', '?']) {
        // There may be a password or a key in it, which neither the log nor /readyz repeats.
        cx.report.add(
            path,
            format_args!(
                "users, passwords and queries cannot be a part of it; write a URL like {default}, and what the receiver \
                 is to know in OTEL_EXPORTER_OTLP_HEADERS"
            ),
        );
    } else if !is_url(&endpoint) {
        let written = quoted(&endpoint);
        cx.report.add(
            path,
            format_args!(
                "{written} is not the URL of a receiver; write one like {default}, or with https://"
            ),
        );
    }
    (endpoint, protocol)
}

fn share(cx: &Context<'_>, share: f64, path: &str) -> f64 {
    // -0 is no number that anybody means.
    if !(0.0..=1.0).contains(&share) || share.is_sign_negative() {
        let message = format_args!("{share} is not a share; write a number from 0 (none) to 1 (all)");
        cx.report.add(path, message);
    }
    share
}

/// Whether it names a host that is spoken to in HTTP.
fn is_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        return false;
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, Some(1)),
    };
    let is_plain = |letter: char| letter.is_ascii_graphic() && !"@?#\\\"<>{}|^`".contains(letter);
    let is_host = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && !host.contains([':', '[', ']']),
    };
    is_host && port.is_some_and(|port: u16| port > 0) && rest.chars().all(is_plain)
}

pub(super) fn metrics(cx: &Context<'_>, raw: raw::Metrics) -> Metrics {
    Metrics { per_endpoint: raw.per_endpoint.or(true), otlp: metrics_otlp(cx, raw.otlp.or_default()) }
}

fn metrics_otlp(cx: &Context<'_>, raw: raw::MetricsOtlp) -> MetricsOtlp {
    let (endpoint, protocol) = receiver(cx, "metrics.otlp.endpoint", raw.endpoint, raw.protocol);
    let interval = seconds(raw.interval, 60);
    if interval < MIN_METRICS_INTERVAL {
        cx.report.add(
            "metrics.otlp.interval",
            format_args!("{} is too often; write 1s or more", GatewayDuration(interval)),
        );
    }
    MetricsOtlp { enabled: raw.enabled.or(false), endpoint, protocol, interval }
}

/// What upstreams have to know of the cluster.
pub(super) struct Cluster {
    /// Whether they may name services.
    pub(super) may_follow: bool,
    /// Where this process runs.
    pub(super) here: Arc<Location>,
}

/// `location` is what the environment says.
pub(super) fn kubernetes(raw: raw::Kubernetes, location: &Location) -> (Kubernetes, Cluster) {
    let may_follow = !matches!(raw.enabled.get(), Some(AutoBool(Some(false))));
    let kubeconfig = raw.kubeconfig.value().filter(|path| !path.is_empty()).map(Into::into);
    let is_said = |zone: &Name| !zone.is_empty();
    let zone = raw.zone.value().map(Name::from).filter(is_said);
    let here = Location {
        zone: zone.or_else(|| location.zone.clone()).filter(is_said),
        node: location.node.clone().filter(is_said),
    };
    (Kubernetes { kubeconfig }, Cluster { may_follow, here: Arc::new(here) })
}
