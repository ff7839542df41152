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
    pub endpoints: BTreeMap<Name, BTreeMap<SocketAddr, EndpointLedger>>,
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
        at(&mut self.listeners, &record.listener, |listener| listener.enter(record, traced));
        if let Some(route) = &record.route {
            at(&mut self.routes, route, |route| {
                route.tally.enter(record);
                route.duration.observe_traced(record.timeline.ended, traced);
            });
        }
        if let Some(upstream) = &record.upstream {
            let mut first_byte = None;
            at(&mut self.upstreams, upstream, |upstream| first_byte = upstream.enter(record, traced));
            at(&mut self.endpoints, upstream, |endpoints| enter_attempts(endpoints, record, first_byte));
        }
    }

    pub fn merge(&mut self, other: &Self) {
        for (name, more) in &other.listeners {
            at(&mut self.listeners, name, |listener| {
                listener.tally.merge(&more.tally);
                listener.duration.merge(&more.duration);
                listener.handshake.merge(&more.handshake);
                add_all(&mut listener.handshakes, &more.handshakes);
            });
        }
        for (name, more) in &other.routes {
            at(&mut self.routes, name, |route| {
                route.tally.merge(&more.tally);
                route.duration.merge(&more.duration);
            });
        }
        for (name, more) in &other.upstreams {
            at(&mut self.upstreams, name, |upstream| upstream.merge(more));
        }
        for (name, more) in &other.endpoints {
            at(&mut self.endpoints, name, |endpoints| {
                for (address, more) in more {
                    endpoints.entry(*address).or_default().merge(more);
                }
            });
        }
    }

    /// Drops the series of what is not in `table` any more.
    pub fn prune(&mut self, table: &RouteTable) {
        let listeners: HashSet<&Name> = table.listeners.iter().map(|listener| &listener.name).collect();
        let routes = table.listeners.iter().flat_map(|listener| &listener.routes);
        let routes: HashSet<&Name> = routes.map(|route| &route.name).collect();
        self.listeners.retain(|name, _| listeners.contains(name));
        self.routes.retain(|name, _| routes.contains(name));
        self.upstreams.retain(|name, _| table.upstreams.contains_key(name));
        self.endpoints.retain(|name, endpoints| {
            let Some(upstream) = table.upstreams.get(name) else { return false };
            // One that leaves is still seen until its last connection is gone.
            let leaving = upstream.leaving.iter().filter(|endpoint| endpoint.state.active() > 0);
            let seen: HashSet<SocketAddr> =
                upstream.endpoints.iter().chain(leaving).map(|endpoint| endpoint.address).collect();
            endpoints.retain(|address, _| seen.contains(address));
            !endpoints.is_empty()
        });
    }
}

impl ListenerLedger {
    fn enter(&mut self, record: &ConnectionRecord, traced: Option<Traced>) {
        self.tally.enter(record);
        self.duration.observe_traced(record.timeline.ended, traced);
        if let Some(tls) = &record.tls
            && let Some(made) = &tls.downstream
        {
            *self.handshakes.entry((made.version, made.kind())).or_default() += 1;
            self.handshake.observe_traced(tls.handshake_ended.unwrap_or_default(), traced);
        }
    }
}

impl UpstreamLedger {
    /// How long the endpoint's first byte took, if it came.
    fn enter(&mut self, record: &ConnectionRecord, traced: Option<Traced>) -> Option<Duration> {
        self.tally.enter(record);
        self.retries += record.attempts.len().saturating_sub(1) as u64;
        let outpaced = |attempt: &&Attempt| attempt.failure == Some(Outcome::Outpaced);
        self.outpaced += record.attempts.iter().filter(outpaced).count() as u64;
        if let Some(made) = record.tls.as_ref().and_then(|tls| tls.upstream.as_ref()) {
            *self.handshakes.entry((made.version, made.kind())).or_default() += 1;
        }
        let timeline = &record.timeline;
        let (Some(started), Some(ended)) = (timeline.connect_started, timeline.connect_ended) else {
            return None;
        };
        record.endpoint?;
        self.connect.observe_traced(ended.saturating_sub(started), traced);
        let first_byte = timeline.first_byte_upstream?.saturating_sub(ended);
        self.first_byte.observe_traced(first_byte, traced);
        Some(first_byte)
    }

    fn merge(&mut self, more: &Self) {
        self.tally.merge(&more.tally);
        self.retries += more.retries;
        self.outpaced += more.outpaced;
        self.connect.merge(&more.connect);
        self.first_byte.merge(&more.first_byte);
        add_all(&mut self.handshakes, &more.handshakes);
    }
}

impl EndpointLedger {
    fn merge(&mut self, more: &Self) {
        self.connections += more.connections;
        self.bytes_received += more.bytes_received;
        self.bytes_sent += more.bytes_sent;
        self.connect.merge(more.connect);
        self.first_byte.merge(more.first_byte);
        add_all(&mut self.failures, &more.failures);
    }
}

fn enter_attempts(
    endpoints: &mut BTreeMap<SocketAddr, EndpointLedger>,
    record: &ConnectionRecord,
    first_byte: Option<Duration>,
) {
    for attempt in &record.attempts {
        let endpoint = endpoints.entry(attempt.endpoint).or_default();
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

/// Changes what is there by this key. It is copied for the first only: all workers count the copies of a name.
fn at<K: Ord + Clone, T: Default>(map: &mut BTreeMap<K, T>, key: &K, change: impl FnOnce(&mut T)) {
    match map.get_mut(key) {
        Some(there) => change(there),
        None => change(map.entry(key.clone()).or_default()),
    }
}

fn add_all<K: Ord + Copy>(counts: &mut BTreeMap<K, u64>, more: &BTreeMap<K, u64>) {
    for (key, count) in more {
        *counts.entry(*key).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn record(listener: &Name, route: &Name, upstream: &Name, endpoint: &str) -> ConnectionRecord {
        let mut record = ConnectionRecord {
            listener: Name::clone(listener),
            route: Some(Name::clone(route)),
            upstream: Some(Name::clone(upstream)),
            bytes_received: 2,
            bytes_sent: 3,
            ..ConnectionRecord::example()
        };
        record.attempts[0].endpoint = endpoint.parse().unwrap();
        record
    }

    #[test]
    fn a_key_is_copied_for_the_first_only() {
        static COPIES: AtomicU32 = AtomicU32::new(0);
        #[derive(PartialEq, Eq, PartialOrd, Ord)]
        struct Key;
        impl Clone for Key {
            fn clone(&self) -> Self {
                COPIES.fetch_add(1, Ordering::Relaxed);
                Self
            }
        }
        let mut map: BTreeMap<Key, u32> = BTreeMap::new();
        (0..3).for_each(|_| at(&mut map, &Key, |count| *count += 1));
        assert_eq!((map[&Key], COPIES.load(Ordering::Relaxed)), (3, 1));
    }

    #[test]
    fn a_name_is_kept_once_for_all_endpoints_of_an_upstream() {
        let names: [Name; 3] = ["l".into(), "r".into(), "u".into()];
        let copies = || names.each_ref().map(Arc::strong_count);
        let mut ledger = Ledger::default();
        for (times, endpoint) in [(1, "127.0.0.1:1"), (2, "127.0.0.1:2"), (3, "127.0.0.1:2")] {
            ledger.enter(&record(&names[0], &names[1], &names[2], endpoint));
            // One here, and those of the ledger: upstreams and their endpoints each have one.
            assert_eq!((copies(), ledger.listeners["l"].tally.counts().0), ([2, 2, 3], times));
        }
        let endpoints = &ledger.endpoints["u"];
        let counted = |at: &str| endpoints[&at.parse::<SocketAddr>().unwrap()].connections;
        assert_eq!([counted("127.0.0.1:1"), counted("127.0.0.1:2")], [1, 2]);
    }

    #[test]
    fn merging_adds_each_endpoint_to_its_own() {
        let name: Name = "a".into();
        let of = |endpoint: &str| record(&name, &name, &name, endpoint);
        let (mut one, mut other) = (Ledger::default(), Ledger::default());
        one.enter(&of("127.0.0.1:1"));
        other.enter(&of("127.0.0.1:1"));
        other.enter(&of("127.0.0.1:2"));
        one.merge(&other);
        let carried = |at: &str| {
            let EndpointLedger { connections, bytes_received, connect, first_byte, .. } =
                one.endpoints["a"][&at.parse::<SocketAddr>().unwrap()];
            (connections, bytes_received, connect.time, first_byte.time)
        };
        let milliseconds = Duration::from_millis;
        assert_eq!(carried("127.0.0.1:1"), (2, 4, milliseconds(2), milliseconds(4)));
        assert_eq!(carried("127.0.0.1:2"), (1, 2, milliseconds(1), milliseconds(2)));
    }
}
