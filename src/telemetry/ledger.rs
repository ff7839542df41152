//! Connections that ended, summed by listener, route, upstream and endpoint.
//!
//! Plain numbers: each worker has a ledger of its own, and a scrape merges them. Series of what left the table
//! are dropped, so the ledger is bounded by the table.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::Name;
use crate::routing::RouteTable;

use super::{Attempt, ConnectionRecord, Histogram, Outcome, Side, Traced};

#[derive(Debug, Default, Clone)]
pub struct Ledger {
    pub listeners: BTreeMap<Name, ListenerLedger>,
    pub routes: BTreeMap<Name, RouteLedger>,
    pub upstreams: BTreeMap<Name, UpstreamLedger>,
    pub endpoints: BTreeMap<(Name, SocketAddr), EndpointLedger>,
}

/// How connections ended, and what they carried.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub outcomes: BTreeMap<Outcome, u64>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

/// TLS handshakes that were made, by version and kind.
type Handshakes = BTreeMap<(&'static str, &'static str), u64>;

#[derive(Debug, Default, Clone)]
pub struct ListenerLedger {
    pub tally: Tally,
    pub duration: Histogram,
    /// Those with clients.
    pub handshakes: Handshakes,
    /// From accepting a connection until its handshake was made.
    pub handshake: Histogram,
}

#[derive(Debug, Default, Clone)]
pub struct RouteLedger {
    pub tally: Tally,
    pub duration: Histogram,
}

#[derive(Debug, Default, Clone)]
pub struct UpstreamLedger {
    pub tally: Tally,
    /// Attempts after the first of their connection.
    pub retries: u64,
    /// Attempts given up because the one beside them was faster.
    pub outpaced: u64,
    /// From the first attempt until connected.
    pub connect: Histogram,
    /// From connected until the endpoint's first byte.
    pub first_byte: Histogram,
    /// Those with endpoints.
    pub handshakes: Handshakes,
}

/// How long something took, and how often it was: a histogram for each of thousands of endpoints would be megabytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Total {
    pub time: Duration,
    pub count: u64,
}

#[derive(Debug, Default, Clone)]
pub struct EndpointLedger {
    pub connections: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Failed attempts by their failure.
    pub failures: BTreeMap<Outcome, u64>,
    /// Of attempts that connected.
    pub connect: Total,
    /// From connected until the endpoint's first byte.
    pub first_byte: Total,
}

impl Ledger {
    pub fn enter(&mut self, record: &ConnectionRecord) {
        // Who sees a number may look at the connection, if its trace is kept.
        let traced = record
            .wants
            .trace
            .then(|| Traced { trace: record.trace, at: record.timeline.accepted + record.timeline.ended });
        let listener = entry(&mut self.listeners, &record.listener);
        listener.tally.enter(record);
        listener.duration.observe_traced(record.timeline.ended, traced);
        if let Some(tls) = &record.tls
            && let Some(made) = &tls.downstream
        {
            *listener.handshakes.entry((made.version, made.kind())).or_default() += 1;
            listener.handshake.observe_traced(tls.handshake_ended.unwrap_or_default(), traced);
        }
        if let Some(route) = &record.route {
            let route = entry(&mut self.routes, route);
            route.tally.enter(record);
            route.duration.observe_traced(record.timeline.ended, traced);
        }
        if let Some(upstream) = &record.upstream {
            self.enter_upstream(upstream, record, traced);
        }
    }

    fn enter_upstream(&mut self, name: &Name, record: &ConnectionRecord, traced: Option<Traced>) {
        let upstream = entry(&mut self.upstreams, name);
        upstream.tally.enter(record);
        upstream.retries += record.attempts.len().saturating_sub(1) as u64;
        let outpaced = |attempt: &&Attempt| attempt.failure == Some(Outcome::Outpaced);
        upstream.outpaced += record.attempts.iter().filter(outpaced).count() as u64;
        if let Some(made) = record.tls.as_ref().and_then(|tls| tls.upstream.as_ref()) {
            *upstream.handshakes.entry((made.version, made.kind())).or_default() += 1;
        }
        let timeline = &record.timeline;
        let mut first_byte = None;
        if let (Some(started), Some(ended)) = (timeline.connect_started, timeline.connect_ended)
            && record.endpoint.is_some()
        {
            upstream.connect.observe_traced(ended.saturating_sub(started), traced);
            first_byte = timeline.first_byte_upstream.map(|first_byte| first_byte.saturating_sub(ended));
            if let Some(first_byte) = first_byte {
                upstream.first_byte.observe_traced(first_byte, traced);
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
            endpoint.connect.add(attempt.ended.saturating_sub(attempt.started));
            first_byte.into_iter().for_each(|first_byte| endpoint.first_byte.add(first_byte));
        }
    }

    pub fn merge(&mut self, other: &Self) {
        for (name, more) in &other.listeners {
            let listener = entry(&mut self.listeners, name);
            listener.tally.merge(&more.tally);
            listener.duration.merge(&more.duration);
            listener.handshake.merge(&more.handshake);
            add_all(&mut listener.handshakes, &more.handshakes);
        }
        for (name, more) in &other.routes {
            let route = entry(&mut self.routes, name);
            route.tally.merge(&more.tally);
            route.duration.merge(&more.duration);
        }
        for (name, more) in &other.upstreams {
            let upstream = entry(&mut self.upstreams, name);
            upstream.tally.merge(&more.tally);
            upstream.retries += more.retries;
            upstream.outpaced += more.outpaced;
            upstream.connect.merge(&more.connect);
            upstream.first_byte.merge(&more.first_byte);
            add_all(&mut upstream.handshakes, &more.handshakes);
        }
        for (key, more) in &other.endpoints {
            let endpoint = self.endpoints.entry(key.clone()).or_default();
            endpoint.connections += more.connections;
            endpoint.bytes_received += more.bytes_received;
            endpoint.bytes_sent += more.bytes_sent;
            endpoint.connect.merge(more.connect);
            endpoint.first_byte.merge(more.first_byte);
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

impl Tally {
    /// How many connections ended, and how many of them somebody should look at.
    pub fn counts(&self) -> (u64, u64) {
        self.outcomes.iter().fold((0, 0), |(ended, failed), (outcome, count)| {
            (ended + count, failed + if outcome.is_error() { *count } else { 0 })
        })
    }

    fn enter(&mut self, record: &ConnectionRecord) {
        *self.outcomes.entry(record.outcome).or_default() += 1;
        self.bytes_received += record.bytes_received;
        self.bytes_sent += record.bytes_sent;
    }

    fn merge(&mut self, more: &Self) {
        add_all(&mut self.outcomes, &more.outcomes);
        self.bytes_received += more.bytes_received;
        self.bytes_sent += more.bytes_sent;
    }
}

impl Total {
    fn add(&mut self, time: Duration) {
        self.merge(Self { time, count: 1 });
    }

    fn merge(&mut self, more: Self) {
        self.time += more.time;
        self.count += more.count;
    }
}

fn entry<'a, T: Default>(map: &'a mut BTreeMap<Name, T>, name: &Name) -> &'a mut T {
    map.entry(Name::clone(name)).or_default()
}

fn add_all<K: Ord + Copy>(counts: &mut BTreeMap<K, u64>, more: &BTreeMap<K, u64>) {
    for (key, count) in more {
        *counts.entry(*key).or_default() += count;
    }
}
