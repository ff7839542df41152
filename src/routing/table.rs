//! The immutable snapshot that every worker routes by.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Name;

use super::{Listener, Upstream};

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
}

/// What an older table had and a newer one lacks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Departures {
    pub listeners: BTreeSet<Name>,
    /// With how long their connections keep going.
    pub endpoints: BTreeMap<(Name, SocketAddr), Duration>,
}

impl RouteTable {
    /// The table of a process that has none yet: generation 0, nothing in it.
    pub fn empty() -> Self {
        Self::new(0, Vec::new(), BTreeMap::new(), Duration::ZERO)
    }

    pub fn new(
        generation: u64,
        listeners: Vec<Arc<Listener>>,
        upstreams: BTreeMap<Name, Arc<Upstream>>,
        drain_timeout: Duration,
    ) -> Self {
        let by_address =
            listeners.iter().enumerate().map(|(index, listener)| (listener.address, index)).collect();
        Self { generation, listeners, by_address, upstreams, drain_timeout }
    }

    /// The listener bound to `address`.
    pub fn listener_at(&self, address: SocketAddr) -> Option<&Arc<Listener>> {
        self.listeners.get(*self.by_address.get(&address)?)
    }

    /// Whose connections have to drain now that `newer` is here.
    pub fn departures(&self, newer: &Self) -> Departures {
        let stays: BTreeSet<&Name> = newer.listeners.iter().map(|listener| &listener.name).collect();
        let listeners = self.listeners.iter().map(|listener| &listener.name);
        let mut departures = Departures {
            listeners: listeners.filter(|name| !stays.contains(name)).cloned().collect(),
            endpoints: BTreeMap::new(),
        };
        for (name, upstream) in &self.upstreams {
            let successor = newer.upstreams.get(name);
            let timeout = successor.map_or(upstream.drain_timeout, |successor| successor.drain_timeout);
            let stays: BTreeSet<SocketAddr> =
                successor.iter().flat_map(|upstream| &upstream.endpoints).map(|e| e.address).collect();
            let left = upstream.endpoints.iter().filter(|endpoint| !stays.contains(&endpoint.address));
            departures.endpoints.extend(left.map(|endpoint| ((name.clone(), endpoint.address), timeout)));
        }
        departures
    }
}

impl Departures {
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.endpoints.is_empty()
    }
}
