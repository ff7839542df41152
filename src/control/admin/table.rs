//! `/table`: the route table as it is now, in the words of the configuration file.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::config::{self, LoadBalancer, Name, PortRef, ProxyMode, ProxyVersion, TlsMode};
use crate::routing::publish::Publisher;
use crate::routing::{self, RouteTable};
use crate::tls;

use super::Admin;
use super::certificates::Certificate;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Table {
    generation: u64,
    /// In the workers' order.
    acknowledged_generations: Vec<u64>,
    listeners: Vec<Listener>,
    upstreams: Vec<Upstream>,
    /// Everything that TLS needs, by where it comes from; absent where nobody speaks TLS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    certificates: Vec<Certificate>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listener {
    name: String,
    address: SocketAddr,
    protocol: &'static str,
    /// Whether a PROXY protocol header comes first; absent where none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_protocol: Option<&'static str>,
    limit: Option<usize>,
    active: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_per_source: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_per_source: Option<f64>,
    /// Client addresses that are told apart; absent where they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    sources: Option<usize>,
    routes: Vec<Route>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Route {
    name: String,
    /// Absent where every name, or none, will do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hostnames: Vec<String>,
    /// Absent where every protocol, or none, will do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alpn_protocols: Vec<String>,
    /// Where TLS ends; absent where none is spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_mode: Option<&'static str>,
    sources: Vec<String>,
    backend_refs: Vec<BackendRef>,
}

#[derive(Serialize)]
struct BackendRef {
    upstream: String,
    weight: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Upstream {
    name: String,
    load_balancer: &'static str,
    /// Why some endpoints are preferred as near; absent while none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    nearness: Option<&'static str>,
    /// The Service that it follows; absent where its endpoints are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Service>,
    /// The version of the PROXY protocol header that endpoints get; absent where they get none.
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_protocol: Option<&'static str>,
    /// What keeps it from having the endpoints that it should have.
    problem: Option<Problem>,
    endpoints: Vec<Endpoint>,
    /// How many connections it may have; absent without a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    /// Connections that wait for a place.
    pending: usize,
    /// So few endpoints are healthy that health is ignored.
    panics: bool,
    /// Endpoints that left the table, with their last connections.
    leaving: Vec<Endpoint>,
}

#[derive(Serialize)]
struct Service {
    namespace: String,
    name: String,
    /// A number or a name, as in the file.
    port: serde_json::Value,
}

#[derive(Serialize)]
pub(super) struct Problem {
    reason: &'static str,
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    address: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    weight: u32,
    /// Absent where it is 0, the first.
    #[serde(skip_serializing_if = "is_first")]
    priority: u32,
    active: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    health: &'static str,
    /// Of its share of connections, in per cent, while it is less than all because it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    slow_start_percent: Option<u32>,
    /// How long connecting takes, as PeakEWMA sees it; absent while it was never tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_millis: Option<f32>,
    /// From a client's first byte to the endpoint's, in the same way; absent while no client has spoken first and got an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_millis: Option<f32>,
    /// Which checks say that it is unhealthy; absent where it is healthy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unhealthy_by: Vec<&'static str>,
    /// Why its last probe failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_failure: Option<String>,
    /// When it is no longer ejected, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    ejected_for_seconds: Option<f64>,
    /// Absent where nothing opens one.
    #[serde(skip_serializing_if = "Option::is_none")]
    breaker: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hints: Option<Hints>,
}

/// For whose clients the endpoint is meant.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Hints {
    for_zones: Vec<String>,
    for_nodes: Vec<String>,
}

pub(super) async fn show(State(admin): State<Admin>) -> Json<Table> {
    let publisher: &Publisher = &admin.shared.publisher;
    let acknowledged = publisher.acknowledged_by_worker();
    let (current, now) = (publisher.current(), Instant::now());
    let mut table = Table::new(&current, acknowledged);
    table.certificates = admin.shared.certificates.reports().iter().map(Certificate::from).collect();
    for (upstream, upstream_now) in table.upstreams.iter_mut().zip(current.upstreams.values()) {
        for (endpoint, now_is) in upstream.endpoints.iter_mut().zip(&upstream_now.endpoints) {
            let latency = &now_is.state.latency;
            endpoint.connect_millis = latency.connect_seconds(now).map(|seconds| seconds * 1e3);
            endpoint.first_byte_millis = latency.first_byte_seconds(now).map(|seconds| seconds * 1e3);
            let share = upstream_now.slow_start_now().map(|window| now_is.start.share(window, now) / 10);
            endpoint.slow_start_percent = share.filter(|percent| *percent < 100);
        }
        let Some(probes) = admin.shared.probes.of(&upstream.name.as_str().into()) else { continue };
        for endpoint in &mut upstream.endpoints {
            endpoint.probe_failure = probes.failure(endpoint.address).map(ToString::to_string);
        }
    }
    Json(table)
}

impl Table {
    fn new(table: &RouteTable, acknowledged_generations: Vec<u64>) -> Self {
        Self {
            generation: table.generation,
            acknowledged_generations,
            listeners: table.listeners.iter().map(|l| Listener::from(&**l)).collect(),
            upstreams: table.upstreams.values().map(|u| Upstream::from(&**u)).collect(),
            certificates: Vec::new(),
        }
    }
}

impl From<&routing::Listener> for Listener {
    fn from(listener: &routing::Listener) -> Self {
        Self {
            name: listener.name.to_string(),
            address: listener.address,
            protocol: listener.protocol.label(),
            proxy_protocol: listener.proxy.as_ref().map(|proxy| match proxy.mode {
                ProxyMode::Require => "Require",
                ProxyMode::Optional => "Optional",
            }),
            limit: listener.limit.map(|limit| limit.limit.get()),
            active: listener.state.places.taken(),
            limit_per_source: listener.sources.and_then(|policy| policy.limit).map(NonZeroU32::get),
            rate_per_source: listener.sources.and_then(|policy| policy.rate),
            sources: listener.sources.map(|_| listener.state.sources().map_or(0, |sources| sources.known())),
            routes: listener.routes.iter().map(|r| Route::from(&**r)).collect(),
        }
    }
}

impl From<&routing::Route> for Route {
    fn from(route: &routing::Route) -> Self {
        let backends = route.backends.iter().map(|backend| BackendRef {
            upstream: backend.upstream.name.to_string(),
            weight: backend.weight,
        });
        Self {
            name: route.name.to_string(),
            hostnames: route.hostnames.iter().map(ToString::to_string).collect(),
            alpn_protocols: route.alpn.to_vec(),
            tls_mode: route.tls_mode.map(TlsMode::label),
            sources: route.sources.iter().map(ToString::to_string).collect(),
            backend_refs: backends.collect(),
        }
    }
}

impl From<&routing::Upstream> for Upstream {
    fn from(upstream: &routing::Upstream) -> Self {
        let leaving = upstream.leaving.iter().filter(|endpoint| endpoint.state.active() > 0);
        Self {
            name: upstream.name.to_string(),
            load_balancer: match upstream.load_balancer {
                LoadBalancer::RoundRobin => "RoundRobin",
                LoadBalancer::LeastConnections => "LeastConnections",
                LoadBalancer::Random => "Random",
                LoadBalancer::PeakEwma => "PeakEWMA",
                LoadBalancer::ConsistentHash { .. } => "ConsistentHash",
            },
            nearness: upstream.selection.nearness().map(|nearness| nearness.label()),
            service: upstream.service.as_deref().map(Service::from),
            proxy_protocol: upstream.proxy.as_ref().map(|proxy| match proxy.version {
                ProxyVersion::V1 => "V1",
                ProxyVersion::V2 => "V2",
            }),
            problem: upstream.problem.as_ref().map(Problem::from),
            endpoints: upstream.endpoints.iter().map(Endpoint::from).collect(),
            limit: upstream.limits.max_connections.map(NonZeroUsize::get),
            pending: upstream.state.queued(),
            panics: upstream.selection.panics(),
            leaving: leaving.map(Endpoint::from).collect(),
        }
    }
}

impl From<&config::ServicePort> for Service {
    fn from(service: &config::ServicePort) -> Self {
        Self {
            namespace: service.namespace.to_string(),
            name: service.name.to_string(),
            port: match &service.port {
                PortRef::Number(number) => (*number).into(),
                PortRef::Name(name) => (**name).into(),
            },
        }
    }
}

impl From<&tls::Problem> for Problem {
    fn from(problem: &tls::Problem) -> Self {
        Self { reason: problem.reason, text: problem.text.to_string() }
    }
}

impl From<&routing::Problem> for Problem {
    fn from(problem: &routing::Problem) -> Self {
        Self { reason: problem.reason, text: problem.text.to_string() }
    }
}

impl From<&routing::Endpoint> for Endpoint {
    fn from(endpoint: &routing::Endpoint) -> Self {
        let state = &endpoint.state;
        let topology = &endpoint.topology;
        let texts = |names: &[Name]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let ejected_for = state.ejection.until().map(|until| until.saturating_duration_since(Instant::now()));
        let verdicts = [("active", !state.health.is_healthy()), ("passive", ejected_for.is_some())];
        let unhealthy_by: Vec<_> =
            verdicts.into_iter().filter_map(|(check, says_so)| says_so.then_some(check)).collect();
        let has_hints = !(topology.for_zones.is_empty() && topology.for_nodes.is_empty());
        Self {
            address: endpoint.address,
            pod: endpoint.pod.as_deref().map(Into::into),
            weight: endpoint.weight,
            priority: endpoint.priority,
            active: state.active(),
            limit: endpoint.max_connections.map(NonZeroUsize::get),
            slow_start_percent: None,
            connect_millis: None,
            first_byte_millis: None,
            probe_failure: None,
            health: if unhealthy_by.is_empty() { "healthy" } else { "unhealthy" },
            unhealthy_by,
            ejected_for_seconds: ejected_for.map(|time| time.as_secs_f64()),
            breaker: endpoint.breaker.as_ref().map(|breaker| breaker.state().label()),
            zone: topology.zone.as_deref().map(Into::into),
            node_name: topology.node.as_deref().map(Into::into),
            hints: has_hints.then(|| Hints {
                for_zones: texts(&topology.for_zones),
                for_nodes: texts(&topology.for_nodes),
            }),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_first(priority: &u32) -> bool {
    *priority == 0
}
