//! Configuration and the table before -> the next table. Pure.
//!
//! State is carried over by identity: a listener's and a route's by name, an upstream's by name, an
//! endpoint's by (upstream, address). So counts, breakers and health survive any number of reloads.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::balance::Schedule;
use crate::config::{self, Config, Name};

use super::route::WeightedUpstream;
use super::{Endpoint, EndpointState, Listener, Route, RouteTable, Upstream};

/// The table that `config` describes, one generation after `previous`.
pub fn compile(config: &Config, previous: &RouteTable) -> RouteTable {
    let upstreams: BTreeMap<Name, Arc<Upstream>> = config
        .upstreams
        .iter()
        .map(|upstream| {
            (
                upstream.name.clone(),
                Arc::new(compile_upstream(upstream, previous.upstreams.get(&upstream.name))),
            )
        })
        .collect();
    let before: HashMap<&Name, &Arc<Listener>> =
        previous.listeners.iter().map(|listener| (&listener.name, listener)).collect();
    let listeners = config
        .listeners
        .iter()
        .map(|listener| {
            let routes = config.routes.iter().filter(|route| route.listener == listener.name);
            let previous = before.get(&listener.name).copied();
            Arc::new(compile_listener(listener, routes, &upstreams, previous))
        })
        .collect();
    RouteTable::new(previous.generation + 1, listeners, upstreams, config.drain.timeout)
}

fn compile_upstream(upstream: &config::Upstream, previous: Option<&Arc<Upstream>>) -> Upstream {
    let before: HashMap<SocketAddr, &Arc<EndpointState>> =
        previous.iter().flat_map(|upstream| &upstream.endpoints).map(|e| (e.address, &e.state)).collect();
    let endpoints: Vec<Endpoint> = upstream
        .endpoints
        .iter()
        .map(|endpoint| Endpoint {
            address: endpoint.address,
            weight: endpoint.weight,
            state: before.get(&endpoint.address).map_or_else(Arc::default, |state| Arc::clone(state)),
        })
        .collect();
    Upstream {
        name: upstream.name.clone(),
        schedule: Schedule::new(endpoints.iter().map(|endpoint| endpoint.weight)),
        endpoints,
        load_balancer: upstream.load_balancer,
        timeouts: upstream.timeouts,
        keepalive: upstream.keepalive,
        retry: upstream.retry,
        drain_timeout: upstream.drain_timeout,
        state: previous.map_or_else(Arc::default, |upstream| Arc::clone(&upstream.state)),
    }
}

fn compile_listener<'a>(
    listener: &config::Listener,
    routes: impl Iterator<Item = &'a config::Route>,
    upstreams: &BTreeMap<Name, Arc<Upstream>>,
    previous: Option<&Arc<Listener>>,
) -> Listener {
    let routes: Vec<Arc<Route>> = routes
        .map(|route| {
            let before = previous.and_then(|l| l.routes.iter().find(|before| before.name == route.name));
            Arc::new(compile_route(route, upstreams, before))
        })
        .collect();
    let mut by_source: Vec<(IpNet, usize)> = routes
        .iter()
        .enumerate()
        .flat_map(|(index, route)| route.sources.iter().map(move |net| (*net, index)))
        .collect();
    by_source.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
    Listener {
        name: listener.name.clone(),
        address: listener.address,
        allow: listener.allow.clone(),
        deny: listener.deny.clone(),
        limit: listener.limit,
        timeouts: listener.timeouts,
        keepalive: listener.keepalive,
        for_everyone: routes.iter().position(|route| route.sources.is_empty()),
        by_source,
        routes,
        state: previous.map_or_else(Arc::default, |listener| Arc::clone(&listener.state)),
    }
}

fn compile_route(
    route: &config::Route,
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
        sources: route.sources.clone(),
        schedule: Schedule::new(backends.iter().map(|backend| backend.weight)),
        backends,
        cursor: previous.map_or_else(Arc::default, |route| Arc::clone(&route.cursor)),
    }
}

#[cfg(test)]
mod tests;
