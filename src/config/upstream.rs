//! Upstreams as checked values: where connections go, and all that is said of how.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use super::{Keepalive, Name, ProxyOut, UpstreamTls};

#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    pub name: Name,
    pub members: Members,
    pub load_balancer: LoadBalancer,
    /// `None`: near endpoints are not preferred.
    pub zone_aware: Option<ZoneAware>,
    /// In which new endpoints get less than their share; `None`: they get it at once.
    pub slow_start: Option<Duration>,
    pub timeouts: UpstreamTimeouts,
    pub keepalive: Keepalive,
    pub retry: Retry,
    /// `None`: endpoints that fail are tried all the same.
    pub breaker: Option<Breaker>,
    pub limits: UpstreamLimits,
    pub health: HealthCheck,
    /// The PROXY protocol header that endpoints get; `None`: none.
    pub proxy: Option<ProxyOut>,
    /// `None`: endpoints are spoken to in plain TCP.
    pub tls: Option<UpstreamTls>,
    pub drain: UpstreamDrain,
    /// `None`: connections stay where they are.
    pub rebalance: Option<Rebalance>,
}

/// Where something runs, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    pub zone: Option<Name>,
    pub node: Option<Name>,
}

/// Preferring endpoints that are near.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneAware {
    /// Where this process runs.
    pub here: Arc<Location>,
    /// With fewer endpoints in the zone, those of all zones are used.
    pub min_endpoints: usize,
}

/// Where an upstream's endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    Listed(Vec<Endpoint>),
    Followed(ServicePort),
}

impl Members {
    pub fn listed(&self) -> &[Endpoint] {
        match self {
            Self::Listed(endpoints) => endpoints,
            Self::Followed(_) => &[],
        }
    }

    pub fn followed(&self) -> Option<&ServicePort> {
        match self {
            Self::Listed(_) => None,
            Self::Followed(service) => Some(service),
        }
    }
}

/// A port of a Kubernetes Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub namespace: Name,
    pub name: Name,
    pub port: PortRef,
}

/// A Service's port, as it is referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortRef {
    Number(u16),
    Name(Name),
}

/// What happens to live connections of an endpoint that left the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpstreamDrain {
    /// They keep going this long.
    pub timeout: Duration,
    /// Of each endpoint, close this many per second before that; `None`: none.
    pub close_per_second: Option<f64>,
}

/// Closing connections of endpoints above their fair share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rebalance {
    /// Of the upstream's connections, at most.
    pub percent_per_minute: f64,
    /// Younger connections are left alone.
    pub min_age: Duration,
    /// Only counts.
    pub dry_run: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub weight: u32,
    pub zone: Option<Name>,
    /// Higher ones are spares for lower ones.
    pub priority: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadBalancer {
    RoundRobin,
    LeastConnections,
    Random,
    /// By how long connecting takes.
    PeakEwma,
    /// By the client's address.
    ConsistentHash {
        /// A prime number of slots.
        table_size: u32,
    },
}

/// `None` means never (`0s` in the file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// For all attempts of one connection together.
    pub connect: Duration,
    pub idle: Option<Duration>,
    pub max_duration: Option<Duration>,
}

/// Of connecting only: bytes are never replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first.
    pub num_retries: u32,
    pub triggers: RetryTriggers,
    /// When a second attempt joins one that has no answer yet; `None`: never.
    pub hedge_after: Option<Duration>,
    /// `None`: the upstream's connect timeout alone bounds an attempt.
    pub per_retry_timeout: Option<Duration>,
    pub base_interval: Duration,
    pub max_interval: Duration,
    /// Retries per hundred connections, beside those that are always allowed.
    pub budget_percent: u32,
    /// Retries per second that are always allowed.
    pub budget_floor: u32,
}

/// The failures of an attempt after which there may be another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryTriggers {
    /// It did not come to a connection.
    pub connect_failure: bool,
    /// It came to a connection, but not through the TLS handshake.
    pub tls_failure: bool,
}

/// How much at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// Connections of the upstream, those being made included; `None`: any number.
    pub max_connections: Option<NonZeroUsize>,
    /// The same of each endpoint.
    pub max_per_endpoint: Option<NonZeroUsize>,
    /// Connections that wait for a place; 0: none does.
    pub max_pending: usize,
    /// How long one waits.
    pub pending_timeout: Duration,
    /// Retries, hedged ones included; `None`: any number.
    pub max_parallel_retries: Option<NonZeroUsize>,
}

/// When an endpoint is left alone, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Failed attempts in a row.
    pub consecutive_failures: NonZeroU32,
    pub base_interval: Duration,
    pub max_interval: Duration,
}

/// How it is known which endpoints work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// With fewer healthy endpoints than this, in per cent, health is ignored; 0: never.
    pub panic_threshold: u32,
    /// `None`: endpoints are not probed, and healthy.
    pub active: Option<ActiveCheck>,
    /// `None`: none is ejected.
    pub passive: Option<PassiveCheck>,
}

/// Which endpoints are ejected because their connections fail, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassiveCheck {
    /// In a row.
    pub consecutive_failures: NonZeroU32,
    /// A reset this soon after connecting, before any byte, is a failure; zero: none is.
    pub reset_within: Duration,
    /// How long the first ejection lasts.
    pub base_ejection_time: Duration,
    /// At most this share of the endpoints is ejected at once, but one of two may always be.
    pub max_ejection_percent: u32,
}

/// Probes of the endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveCheck {
    pub kind: ProbeKind,
    pub interval: Duration,
    /// Up to this much is added to the interval at random.
    pub jitter: Duration,
    pub timeout: Duration,
    /// Failures in a row that make an endpoint unhealthy.
    pub unhealthy_threshold: u32,
    /// Successes in a row that make it healthy again.
    pub healthy_threshold: u32,
    /// Whether an endpoint may be used before its first probe.
    pub starts_healthy: bool,
    /// `None`: the endpoint's own.
    pub port: Option<u16>,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// It connects.
    Tcp,
    /// It connects and makes a TLS handshake.
    Tls,
    /// It connects and asks, and one of these statuses is the answer.
    Http { path: String, host: Option<String>, statuses: Vec<u16> },
    /// It connects and asks by gRPC whether this service serves; empty: the process as a whole.
    Grpc { service: String },
}
