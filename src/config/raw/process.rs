//! What concerns the process as a whole.

use schemars::JsonSchema;
use serde::Deserialize;

use super::field::Field;
use super::whole::Whole;
use crate::config::scalar::{AutoBool, AutoCount, GatewayDuration, ListenAddress, SpinTime};

/// The threads that carry connections: each has its own sockets, ring and connections.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct Workers {
    /// How many; auto: one per core this process may use (affinity mask, cgroup quota rounded up).
    #[schemars(extend("default" = "auto"))]
    pub(in crate::config) count: Field<AutoCount>,
    /// Whether each worker stays on one core.
    #[schemars(extend("default" = true))]
    pub(in crate::config) pin: Field<bool>,
    /// How workers wait for the kernel; auto: io_uring where the kernel and the container allow it.
    #[schemars(extend("default" = "auto"))]
    pub(in crate::config) driver: Field<Driver>,
    /// Spin this long before sleeping: latency for CPU. At most 10ms; 0s never spins.
    #[schemars(extend("default" = "0s"))]
    pub(in crate::config) busy_poll: Field<SpinTime>,
}

/// How workers wait for the kernel.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Driver {
    Auto,
    IoUring,
    Epoll,
}

/// The admin port: /livez /readyz /startupz /metrics /status /table /connections /drain and the status page.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct Admin {
    /// Where it listens.
    #[schemars(extend("default" = "127.0.0.1:9901"))]
    pub(in crate::config) address: Field<ListenAddress>,
    /// Let connections be closed by hand, and take POST /drain from other hosts too; without it from loopback only.
    #[schemars(extend("default" = false))]
    pub(in crate::config) allow_changes: Field<bool>,
}

/// What happens between SIGTERM and the end of the process.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct Drain {
    /// Still accepting this long, while load balancers notice.
    #[schemars(extend("default" = "5s"))]
    pub(in crate::config) delay: Field<GatewayDuration>,
    /// Then live connections get this long: idle ones are closed first, paced; what is left is cut.
    #[schemars(extend("default" = "60s"))]
    pub(in crate::config) timeout: Field<GatewayDuration>,
}

/// Bounds of the whole process.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct Limits {
    /// Connections at once; auto: what RLIMIT_NOFILE allows. Above it new ones wait in the backlog.
    #[schemars(extend("default" = "auto"))]
    pub(in crate::config) max_connections: Field<AutoCount>,
    /// Refuse new connections while the process is short of memory or time.
    pub(in crate::config) overload: Field<Overload>,
}

/// Above either bound, new connections are refused until it is over.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct Overload {
    /// Per cent of the cgroup's memory; 0: no bound. Without a cgroup (version 2) or a limit there is none either.
    #[schemars(extend("default" = 95))]
    pub(in crate::config) memory_percent: Field<Whole<0, 100>>,
    /// How late a worker's loop may run, at least 10ms; 0s: no bound.
    #[schemars(extend("default" = "500ms"))]
    pub(in crate::config) loop_lag: Field<GatewayDuration>,
}

/// The log of the process itself.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct Log {
    /// The least severe level that is written.
    #[schemars(extend("default" = "info"))]
    pub(in crate::config) level: Field<LogLevel>,
    /// One JSON object per line, or text for people.
    #[schemars(extend("default" = "json"))]
    pub(in crate::config) format: Field<LogFormat>,
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// One JSON object per line, or text for people.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum LogFormat {
    Json,
    Text,
}

/// One line per connection, at its end.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct AccessLog {
    /// Whether there is one.
    #[schemars(extend("default" = true))]
    pub(in crate::config) enabled: Field<bool>,
    /// Share of ordinary connections that get a line, 0 to 1; failed ones always do.
    #[schemars(range(min = 0, max = 1), extend("default" = 1))]
    pub(in crate::config) sample: Field<f64>,
    /// One JSON object per line, or text for people.
    #[schemars(extend("default" = "json"))]
    pub(in crate::config) format: Field<LogFormat>,
}

/// What the metrics distinguish, and where they go.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct Metrics {
    /// Also count per endpoint: more series, but a broken endpoint is seen at once.
    #[schemars(extend("default" = true))]
    pub(in crate::config) per_endpoint: Field<bool>,
    /// Sent by OTLP as well. The OTEL_* environment variables win over these fields.
    pub(in crate::config) otlp: Field<MetricsOtlp>,
}

/// The metrics of /metrics, sent by OTLP. The OTEL_* environment variables win over these fields.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct MetricsOtlp {
    /// Whether they are sent.
    #[schemars(extend("default" = false))]
    pub(in crate::config) enabled: Field<bool>,
    /// The OTLP receiver: port 4317 for grpc, 4318 for http/protobuf, which is the default there.
    #[schemars(extend("default" = "http://localhost:4317"))]
    pub(in crate::config) endpoint: Field<String>,
    /// How they are sent.
    #[schemars(extend("default" = "grpc"))]
    pub(in crate::config) protocol: Field<OtlpProtocol>,
    /// From one time to the next, at least 1s.
    #[schemars(extend("default" = "1m"))]
    pub(in crate::config) interval: Field<GatewayDuration>,
}

/// One trace per connection, sent by OTLP. The OTEL_* environment variables win over these fields.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct Tracing {
    /// Whether traces are sent.
    #[schemars(extend("default" = false))]
    pub(in crate::config) enabled: Field<bool>,
    /// The OTLP receiver: port 4317 for grpc, 4318 for http/protobuf, which is the default there.
    #[schemars(extend("default" = "http://localhost:4317"))]
    pub(in crate::config) endpoint: Field<String>,
    /// How traces are sent.
    #[schemars(extend("default" = "grpc"))]
    pub(in crate::config) protocol: Field<OtlpProtocol>,
    /// Share of ordinary connections, 0 to 1; failed, retried and slow ones are always kept.
    #[schemars(range(min = 0, max = 1), extend("default" = 0.1))]
    pub(in crate::config) sample: Field<f64>,
    /// A connection whose setup or first answer takes longer is always kept; 0s: none is slow.
    #[schemars(extend("default" = "1s"))]
    pub(in crate::config) slower_than: Field<GatewayDuration>,
}

/// A transport of OTLP.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(in crate::config) enum OtlpProtocol {
    #[serde(rename = "grpc")]
    Grpc,
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// Following Services and Secrets of a Kubernetes cluster.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct Kubernetes {
    /// auto: when an upstream names a service, or a certificate a Secret.
    #[schemars(extend("default" = "auto"))]
    pub(in crate::config) enabled: Field<AutoBool>,
    /// Path of a kubeconfig; empty: in-cluster, else the usual KUBECONFIG rules.
    #[schemars(extend("default" = ""))]
    pub(in crate::config) kubeconfig: Field<String>,
    /// The zone that Sheave runs in; empty: SHEAVE_ZONE, which the chart sets.
    #[schemars(extend("default" = ""))]
    pub(in crate::config) zone: Field<String>,
}
