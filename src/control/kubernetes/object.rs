//! Services and EndpointSlices as compact values. The types of the API end here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

use crate::config::Name;
use crate::routing::Topology;

/// The label of a slice that names its Service.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// When what led to the slice's last change happened, as its controller says.
const CHANGED_AT: &str = "endpoints.kubernetes.io/last-change-trigger-time";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) name: Name,
    /// The other name that a Service of type ExternalName stands for.
    pub(super) external_name: Option<String>,
    pub(super) ports: Vec<ServicePort>,
    /// Families of its addresses, the preferred one first.
    pub(super) families: Vec<Family>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServicePort {
    pub(super) number: u16,
    /// Empty for a Service's only port.
    pub(super) name: Name,
    pub(super) protocol: Protocol,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) name: Name,
    pub(super) service: Name,
    /// `None`: it has names instead of addresses (addressType FQDN).
    pub(super) family: Option<Family>,
    pub(super) ports: Vec<SlicePort>,
    pub(super) members: Vec<SliceMember>,
    pub(super) changed_at: Option<SystemTime>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlicePort {
    pub(super) name: Name,
    pub(super) protocol: Protocol,
    /// `None`: any port.
    pub(super) number: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SliceMember {
    pub(super) address: IpAddr,
    pub(super) pod: Option<Name>,
    pub(super) condition: Condition,
    pub(super) topology: Arc<Topology>,
}

/// What an endpoint is good for; the better one is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Condition {
    NotReady,
    /// Leaving, but still serving: good for new connections while there is no ready one (KEP-1669).
    ServingTerminating,
    Ready,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Other,
}

impl Service {
    pub(super) fn new(service: core::Service) -> Option<Self> {
        let spec = service.spec.unwrap_or_default();
        let is_external = spec.type_.as_deref() == Some("ExternalName");
        Some(Self {
            name: service.metadata.name?.into(),
            external_name: is_external.then(|| spec.external_name.unwrap_or_default()),
            ports: spec
                .ports
                .into_iter()
                .flatten()
                .filter_map(|port| {
                    Some(ServicePort {
                        number: u16::try_from(port.port).ok()?,
                        name: port.name.unwrap_or_default().into(),
                        protocol: Protocol::new(port.protocol.as_deref()),
                    })
                })
                .collect(),
            families: spec.ip_families.iter().flatten().filter_map(|family| Family::new(family)).collect(),
        })
    }
}

impl Slice {
    /// `None`: it belongs to no Service.
    pub(super) fn new(slice: discovery::EndpointSlice) -> Option<Self> {
        let metadata = slice.metadata;
        let service = metadata.labels?.remove(SERVICE_NAME)?;
        let changed_at = metadata.annotations.and_then(|mut annotations| annotations.remove(CHANGED_AT));
        let mut topologies: Vec<Arc<Topology>> = Vec::new();
        let members = slice
            .endpoints
            .into_iter()
            .flatten()
            .filter_map(|endpoint| SliceMember::new(endpoint, &mut topologies))
            .collect();
        Some(Self {
            name: metadata.name?.into(),
            service: service.into(),
            family: Family::new(&slice.address_type),
            ports: slice.ports.into_iter().flatten().map(SlicePort::new).collect(),
            members,
            changed_at: changed_at.and_then(|text| humantime::parse_rfc3339(&text).ok()),
        })
    }
}

impl SlicePort {
    fn new(port: discovery::EndpointPort) -> Self {
        Self {
            name: port.name.unwrap_or_default().into(),
            protocol: Protocol::new(port.protocol.as_deref()),
            number: port.port.and_then(|number| u16::try_from(number).ok()),
        }
    }
}

impl SliceMember {
    /// `None`: its address is a name. Of several addresses only the first counts, as for kube-proxy.
    fn new(endpoint: discovery::Endpoint, topologies: &mut Vec<Arc<Topology>>) -> Option<Self> {
        let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        let conditions = endpoint.conditions.unwrap_or_default();
        let hints = endpoint.hints.unwrap_or_default();
        let zones = hints.for_zones.into_iter().flatten().map(|zone| zone.name.into());
        let nodes = hints.for_nodes.into_iter().flatten().map(|node| node.name.into());
        let topology = Topology {
            zone: endpoint.zone.map(Into::into),
            node: endpoint.node_name.map(Into::into),
            for_zones: zones.collect(),
            for_nodes: nodes.collect(),
        };
        let is_pod = |target: &core::ObjectReference| target.kind.as_deref() == Some("Pod");
        Some(Self {
            address,
            pod: endpoint.target_ref.filter(is_pod).and_then(|target| target.name).map(Into::into),
            condition: Condition::new(conditions.ready, conditions.serving, conditions.terminating),
            topology: shared(topology, topologies),
        })
    }
}

/// Pods of one node have one topology, of which a slice keeps one copy.
fn shared(topology: Topology, known: &mut Vec<Arc<Topology>>) -> Arc<Topology> {
    if let Some(same) = known.iter().find(|other| ***other == topology) {
        return Arc::clone(same);
    }
    let topology = Arc::new(topology);
    known.push(Arc::clone(&topology));
    topology
}

impl Condition {
    /// What nobody says is ready, serving and not terminating (`discovery.k8s.io/v1`, EndpointConditions).
    fn new(ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>) -> Self {
        if ready.unwrap_or(true) {
            Self::Ready
        } else if serving.unwrap_or(true) && terminating.unwrap_or(false) {
            Self::ServingTerminating
        } else {
            Self::NotReady
        }
    }
}

impl Family {
    fn new(text: &str) -> Option<Self> {
        match text {
            "IPv4" => Some(Self::Ipv4),
            "IPv6" => Some(Self::Ipv6),
            _ => None,
        }
    }
}

impl Protocol {
    /// TCP is the default of the API.
    fn new(text: Option<&str>) -> Self {
        if text.is_none_or(|text| text == "TCP") { Self::Tcp } else { Self::Other }
    }
}
