//! Configuration, what was found of the followed upstreams, and the table before -> the next table. Pure.
//!
//! State is carried over by identity: a listener's and a route's by name, an upstream's by name, an
//! endpoint's by (upstream, address). So counts, breakers and health survive any number of tables.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::balance::{Schedule, Selection, Start};
use crate::config::{self, Config, LoadBalancer, Members, Name, TlsMode};
use crate::resilience::{Breaker, BreakerPolicy, SourcePolicy};
use crate::tls::{ClientSide, Credentials, ServerSide};

use super::matcher::Matcher;
use super::route::WeightedUpstream;
use super::{
    Endpoint, EndpointState, Listener, Problem, Route, RouteTable, Topology, Upstream, UpstreamState,
};

/// One endpoint as its source names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub address: SocketAddr,
    /// What it is called in its cluster, if it is a pod.
    pub pod: Option<Name>,
    pub weight: u32,
    pub topology: Arc<Topology>,
    pub priority: u32,
}

/// What was found of an upstream whose members are followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub members: Vec<Member>,
    pub problem: Option<Problem>,
}

/// What a configuration refers to and does not hold itself.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// By the upstream's name. One that is not in here yet keeps the endpoints it had.
    pub upstreams: HashMap<Name, Found>,
    pub credentials: Credentials,
}

/// The table that `config` describes, one generation after `previous`.
pub fn compile(config: &Config, findings: &Findings, previous: &RouteTable, now: Instant) -> RouteTable {
    let upstreams: BTreeMap<Name, Arc<Upstream>> = config
        .upstreams
        .iter()
        .map(|upstream| {
            let name = &upstream.name;
            let before = previous.upstreams.get(name);
            let tls = upstream.tls.as_ref().map(|tls| {
                ClientSide::new(tls, &findings.credentials, before.and_then(|before| before.tls.as_ref()))
            });
            let compiled = compile_upstream(upstream, findings.upstreams.get(name), tls, before, now);
            (name.clone(), Arc::new(compiled))
        })
        .collect();
    let before: HashMap<&Name, &Arc<Listener>> =
        previous.listeners.iter().map(|listener| (&listener.name, listener)).collect();
    let mut routes: HashMap<&Name, Vec<&config::Route>> = HashMap::new();
    for route in &config.routes {
        routes.entry(&route.listener).or_default().push(route);
    }
    let listeners = config
        .listeners
        .iter()
        .map(|listener| {
            let routes = routes.get(&listener.name).map_or(&[][..], Vec::as_slice);
            let previous = before.get(&listener.name).copied();
            let tls = listener.tls.as_ref().map(|tls| {
                let before = previous.and_then(|previous| previous.tls.as_ref());
                ServerSide::new(&listener.name, tls, &findings.credentials, before)
            });
            Arc::new(compile_listener(listener, routes, tls, &upstreams, previous))
        })
        .collect();
    RouteTable::new(previous.generation + 1, listeners, upstreams, config.drain.timeout)
}

/// The table after `previous` in which these upstreams have other members, or are chosen from anew, and nothing else differs. What does
/// not lead to them is the same in both, not even copied.
pub fn refresh<'a>(
    changed: impl IntoIterator<Item = (&'a config::Upstream, Option<&'a Found>)>,
    previous: &RouteTable,
    now: Instant,
) -> RouteTable {
    let changed: HashMap<&Name, Arc<Upstream>> = changed
        .into_iter()
        .map(|(upstream, found)| {
            let before = previous.upstreams.get(&upstream.name);
            // Certificates come with a table of their own.
            let tls = before.and_then(|before| before.tls.clone());
            (&upstream.name, Arc::new(compile_upstream(upstream, found, tls, before, now)))
        })
        .collect();
    let mut upstreams = previous.upstreams.clone();
    upstreams.extend(changed.iter().map(|(name, upstream)| (Name::clone(name), Arc::clone(upstream))));
    let listeners = previous.listeners.iter().map(|listener| listener.with_upstreams(&changed)).collect();
    RouteTable::new(previous.generation + 1, listeners, upstreams, previous.drain_timeout)
}

fn compile_upstream(
    upstream: &config::Upstream,
    found: Option<&Found>,
    tls: Option<Arc<ClientSide>>,
    previous: Option<&Arc<Upstream>>,
    now: Instant,
) -> Upstream {
    let before = || previous.iter().flat_map(|upstream| upstream.endpoints.iter().chain(&upstream.leaving));
    let known: HashMap<SocketAddr, &Endpoint> = before().map(|e| (e.address, e)).collect();
    let Found { members, problem } = found_or_kept(upstream, found, previous);
    let starts_healthy = upstream.health.active.as_ref().is_none_or(|check| check.starts_healthy);
    let is_first = previous.is_none_or(|upstream| upstream.is_waiting());
    let endpoints: Vec<Endpoint> = members
        .into_iter()
        .map(|Member { address, pod, weight, topology, priority }| {
            let before = known.get(&address).copied();
            let breaker = upstream.breaker.map(|policy| breaker(policy, before, now));
            let state =
                before.map_or_else(|| Arc::new(EndpointState::new(starts_healthy)), |e| Arc::clone(&e.state));
            let stayed = before.filter(|endpoint| !endpoint.state.has_left());
            let start = Start::next(stayed.map(|endpoint| endpoint.start), is_first, state.is_healthy(), now);
            let max_connections = upstream.limits.max_per_endpoint;
            Endpoint { address, pod, weight, topology, priority, max_connections, start, breaker, state }
        })
        .collect();
    let stays: HashSet<SocketAddr> = endpoints.iter().map(|endpoint| endpoint.address).collect();
    // What leaves only now, or did a moment ago, may still get a connection from a worker with an older table.
    let lives = |state: &EndpointState| state.active() > 0 || !state.has_left() || state.left_lately(now);
    let leaving = before().filter(|e| !stays.contains(&e.address) && lives(&e.state));
    Upstream {
        name: upstream.name.clone(),
        service: upstream.members.followed().cloned().map(Arc::new),
        selection: select(upstream, &endpoints, previous),
        leaving: leaving.cloned().collect(),
        endpoints,
        problem,
        load_balancer: upstream.load_balancer,
        slow_start: upstream.slow_start,
        timeouts: upstream.timeouts,
        keepalive: upstream.keepalive,
        tls,
        retry: upstream.retry,
        health: upstream.health.clone(),
        proxy: upstream.proxy.clone(),
        drain: upstream.drain,
        rebalance: upstream.rebalance,
        limits: upstream.limits,
        state: previous.map_or_else(
            || Arc::new(UpstreamState::new(upstream.limits.max_connections)),
            |upstream| Arc::clone(&upstream.state),
        ),
    }
}

fn select(
    upstream: &config::Upstream,
    endpoints: &[Endpoint],
    previous: Option<&Arc<Upstream>>,
) -> Selection {
    let selection = Selection::new(endpoints, upstream.health.panic_threshold, upstream.zone_aware.as_ref());
    match upstream.load_balancer {
        LoadBalancer::ConsistentHash { table_size } => {
            selection.with_slots(table_size, endpoints, previous.map(|upstream| &upstream.selection))
        }
        LoadBalancer::LeastConnections => selection.with_groups(endpoints),
        _ => selection,
    }
}

/// The endpoint's own as long as the policy stays and the endpoint does: one that left and is back is said to be well.
fn breaker(policy: config::Breaker, before: Option<&Endpoint>, now: Instant) -> Breaker {
    let config::Breaker { consecutive_failures, base_interval, max_interval } = policy;
    let policy = BreakerPolicy { consecutive_failures, base_interval, max_interval };
    let stayed = before.filter(|endpoint| !endpoint.state.has_left());
    let same =
        stayed.and_then(|endpoint| endpoint.breaker.as_ref()).filter(|breaker| *breaker.policy() == policy);
    same.cloned().unwrap_or_else(|| Breaker::new(policy, now))
}

fn found_or_kept(
    upstream: &config::Upstream,
    found: Option<&Found>,
    previous: Option<&Arc<Upstream>>,
) -> Found {
    match (&upstream.members, found) {
        (Members::Listed(endpoints), _) => {
            let mut zones: HashMap<Option<Name>, Arc<Topology>> = HashMap::new();
            let listed = endpoints.iter().map(|endpoint| Member {
                address: endpoint.address,
                pod: None,
                weight: endpoint.weight,
                topology: Arc::clone(zones.entry(endpoint.zone.clone()).or_insert_with_key(|zone| {
                    Arc::new(Topology { zone: zone.clone(), ..Topology::default() })
                })),
                priority: endpoint.priority,
            });
            Found { members: listed.collect(), problem: None }
        }
        (Members::Followed(_), Some(found)) => found.clone(),
        (Members::Followed(service), None) => {
            // Only of the same Service: connections must not go on to what the configuration no longer names.
            let same = previous.filter(|upstream| upstream.service.as_deref() == Some(service));
            let kept = same.iter().flat_map(|upstream| &upstream.endpoints).map(|endpoint| Member {
                address: endpoint.address,
                pod: endpoint.pod.clone(),
                weight: endpoint.weight,
                topology: Arc::clone(&endpoint.topology),
                priority: endpoint.priority,
            });
            let text = format!(
                "the cluster has not told yet what Service {}/{} has",
                service.namespace, service.name
            );
            Found {
                members: kept.collect(),
                problem: Some(Problem { reason: Problem::WAITING, text: text.into() }),
            }
        }
    }
}

fn compile_listener(
    listener: &config::Listener,
    routes: &[&config::Route],
    tls: Option<Arc<ServerSide>>,
    upstreams: &BTreeMap<Name, Arc<Upstream>>,
    previous: Option<&Arc<Listener>>,
) -> Listener {
    let before: HashMap<&Name, &Arc<Route>> =
        previous.iter().flat_map(|listener| &listener.routes).map(|route| (&route.name, route)).collect();
    let mode = listener.tls.as_ref().map(|tls| tls.mode);
    let mut matcher = Matcher::default();
    for (index, route) in routes.iter().enumerate() {
        matcher.add(index, &route.hostnames, &route.sources, &route.alpn);
    }
    let compiled = |route: &&config::Route| {
        Arc::new(compile_route(route, mode, upstreams, before.get(&route.name).copied()))
    };
    Listener {
        name: listener.name.clone(),
        address: listener.address,
        protocol: listener.protocol,
        proxy: listener.proxy.clone(),
        allow: listener.allow.as_slice().into(),
        deny: listener.deny.as_slice().into(),
        limit: listener.limit,
        sources: listener.sources.map(|config::SourceLimit { limit, rate }| SourcePolicy { limit, rate }),
        timeouts: listener.timeouts,
        keepalive: listener.keepalive,
        tls,
        routes: routes.iter().map(compiled).collect(),
        matcher: Arc::new(matcher),
        shared: None,
        state: previous.map_or_else(Arc::default, |listener| Arc::clone(&listener.state)),
    }
}

/// `tls_mode` is that of the listener; `None`: no TLS is spoken there.
fn compile_route(
    route: &config::Route,
    tls_mode: Option<TlsMode>,
    upstreams: &BTreeMap<Name, Arc<Upstream>>,
    previous: Option<&Arc<Route>>,
) -> Route {
    let backends: Vec<WeightedUpstream> = route
        .backends
        .iter()
        .filter_map(|backend| {
            let upstream = Arc::clone(upstreams.get(&backend.upstream)?);
            Some(WeightedUpstream { upstream, weight: backend.weight })
        })
        .collect();
    Route {
        name: route.name.clone(),
        hostnames: route.hostnames.as_slice().into(),
        sources: route.sources.as_slice().into(),
        alpn: route.alpn.as_slice().into(),
        tls_mode: tls_mode.map(|mode| route.tls_mode.unwrap_or(mode)),
        schedule: Schedule::new(backends.iter().map(|backend| backend.weight)),
        backends,
        cursor: previous.map_or_else(Arc::default, |route| Arc::clone(&route.cursor)),
    }
}

#[cfg(test)]
mod tests;
