//! The one place that makes tables and publishes them: from a new configuration, or from what changed in the cluster.
//!
//! A configuration is compiled whole; a change in the cluster recompiles the upstreams that follow the changed Service
//! and nothing else. Changes are gathered for a moment, so that a burst of them is one table.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::config::{Config, Name, Upstream};
use crate::routing::{Findings, Found, Problem, RouteTable};
use crate::tls::{Credentials, Source, Taken};

use super::certificates::{self, Delivery};
use super::generations::Cause;
use super::kubernetes::{self, Changed, Index, Observation, Scope, ServiceKey, Stamp};
use super::loops::Loops;
use super::shared::Shared;
use super::{Bind, metrics};

/// Between two tables made of changes. Workers take a table within microseconds; this bounds what a storm of
/// changes costs them.
const SPACING: Duration = Duration::from_millis(20);
/// How often what left is forgotten while endpoints come and go and nobody scrapes.
const FORGET_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked whom the system trusts, apart from reloads: new packages change that.
const READ_SYSTEM_EVERY: Duration = Duration::from_secs(3_600);

pub(super) struct Tables {
    shared: Arc<Shared>,
    bind: Bind,
    config: Arc<Config>,
    index: Index,
    /// What the published table was made of.
    findings: Findings,
    /// The upstreams that follow a Service, by their place in the configuration.
    followers: HashMap<ServiceKey, Vec<usize>>,
    /// Services that changed since the last table, and when each change came.
    changed: HashMap<ServiceKey, Vec<Stamp>>,
    /// Upstreams some of whose endpoints are not what they were, since the last table.
    judged: BTreeSet<Name>,
    /// Since the last table: handshakes are to go by other certificates, and when those came.
    renewed: Option<Vec<Stamp>>,
    /// Certificates that clients accept for no name, of which that was said.
    nameless: BTreeSet<Source>,
    loops: Loops,
    /// Watches whose complete list has come since the last table.
    listed: Vec<Arc<Scope>>,
    last_table: Instant,
    last_forgotten: Instant,
    last_system_read: Instant,
}

/// A table that was published.
pub(super) struct Published {
    pub(super) generation: u64,
    pub(super) listeners: usize,
    pub(super) endpoints: usize,
    pub(super) at: Instant,
}

/// Why a configuration is not in effect.
pub(super) struct Refused {
    /// What is wrong, and what to do.
    pub(super) error: String,
    /// It names files that could not be used: who writes them may not be done.
    pub(super) is_for_files: bool,
}

impl From<String> for Refused {
    fn from(error: String) -> Self {
        Self { error, is_for_files: false }
    }
}

impl Tables {
    pub(super) fn new(
        shared: Arc<Shared>,
        bind: Bind,
        config: Arc<Config>,
        mut credentials: Credentials,
    ) -> Self {
        let now = Instant::now();
        credentials.expect(&Credentials::wanted(&config));
        let mut tables = Self {
            shared,
            bind,
            config: Arc::clone(&config),
            index: Index::default(),
            findings: Findings { credentials, ..Findings::default() },
            followers: HashMap::new(),
            changed: HashMap::new(),
            judged: BTreeSet::new(),
            renewed: None,
            nameless: BTreeSet::new(),
            loops: Loops::new(&config),
            listed: Vec::new(),
            last_table: now,
            last_forgotten: now,
            last_system_read: now,
        };
        certificates::announce_problems(&tables.findings.credentials, &Credentials::default());
        tables.follow(config);
        tables.note_certificates();
        tables
    }

    /// Publishes the table of another configuration. If it is refused, nothing has changed.
    pub(super) fn reconfigure(&mut self, config: Arc<Config>) -> Result<Published, Refused> {
        let current = self.shared.publisher.current();
        let mut loops = Loops::new(&config);
        let (mut credentials, time) = (self.findings.credentials.clone(), SystemTime::now());
        credentials.read_system(time);
        credentials.read_new(&config, time).map_err(|error| Refused { error, is_for_files: true })?;
        let findings = Findings { upstreams: find(&self.index, &mut loops, &config), credentials };
        let now = Instant::now();
        let mut next = crate::routing::compile(&config, &findings, &current, now);
        let sockets = (self.bind)(&current, &next)?;
        next.succeed(&current, now);
        self.shared.compilations.add(config.upstreams.len());
        let stamps = std::mem::take(&mut self.changed).into_values().flatten();
        let stamps = stamps.chain(self.renewed.take().into_iter().flatten());
        self.judged.clear();
        self.shared.propagation.expect(next.generation, stamps);
        self.loops = loops;
        self.follow(config);
        let before = std::mem::replace(&mut self.findings, findings);
        self.note_certificates();
        certificates::announce_problems(&self.findings.credentials, &before.credentials);
        let published = self.publish(next, sockets, Cause::Configuration);
        self.up_to_date();
        for (name, found) in &self.findings.upstreams {
            let before = before.upstreams.get(name);
            if before != Some(found) {
                announce(name, published.generation, before, found);
            }
        }
        self.forget();
        Ok(published)
    }

    /// Takes in what a watch has seen.
    pub(super) fn observe(&mut self, observation: Observation) {
        self.listed.extend(observation.listed().cloned());
        if let Some((source, found, received)) = observation.found() {
            self.deliver(Delivery::Found { source, found, received });
            return;
        }
        for Changed { service, stamp } in self.index.apply(observation) {
            self.changed.entry(service).or_default().extend(stamp);
        }
        self.unless_due();
    }

    /// Takes in what was found of certificates.
    pub(super) fn deliver(&mut self, delivery: Delivery) {
        let (credentials, now) = (&mut self.findings.credentials, SystemTime::now());
        let (taken, received) = match delivery {
            Delivery::Found { source, found, received } => {
                (vec![(source.clone(), credentials.take(&source, found, now))], received)
            }
            Delivery::TimePassed => {
                let (mut settled, received) = (credentials.settle(now), Instant::now());
                if received - self.last_system_read >= READ_SYSTEM_EVERY {
                    self.last_system_read = received;
                    settled.extend(credentials.read_system(now));
                }
                settled.retain(|(_, taken)| *taken != Taken::default());
                if settled.is_empty() {
                    return;
                }
                (settled, received)
            }
        };
        for (source, taken) in taken {
            if taken.is_new {
                self.renewed.get_or_insert_default().push(Stamp { changed_at: None, received });
            }
            certificates::announce(&source, &taken);
        }
        self.note_certificates();
        self.unless_due();
    }

    fn note_certificates(&mut self) {
        self.shared.certificates.update(&self.findings.credentials);
        certificates::announce_nameless(&self.findings.credentials, &self.config, &mut self.nameless);
    }

    fn unless_due(&mut self) {
        if self.due().is_none() {
            self.up_to_date();
        }
    }

    /// Takes in that endpoints of these upstreams are not what they were.
    pub(super) fn judge(&mut self, upstreams: BTreeSet<Name>) {
        self.judged.extend(upstreams);
    }

    /// When the changes so far are to be published; `None`: there are none.
    pub(super) fn due(&self) -> Option<Instant> {
        let is_any = !self.changed.is_empty() || !self.judged.is_empty() || self.renewed.is_some();
        is_any.then_some(self.last_table + SPACING)
    }

    /// Publishes a table with the changes so far, if they make a difference.
    pub(super) fn refresh(&mut self) {
        self.publish_certificates();
        self.publish_changes();
        self.up_to_date();
    }

    /// A table that differs in certificates only. All of it is compiled: that is rare, and sees every user of each.
    fn publish_certificates(&mut self) {
        let Some(stamps) = self.renewed.take() else { return };
        let (current, now) = (self.shared.publisher.current(), Instant::now());
        let mut next = crate::routing::compile(&self.config, &self.findings, &current, now);
        next.succeed(&current, now);
        self.shared.compilations.add(self.config.upstreams.len());
        self.shared.propagation.expect(next.generation, stamps.into_iter());
        let generation = self.publish(next, Vec::new(), Cause::Certificates).generation;
        tracing::info!(generation, "new handshakes go by the new certificates");
    }

    fn publish_changes(&mut self) {
        let (changed, stamps) = self.changes();
        let judged = std::mem::take(&mut self.judged);
        let of_changed = changed.iter().map(|(index, found)| (&self.config.upstreams[*index], Some(found)));
        let of_judged = self.config.upstreams.iter().filter(|upstream| judged.contains(&upstream.name));
        let of_judged = of_judged.map(|upstream| (upstream, self.findings.upstreams.get(&upstream.name)));
        // The last one of a name counts, and that is the one with what is new.
        let upstreams: Vec<_> = of_judged.chain(of_changed).collect();
        if upstreams.is_empty() {
            return;
        }
        let (current, now) = (self.shared.publisher.current(), Instant::now());
        self.shared.compilations.add(upstreams.len());
        let mut next = crate::routing::refresh(upstreams, &current, now);
        next.succeed(&current, now);
        self.shared.propagation.expect(next.generation, stamps.into_iter());
        let cause = if changed.is_empty() { Cause::Health } else { Cause::Cluster };
        let Published { generation, at, .. } = self.publish(next, Vec::new(), cause);
        for (index, found) in changed {
            let name = &self.config.upstreams[index].name;
            let before = self.findings.upstreams.insert(name.clone(), found.clone());
            announce(name, generation, before.as_ref(), &found);
        }
        if at - self.last_forgotten >= FORGET_EVERY {
            self.forget();
        }
    }

    /// The table has all that was observed.
    fn up_to_date(&mut self) {
        for scope in self.listed.drain(..) {
            self.shared.watches.listed(&scope, Instant::now());
        }
    }

    /// The upstreams whose members or problem are not what the table has, by their place in the configuration, and
    /// when what made the difference came.
    fn changes(&mut self) -> (Vec<(usize, Found)>, Vec<Stamp>) {
        let (mut changes, mut came) = (Vec::new(), Vec::new());
        for (service, stamps) in std::mem::take(&mut self.changed) {
            let before = changes.len();
            for index in self.followers.get(&service).into_iter().flatten() {
                let upstream = &self.config.upstreams[*index];
                let found = find_one(&self.index, &mut self.loops, upstream);
                if let Some(found) = found
                    && self.findings.upstreams.get(&upstream.name) != Some(&found)
                {
                    changes.push((*index, found));
                }
            }
            if changes.len() > before {
                came.extend(stamps);
            }
        }
        (changes, came)
    }

    fn follow(&mut self, config: Arc<Config>) {
        self.followers.clear();
        for (index, upstream) in config.upstreams.iter().enumerate() {
            if let Some(port) = upstream.members.followed() {
                self.followers.entry(ServiceKey::of(port)).or_default().push(index);
            }
        }
        self.index.follow(self.followers.keys());
        self.config = Arc::clone(&config);
        self.shared.configs.send_replace(config);
    }

    fn publish(
        &mut self,
        table: RouteTable,
        sockets: Vec<Vec<crate::routing::publish::BoundListener>>,
        cause: Cause,
    ) -> Published {
        let (at, before, table) = (Instant::now(), self.shared.publisher.current(), Arc::new(table));
        let endpoints = table.upstreams.values().map(|upstream| upstream.endpoints.len()).sum();
        let published =
            Published { generation: table.generation, listeners: table.listeners.len(), endpoints, at };
        self.shared.publisher.publish(Arc::clone(&table), sockets);
        self.shared.published.send_replace(published.generation);
        self.last_table = at;
        // Comparing two large tables takes a while, which nobody is to wait for.
        self.shared.generations.enter(&before, &table, cause, at);
        published
    }

    /// Drops the series of what has left the table.
    fn forget(&mut self) {
        if metrics::forget(&self.shared) {
            self.last_forgotten = Instant::now();
        }
    }
}

/// What is known for the upstreams of `config` that follow a Service.
fn find(index: &Index, loops: &mut Loops, config: &Config) -> HashMap<Name, Found> {
    let upstreams = config.upstreams.iter();
    upstreams
        .filter_map(|upstream| Some((upstream.name.clone(), find_one(index, loops, upstream)?)))
        .collect()
}

fn find_one(index: &Index, loops: &mut Loops, upstream: &Upstream) -> Option<Found> {
    let found = index.find(upstream.members.followed()?, &kubernetes::is_reachable)?;
    Some(loops.refuse(upstream, found))
}

/// Says once what is wrong, and once that it no longer is.
fn announce(upstream: &Name, generation: u64, before: Option<&Found>, found: &Found) {
    let problem = |found: Option<&Found>| found.and_then(|found| found.problem.clone());
    let (was, is) = (problem(before), problem(Some(found)));
    let endpoints = found.members.len();
    match (was, is) {
        (was, Some(Problem { reason, text })) if was.as_ref().is_none_or(|was| was.reason != reason) => {
            tracing::warn!(%upstream, generation, endpoints, reason, "{text}");
        }
        (Some(_), None) => {
            tracing::info!(%upstream, generation, endpoints, "the upstream has its endpoints again")
        }
        _ => tracing::debug!(%upstream, generation, endpoints, "endpoints changed"),
    }
}
