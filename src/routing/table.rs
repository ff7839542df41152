//! The immutable snapshot that every worker routes by.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Name;

use super::{Endpoint, EndpointState, Listener, ListenerState, Upstream, shared};

/// Listeners, routes, upstreams and endpoints at one moment.
#[derive(Debug)]
pub struct RouteTable {
    /// Grows by one with every table that is published; the first is 1.
    pub generation: u64,
    pub listeners: Vec<Arc<Listener>>,
    by_address: HashMap<SocketAddr, usize>,
    pub upstreams: BTreeMap<Name, Arc<Upstream>>,
    /// How long connections of a removed listener keep going.
    pub drain_timeout: Duration,
    /// Grows with every table that lacks a listener, or an endpoint with connections, of the one before; a
    /// worker that skipped tables still sees that something left.
    pub departures: u64,
    /// Grows with every table by which other clients may connect, or elsewhere, than by the one before.
    pub restrictions: u64,
}

impl RouteTable {
    /// The table of a process that has none yet: generation 0, nothing in it.
    pub fn empty() -> Self {
        Self::new(0, Vec::new(), BTreeMap::new(), Duration::ZERO)
    }

    pub fn new(
        generation: u64,
        mut listeners: Vec<Arc<Listener>>,
        upstreams: BTreeMap<Name, Arc<Upstream>>,
        drain_timeout: Duration,
    ) -> Self {
        shared::introduce(&mut listeners);
        let mut by_address = HashMap::new();
        for (index, listener) in listeners.iter().enumerate() {
            by_address.entry(listener.address).or_insert(index);
        }
        Self { generation, listeners, by_address, upstreams, drain_timeout, departures: 0, restrictions: 0 }
    }

    /// The listener bound to `address`: the first, where several share it.
    pub fn listener_at(&self, address: SocketAddr) -> Option<&Arc<Listener>> {
        self.listeners.get(*self.by_address.get(&address)?)
    }

    /// Takes the place of `previous`: what this table lacks learns by when its connections have to be gone, and
    /// what it has again learns that it stays. To be called once, before it is published.
    pub fn succeed(&mut self, previous: &Self, now: Instant) {
        let some_left = self.part_with_listeners(previous, now) | self.part_with_endpoints(previous, now);
        for (name, upstream) in &self.upstreams {
            if !previous.upstreams.get(name).is_some_and(|before| Arc::ptr_eq(before, upstream)) {
                upstream.state.limit(upstream.limits.max_connections);
                upstream.selection.start(&upstream.endpoints);
            }
        }
        self.departures = previous.departures + u64::from(some_left);
        self.restrictions = previous.restrictions + u64::from(self.permits_others_than(previous));
    }

    fn permits_others_than(&self, previous: &Self) -> bool {
        let before: HashMap<&Name, &Arc<Listener>> =
            previous.listeners.iter().map(|listener| (&listener.name, listener)).collect();
        self.listeners.iter().any(|listener| {
            let before = before.get(&listener.name);
            before.is_none_or(|before| !Arc::ptr_eq(before, listener) && !listener.permits_as(before))
        })
    }

    fn part_with_listeners(&self, previous: &Self, now: Instant) -> bool {
        let stays: HashMap<&Name, &Arc<ListenerState>> =
            self.listeners.iter().map(|listener| (&listener.name, &listener.state)).collect();
        let mut some_left = false;
        for Listener { name, state, .. } in previous.listeners.iter().map(|listener| &**listener) {
            // By its state, not its name alone: the same name may have left and come back between the two tables.
            if !stays.get(name).is_some_and(|stays| Arc::ptr_eq(stays, state)) {
                state.leave(now, now + self.drain_timeout);
                some_left = true;
            }
        }
        some_left
    }

    fn part_with_endpoints(&self, previous: &Self, now: Instant) -> bool {
        let mut some_left = false;
        for (name, upstream) in &previous.upstreams {
            let successor = self.upstreams.get(name);
            if successor.is_some_and(|successor| Arc::ptr_eq(successor, upstream)) {
                continue;
            }
            let stays: HashMap<SocketAddr, &Arc<EndpointState>> = successor
                .iter()
                .flat_map(|upstream| &upstream.endpoints)
                .map(|e| (e.address, &e.state))
                .collect();
            stays.values().for_each(|state| state.stay());
            for Endpoint { address, state, .. } in &upstream.endpoints {
                if !stays.get(address).is_some_and(|stays| Arc::ptr_eq(stays, state)) {
                    state.leave(successor.unwrap_or(upstream).drain, now);
                    // Whoever gets a connection to it after this looks by itself.
                    some_left |= state.active() > 0;
                }
            }
        }
        some_left
    }
}
