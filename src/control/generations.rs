//! The last tables: when each was published, why, what it changed, and when all workers had it.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::config::Name;
use crate::routing::{RouteTable, Upstream};

/// How many are remembered.
const KEPT: usize = 20;

/// Why there is another table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Start,
    Configuration,
    /// Endpoints came or went.
    Cluster,
    /// Endpoints are well, ejected, or neither any more.
    Health,
    Certificates,
}

/// One table.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) cause: Cause,
    pub(super) at: SystemTime,
    pub(super) changes: Changes,
    published: Instant,
    /// From its publication until all workers had it, or a newer one; `None`: they do not yet.
    pub(super) acknowledged: Option<Duration>,
}

/// What a table has that the one before had not, and the reverse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) listeners: Change,
    pub(super) routes: Change,
    pub(super) upstreams: Change,
    pub(super) endpoints: Change,
    /// Upstreams that are in both and differ, as far as endpoints and their health go.
    pub(super) upstreams_changed: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) added: usize,
    pub(super) removed: usize,
}

#[derive(Debug, Default)]
pub(super) struct Generations {
    /// Oldest first.
    kept: Mutex<VecDeque<Generation>>,
}

impl Cause {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Configuration => "configuration",
            Self::Cluster => "cluster",
            Self::Health => "health",
            Self::Certificates => "certificates",
        }
    }
}

impl Generations {
    /// `table` took the place of `before` then. To be called by who publishes it and before anybody hears of acknowledgements, which
    /// the control thread does only in another turn.
    pub(super) fn enter(&self, before: &RouteTable, table: &RouteTable, cause: Cause, at: Instant) {
        let generation = Generation {
            number: table.generation,
            cause,
            at: SystemTime::now(),
            changes: Changes::between(before, table, cause),
            published: at,
            acknowledged: None,
        };
        self.with(|kept| {
            kept.push_back(generation);
            let excess = kept.len().saturating_sub(KEPT);
            kept.drain(..excess);
        });
    }

    /// All workers have reached this generation.
    pub(super) fn acknowledged(&self, reached: u64, now: Instant) {
        self.with(|kept| {
            let waiting = kept.iter_mut().filter(|one| one.number <= reached && one.acknowledged.is_none());
            waiting.for_each(|one| one.acknowledged = Some(now.saturating_duration_since(one.published)));
        });
    }

    /// Newest first.
    pub(super) fn newest(&self) -> Vec<Generation> {
        self.with(|kept| kept.iter().rev().cloned().collect())
    }

    fn with<T>(&self, act: impl FnOnce(&mut VecDeque<Generation>) -> T) -> T {
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Changes {
    fn between(before: &RouteTable, after: &RouteTable, cause: Cause) -> Self {
        let mut changes = Self {
            listeners: Change::of(listeners(before), listeners(after)),
            routes: Change::of(routes(before), routes(after)),
            upstreams: Change::of(before.upstreams.keys().collect(), after.upstreams.keys().collect()),
            ..Self::default()
        };
        let nothing = || HashSet::new();
        for (name, upstream) in &after.upstreams {
            let was = before.upstreams.get(name);
            if was.is_some_and(|was| Arc::ptr_eq(was, upstream)) {
                continue;
            }
            let endpoints = Change::of(was.map_or_else(nothing, |was| addresses(was)), addresses(upstream));
            // A configuration makes all of them anew.
            let is_changed = cause != Cause::Configuration || endpoints != Change::default();
            changes.upstreams_changed += usize::from(was.is_some() && is_changed);
            changes.endpoints.add(endpoints);
        }
        let gone = before.upstreams.iter().filter(|(name, _)| !after.upstreams.contains_key(*name));
        gone.for_each(|(_, was)| changes.endpoints.removed += was.endpoints.len());
        changes
    }
}

impl Change {
    fn of<T: Eq + std::hash::Hash>(before: HashSet<T>, after: HashSet<T>) -> Self {
        Self { added: after.difference(&before).count(), removed: before.difference(&after).count() }
    }

    fn add(&mut self, more: Self) {
        self.added += more.added;
        self.removed += more.removed;
    }
}

fn listeners(table: &RouteTable) -> HashSet<&Name> {
    table.listeners.iter().map(|listener| &listener.name).collect()
}

fn routes(table: &RouteTable) -> HashSet<&Name> {
    table.listeners.iter().flat_map(|listener| &listener.routes).map(|route| &route.name).collect()
}

fn addresses(upstream: &Upstream) -> HashSet<std::net::SocketAddr> {
    upstream.endpoints.iter().map(|endpoint| endpoint.address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::routing::{Findings, compile};

    fn table(endpoints: &str, before: &RouteTable) -> RouteTable {
        let text = format!(
            "listeners: [{{name: a, address: \"127.0.0.1:1\"}}]\n\
             routes: [{{name: a, listener: a, backendRefs: [{{upstream: a}}]}}]\n\
             upstreams: [{{name: a, endpoints: [{endpoints}]}}]\n"
        );
        let config = Config::parse(&text, "test").unwrap();
        compile(&config, &Findings::default(), before, Instant::now())
    }

    #[test]
    fn the_last_tables_say_what_they_changed_and_how_long_it_took() {
        let (generations, now) = (Generations::default(), Instant::now());
        let empty = RouteTable::empty();
        let first = table("{address: \"127.0.0.1:2\"}, {address: \"127.0.0.1:3\"}", &empty);
        generations.enter(&empty, &first, Cause::Start, now);
        let second = table("{address: \"127.0.0.1:3\"}, {address: \"127.0.0.1:4\"}", &first);
        generations.enter(&first, &second, Cause::Configuration, now);
        generations.acknowledged(first.generation, now + Duration::from_millis(3));
        let newest = generations.newest();
        let one = Change { added: 1, removed: 0 };
        let all = Changes {
            listeners: one,
            routes: one,
            upstreams: one,
            endpoints: Change { added: 2, removed: 0 },
            upstreams_changed: 0,
        };
        assert_eq!((newest[1].changes, newest[1].acknowledged), (all, Some(Duration::from_millis(3))));
        let swapped = Changes {
            endpoints: Change { added: 1, removed: 1 },
            upstreams_changed: 1,
            ..Changes::default()
        };
        assert_eq!((newest[0].changes, newest[0].acknowledged), (swapped, None));
        for _ in 0..100 {
            generations.enter(&first, &second, Cause::Health, now);
        }
        assert_eq!(generations.newest().len(), KEPT);
    }
}
