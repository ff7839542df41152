//! A Service that leads back to a listener of this process would take every place of it with one client.
//!
//! The configuration's own check knows listed endpoints only; those of a Service are known when they come.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::config::{Config, Listener, Name, Upstream};
use crate::routing::{Found, Problem};

use super::kubernetes;

/// Which listeners lead to which upstreams, and which addresses are this process's own.
#[derive(Debug)]
pub(super) struct Loops {
    /// By the upstream's name.
    listeners: HashMap<Name, Vec<(Name, SocketAddr)>>,
    /// Asking the kernel for each of a thousand endpoints at every change would cost more than the change.
    own: HashMap<IpAddr, bool>,
}

/// Addresses whose answer is kept.
const KNOWN_MAX: usize = 100_000;

impl Loops {
    pub(super) fn new(config: &Config) -> Self {
        let by_name: HashMap<&Name, &Listener> =
            config.listeners.iter().map(|listener| (&listener.name, listener)).collect();
        let mut listeners: HashMap<Name, Vec<(Name, SocketAddr)>> = HashMap::new();
        for route in &config.routes {
            let Some(listener) = by_name.get(&route.listener) else { continue };
            for backend in &route.backends {
                let leads = listeners.entry(backend.upstream.clone()).or_default();
                leads.push((listener.name.clone(), listener.address));
            }
        }
        Self { listeners, own: HashMap::new() }
    }

    /// What was found, or nothing and why if one of it is a listener that leads there. All of it then: the other
    /// endpoints are replicas of this process, and lead back here.
    pub(super) fn refuse(&mut self, upstream: &Upstream, found: Found) -> Found {
        let Some(listeners) = self.listeners.get(&upstream.name) else { return found };
        let own = &mut self.own;
        let turn = found.members.iter().find_map(|member| {
            let to = member.address;
            let leads = |(_, at): &&(Name, SocketAddr)| {
                at.port() == to.port() && (at.ip().is_unspecified() || at.ip().to_canonical() == to.ip())
            };
            let (listener, _) = listeners.iter().find(leads)?;
            is_own(own, to.ip()).then_some((listener, to))
        });
        let Some((listener, address)) = turn else { return found };
        let service = upstream.members.followed().map_or_else(String::new, |service| {
            format!(" of Service {}/{}", service.namespace, service.name)
        });
        let text = format!(
            "{address}{service} is listener {listener:?} of this process, whose connections would go round in \
             circles; follow the Service behind it"
        );
        Found { members: Vec::new(), problem: Some(Problem { reason: "loop", text: text.into() }) }
    }
}

fn is_own(known: &mut HashMap<IpAddr, bool>, address: IpAddr) -> bool {
    if known.len() >= KNOWN_MAX {
        known.clear();
    }
    *known.entry(address).or_insert_with(|| kubernetes::source_towards(address) == Some(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::Member;
    use std::sync::Arc;

    fn found(addresses: &[&str]) -> Found {
        let member = |address: &&str| Member {
            address: address.parse().unwrap(),
            pod: None,
            weight: 1,
            topology: Arc::default(),
            priority: 0,
        };
        Found { members: addresses.iter().map(member).collect(), problem: None }
    }

    #[test]
    fn a_service_that_leads_back_here_has_nothing() {
        let text = "
listeners: [{name: web, address: \"0.0.0.0:8080\"}, {name: other, address: \"127.0.0.1:9090\"}]
routes: [{name: web, listener: web, backendRefs: [{upstream: web}]}, {name: o, listener: other, backendRefs: [{upstream: o}]}]
upstreams:
  - {name: web, service: {namespace: shop, name: web, port: 80}}
  - {name: o, service: {namespace: shop, name: o, port: 80}}";
        let config = Config::parse(text, "t.yaml").unwrap();
        let mut loops = Loops::new(&config);
        let [web, other] = &*config.upstreams else { panic!("two upstreams") };
        let refused = loops.refuse(web, found(&["192.0.2.1:8080", "127.0.0.1:8080"]));
        assert_eq!((refused.members.len(), refused.problem.unwrap().reason), (0, "loop"));
        for (upstream, addresses) in
            [(web, ["192.0.2.1:8080", "127.0.0.1:8081"]), (other, ["127.0.0.1:8080", "127.0.0.2:9090"])]
        {
            assert_eq!(loops.refuse(upstream, found(&addresses)), found(&addresses));
        }
    }
}
