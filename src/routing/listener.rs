//! A listener: an address we accept on, whom it admits, and where its connections go.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ipnet::IpNet;

use crate::config::{ConnectionLimit, Keepalive, ListenerTimeouts, Name, Protocol, ProxyIn};
use crate::resilience::{SourcePlace, SourcePolicy, SourceRefusal, Sources};
use crate::tls::ServerSide;

use super::matcher::{Asked, Matcher};
use super::shared::Shared;
use super::{Place, Places, Route, Upstream};

/// A listener and its routes.
#[derive(Debug, Clone)]
pub struct Listener {
    pub name: Name,
    /// As configured; two tables mean the same sockets when they name the same address.
    pub address: SocketAddr,
    pub protocol: Protocol,
    /// A PROXY protocol header comes first; `None`: none does.
    pub proxy: Option<ProxyIn>,
    pub allow: Arc<[IpNet]>,
    pub deny: Arc<[IpNet]>,
    pub limit: Option<ConnectionLimit>,
    /// `None`: clients are not told apart.
    pub sources: Option<SourcePolicy>,
    pub timeouts: ListenerTimeouts,
    pub keepalive: Keepalive,
    /// `None`: no TLS is spoken.
    pub tls: Option<Arc<ServerSide>>,
    pub routes: Vec<Arc<Route>>,
    /// Of `routes`, by their indices.
    pub(super) matcher: Arc<Matcher>,
    /// Other listeners of the same address, if it is the first of them.
    pub(super) shared: Option<Arc<Shared>>,
    pub state: Arc<ListenerState>,
}

/// What outlives a table.
#[derive(Debug, Default)]
pub struct ListenerState {
    /// Live connections of this listener, on all workers.
    pub places: Arc<Places>,
    departure: OnceLock<Departure>,
    /// Made when a client is first counted.
    sources: OnceLock<Arc<Sources>>,
}

/// A listener that has left the table.
#[derive(Debug, Clone, Copy)]
struct Departure {
    since: Instant,
    /// When its connections have to be gone.
    by: Instant,
}

impl ListenerState {
    /// It has left the table: its connections have to be gone by then. The first call stands.
    pub(super) fn leave(&self, since: Instant, by: Instant) {
        self.departure.get_or_init(|| Departure { since, by });
    }

    /// When its connections have to be gone, if it has left the table.
    pub fn leave_by(&self) -> Option<Instant> {
        self.departure.get().map(|departure| departure.by)
    }

    /// When it left the table, if it has.
    pub fn left_at(&self) -> Option<Instant> {
        self.departure.get().map(|departure| departure.since)
    }

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

    /// Whether a client that asks for this may have a connection to this upstream, which may be one that takes no new ones for
    /// its weight.
    pub fn permits(&self, asked: Asked<'_>, upstream: &Name) -> bool {
        let route = self.route_for(asked);
        self.admits(asked.client) && route.is_some_and(|route| route.may_lead_to(upstream))
    }

    /// Whether it permits the same connections as `other`, as far as is easily seen.
    pub(super) fn permits_as(&self, other: &Self) -> bool {
        let mut routes = self.routes.iter().zip(&other.routes);
        let clients = match (&self.tls, &other.tls) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one.admits_as(other),
            _ => true,
        };
        clients
            && self.protocol == other.protocol
            && self.proxy == other.proxy
            && self.allow == other.allow
            && self.deny == other.deny
            && self.routes.len() == other.routes.len()
            && routes.all(|(one, other)| Arc::ptr_eq(one, other) || one.leads_as(other))
    }

    /// A place among its connections; `None`: it is full.
    pub fn take_place(&self) -> Option<Place> {
        self.state.places.try_take(self.limit.map_or(usize::MAX, |limit| limit.limit.get()))
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

    /// The route for a client that asks for this: of those that match, the one with the most specific hostname, then the one with
    /// the most specific source, then one that names protocols.
    pub fn route_for(&self, asked: Asked<'_>) -> Option<&Arc<Route>> {
        self.routes.get(self.matcher.find(asked)?)
    }
}
