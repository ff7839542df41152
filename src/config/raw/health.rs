//! What an upstream may say about health, and about endpoints that come and go.

use schemars::JsonSchema;
use serde::Deserialize;

use super::field::{Field, List};
use super::whole::Whole;
use crate::config::scalar::GatewayDuration;

/// More failures, or successes, in a row than anybody waits for.
const MAX_THRESHOLD: u32 = 100;
/// More in a row is no sign of trouble any more, but trouble.
const MAX_FAILURES: u32 = 1_000;

/// How it is known which endpoints work.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct HealthCheck {
    /// With fewer healthy endpoints than this, in per cent, health is ignored; 0: never.
    #[schemars(extend("default" = 50))]
    pub(in crate::config) panic_threshold: Field<Whole<0, 100>>,
    /// Probe the endpoints. Without it they are not probed.
    pub(in crate::config) active: Field<ActiveHealthCheck>,
    /// Learn from the connections that fail. Without it none is ejected.
    pub(in crate::config) passive: Field<PassiveHealthCheck>,
}

/// Probes of the endpoints.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct ActiveHealthCheck {
    /// What a probe does.
    #[schemars(extend("default" = "TCP"))]
    pub(in crate::config) r#type: Field<ProbeType>,
    /// Time between two probes of an endpoint.
    #[schemars(extend("default" = "5s"))]
    pub(in crate::config) interval: Field<GatewayDuration>,
    /// Up to this much is added to the interval at random.
    #[schemars(extend("default" = "1s"))]
    pub(in crate::config) jitter: Field<GatewayDuration>,
    /// A probe must succeed in this time.
    #[schemars(extend("default" = "1s"))]
    pub(in crate::config) timeout: Field<GatewayDuration>,
    /// Failed probes in a row that make an endpoint unhealthy.
    #[schemars(extend("default" = 3))]
    pub(in crate::config) unhealthy_threshold: Field<Whole<1, MAX_THRESHOLD>>,
    /// Successful probes in a row that make it healthy again.
    #[schemars(extend("default" = 2))]
    pub(in crate::config) healthy_threshold: Field<Whole<1, MAX_THRESHOLD>>,
    /// What an endpoint is before its first probe.
    #[schemars(extend("default" = "Healthy"))]
    pub(in crate::config) initial_state: Field<InitialState>,
    /// The port to probe, where it is not the endpoint's own.
    pub(in crate::config) port: Field<Whole<1, 65_535>>,
    /// What an HTTP probe asks for, for type HTTP.
    pub(in crate::config) http: Field<HttpProbe>,
    /// What a gRPC probe asks for, for type GRPC.
    pub(in crate::config) grpc: Field<GrpcProbe>,
}

/// What a probe does.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(in crate::config) enum ProbeType {
    Tcp,
    Tls,
    Http,
    Grpc,
}

/// What an endpoint is before its first probe.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(in crate::config) enum InitialState {
    Healthy,
    Unhealthy,
}

/// What an HTTP probe asks for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct HttpProbe {
    /// The path of the request.
    #[schemars(extend("default" = "/"))]
    pub(in crate::config) path: Field<String>,
    /// The statuses that mean healthy.
    #[schemars(length(min = 1, max = 100), extend("default" = [200]))]
    pub(in crate::config) expected_statuses: List<Whole<200, 599>>,
    /// The Host of the request; empty: the endpoint's address.
    #[schemars(extend("default" = ""))]
    pub(in crate::config) hostname: Field<String>,
}

/// What a gRPC probe asks for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct GrpcProbe {
    /// The service of grpc.health.v1; empty: the server as a whole.
    #[schemars(extend("default" = ""))]
    pub(in crate::config) service: Field<String>,
}

/// Ejecting endpoints to which connecting fails.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct PassiveHealthCheck {
    /// Failures in a row that eject an endpoint; 0: never.
    #[schemars(extend("default" = 5))]
    pub(in crate::config) consecutive_failures: Field<Whole<0, MAX_FAILURES>>,
    /// A connection that an endpoint resets this soon, before its first byte, counts as a failure; 0s: none does.
    #[schemars(extend("default" = "0s"))]
    pub(in crate::config) reset_within: Field<GatewayDuration>,
    /// How long the first ejection lasts; later ones last longer, up to ten times.
    #[schemars(extend("default" = "30s"))]
    pub(in crate::config) base_ejection_time: Field<GatewayDuration>,
    /// At most this share of the endpoints is ejected, in per cent; one of two or more may always be.
    #[schemars(extend("default" = 50))]
    pub(in crate::config) max_ejection_percent: Field<Whole<1, 100>>,
}

/// After a scale-out, close connections so that their clients connect to new endpoints.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct Rebalance {
    /// Close at most this share of the upstream's connections per minute, and only above an endpoint's fair share; 0: never.
    #[schemars(range(min = 0, max = 6_000), extend("default" = 0))]
    pub(in crate::config) percent_per_minute: Field<f64>,
    /// Connections younger than this are left alone.
    #[schemars(extend("default" = "1m"))]
    pub(in crate::config) min_age: Field<GatewayDuration>,
    /// Only count what would be closed.
    #[schemars(extend("default" = false))]
    pub(in crate::config) dry_run: Field<bool>,
}

/// What happens to connections of an endpoint that left.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct UpstreamDrain {
    /// They keep going this long, then they are closed.
    #[schemars(extend("default" = "5m"))]
    pub(in crate::config) timeout: Field<GatewayDuration>,
    /// Of each endpoint that left, close this many per second before that, idle ones first; 0: none.
    #[schemars(range(min = 0, max = 100_000), extend("default" = 0))]
    pub(in crate::config) close_per_second: Field<f64>,
}
