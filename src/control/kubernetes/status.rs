//! How the watches fare: for probes, metrics and the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::plan::Scope;
use super::trouble::Trouble;

/// A watch that the API server has refused for this long holds up nobody's readiness any more: restarting this
/// process would change nothing, and what it can serve it should serve.
const REFUSED_FOR: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(in crate::control) struct Status {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    watches: Vec<(Arc<Scope>, Health)>,
    /// Of watches that are over too.
    errors: BTreeMap<ErrorLabels, u64>,
    /// Once all watches have been in step, outages are no reason to be unready.
    was_synced: bool,
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
    /// Since when the API server has refused it without a break.
    refused_since: Option<Instant>,
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

impl Status {
    /// Knows these watches from now on, and what it knew of them before.
    pub(super) fn expect(&self, scopes: &[Arc<Scope>]) {
        self.with(|inner| {
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

    /// The watch is open. What was wrong before, if something was.
    pub(super) fn opened(&self, scope: &Arc<Scope>, now: Instant) -> Option<Trouble> {
        self.update(scope, |health| {
            health.open = true;
            health.last_event = Some(now);
            health.refused_since = None;
            health.trouble.take()
        })
        .flatten()
    }

    pub(super) fn event(&self, scope: &Arc<Scope>, now: Instant) {
        self.update(scope, |health| health.last_event = Some(now));
    }

    /// The watch failed. Whether that is news.
    pub(super) fn failed(&self, scope: &Arc<Scope>, trouble: Trouble, now: Instant) -> bool {
        let labels = (scope.resource.label(), scope.namespace.to_string(), trouble.reason);
        self.with(|inner| *inner.errors.entry(labels).or_default() += 1);
        let is_news = self.update(scope, |health| {
            health.open = false;
            health.refused_since =
                if trouble.is_refusal() { health.refused_since.or(Some(now)) } else { None };
            let is_news = health.trouble.as_ref().is_none_or(|known| known.reason != trouble.reason);
            health.trouble = Some(trouble);
            is_news
        });
        self.with(|inner| inner.settle(now));
        is_news.unwrap_or(false)
    }

    /// Why the process cannot serve all that it should yet. `None` once it could.
    pub(in crate::control) fn not_ready(&self, now: Instant) -> Option<String> {
        self.with(|inner| {
            inner.settle(now);
            if inner.was_synced {
                return None;
            }
            let waiting: Vec<&(Arc<Scope>, Health)> =
                inner.watches.iter().filter(|(_, health)| !health.is_settled(now)).collect();
            let (scope, health) =
                waiting.iter().find(|(_, h)| h.trouble.is_some()).or_else(|| waiting.first())?;
            let why = health.trouble.as_ref().map_or("no answer yet", |trouble| &trouble.text);
            Some(format!(
                "{} of {} watches have not been listed; {scope}: {why}",
                waiting.len(),
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
        self.was_synced |= self.watches.iter().all(|(_, health)| health.is_settled(now));
    }
}

impl Health {
    fn is_settled(&self, now: Instant) -> bool {
        self.listed || self.refused_since.is_some_and(|since| now - since >= REFUSED_FOR)
    }
}

#[cfg(test)]
mod tests;
