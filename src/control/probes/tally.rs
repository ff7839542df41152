//! What the probes came to, for metrics and `/table`.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Name;

#[derive(Debug, Default)]
pub(in crate::control) struct Tally {
    upstreams: Mutex<BTreeMap<Name, Counts>>,
}

#[derive(Debug, Default, Clone)]
pub(in crate::control) struct Counts {
    pub(in crate::control) succeeded: u64,
    pub(in crate::control) failed: u64,
    /// Of the endpoints whose last probe failed, why.
    failures: HashMap<SocketAddr, Arc<str>>,
}

impl Tally {
    pub(super) fn enter(&self, upstream: &Name, endpoint: SocketAddr, failure: Option<&String>) {
        self.with(|upstreams| {
            let counts = upstreams.entry(upstream.clone()).or_default();
            match failure {
                Some(failure) => {
                    counts.failed += 1;
                    counts.failures.insert(endpoint, failure.as_str().into());
                }
                None => {
                    counts.succeeded += 1;
                    counts.failures.remove(&endpoint);
                }
            }
        });
    }

    /// Forgets the failures of these endpoints.
    pub(super) fn forget(&self, upstream: &Name, is_gone: impl Fn(&SocketAddr) -> bool) {
        self.with(|upstreams| {
            if let Some(counts) = upstreams.get_mut(upstream) {
                counts.failures.retain(|endpoint, _| !is_gone(endpoint));
            }
        });
    }

    pub(in crate::control) fn of(&self, upstream: &Name) -> Option<Counts> {
        self.with(|upstreams| upstreams.get(upstream).cloned())
    }

    /// Forgets an upstream that is not probed any more.
    pub(super) fn remove(&self, upstream: &Name) {
        self.with(|upstreams| upstreams.remove(upstream));
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<Name, Counts>) -> T) -> T {
        act(&mut self.upstreams.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Counts {
    /// Why the last probe of this endpoint failed, if it did.
    pub(in crate::control) fn failure(&self, endpoint: SocketAddr) -> Option<&Arc<str>> {
        self.failures.get(&endpoint)
    }
}
