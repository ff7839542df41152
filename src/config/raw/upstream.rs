//! The groups of endpoints that connections go to.

use schemars::JsonSchema;
use serde::Deserialize;

use super::field::{Field, List};
use super::health::{HealthCheck, Rebalance, UpstreamDrain};
use super::listener::TcpKeepalive;
use super::proxy::UpstreamProxyProtocol;
use super::tls::UpstreamTls;
use super::whole::Whole;
use crate::config::scalar::{DnsLabel, EndpointAddress, GatewayDuration, ObjectName, ServicePort};

/// With the bound on endpoints, the sum of weights stays within `u32`.
const MAX_WEIGHT: u32 = 10_000;
/// More levels of spares than anybody has.
const MAX_PRIORITY: u32 = 100;
/// Fewer slots are not shared out evenly even to a few.
pub(in crate::config) const MIN_TABLE_SIZE: u32 = 101;
/// 20 MB for each upstream.
pub(in crate::config) const MAX_TABLE_SIZE: u32 = 5_000_011;
/// More than any zone has.
const MAX_ENDPOINTS_PER_ZONE: u32 = 1_000_000;
/// Each of them is a connect that a client waits for.
const MAX_RETRIES: u32 = 100;
/// Each connection may be tried so many times at most, and then as many times again.
const MAX_BUDGET_PERCENT: u32 = 100 * MAX_RETRIES;
/// More than any process makes.
const MAX_RETRIES_PER_SECOND: u32 = 1_000_000;
/// Nobody waits behind so many.
const MAX_PENDING: u32 = 1_000_000;
/// More in a row is no sign of trouble any more, but trouble.
const MAX_FAILURES: u32 = 1_000;

/// A named group of endpoints that is balanced as one: static `endpoints`, or a `service`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub(in crate::config) struct Upstream {
    /// Names the upstream in routes, logs, metrics and traces.
    pub(in crate::config) name: Field<ObjectName>,
    /// A port of a Kubernetes Service, whose endpoints are followed.
    pub(in crate::config) service: Field<Service>,
    /// Static endpoints.
    pub(in crate::config) endpoints: List<Endpoint>,
    /// How an endpoint is chosen.
    pub(in crate::config) load_balancer: Field<LoadBalancer>,
    /// How long things may take.
    pub(in crate::config) timeout: Field<UpstreamTimeout>,
    /// TCP keepalive towards endpoints.
    pub(in crate::config) tcp_keepalive: Field<TcpKeepalive>,
    /// Further attempts to connect, each to another endpoint while there is one. Bytes are never replayed.
    pub(in crate::config) retry: Field<Retry>,
    /// Limits, and when an endpoint is left alone for a while.
    pub(in crate::config) circuit_breaker: Field<CircuitBreaker>,
    /// How it is known which endpoints work.
    pub(in crate::config) health_check: Field<HealthCheck>,
    /// Send a PROXY protocol header to endpoints. Without it none is sent.
    pub(in crate::config) proxy_protocol: Field<UpstreamProxyProtocol>,
    /// Speak TLS to endpoints. Without it plain TCP is spoken.
    pub(in crate::config) tls: Field<UpstreamTls>,
    /// After a scale-out, move connections to new endpoints by closing some.
    pub(in crate::config) rebalance: Field<Rebalance>,
    /// What happens to connections of an endpoint that left.
    pub(in crate::config) drain: Field<UpstreamDrain>,
}

/// A port of a Kubernetes Service.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["namespace", "name", "port"]))]
pub(in crate::config) struct Service {
    /// The Service's namespace.
    pub(in crate::config) namespace: Field<DnsLabel>,
    /// The Service's name.
    pub(in crate::config) name: Field<DnsLabel>,
    /// The Service's port: its number, or its name.
    pub(in crate::config) port: Field<ServicePort>,
}

/// One address of an upstream.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub(in crate::config) struct Endpoint {
    /// Its IP address and port.
    pub(in crate::config) address: Field<EndpointAddress>,
    /// Its share of connections relative to the others'; 0 takes none.
    #[schemars(extend("default" = 1))]
    pub(in crate::config) weight: Field<Whole<0, MAX_WEIGHT>>,
    /// The zone it is in, for zone-aware balancing.
    #[schemars(extend("default" = ""))]
    pub(in crate::config) zone: Field<String>,
    /// Endpoints of a higher number are spares: used when too few of those below are healthy.
    #[schemars(extend("default" = 0))]
    pub(in crate::config) priority: Field<Whole<0, MAX_PRIORITY>>,
}

/// How an endpoint is chosen.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct LoadBalancer {
    /// The way of choosing.
    #[schemars(extend("default" = "LeastConnections"))]
    pub(in crate::config) r#type: Field<LoadBalancerType>,
    /// What is hashed, for type ConsistentHash.
    pub(in crate::config) consistent_hash: Field<ConsistentHash>,
    /// New endpoints get their share little by little.
    pub(in crate::config) slow_start: Field<SlowStart>,
    /// Prefer endpoints of this node's zone.
    pub(in crate::config) zone_aware: Field<ZoneAware>,
}

/// A way of choosing an endpoint.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(in crate::config) enum LoadBalancerType {
    RoundRobin,
    LeastConnections,
    Random,
    #[serde(rename = "PeakEWMA")]
    PeakEwma,
    ConsistentHash,
}

/// What is hashed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct ConsistentHash {
    /// What of a connection is hashed.
    #[schemars(extend("default" = "SourceIP"))]
    pub(in crate::config) r#type: Field<ConsistentHashType>,
    /// Slots of the Maglev table; a prime number.
    #[schemars(extend("default" = 65537))]
    pub(in crate::config) table_size: Field<Whole<MIN_TABLE_SIZE, MAX_TABLE_SIZE>>,
}

/// What of a connection is hashed.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(in crate::config) enum ConsistentHashType {
    #[serde(rename = "SourceIP")]
    SourceIp,
}

/// New endpoints, and those that are healthy again, get their share little by little.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct SlowStart {
    /// How long it takes until a new endpoint has its full share; 0s: at once.
    #[schemars(extend("default" = "0s"))]
    pub(in crate::config) window: Field<GatewayDuration>,
}

/// Prefer endpoints of this node's zone, or those that Kubernetes hints at for it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct ZoneAware {
    /// Whether they are preferred.
    #[schemars(extend("default" = true))]
    pub(in crate::config) prefer_local: Field<bool>,
    /// With fewer healthy ones in the zone, all zones are used. Hints count however few there are.
    #[schemars(extend("default" = 3))]
    pub(in crate::config) min_endpoints_per_zone: Field<Whole<1, MAX_ENDPOINTS_PER_ZONE>>,
}

/// How long things may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct UpstreamTimeout {
    /// Timeouts of TCP connections.
    pub(in crate::config) tcp: Field<UpstreamTcp>,
}

/// Timeouts on the endpoints' side.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct UpstreamTcp {
    /// All attempts of one connection together must succeed in this time.
    #[schemars(extend("default" = "5s"))]
    pub(in crate::config) connect_timeout: Field<GatewayDuration>,
    /// A connection with no byte in either direction for this long is closed; 0s: never.
    #[schemars(extend("default" = "1h"))]
    pub(in crate::config) idle_timeout: Field<GatewayDuration>,
    /// A connection this old is closed; 0s: never.
    #[schemars(extend("default" = "0s"))]
    pub(in crate::config) max_connection_duration: Field<GatewayDuration>,
}

/// Further attempts to connect, each to another endpoint while there is one.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct Retry {
    /// Attempts after the first; 0: none.
    #[schemars(extend("default" = 2))]
    pub(in crate::config) num_retries: Field<Whole<0, MAX_RETRIES>>,
    /// What is retried.
    #[schemars(extend("default" = ["connect-failure", "tls-failure"]))]
    pub(in crate::config) triggers: List<Trigger>,
    /// Bounds of each attempt.
    pub(in crate::config) per_retry: Field<PerRetry>,
    /// Start a second attempt, at another endpoint, after this long without an answer; the first that connects wins. 0s: never.
    #[schemars(extend("default" = "0s"))]
    pub(in crate::config) hedge_after: Field<GatewayDuration>,
    /// How many retries there may be, relative to connections.
    pub(in crate::config) budget: Field<Budget>,
}

/// A failure that is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum Trigger {
    ConnectFailure,
    TlsFailure,
}

/// Bounds of each attempt.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct PerRetry {
    /// One attempt may take this long; 0s: only connectTimeout bounds it.
    #[schemars(extend("default" = "1s"))]
    pub(in crate::config) timeout: Field<GatewayDuration>,
    /// The pause before a further attempt: it doubles each time, with jitter.
    pub(in crate::config) back_off: Field<BackOff>,
}

/// A pause that doubles each time, between two bounds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct BackOff {
    /// The first pause.
    #[schemars(extend("default" = "25ms"))]
    pub(in crate::config) base_interval: Field<GatewayDuration>,
    /// The longest pause.
    #[schemars(extend("default" = "1s"))]
    pub(in crate::config) max_interval: Field<GatewayDuration>,
}

/// How many retries there may be, relative to connections.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct Budget {
    /// Retries per hundred connections of the last ten seconds.
    #[schemars(extend("default" = 20))]
    pub(in crate::config) percent: Field<Whole<0, MAX_BUDGET_PERCENT>>,
    /// Retries per second that are always allowed, on average over ten seconds.
    #[schemars(extend("default" = 10))]
    pub(in crate::config) min_retries_per_second: Field<Whole<0, MAX_RETRIES_PER_SECOND>>,
}

/// Limits, and when an endpoint is left alone for a while.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct CircuitBreaker {
    /// Connections of the upstream at once, those being made included; 0: no limit.
    #[schemars(extend("default" = 0))]
    pub(in crate::config) max_connections: Field<u32>,
    /// Connections that wait for a free place of the upstream or of an endpoint; 0: none waits.
    #[schemars(extend("default" = 0))]
    pub(in crate::config) max_pending_connections: Field<Whole<0, MAX_PENDING>>,
    /// How long one waits.
    #[schemars(extend("default" = "1s"))]
    pub(in crate::config) pending_timeout: Field<GatewayDuration>,
    /// Retries at once, hedged attempts included; 0: no limit.
    #[schemars(extend("default" = 0))]
    pub(in crate::config) max_parallel_retries: Field<u32>,
    /// For each endpoint alone.
    pub(in crate::config) per_endpoint: Field<PerEndpoint>,
}

/// A breaker for each endpoint.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct PerEndpoint {
    /// Connections at once, those being made included; 0: no limit.
    #[schemars(extend("default" = 0))]
    pub(in crate::config) max_connections: Field<u32>,
    /// Failed attempts in a row that open the breaker; 0: never.
    #[schemars(extend("default" = 5))]
    pub(in crate::config) consecutive_failures: Field<Whole<0, MAX_FAILURES>>,
    /// How long the breaker stays open: twice as long each time.
    pub(in crate::config) open_for: Field<OpenFor>,
}

/// How long a breaker stays open.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct OpenFor {
    /// The first time.
    #[schemars(extend("default" = "1s"))]
    pub(in crate::config) base_interval: Field<GatewayDuration>,
    /// At most.
    #[schemars(extend("default" = "30s"))]
    pub(in crate::config) max_interval: Field<GatewayDuration>,
}
