//! From a Service and its slices to the members of an upstream. Pure.
//!
//! A port leads by its name in the Service to the port of that name in each slice, so that pods may listen on
//! different numbers. Ready endpoints are used; without one, those that are leaving but still serve.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use crate::config::{self, PortRef};
use crate::routing::{Found, Member, Problem};

use super::object::{Condition, Family, Protocol, Service, ServicePort, Slice, SliceMember};

/// Whether this host has a way to an address at all.
pub(super) type Reachable<'a> = &'a dyn Fn(IpAddr) -> bool;

/// What `wanted` has, given its Service (`None`: there is none) and all its slices.
pub(super) fn select<'a>(
    wanted: &config::ServicePort,
    service: Option<&Service>,
    slices: impl Iterator<Item = &'a Slice> + Clone,
    reachable: Reachable<'_>,
) -> Found {
    let Some(service) = service else {
        return nothing(
            "service_missing",
            format!("{} does not exist; create it or correct the name", Named(wanted)),
        );
    };
    if let Some(name) = &service.external_name {
        let text = format!(
            "{} is of type ExternalName ({name}) and has no endpoints to follow; list endpoints, or follow a Service \
             that selects pods",
            Named(wanted)
        );
        return nothing("external_name", text);
    }
    let port = match port(wanted, service) {
        Ok(port) => port,
        Err(problem) => return Found { members: Vec::new(), problem: Some(problem) },
    };
    let families = by_family(&port, slices.clone());
    let members = match families {
        (v4, v6) if v6.is_empty() => v4,
        (v4, v6) if v4.is_empty() => v6,
        (v4, v6) => preferred(service, v4, v6, reachable),
    };
    let mut found = usable(wanted, &port, &members, slices.clone());
    let hides_none = found.problem.as_ref().is_none_or(|problem| problem.reason == "no_endpoint");
    if let Some(slice) = slices.clone().find(|slice| slice.family.is_none() && hides_none) {
        let text = format!(
            "EndpointSlice {}/{} of {} has addressType FQDN, whose names are not followed; write one with IPv4 or IPv6 \
             addresses",
            wanted.namespace,
            slice.name,
            Named(wanted)
        );
        found.problem = Some(Problem { reason: "fqdn", text: text.into() });
    }
    found
}

/// There are pods, and their slices have no port of the name that the Service gives it.
pub(super) const UNRESOLVED: &str = "port_unresolved";
/// How many ports of a Service a text lists.
const PORTS_SHOWN: usize = 10;

/// The port that a slice has to have.
enum Port {
    Named(String),
    /// A headless Service without ports: its endpoints are addresses, and the port is the one asked for.
    Number(u16),
}

fn port(wanted: &config::ServicePort, service: &Service) -> Result<Port, Problem> {
    let matches = |port: &&ServicePort| match &wanted.port {
        PortRef::Number(number) => port.number == *number,
        PortRef::Name(name) => port.name == *name,
    };
    let mut candidates = service.ports.iter().filter(matches);
    if let Some(port) = candidates.clone().find(|port| port.protocol == Protocol::Tcp) {
        return Ok(Port::Named(port.name.to_string()));
    }
    if let PortRef::Number(number) = wanted.port
        && service.ports.is_empty()
    {
        return Ok(Port::Number(number));
    }
    if candidates.next().is_some() {
        let text =
            format!("port {} of {} is not TCP; upstreams carry TCP", Shown(&wanted.port), Named(wanted));
        return Err(Problem { reason: "port_protocol", text: text.into() });
    }
    let mut text = format!("{} has no port {}; it has", Named(wanted), Shown(&wanted.port));
    for (index, port) in service.ports.iter().enumerate().take(PORTS_SHOWN) {
        let comma = if index == 0 { "" } else { "," };
        let _infallible = write!(text, "{comma} {}", port.number);
        if !port.name.is_empty() {
            let _infallible = write!(text, " ({})", port.name);
        }
    }
    if service.ports.is_empty() {
        text.push_str(" none");
    }
    Err(Problem { reason: "port_missing", text: text.into() })
}

/// By address, so that an endpoint that is in two slices for a moment is one.
type Members<'a> = BTreeMap<SocketAddr, &'a SliceMember>;

fn by_family<'a>(port: &Port, slices: impl Iterator<Item = &'a Slice>) -> (Members<'a>, Members<'a>) {
    let mut families = (Members::new(), Members::new());
    for slice in slices {
        let members = match slice.family {
            Some(Family::Ipv4) => &mut families.0,
            Some(Family::Ipv6) => &mut families.1,
            None => continue,
        };
        let Some(number) = port.in_slice(slice) else { continue };
        for member in &slice.members {
            let known = members.entry(SocketAddr::new(member.address, number)).or_insert(member);
            if known.condition < member.condition {
                *known = member;
            }
        }
    }
    families
}

impl Port {
    fn in_slice(&self, slice: &Slice) -> Option<u16> {
        match self {
            Self::Named(name) => {
                let same =
                    |port: &&super::object::SlicePort| port.protocol == Protocol::Tcp && *port.name == **name;
                slice.ports.iter().find(same)?.number
            }
            Self::Number(number) => Some(*number),
        }
    }
}

/// A pod of a dual-stack Service is in slices of both families, and must not count twice: the family that the
/// Service prefers, unless this host cannot reach it or only the other one has an endpoint to use.
fn preferred<'a>(
    service: &Service,
    v4: Members<'a>,
    v6: Members<'a>,
    reachable: Reachable<'_>,
) -> Members<'a> {
    let works = |members: &Members<'_>| {
        let usable = members.values().any(|member| member.condition > Condition::NotReady);
        usable && members.keys().next().is_some_and(|address| reachable(address.ip()))
    };
    let (first, second) = if service.families.first() == Some(&Family::Ipv6) { (v6, v4) } else { (v4, v6) };
    if !works(&first) && works(&second) { second } else { first }
}

/// The ready ones; without one, those that still serve; never those that are not ready.
fn usable<'a>(
    wanted: &config::ServicePort,
    port: &Port,
    members: &Members<'_>,
    mut slices: impl Iterator<Item = &'a Slice>,
) -> Found {
    for condition in [Condition::Ready, Condition::ServingTerminating] {
        let usable = members.iter().filter(|(_, member)| member.condition == condition);
        let usable: Vec<Member> = usable
            .map(|(address, member)| Member {
                address: *address,
                pod: member.pod.clone(),
                weight: 1,
                topology: member.topology.clone(),
                priority: 0,
            })
            .collect();
        if !usable.is_empty() {
            return Found { members: usable, problem: None };
        }
    }
    if !members.is_empty() {
        return nothing("none_ready", format!("{} has endpoints, and none is ready", Named(wanted)));
    }
    let has_members = slices.any(|slice| slice.family.is_some() && !slice.members.is_empty());
    if has_members && matches!(port, Port::Named(_)) {
        let text = format!(
            "no pod of {} has a port for {}; compare the Service's targetPort with the pods' containerPorts",
            Named(wanted),
            Shown(&wanted.port)
        );
        return nothing(UNRESOLVED, text);
    }
    nothing("no_endpoint", format!("{} has no endpoints", Named(wanted)))
}

fn nothing(reason: &'static str, text: String) -> Found {
    Found { members: Vec::new(), problem: Some(Problem { reason, text: text.into() }) }
}

/// `Service namespace/name`.
struct Named<'a>(&'a config::ServicePort);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Service {}/{}", self.0.namespace, self.0.name)
    }
}

struct Shown<'a>(&'a PortRef);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            PortRef::Number(number) => number.fmt(f),
            PortRef::Name(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
