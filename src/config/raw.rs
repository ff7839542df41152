//! The configuration file as it is written: the serde types of its whole surface.
//!
//! One source for both parsing and the JSON Schema; the documentation comments are its descriptions.
//! Nothing here depends on another field: that is for the pass that assembles the typed values.

// What is not served yet is decoded, and refused while it is; nothing reads it afterwards.
#![allow(dead_code, reason = "fields that are not served yet are decoded to be refused by name")]

mod field;
mod health;
mod listener;
mod process;
mod proxy;
mod route;
mod tls;
mod upstream;
mod whole;

pub(super) use field::{Field, List};
pub(super) use health::{
    ActiveHealthCheck, GrpcProbe, HealthCheck, HttpProbe, InitialState, PassiveHealthCheck, ProbeType,
    Rebalance, UpstreamDrain,
};
pub(super) use listener::{Connection, Listener, Protocol, TcpKeepalive, TcpTimeout, WhenFull};
pub(super) use process::{
    AccessLog, Admin, Drain, Driver, Kubernetes, Limits, Log, LogFormat, LogLevel, Metrics, MetricsOtlp,
    OtlpProtocol, Tracing, Workers,
};
pub(super) use proxy::{ProxyProtocol, ProxyProtocolMode, ProxyProtocolVersion, Tlv, UpstreamProxyProtocol};
pub(super) use route::{BackendRef, Route};
pub(super) use tls::{
    CaCertificateRef, CertificateRef, ClientValidation, ClientValidationMode, StartTls, Tls, TlsMode,
    TlsVersion, UpstreamTls,
};
pub(super) use upstream::{
    CircuitBreaker, Endpoint, LoadBalancer, LoadBalancerType, MAX_TABLE_SIZE, MIN_TABLE_SIZE, PerEndpoint,
    Retry, Trigger, Upstream, UpstreamTcp, ZoneAware,
};

use schemars::JsonSchema;
use serde::Deserialize;

/// The configuration of Sheave. Everything but `listeners`, `routes` and `upstreams` may be left out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(title = "Sheave configuration")]
#[schemars(extend("required" = ["listeners", "routes", "upstreams"]))]
pub(super) struct File {
    /// The threads that carry connections.
    pub(super) workers: Field<Workers>,
    /// The admin port: health, metrics, the route table and the status page.
    pub(super) admin: Field<Admin>,
    /// What happens between SIGTERM and the end of the process.
    pub(super) drain: Field<Drain>,
    /// Bounds of the whole process.
    pub(super) limits: Field<Limits>,
    /// The log of the process itself.
    pub(super) log: Field<Log>,
    /// One line per connection, at its end.
    pub(super) access_log: Field<AccessLog>,
    /// What the metrics distinguish.
    pub(super) metrics: Field<Metrics>,
    /// One trace per connection, sent by OTLP.
    pub(super) tracing: Field<Tracing>,
    /// Following Services and Secrets of a Kubernetes cluster.
    pub(super) kubernetes: Field<Kubernetes>,
    /// The addresses connections are accepted on.
    pub(super) listeners: List<Listener>,
    /// Which connections of a listener go to which upstreams.
    pub(super) routes: List<Route>,
    /// The groups of endpoints that connections go to.
    pub(super) upstreams: List<Upstream>,
}
