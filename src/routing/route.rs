//! A route: which clients of a listener go to which upstreams.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ipnet::IpNet;

use crate::balance::Schedule;
use crate::config::{Hostname, Name, TlsMode};

use super::Upstream;

/// Connections from `sources` are split over `backends` by weight.
#[derive(Debug, Clone)]
pub struct Route {
    pub name: Name,
    /// What TLS clients ask for; empty: any name, or none.
    pub hostnames: Arc<[Hostname]>,
    /// Client networks; empty: everyone.
    pub sources: Arc<[IpNet]>,
    /// What TLS clients offer to speak, one of these; empty: anything, or nothing.
    pub alpn: Arc<[String]>,
    /// Where TLS of its clients ends; `None`: they speak none.
    pub tls_mode: Option<TlsMode>,
    pub backends: Vec<WeightedUpstream>,
    pub(super) schedule: Schedule,
    pub(super) cursor: Arc<AtomicUsize>,
}

/// One weighted reference to an upstream (`backendRefs` in the file, as in Gateway API).
#[derive(Debug, Clone)]
pub struct WeightedUpstream {
    pub upstream: Arc<Upstream>,
    pub weight: u32,
}

impl Route {
    /// Whether its clients may speak this.
    pub fn takes(&self, protocol: &[u8]) -> bool {
        self.alpn.is_empty() || self.alpn.iter().any(|taken| taken.as_bytes() == protocol)
    }

    pub(super) fn leads_to(&self, upstreams: &HashMap<&Name, Arc<Upstream>>) -> bool {
        self.backends.iter().any(|backend| upstreams.contains_key(&backend.upstream.name))
    }

    /// Whether it names this upstream, with whatever weight.
    pub(super) fn may_lead_to(&self, upstream: &Name) -> bool {
        self.backends.iter().any(|backend| backend.upstream.name == *upstream)
    }

    /// Whether it leads the same clients to the same upstreams as `other`, with TLS that ends in the same place.
    pub(super) fn leads_as(&self, other: &Self) -> bool {
        let mut backends = self.backends.iter().zip(&other.backends);
        self.hostnames == other.hostnames
            && self.sources == other.sources
            && self.alpn == other.alpn
            && self.tls_mode == other.tls_mode
            && self.backends.len() == other.backends.len()
            && backends.all(|(one, other)| one.upstream.name == other.upstream.name)
    }

    /// This route with these upstreams in the place of those of the same name; itself where it leads to none.
    pub(super) fn with_upstreams(self: &Arc<Self>, changed: &HashMap<&Name, Arc<Upstream>>) -> Arc<Self> {
        if !self.leads_to(changed) {
            return Arc::clone(self);
        }
        let mut route = Self::clone(self);
        for backend in &mut route.backends {
            if let Some(upstream) = changed.get(&backend.upstream.name) {
                backend.upstream = Arc::clone(upstream);
            }
        }
        Arc::new(route)
    }

    /// The upstream whose turn it is. `None` only if no backend has a weight, which configuration refuses.
    pub fn upstream(&self) -> Option<&Arc<Upstream>> {
        // All workers move the cursor, so where there is nothing to choose it stays.
        if let [only] = self.backends.as_slice() {
            return (only.weight > 0).then_some(&only.upstream);
        }
        let turn = self.cursor.fetch_add(1, Ordering::Relaxed);
        Some(&self.backends.get(self.schedule.at(turn)?)?.upstream)
    }
}
