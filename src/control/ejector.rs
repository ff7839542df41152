//! Passive health: decides which endpoints are ejected, and lets them back when their time is over.
//!
//! Workers count what fails and say whom they suspect; here, in one place for the process, it is decided, so that never too many of an
//! upstream are ejected at once. The verdict is in the state that endpoints share; telling `routing::Verdicts` makes the control side
//! choose anew which endpoints connections go to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Name, PassiveCheck};
use crate::resilience::{Change, EjectionPolicy, Ejections};
use crate::routing::{EndpointState, RouteTable, Upstream};

use super::shared::Shared;

/// Between two looks: bounds what upstreams that fail as a whole cost this thread.
const SPACING: Duration = Duration::from_millis(20);

pub(super) struct Ejector {
    shared: Arc<Shared>,
    followed: HashMap<Name, Followed>,
}

/// An upstream whose connections tell of its endpoints.
struct Followed {
    upstream: Arc<Upstream>,
    check: PassiveCheck,
    ejections: Ejections,
}

impl Ejector {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, followed: HashMap::new() }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let verdicts = Arc::clone(self.shared.publisher.verdicts());
        let mut published = self.shared.published.subscribe();
        self.look(&self.shared.publisher.current());
        loop {
            let next = self.followed.values().filter_map(|followed| followed.ejections.next_return()).min();
            tokio::select! {
                changed = published.changed() => match changed {
                    Ok(()) => self.look(&self.shared.publisher.current()),
                    Err(_) => return std::future::pending().await,
                },
                upstreams = verdicts.suspected() => upstreams.iter().for_each(|name| self.decide(name)),
                () = sleep_until(next), if next.is_some() => self.give_back(Instant::now()),
            }
            tokio::time::sleep(SPACING).await;
        }
    }

    /// Takes in a table: endpoints that came and went, and policies that changed.
    fn look(&mut self, table: &RouteTable) {
        let gone: Vec<Name> =
            self.followed.keys().filter(|name| !is_followed(table, name)).cloned().collect();
        for name in gone {
            if let Some(followed) = self.followed.remove(&name) {
                self.void(&followed.upstream);
            }
        }
        for upstream in table.upstreams.values() {
            if let Some(check) = upstream.health.passive {
                self.follow(upstream, check);
            }
        }
    }

    fn follow(&mut self, upstream: &Arc<Upstream>, check: PassiveCheck) {
        let before = self.followed.remove(&upstream.name);
        let mut ejections = Ejections::default();
        match before {
            Some(before) if Arc::ptr_eq(&before.upstream, upstream) => {
                self.followed.insert(upstream.name.clone(), before);
                return;
            }
            Some(before) if before.check == check => {
                ejections = before.ejections;
                part(&mut ejections, &before.upstream, upstream);
            }
            // By another policy, what was found says nothing.
            Some(before) => self.void(&before.upstream),
            None => {}
        }
        let followed = Followed { upstream: Arc::clone(upstream), check, ejections };
        self.followed.insert(upstream.name.clone(), followed);
        self.decide(&upstream.name);
    }

    /// Lets all endpoints back; what they have failed is forgotten.
    fn void(&self, upstream: &Upstream) {
        let restored = upstream.endpoints.iter().filter(|endpoint| endpoint.state.ejection.restore()).count();
        if restored > 0 {
            self.shared.publisher.verdicts().tell(&upstream.name);
        }
    }

    fn give_back(&mut self, now: Instant) {
        let is_due = |followed: &Followed| followed.ejections.next_return().is_some_and(|due| due <= now);
        let due: Vec<Name> = self
            .followed
            .iter()
            .filter(|(_, followed)| is_due(followed))
            .map(|(name, _)| name.clone())
            .collect();
        due.iter().for_each(|name| self.decide(name));
    }

    fn decide(&mut self, name: &Name) {
        let Some(Followed { upstream, check, ejections }) = self.followed.get_mut(name) else { return };
        let policy = EjectionPolicy {
            consecutive_failures: check.consecutive_failures,
            base_time: check.base_ejection_time,
            max_percent: check.max_ejection_percent,
        };
        let members: Vec<(SocketAddr, u32)> =
            members(upstream).map(|(address, state)| (address, state.ejection.failures())).collect();
        let now = Instant::now();
        let changes = ejections.step(&policy, &members, now);
        if changes.is_empty() {
            return;
        }
        let states: HashMap<SocketAddr, &Arc<EndpointState>> = members_of(upstream);
        for change in changes {
            state(name, change, &states, now);
        }
        self.shared.publisher.verdicts().tell(name);
    }
}

/// States a verdict.
fn state(upstream: &Name, change: Change, states: &HashMap<SocketAddr, &Arc<EndpointState>>, now: Instant) {
    let (Change::Ejected { endpoint, .. } | Change::Returned { endpoint }) = change;
    let Some(ejection) = states.get(&endpoint).map(|state| &state.ejection) else { return };
    match change {
        Change::Ejected { time, .. } => {
            let (failures, last) = (ejection.failures(), ejection.last_failure());
            ejection.eject(now + time);
            let time = humantime::format_duration(time);
            tracing::warn!(
                %upstream, %endpoint, failures, last,
                "the endpoint is ejected for {time}: too many connections in a row failed",
            );
        }
        Change::Returned { .. } => {
            ejection.restore();
            tracing::info!(%upstream, %endpoint, "the endpoint is no longer ejected");
        }
    }
}

fn is_followed(table: &RouteTable, name: &Name) -> bool {
    table.upstreams.get(name).is_some_and(|upstream| upstream.health.passive.is_some())
}

/// The endpoints that may be chosen.
fn members(upstream: &Upstream) -> impl Iterator<Item = (SocketAddr, &Arc<EndpointState>)> {
    let with_weight = upstream.endpoints.iter().filter(|endpoint| endpoint.weight > 0);
    with_weight.map(|endpoint| (endpoint.address, &endpoint.state))
}

fn members_of(upstream: &Upstream) -> HashMap<SocketAddr, &Arc<EndpointState>> {
    members(upstream).collect()
}

/// Forgets those of `before` that are not in `after`: one that comes back is said to be well.
fn part(ejections: &mut Ejections, before: &Upstream, after: &Upstream) {
    let stays = members_of(after);
    for (address, state) in members(before) {
        if !stays.get(&address).is_some_and(|stays| Arc::ptr_eq(stays, state)) {
            state.ejection.restore();
            ejections.forget(address);
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
