//! A listener: an address we accept on, whom it admits, and where its connections go.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ipnet::IpNet;

use crate::config::{ConnectionLimit, Keepalive, ListenerTimeouts, Name};
use crate::resilience::{SourcePlace, SourcePolicy, SourceRefusal, Sources};

use super::{Places, Route, Upstream};

/// A listener and its routes.
#[derive(Debug, Clone)]
pub struct Listener {
    pub name: Name,
    /// As configured; two tables mean the same sockets when they name the same address.
    pub address: SocketAddr,
    pub allow: Arc<[IpNet]>,
    pub deny: Arc<[IpNet]>,
    pub limit: Option<ConnectionLimit>,
    /// `None`: clients are not told apart.
    pub sources: Option<SourcePolicy>,
    pub timeouts: ListenerTimeouts,
    pub keepalive: Keepalive,
    pub routes: Vec<Arc<Route>>,
    /// (network, index into `routes`), the longest prefix first.
    pub(super) by_source: Vec<(IpNet, usize)>,
    /// The route without `sources`.
    pub(super) for_everyone: Option<usize>,
    pub state: Arc<ListenerState>,
}

/// What outlives a table.
#[derive(Debug, Default)]
pub struct ListenerState {
    /// Live connections of this listener, on all workers.
    pub places: Arc<Places>,
    /// Set once it has left the table: when its connections have to be gone.
    pub leave_by: OnceLock<Instant>,
    /// Made when a client is first counted.
    sources: OnceLock<Arc<Sources>>,
}

impl ListenerState {
    /// The client addresses; `None`: none was ever counted.
    pub fn sources(&self) -> Option<&Arc<Sources>> {
        self.sources.get()
    }
}

impl Listener {
    /// Whether this client may connect at all: `deny` first, then `allow`.
    pub fn admits(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&client));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }

    /// Whether this client may have a connection to the upstream of this name, which may be one that takes no new ones for its
    /// weight. `None`: to any.
    pub fn permits(&self, client: IpAddr, upstream: Option<&Name>) -> bool {
        let leads_there = |route: &Arc<Route>| upstream.is_none_or(|upstream| route.may_lead_to(upstream));
        self.admits(client) && self.route(client).is_some_and(leads_there)
    }

    /// Whether it permits the same connections as `other`, as far as is easily seen.
    pub(super) fn permits_as(&self, other: &Self) -> bool {
        let mut routes = self.routes.iter().zip(&other.routes);
        self.allow == other.allow
            && self.deny == other.deny
            && self.routes.len() == other.routes.len()
            && routes.all(|(one, other)| Arc::ptr_eq(one, other) || one.leads_as(other))
    }

    /// Counts a connection of this client, if it may have another; `None`: there is nothing to count.
    ///
    /// # Errors
    /// The client has as many as it may, or makes them too fast.
    pub fn enter_source(&self, client: IpAddr, now: Instant) -> Result<Option<SourcePlace>, SourceRefusal> {
        let Some(policy) = self.sources else { return Ok(None) };
        self.state.sources.get_or_init(Arc::default).enter(client, policy, now)
    }

    /// Counts a connection that was there before its listener had limits per source.
    pub fn count_source(&self, client: IpAddr, now: Instant) -> Option<SourcePlace> {
        self.sources?;
        let sources = self.state.sources.get_or_init(Arc::default);
        sources.enter(client, SourcePolicy::default(), now).ok().flatten()
    }

    /// This listener with these upstreams in the place of those of the same name; itself where it leads to none.
    pub(super) fn with_upstreams(self: &Arc<Self>, changed: &HashMap<&Name, Arc<Upstream>>) -> Arc<Self> {
        if !self.routes.iter().any(|route| route.leads_to(changed)) {
            return Arc::clone(self);
        }
        let routes = self.routes.iter().map(|route| route.with_upstreams(changed)).collect();
        Arc::new(Self { routes, ..Self::clone(self) })
    }

    /// The route for this client: the most specific of `sources`, else the one for everyone.
    pub fn route(&self, client: IpAddr) -> Option<&Arc<Route>> {
        let client = client.to_canonical();
        let by_source = self.by_source.iter().find(|(net, _)| net.contains(&client)).map(|(_, index)| *index);
        self.routes.get(by_source.or(self.for_everyone)?)
    }
}
