//! Which watches a configuration needs. Pure.
//!
//! Slices are watched by the label that names their Service, so that the API server sends no other ones; Services
//! have no such label, so that of a namespace with several followed Services all are watched and the others dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::config::{Config, Name};

use super::index::ServiceKey;
use super::object::SERVICE_NAME;

/// Services in one label selector: with names of 63 characters it stays below 8 KiB, which is the least that proxies on the
/// way to an API server let pass.
const SERVICES_MAX: usize = 100;

/// What one watch tells of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::control) struct Scope {
    pub(super) resource: Resource,
    pub(super) namespace: Name,
    /// Sorted, and never empty.
    pub(super) services: Vec<Name>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Resource {
    Services,
    EndpointSlices,
}

/// The watches that `config` needs.
pub(super) fn plan(config: &Config) -> Vec<Arc<Scope>> {
    let mut namespaces: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
    for port in config.upstreams.iter().filter_map(|upstream| upstream.members.followed()) {
        namespaces.entry(port.namespace.clone()).or_default().insert(port.name.clone());
    }
    let mut scopes = Vec::new();
    for (namespace, services) in namespaces {
        let services: Vec<Name> = services.into_iter().collect();
        let scope = |resource, services: &[Name]| {
            Arc::new(Scope { resource, namespace: namespace.clone(), services: services.to_vec() })
        };
        scopes.push(scope(Resource::Services, &services));
        scopes.extend(services.chunks(SERVICES_MAX).map(|part| scope(Resource::EndpointSlices, part)));
    }
    scopes
}

impl Scope {
    pub(super) fn key(&self, name: Name) -> ServiceKey {
        ServiceKey { namespace: self.namespace.clone(), name }
    }

    pub(super) fn covers(&self, key: &ServiceKey) -> bool {
        key.namespace == self.namespace && self.services.binary_search(&key.name).is_ok()
    }

    /// What the API server filters by.
    pub(super) fn label_selector(&self) -> Option<String> {
        (self.resource == Resource::EndpointSlices)
            .then(|| format!("{SERVICE_NAME} in ({})", self.services.join(",")))
    }

    pub(super) fn field_selector(&self) -> Option<String> {
        match (self.resource, &*self.services) {
            (Resource::Services, [only]) => Some(format!("metadata.name={only}")),
            _ => None,
        }
    }
}

impl Resource {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
        }
    }

    pub(super) fn api_group(self) -> &'static str {
        match self {
            Self::Services => "",
            Self::EndpointSlices => "discovery.k8s.io",
        }
    }
}

/// `endpointslices in namespace db`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in namespace {}", self.resource.label(), self.namespace)
    }
}
