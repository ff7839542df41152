//! Active health checks: probes the endpoints of the published table, and states the verdicts.
//!
//! Once per process and never on a worker. A verdict is in the state that endpoints share; telling `routing::Verdicts` makes
//! the control side choose anew which endpoints connections go to. What is probed follows the table: an endpoint that
//! leaves is not probed any more, and a check that asks something else begins anew.

mod grpc;
mod polite;
mod probe;
mod tally;
mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Aborted, abortable};
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::{ActiveCheck, Name, ProxyVersion};
use crate::resilience::Streak;
use crate::routing::{EndpointState, RouteTable, Upstream};
use crate::tls::ClientSide;

use super::shared::Shared;

pub(super) use tally::{Counts, Tally};

/// Probes that may be under way; more wait for their turn.
const AT_ONCE: usize = 256;
/// The same of one upstream, so that one whose endpoints are all silent leaves turns to the others.
const AT_ONCE_OF_ONE: usize = AT_ONCE / 4;
/// Who may not be used before a probe has succeeded is probed this soon.
const SOON: Duration = Duration::from_millis(200);

pub(super) struct Prober {
    shared: Arc<Shared>,
    turns: Arc<Semaphore>,
    probed: HashMap<Name, Probed>,
    /// The upstreams without a check whose endpoints are known to be well.
    unprobed: HashMap<Name, Weak<Upstream>>,
}

/// An upstream whose endpoints are probed.
struct Probed {
    upstream: Arc<Upstream>,
    turns: Arc<Semaphore>,
    endpoints: HashMap<SocketAddr, (Arc<EndpointState>, AbortHandle)>,
}

pub(super) type Watch = Pin<Box<dyn Future<Output = Result<(), Aborted>>>>;

impl Prober {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            probed: HashMap::new(),
            unprobed: HashMap::new(),
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut published = self.shared.published.subscribe();
        let mut watches: FuturesUnordered<Watch> = FuturesUnordered::new();
        loop {
            let table = self.shared.publisher.current();
            self.look(&table, &watches);
            drop(table);
            loop {
                tokio::select! {
                    changed = published.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return std::future::pending().await,
                    },
                    Some(_aborted) = watches.next() => {}
                }
            }
        }
    }

    /// Probes what this table says is to be probed, and nothing else. There may have been tables that were never looked at.
    pub(super) fn look(&mut self, table: &RouteTable, watches: &FuturesUnordered<Watch>) {
        self.forget(table);
        for upstream in table.upstreams.values() {
            match &upstream.health.active {
                Some(check) => self.follow(upstream, check, watches),
                None => self.leave_alone(upstream),
            }
        }
    }

    /// Stops probing upstreams that are gone or have no check any more. What was said of their endpoints is void.
    fn forget(&mut self, table: &RouteTable) {
        let has_check =
            |name: &Name| table.upstreams.get(name).map(|upstream| upstream.health.active.is_some());
        let gone: Vec<Name> =
            self.probed.keys().filter(|name| has_check(name) != Some(true)).cloned().collect();
        for name in gone {
            if let Some(before) = self.probed.remove(&name) {
                before.void();
            }
            self.shared.probes.remove(&name);
        }
        self.unprobed.retain(|name, _| has_check(name) == Some(false));
    }

    /// Without a check all are well: also those of which a table before this one said that their first success is awaited.
    fn leave_alone(&mut self, upstream: &Arc<Upstream>) {
        let known = self.unprobed.get(&upstream.name);
        if known.is_none_or(|known| !std::ptr::eq(known.as_ptr(), Arc::as_ptr(upstream))) {
            self.judge_all(upstream, true);
            self.unprobed.insert(upstream.name.clone(), Arc::downgrade(upstream));
        }
    }

    fn follow(&mut self, upstream: &Arc<Upstream>, check: &ActiveCheck, watches: &FuturesUnordered<Watch>) {
        let before = self.probed.remove(&upstream.name);
        // Whether all are probed anew.
        let mut restarts = false;
        let is_same = |before: &Probed| {
            before.upstream.health.active.as_ref() == Some(check) && before.upstream.proxy == upstream.proxy
        };
        match before {
            Some(before) if is_same(&before) => {
                let is_known = Arc::ptr_eq(&before.upstream, upstream);
                self.probed.insert(upstream.name.clone(), before);
                if is_known {
                    return;
                }
            }
            // To the same question what was found stays an answer; and where nobody is used before a first success it holds until the
            // next, or all would be out of use at once.
            Some(before) if before.asks_the_same(check, upstream) || !check.starts_healthy => {
                before.stop();
                restarts = true;
                self.probed.insert(upstream.name.clone(), before);
            }
            // To another it says nothing.
            before => {
                before.iter().for_each(Probed::void);
                self.judge_all(upstream, check.starts_healthy);
            }
        }
        let known = self.probed.entry(upstream.name.clone()).or_insert_with(|| Probed::new(upstream));
        known.upstream = Arc::clone(upstream);
        let mut before = std::mem::take(&mut known.endpoints);
        for endpoint in &upstream.endpoints {
            let watched = before.remove(&endpoint.address);
            let same = watched.filter(|(state, _)| Arc::ptr_eq(state, &endpoint.state) && !restarts);
            let watched = same.unwrap_or_else(|| {
                let subject = Subject {
                    shared: Arc::clone(&self.shared),
                    turns: [Arc::clone(&known.turns), Arc::clone(&self.turns)],
                    upstream: upstream.name.clone(),
                    address: endpoint.address,
                    state: Arc::clone(&endpoint.state),
                    check: check.clone(),
                    proxy: upstream.proxy.as_ref().map(|proxy| proxy.version),
                };
                let (watch, handle) = abortable(subject.watch());
                watches.push(Box::pin(watch));
                (Arc::clone(&endpoint.state), handle)
            });
            known.endpoints.insert(endpoint.address, watched);
        }
        for (state, handle) in before.into_values() {
            handle.abort();
            // Should it come back, it is as new as any.
            state.health.reset(check.starts_healthy);
        }
        let endpoints = &known.endpoints;
        self.shared.probes.forget(&upstream.name, |address| !endpoints.contains_key(address));
    }

    /// Says the same of all endpoints.
    fn judge_all(&self, upstream: &Upstream, healthy: bool) {
        let changed = upstream.endpoints.iter().filter(|endpoint| endpoint.state.health.set(healthy)).count();
        if changed > 0 {
            self.shared.publisher.verdicts().tell(&upstream.name);
        }
    }
}

impl Probed {
    fn new(upstream: &Arc<Upstream>) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE_OF_ONE));
        Self { upstream: Arc::clone(upstream), turns, endpoints: HashMap::new() }
    }

    fn stop(&self) {
        self.endpoints.values().for_each(|(_, handle)| handle.abort());
    }

    /// Whether its endpoints are probed in this way, however often.
    fn asks_the_same(&self, check: &ActiveCheck, upstream: &Upstream) -> bool {
        let asks = |check: &ActiveCheck| (check.kind.clone(), check.port);
        self.upstream.health.active.as_ref().map(asks) == Some(asks(check))
            && self.upstream.proxy == upstream.proxy
    }

    /// What was found is void, also of those that have left since the last table: nobody would probe them when they come back.
    fn void(&self) {
        self.endpoints.values().for_each(|(state, _)| _ = state.health.set(true));
    }
}

impl Drop for Probed {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An endpoint, and how it is probed.
struct Subject {
    shared: Arc<Shared>,
    /// Of its upstream, and of all: in this order, or those who wait for the first would keep others from the second.
    turns: [Arc<Semaphore>; 2],
    upstream: Name,
    address: SocketAddr,
    state: Arc<EndpointState>,
    check: ActiveCheck,
    /// The header that it expects.
    proxy: Option<ProxyVersion>,
}

impl Subject {
    /// Probes it for ever.
    async fn watch(self) {
        let check = &self.check;
        let mut streak = Streak::new(self.state.health.is_healthy());
        // Those of one upstream are spread over the interval.
        let within = if check.starts_healthy { check.interval } else { check.interval.min(SOON) };
        tokio::time::sleep(within.mul_f64(fastrand::f64())).await;
        loop {
            // Nobody closes it.
            let [of_upstream, of_all] = &self.turns;
            let turn = (of_upstream.acquire().await, of_all.acquire().await);
            let started = Instant::now();
            let tls = self.tls();
            let result = probe::probe(check, self.proxy, tls.as_deref(), self.address).await;
            drop(turn);
            self.shared.probes.enter(&self.upstream, self.address, result.as_ref().err());
            let verdict = streak.enter(result.is_ok(), check.healthy_threshold, check.unhealthy_threshold);
            if let Some(healthy) = verdict {
                self.state(healthy, result.err());
            }
            let wait = check.interval + check.jitter.mul_f64(fastrand::f64());
            tokio::time::sleep_until(started + wait).await;
        }
    }

    /// As the newest table has it: certificates change without the check.
    fn tls(&self) -> Option<Arc<ClientSide>> {
        self.shared.publisher.current().upstreams.get(&self.upstream)?.tls.clone()
    }

    fn state(&self, healthy: bool, failure: Option<String>) {
        self.state.health.set(healthy);
        self.shared.publisher.verdicts().tell(&self.upstream);
        let (upstream, endpoint) = (&self.upstream, self.address);
        match failure {
            Some(failure) => tracing::warn!(%upstream, %endpoint, "the endpoint is unhealthy: {failure}"),
            None => tracing::info!(%upstream, %endpoint, "the endpoint is healthy"),
        }
    }
}
