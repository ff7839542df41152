//! A listener: an address we accept on, whom it admits, and where its connections go.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ipnet::IpNet;

use crate::config::{ConnectionLimit, Keepalive, ListenerTimeouts, Name};

use super::{Places, Route, Upstream};

/// A listener and its routes.
#[derive(Debug, Clone)]
pub struct Listener {
    pub name: Name,
    /// As configured; two tables mean the same sockets when they name the same address.
    pub address: SocketAddr,
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    pub limit: Option<ConnectionLimit>,
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
}

impl Listener {
    /// Whether this client may connect at all: `deny` first, then `allow`.
    pub fn admits(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&client));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
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
