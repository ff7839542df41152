//! How the watches fare: for probes, metrics and the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::plan::Scope;
use super::trouble::Trouble;

/// A watch that is forbidden for this long holds up nobody's readiness any more, as long as there is something
/// else to serve. With nothing to serve a process must not be ready: a wrong ServiceAccount would replace every pod that works.
const FORBIDDEN_FOR: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(in crate::control) struct Watches {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    watches: Vec<(Arc<Scope>, Health)>,
    /// Of watches that are over too.
    errors: BTreeMap<ErrorLabels, u64>,
    /// Once all watches have been in step, outages are no reason to be unready.
    was_synced: bool,
    serves_without: bool,
}

/// Resource, namespace, reason.
type ErrorLabels = (&'static str, String, &'static str);

#[derive(Debug, Default, Clone)]
struct Health {
    /// A complete list has come, and is in the table.
    listed: bool,
    /// The watch is open: changes come as they happen.
    open: bool,
    last_event: Option<Instant>,
    trouble: Option<Trouble>,
    /// Since when it has been forbidden without a break.
    forbidden_since: Option<Instant>,
}

/// The state of all watches of one resource in one namespace.
#[derive(Debug, Clone)]
pub(in crate::control) struct WatchReport {
    pub(in crate::control) resource: &'static str,
    pub(in crate::control) namespace: String,
    pub(in crate::control) synced: bool,
    /// The last sign of life, of the watch whose last sign is the oldest.
    pub(in crate::control) last_event: Option<Instant>,
    pub(in crate::control) trouble: Option<Arc<str>>,
}

impl Watches {
    /// Knows these watches from now on, and what it knew of them before. `serves_without`: there are upstreams
    /// that need none of them.
    pub(super) fn expect(&self, scopes: &[Arc<Scope>], serves_without: bool) {
        self.with(|inner| {
            inner.serves_without = serves_without;
            // A process that started without any was ready, and stays so when a reload adds some.
            inner.was_synced |= scopes.is_empty();
            let before = std::mem::take(&mut inner.watches);
            let known = |scope: &Arc<Scope>| before.iter().find(|(other, _)| other == scope);
            inner.watches = scopes
                .iter()
                .map(|scope| {
                    (Arc::clone(scope), known(scope).map_or_else(Health::default, |(_, h)| h.clone()))
                })
                .collect();
        });
    }

    /// A complete list has come, and what it says is in the table: who is told that this process is ready may send
    /// connections at once.
    pub(in crate::control) fn listed(&self, scope: &Arc<Scope>, now: Instant) {
        self.update(scope, |health| health.listed = true);
        self.with(|inner| inner.settle(now));
    }

    /// The watch is open.
    pub(super) fn opened(&self, scope: &Arc<Scope>, now: Instant) {
        self.update(scope, |health| {
            health.open = true;
            health.last_event = Some(now);
            health.forbidden_since = None;
        });
    }

    /// The watch has proved to work. Whether something was wrong before.
    pub(super) fn recovered(&self, scope: &Arc<Scope>) -> bool {
        self.update(scope, |health| health.trouble.take()).flatten().is_some()
    }

    pub(super) fn event(&self, scope: &Arc<Scope>, now: Instant) {
        self.update(scope, |health| health.last_event = Some(now));
    }

    /// The watch failed. Whether that is news: one line for all watches of a resource in a namespace will do.
    pub(super) fn failed(&self, scope: &Arc<Scope>, trouble: Trouble, now: Instant) -> bool {
        let labels = (scope.resource.label(), scope.namespace.to_string(), trouble.reason);
        self.with(|inner| {
            *inner.errors.entry(labels).or_default() += 1;
            let alike = inner.watches.iter().filter(|(other, _)| {
                (other.resource, &other.namespace) == (scope.resource, &scope.namespace)
            });
            let mut known = alike.filter_map(|(_, health)| health.trouble.as_ref());
            let is_news = !known.any(|known| known.reason == trouble.reason);
            if let Some((_, health)) = inner.watches.iter_mut().find(|(known, _)| known == scope) {
                health.open = false;
                let since = health.forbidden_since.or(Some(now));
                health.forbidden_since = if trouble.is_forbidden() { since } else { None };
                health.trouble = Some(trouble);
            }
            inner.settle(now);
            is_news
        })
    }

    /// Why the process cannot serve all that it should yet. `None` once it could.
    pub(in crate::control) fn not_ready(&self, now: Instant) -> Option<String> {
        self.with(|inner| {
            inner.settle(now);
            if inner.was_synced {
                return None;
            }
            let missing: Vec<&(Arc<Scope>, Health)> =
                inner.watches.iter().filter(|(_, health)| !health.listed).collect();
            let waits = |watch: &&&(Arc<Scope>, Health)| !watch.1.is_settled(now);
            let troubled = missing.iter().filter(waits).find(|(_, health)| health.trouble.is_some());
            let (scope, health) =
                troubled.or_else(|| missing.iter().find(waits)).or_else(|| missing.first())?;
            let why = health.trouble.as_ref().map_or("no answer yet", |trouble| &trouble.text);
            Some(format!(
                "{} of {} watches have not been listed; {scope}: {why}",
                missing.len(),
                inner.watches.len()
            ))
        })
    }

    pub(in crate::control) fn watches(&self) -> Vec<WatchReport> {
        self.with(|inner| {
            let mut reports: BTreeMap<(&'static str, &str), WatchReport> = BTreeMap::new();
            for (scope, health) in &inner.watches {
                let (resource, namespace) = (scope.resource.label(), &*scope.namespace);
                let report = reports.entry((resource, namespace)).or_insert_with(|| WatchReport {
                    resource,
                    namespace: namespace.to_owned(),
                    synced: true,
                    last_event: health.last_event,
                    trouble: None,
                });
                report.synced &= health.listed && health.open;
                report.last_event = report.last_event.min(health.last_event);
                let trouble = health.trouble.as_ref().map(|trouble| Arc::clone(&trouble.text));
                report.trouble = report.trouble.take().or(trouble);
            }
            reports.into_values().collect()
        })
    }

    /// Failures of watches so far.
    pub(in crate::control) fn errors(&self) -> BTreeMap<ErrorLabels, u64> {
        self.with(|inner| inner.errors.clone())
    }

    fn update<T>(&self, scope: &Arc<Scope>, change: impl FnOnce(&mut Health) -> T) -> Option<T> {
        self.with(|inner| {
            let watch = inner.watches.iter_mut().find(|(known, _)| known == scope);
            watch.map(|(_, health)| change(health))
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    /// Looks whether all watches have been in step by now. Whenever one gets on, and not only when a probe asks: a
    /// reload that adds a watch before the next probe would make a process unready that serves.
    fn settle(&mut self, now: Instant) {
        let all_settled = self.watches.iter().all(|(_, health)| health.is_settled(now));
        let serves = self.serves_without || self.watches.iter().any(|(_, health)| health.listed);
        self.was_synced |= all_settled && serves;
    }
}

impl Health {
    fn is_settled(&self, now: Instant) -> bool {
        self.listed || self.forbidden_since.is_some_and(|since| now - since >= FORBIDDEN_FOR)
    }
}

#[cfg(test)]
mod tests;
