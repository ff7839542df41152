//! `/table`: the route table as it is now, in the words of the configuration file.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::config::LoadBalancer;
use crate::routing::publish::Publisher;
use crate::routing::{self, RouteTable};

use super::Admin;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Table {
    generation: u64,
    /// In the workers' order.
    acknowledged_generations: Vec<u64>,
    listeners: Vec<Listener>,
    upstreams: Vec<Upstream>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listener {
    name: String,
    address: SocketAddr,
    limit: Option<usize>,
    active: usize,
    routes: Vec<Route>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Route {
    name: String,
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
    endpoints: Vec<Endpoint>,
}

#[derive(Serialize)]
struct Endpoint {
    address: SocketAddr,
    weight: u32,
    active: usize,
    health: &'static str,
    breaker: &'static str,
}

pub(super) async fn show(State(admin): State<Admin>) -> Json<Table> {
    let publisher: &Publisher = &admin.shared.publisher;
    let acknowledged = publisher.acknowledged_by_worker();
    Json(Table::new(&publisher.current(), acknowledged))
}

impl Table {
    fn new(table: &RouteTable, acknowledged_generations: Vec<u64>) -> Self {
        Self {
            generation: table.generation,
            acknowledged_generations,
            listeners: table.listeners.iter().map(|l| Listener::from(&**l)).collect(),
            upstreams: table.upstreams.values().map(|u| Upstream::from(&**u)).collect(),
        }
    }
}

impl From<&routing::Listener> for Listener {
    fn from(listener: &routing::Listener) -> Self {
        Self {
            name: listener.name.to_string(),
            address: listener.address,
            limit: listener.limit.map(|limit| limit.limit.get()),
            active: listener.state.places.taken(),
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
            sources: route.sources.iter().map(ToString::to_string).collect(),
            backend_refs: backends.collect(),
        }
    }
}

impl From<&routing::Upstream> for Upstream {
    fn from(upstream: &routing::Upstream) -> Self {
        Self {
            name: upstream.name.to_string(),
            load_balancer: match upstream.load_balancer {
                LoadBalancer::RoundRobin => "RoundRobin",
                LoadBalancer::LeastConnections => "LeastConnections",
                LoadBalancer::Random => "Random",
            },
            endpoints: upstream.endpoints.iter().map(Endpoint::from).collect(),
        }
    }
}

impl From<&routing::Endpoint> for Endpoint {
    fn from(endpoint: &routing::Endpoint) -> Self {
        let state = &endpoint.state;
        Self {
            address: endpoint.address,
            weight: endpoint.weight,
            active: state.active(),
            health: if state.health.is_healthy() { "healthy" } else { "unhealthy" },
            breaker: state.breaker.state().label(),
        }
    }
}
