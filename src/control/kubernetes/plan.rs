//! Which watches a configuration needs. Pure.
//!
//! Slices are watched by the label that names their Service, so that the API server sends no other ones; Services
//! have no such label, so that of a namespace with several followed Services all are watched and the others dropped. Secrets and
//! ConfigMaps are watched by their names, one by one: no right to see others is needed, and nothing of them is ever here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::config::{AuthorityRef, CertificateRef, Config, Name, ObjectRef, Upstream};
use crate::tls::{Credentials, Source};

use super::index::ServiceKey;
use super::object::SERVICE_NAME;

/// Services in one label selector, on average at most: also twice as many with names of 63 characters stay below 8 KiB,
/// which is the least that proxies on the way to an API server let pass.
const SERVICES: usize = 64;

/// What one watch tells of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::control) struct Scope {
    pub(super) resource: Resource,
    pub(super) namespace: Name,
    /// Of Services, or of the one Secret or ConfigMap. Sorted, and never empty.
    pub(super) names: Vec<Name>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Resource {
    Services,
    EndpointSlices,
    /// Secrets of type kubernetes.io/tls.
    Certificates,
    /// Secrets with an authority's certificate.
    AuthoritySecrets,
    /// ConfigMaps with one.
    AuthorityMaps,
}

/// The watches that `config` needs.
pub(super) fn plan(config: &Config) -> Vec<Arc<Scope>> {
    let mut scopes = of_services(config);
    scopes.extend(Credentials::wanted(config).iter().filter_map(of_source).map(Arc::new));
    scopes
}

/// Whether its endpoints are known, and can be spoken to, without any watch.
pub(super) fn needs_no_watch(upstream: &Upstream) -> bool {
    let is_watched = Credentials::wanted_by(upstream).iter().any(|source| of_source(source).is_some());
    upstream.members.followed().is_none() && !is_watched
}

/// A watch tells of one source, so that one that is named anew is listed anew.
fn of_source(source: &Source) -> Option<Scope> {
    let (resource, object) = match source {
        Source::Certificate(CertificateRef::Secret(secret)) => (Resource::Certificates, secret),
        Source::Authorities(AuthorityRef::Secret(secret)) => (Resource::AuthoritySecrets, secret),
        Source::Authorities(AuthorityRef::ConfigMap(map)) => (Resource::AuthorityMaps, map),
        _ => return None,
    };
    Some(Scope { resource, namespace: object.namespace.clone(), names: vec![object.name.clone()] })
}

fn of_services(config: &Config) -> Vec<Arc<Scope>> {
    let mut namespaces: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
    for port in config.upstreams.iter().filter_map(|upstream| upstream.members.followed()) {
        namespaces.entry(port.namespace.clone()).or_default().insert(port.name.clone());
    }
    let mut scopes = Vec::new();
    for (namespace, services) in namespaces {
        let services: Vec<Name> = services.into_iter().collect();
        let scope = |resource, services: &[Name]| {
            Arc::new(Scope { resource, namespace: namespace.clone(), names: services.to_vec() })
        };
        scopes.push(scope(Resource::Services, &services));
        let parts = divide(&services);
        scopes.extend(parts.iter().map(|part| scope(Resource::EndpointSlices, part)));
    }
    scopes
}

/// Into as many parts as are needed, each Service into the part that its name leads to: another Service changes the
/// watch of its own part only, which is listed anew.
fn divide(services: &[Name]) -> Vec<Vec<Name>> {
    let count = services.len().div_ceil(SERVICES).next_power_of_two();
    let mut parts = vec![Vec::new(); count];
    for service in services {
        // FNV-1a, because it has to be the same in every process.
        let hash = service.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        #[expect(clippy::cast_possible_truncation, reason = "the part's number is less than a usize")]
        parts[(hash % count as u64) as usize].push(service.clone());
    }
    parts.retain(|part| !part.is_empty());
    parts
}

impl Scope {
    pub(super) fn key(&self, name: Name) -> ServiceKey {
        ServiceKey { namespace: self.namespace.clone(), name }
    }

    pub(super) fn covers(&self, key: &ServiceKey) -> bool {
        key.namespace == self.namespace && self.names.binary_search(&key.name).is_ok()
    }

    /// What the API server filters by.
    pub(super) fn label_selector(&self) -> Option<String> {
        (self.resource == Resource::EndpointSlices)
            .then(|| format!("{SERVICE_NAME} in ({})", self.names.join(",")))
    }

    pub(super) fn field_selector(&self) -> Option<String> {
        match (self.resource, &*self.names) {
            (Resource::EndpointSlices, _) => None,
            (_, [only]) => Some(format!("metadata.name={only}")),
            _ => None,
        }
    }

    /// What it tells of, if that is no Service.
    pub(super) fn source(&self) -> Option<Source> {
        let object = || {
            let name = self.names.first()?.clone();
            Some(ObjectRef { namespace: self.namespace.clone(), name })
        };
        match self.resource {
            Resource::Services | Resource::EndpointSlices => None,
            Resource::Certificates => Some(Source::Certificate(CertificateRef::Secret(object()?))),
            Resource::AuthoritySecrets => Some(Source::Authorities(AuthorityRef::Secret(object()?))),
            Resource::AuthorityMaps => Some(Source::Authorities(AuthorityRef::ConfigMap(object()?))),
        }
    }
}

impl Resource {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::Certificates | Self::AuthoritySecrets => "secrets",
            Self::AuthorityMaps => "configmaps",
        }
    }

    pub(super) fn api_group(self) -> &'static str {
        match self {
            Self::EndpointSlices => "discovery.k8s.io",
            _ => "",
        }
    }
}

/// `endpointslices in namespace db`, `Secret edge/example-com`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source() {
            Some(source) => source.fmt(f),
            None => write!(f, "{} in namespace {}", self.resource.label(), self.namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_needs_no_watch_lists_its_endpoints_and_trusts_files() {
        let tls = |trusted: &str| format!("tls: {{validation: {{hostname: db.example, {trusted}}}}}");
        for (upstream, expected) in [
            ("endpoints: [{address: \"10.0.0.1:1\"}]".to_owned(), true),
            ("service: {namespace: db, name: pg, port: 5432}".to_owned(), false),
            (
                format!(
                    "endpoints: [{{address: \"10.0.0.1:1\"}}], {}",
                    tls("wellKnownCACertificates: System")
                ),
                true,
            ),
            (
                format!(
                    "endpoints: [{{address: \"10.0.0.1:1\"}}], {}",
                    tls("caCertificateRefs: [{configMap: db/ca}]")
                ),
                false,
            ),
        ] {
            let text = format!(
                "listeners: [{{name: x, address: \"127.0.0.1:1\"}}]\n\
                 routes: [{{name: x, listener: x, backendRefs: [{{upstream: a}}]}}]\n\
                 upstreams: [{{name: a, {upstream}}}]\n",
            );
            let config = Config::parse(&text, "t.yaml").unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!(needs_no_watch(&config.upstreams[0]), expected, "{upstream}");
            assert_eq!(plan(&config).is_empty(), expected, "{upstream}");
        }
    }
}
