//! The configuration file as typed values: parse, don't validate.
//!
//! Every value here has been checked; nothing downstream checks again. How text becomes these values,
//! and every error with its line, is in the modules below. This module reads no clock and opens no socket.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

/// Everything one configuration file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub workers: Workers,
    pub admin: Admin,
    pub drain: Drain,
    pub limits: Limits,
    pub log: Log,
    pub access_log: AccessLog,
    pub metrics: Metrics,
    pub listeners: Vec<Listener>,
    pub routes: Vec<Route>,
    pub upstreams: Vec<Upstream>,
}

/// A name from the file; cheap to clone, because every connection's record carries some.
pub type Name = Arc<str>;

#[derive(Clone, Debug, PartialEq)]
pub struct Workers {
    /// `None`: one per core that this process may use.
    pub count: Option<NonZeroUsize>,
    pub pin: bool,
    pub driver: Driver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Auto,
    IoUring,
    Epoll,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    pub address: SocketAddr,
    pub allow_changes: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    pub delay: Duration,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// `None`: what RLIMIT_NOFILE allows.
    pub max_connections: Option<NonZeroUsize>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    pub enabled: bool,
    /// Share of ordinary connections that get a line, 0 to 1; failed ones always do.
    pub sample: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    pub per_endpoint: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub name: Name,
    pub address: SocketAddr,
    /// Client networks; empty: everyone.
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    pub limit: Option<ConnectionLimit>,
    pub timeouts: ListenerTimeouts,
    pub keepalive: Keepalive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimit {
    pub limit: NonZeroUsize,
    pub when_full: WhenFull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    Reset,
    Wait,
}

/// `None` means never (`0s` in the file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerTimeouts {
    pub idle: Option<Duration>,
    pub max_duration: Option<Duration>,
    pub half_close: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    pub idle_time: Duration,
    pub interval: Duration,
    pub probes: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub name: Name,
    /// The name of an existing listener.
    pub listener: Name,
    /// Client networks; empty: everyone. The most specific wins.
    pub sources: Vec<IpNet>,
    /// At least one with a weight above 0.
    pub backends: Vec<BackendRef>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendRef {
    /// The name of an existing upstream.
    pub upstream: Name,
    pub weight: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    pub name: Name,
    pub endpoints: Vec<Endpoint>,
    pub load_balancer: LoadBalancer,
    pub timeouts: UpstreamTimeouts,
    pub keepalive: Keepalive,
    pub retry: Retry,
    /// Live connections to an endpoint that left the table keep going this long.
    pub drain_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub weight: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadBalancer {
    RoundRobin,
    LeastConnections,
    Random,
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
    /// `None`: the upstream's connect timeout alone bounds an attempt.
    pub per_retry_timeout: Option<Duration>,
    pub base_interval: Duration,
    pub max_interval: Duration,
}
