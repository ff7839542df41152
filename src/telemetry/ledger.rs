//! Connections that ended, summed by listener, route, upstream and endpoint.
//!
//! Plain numbers: each worker has a ledger of its own, and a scrape merges them. Series of what left the table
//! are dropped, so the ledger is bounded by the table.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use crate::config::Name;
use crate::routing::RouteTable;

use super::{Attempt, ConnectionRecord, Histogram, Outcome, Side};

#[derive(Debug, Default, Clone)]
pub struct Ledger {
    pub listeners: BTreeMap<Name, ListenerLedger>,
    pub routes: BTreeMap<Name, RouteLedger>,
    pub upstreams: BTreeMap<Name, UpstreamLedger>,
    pub endpoints: BTreeMap<(Name, SocketAddr), EndpointLedger>,
}

#[derive(Debug, Default, Clone)]
pub struct ListenerLedger {
    pub outcomes: BTreeMap<Outcome, u64>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub duration: Histogram,
    /// TLS handshakes that were made here, by version and kind.
    pub handshakes: BTreeMap<(&'static str, &'static str), u64>,
    /// From accepting a connection until its handshake was made.
    pub handshake: Histogram,
}

#[derive(Debug, Default, Clone)]
pub struct RouteLedger {
    pub connections: u64,
}

#[derive(Debug, Default, Clone)]
pub struct UpstreamLedger {
    pub connections: u64,
    /// Attempts after the first of their connection.
    pub retries: u64,
    /// Attempts given up because the one beside them was faster.
    pub outpaced: u64,
    /// From the first attempt until connected.
    pub connect: Histogram,
    /// From connected until the endpoint's first byte.
    pub first_byte: Histogram,
}

#[derive(Debug, Default, Clone)]
pub struct EndpointLedger {
    pub connections: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Failed attempts by their failure.
    pub failures: BTreeMap<Outcome, u64>,
}

impl Ledger {
    pub fn enter(&mut self, record: &ConnectionRecord) {
        let listener = entry(&mut self.listeners, &record.listener);
        *listener.outcomes.entry(record.outcome).or_default() += 1;
        listener.bytes_received += record.bytes_received;
        listener.bytes_sent += record.bytes_sent;
        listener.duration.observe(record.timeline.ended);
        if let Some(tls) = &record.tls
            && let Some(made) = &tls.downstream
        {
            let kind = if made.resumed { "resumed" } else { "full" };
            *listener.handshakes.entry((made.version, kind)).or_default() += 1;
            listener.handshake.observe(tls.handshake_ended.unwrap_or_default());
        }
        if let Some(route) = &record.route {
            entry(&mut self.routes, route).connections += 1;
        }
        if let Some(upstream) = &record.upstream {
            self.enter_upstream(upstream, record);
        }
    }

    fn enter_upstream(&mut self, name: &Name, record: &ConnectionRecord) {
        let upstream = entry(&mut self.upstreams, name);
        upstream.connections += 1;
        upstream.retries += record.attempts.len().saturating_sub(1) as u64;
        let outpaced = |attempt: &&Attempt| attempt.failure == Some(Outcome::Outpaced);
        upstream.outpaced += record.attempts.iter().filter(outpaced).count() as u64;
        let timeline = &record.timeline;
        if let (Some(started), Some(ended)) = (timeline.connect_started, timeline.connect_ended)
            && record.endpoint.is_some()
        {
            upstream.connect.observe(ended.saturating_sub(started));
            if let Some(first_byte) = timeline.first_byte_upstream {
                upstream.first_byte.observe(first_byte.saturating_sub(ended));
            }
        }
        for attempt in &record.attempts {
            let endpoint = self.endpoints.entry((name.clone(), attempt.endpoint)).or_default();
            if let Some(failure) = attempt.failure {
                // A client that left and a lack of local ports are not the endpoint's failures.
                if failure.side() == Side::Upstream {
                    *endpoint.failures.entry(failure).or_default() += 1;
                }
                continue;
            }
            endpoint.connections += 1;
            endpoint.bytes_received += record.bytes_received;
            endpoint.bytes_sent += record.bytes_sent;
        }
    }

    pub fn merge(&mut self, other: &Self) {
        for (name, more) in &other.listeners {
            let listener = entry(&mut self.listeners, name);
            add_all(&mut listener.outcomes, &more.outcomes);
            listener.bytes_received += more.bytes_received;
            listener.bytes_sent += more.bytes_sent;
            listener.duration.merge(&more.duration);
            listener.handshake.merge(&more.handshake);
            for (key, count) in &more.handshakes {
                *listener.handshakes.entry(*key).or_default() += count;
            }
        }
        for (name, more) in &other.routes {
            entry(&mut self.routes, name).connections += more.connections;
        }
        for (name, more) in &other.upstreams {
            let upstream = entry(&mut self.upstreams, name);
            upstream.connections += more.connections;
            upstream.retries += more.retries;
            upstream.outpaced += more.outpaced;
            upstream.connect.merge(&more.connect);
            upstream.first_byte.merge(&more.first_byte);
        }
        for (key, more) in &other.endpoints {
            let endpoint = self.endpoints.entry(key.clone()).or_default();
            endpoint.connections += more.connections;
            endpoint.bytes_received += more.bytes_received;
            endpoint.bytes_sent += more.bytes_sent;
            add_all(&mut endpoint.failures, &more.failures);
        }
    }

    /// Drops the series of what is not in `table` any more.
    pub fn prune(&mut self, table: &RouteTable) {
        let listeners: HashSet<&Name> = table.listeners.iter().map(|listener| &listener.name).collect();
        let routes = table.listeners.iter().flat_map(|listener| &listener.routes);
        let routes: HashSet<&Name> = routes.map(|route| &route.name).collect();
        let mut endpoints: HashSet<(&Name, SocketAddr)> = HashSet::new();
        for upstream in table.upstreams.values() {
            // One that leaves is still seen until its last connection is gone.
            let leaving = upstream.leaving.iter().filter(|endpoint| endpoint.state.active() > 0);
            endpoints.extend(upstream.endpoints.iter().chain(leaving).map(|e| (&upstream.name, e.address)));
        }
        self.listeners.retain(|name, _| listeners.contains(name));
        self.routes.retain(|name, _| routes.contains(name));
        self.upstreams.retain(|name, _| table.upstreams.contains_key(name));
        self.endpoints.retain(|(name, address), _| endpoints.contains(&(name, *address)));
    }
}

fn entry<'a, T: Default>(map: &'a mut BTreeMap<Name, T>, name: &Name) -> &'a mut T {
    map.entry(Name::clone(name)).or_default()
}

fn add_all(counts: &mut BTreeMap<Outcome, u64>, more: &BTreeMap<Outcome, u64>) {
    for (outcome, count) in more {
        *counts.entry(*outcome).or_default() += count;
    }
}
