//! What is known of the Services that are followed. Pure: observations in, changed Services and members out.
//!
//! It knows only Services that were asked for, and of each the whole: nothing counts as absent before a complete
//! list has said so.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::config::{self, Name};
use crate::routing::Found;
use crate::tls::{Material, Problem, Source};

use super::bundle::{self, Bundle};
use super::object::{Protocol, Service, ServicePort, Slice};
use super::plan::Scope;
use super::select::{Reachable, UNRESOLVED, select};

/// What a watch has seen.
#[derive(Debug)]
pub(in crate::control) struct Observation {
    pub(super) scope: Arc<Scope>,
    pub(super) received: Instant,
    pub(super) object: Object,
}

#[derive(Debug)]
pub(super) enum Object {
    Service(Change<Service>),
    Slice(Change<Slice>),
    Bundle(Change<Bundle>),
}

#[derive(Debug)]
pub(super) enum Change<T> {
    /// All that there is of the watch's scope.
    All(Vec<T>),
    Set(T),
    Gone(T),
}

/// A Service by its namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::control) struct ServiceKey {
    pub(in crate::control) namespace: Name,
    pub(in crate::control) name: Name,
}

/// A Service that is not as before.
#[derive(Debug)]
pub(in crate::control) struct Changed {
    pub(in crate::control) service: ServiceKey,
    /// When it was changed and when that was heard of; `None` for what came with a list, which may be old.
    pub(in crate::control) stamp: Option<Stamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::control) struct Stamp {
    /// As the cluster says; `None`: it does not, or says what it said of an earlier change.
    pub(in crate::control) changed_at: Option<SystemTime>,
    pub(in crate::control) received: Instant,
}

#[derive(Debug, Default)]
pub(in crate::control) struct Index {
    entries: HashMap<ServiceKey, Entry>,
}

/// Each half is `None` until a complete list has come.
#[derive(Debug, Default)]
struct Entry {
    service: Option<Option<Service>>,
    slices: Option<BTreeMap<Name, Slice>>,
    /// The Service as it was when the slices last had all of its ports. They follow a renamed port a moment later, or
    /// not at all while only their own watch fails.
    resolved: Option<Service>,
}

impl Entry {
    /// Remembers the Service if the slices have all of its ports.
    fn resolve(&mut self) {
        let (Some(Some(service)), Some(slices)) = (&self.service, &self.slices) else { return };
        let is_in_slices = |port: &ServicePort| {
            slices.values().flat_map(|slice| &slice.ports).any(|other| other.name == port.name)
        };
        if service.ports.iter().filter(|port| port.protocol == Protocol::Tcp).all(is_in_slices)
            && self.resolved.as_ref() != Some(service)
        {
            self.resolved = Some(service.clone());
        }
    }
}

impl ServiceKey {
    pub(in crate::control) fn of(port: &config::ServicePort) -> Self {
        Self { namespace: port.namespace.clone(), name: port.name.clone() }
    }
}

impl Observation {
    /// The watch whose complete list this is, if it is one.
    pub(in crate::control) fn listed(&self) -> Option<&Arc<Scope>> {
        let is_list = matches!(
            &self.object,
            Object::Service(Change::All(_)) | Object::Slice(Change::All(_)) | Object::Bundle(Change::All(_))
        );
        is_list.then_some(&self.scope)
    }

    /// What it says of something that TLS needs.
    pub(in crate::control) fn found(&self) -> Option<(Source, Result<Material, Problem>, Instant)> {
        let Object::Bundle(change) = &self.object else { return None };
        let source = self.scope.source()?;
        let bundle = match change {
            Change::All(all) => all.first(),
            Change::Set(bundle) => Some(bundle),
            Change::Gone(_) => None,
        };
        let found = bundle.map_or_else(|| Err(bundle::absent(&source)), |bundle| bundle.material(&source));
        Some((source, found, self.received))
    }
}

impl Index {
    /// Follows these Services and forgets others.
    pub(in crate::control) fn follow<'a>(&mut self, wanted: impl Iterator<Item = &'a ServiceKey>) {
        let mut before = std::mem::take(&mut self.entries);
        self.entries = wanted.map(|key| (key.clone(), before.remove(key).unwrap_or_default())).collect();
    }

    /// What the Service's port has; `None` until it is known.
    pub(in crate::control) fn find(
        &self,
        port: &config::ServicePort,
        reachable: Reachable<'_>,
    ) -> Option<Found> {
        let entry = self.entries.get(&ServiceKey::of(port))?;
        let (service, slices) = (entry.service.as_ref()?, entry.slices.as_ref()?);
        let select = |service| select(port, service, slices.values(), reachable);
        let mut found = select(service.as_ref());
        if let (Some(problem), Some(before)) = (&mut found.problem, &entry.resolved)
            && problem.reason == UNRESOLVED
        {
            found.members = select(Some(before)).members;
            if !found.members.is_empty() {
                problem.text =
                    format!("{}; the endpoints from before are kept meanwhile", problem.text).into();
            }
        }
        Some(found)
    }

    /// Takes an observation in. What it says of Services that nobody follows is passed over.
    pub(in crate::control) fn apply(&mut self, observation: Observation) -> Vec<Changed> {
        let Observation { scope, received, object } = observation;
        match object {
            Object::Service(Change::All(services)) => self.all_services(&scope, services),
            Object::Service(Change::Set(service)) => {
                let name = service.name.clone();
                self.set_service(&scope, name, Some(service), received)
            }
            Object::Service(Change::Gone(service)) => self.set_service(&scope, service.name, None, received),
            Object::Slice(Change::All(slices)) => self.all_slices(&scope, slices),
            Object::Slice(Change::Set(slice)) => self.set_slice(&scope, slice, received),
            Object::Slice(Change::Gone(slice)) => self.remove_slice(&scope, &slice, received),
            Object::Bundle(_) => Vec::new(),
        }
    }

    fn all_services(&mut self, scope: &Scope, services: Vec<Service>) -> Vec<Changed> {
        let mut listed: HashMap<Name, Service> =
            services.into_iter().map(|service| (service.name.clone(), service)).collect();
        let mut changed = Vec::new();
        for (key, entry) in self.in_scope(scope) {
            let service = Some(listed.remove(&key.name));
            if entry.service != service {
                entry.service = service;
                entry.resolve();
                changed.push(Changed { service: key, stamp: None });
            }
        }
        changed
    }

    fn set_service(
        &mut self,
        scope: &Scope,
        name: Name,
        service: Option<Service>,
        received: Instant,
    ) -> Vec<Changed> {
        let key = scope.key(name);
        match self.entries.get_mut(&key) {
            Some(entry) if entry.service.as_ref() != Some(&service) => {
                entry.service = Some(service);
                entry.resolve();
                vec![Changed { service: key, stamp: Some(Stamp { changed_at: None, received }) }]
            }
            _ => Vec::new(),
        }
    }

    fn all_slices(&mut self, scope: &Scope, slices: Vec<Slice>) -> Vec<Changed> {
        let mut listed: HashMap<Name, BTreeMap<Name, Slice>> = HashMap::new();
        for slice in slices {
            listed.entry(slice.service.clone()).or_default().insert(slice.name.clone(), slice);
        }
        let mut changed = Vec::new();
        for (key, entry) in self.in_scope(scope) {
            let slices = Some(listed.remove(&key.name).unwrap_or_default());
            if entry.slices != slices {
                entry.slices = slices;
                entry.resolve();
                changed.push(Changed { service: key, stamp: None });
            }
        }
        changed
    }

    fn set_slice(&mut self, scope: &Scope, slice: Slice, received: Instant) -> Vec<Changed> {
        let mut changed = Vec::new();
        let key = scope.key(slice.service.clone());
        // A slice may be given to another Service.
        for (other, entry) in self.in_scope(scope).filter(|(other, _)| *other != key) {
            if entry.slices.as_mut().is_some_and(|slices| slices.remove(&slice.name).is_some()) {
                changed.push(Changed { service: other, stamp: Some(Stamp { changed_at: None, received }) });
            }
        }
        // Before the complete list there is nothing to change: it will have this one too.
        let Some(entry) = self.entries.get_mut(&key) else { return changed };
        let Some(slices) = &mut entry.slices else { return changed };
        let before = slices.get(&slice.name);
        if before == Some(&slice) {
            return changed;
        }
        let told_before = before.and_then(|slice| slice.changed_at);
        let stamp = Stamp { changed_at: slice.changed_at.filter(|at| Some(*at) > told_before), received };
        slices.insert(slice.name.clone(), slice);
        entry.resolve();
        changed.push(Changed { service: key, stamp: Some(stamp) });
        changed
    }

    fn remove_slice(&mut self, scope: &Scope, slice: &Slice, received: Instant) -> Vec<Changed> {
        let key = scope.key(slice.service.clone());
        let slices = self.entries.get_mut(&key).and_then(|entry| entry.slices.as_mut());
        if slices.is_none_or(|slices| slices.remove(&slice.name).is_none()) {
            return Vec::new();
        }
        vec![Changed { service: key, stamp: Some(Stamp { changed_at: None, received }) }]
    }

    /// The Services that a watch tells of.
    fn in_scope<'a>(&'a mut self, scope: &'a Scope) -> impl Iterator<Item = (ServiceKey, &'a mut Entry)> {
        let entries = self.entries.iter_mut();
        entries.filter(|(key, _)| scope.covers(key)).map(|(key, entry)| (key.clone(), entry))
    }
}

#[cfg(test)]
mod tests;
