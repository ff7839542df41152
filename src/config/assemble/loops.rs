//! A listener whose connections come back to it would take every place of the process with one client.

use std::net::SocketAddr;

use crate::config::{Listener, Route, Upstream};

use super::Context;

/// Reports endpoints that are the listener itself from which their connections come.
pub(super) fn refuse(cx: &Context<'_>, listeners: &[Listener], routes: &[Route], upstreams: &[Upstream]) {
    for (i, upstream) in upstreams.iter().enumerate() {
        let leads_here =
            |route: &&Route| route.backends.iter().any(|backend| backend.upstream == upstream.name);
        let sources: Vec<&Listener> = routes
            .iter()
            .filter(leads_here)
            .filter_map(|route| listeners.iter().find(|listener| listener.name == route.listener))
            .collect();
        for (j, endpoint) in upstream.members.listed().iter().enumerate() {
            let Some(listener) = sources.iter().find(|listener| reaches(endpoint.address, listener.address))
            else {
                continue;
            };
            cx.report.add(
                format!("upstreams[{i}].endpoints[{j}].address"),
                format_args!(
                    "{} is listener {:?} itself, whose connections would go round in circles; write the address of a \
                     server",
                    endpoint.address, listener.name
                ),
            );
        }
    }
}

/// Whether connecting to `endpoint` on this host certainly reaches a socket that listens on `listener`.
fn reaches(endpoint: SocketAddr, listener: SocketAddr) -> bool {
    let (to, at) = (endpoint.ip().to_canonical(), listener.ip().to_canonical());
    let by_wildcard = at.is_unspecified() && to.is_loopback() && (at.is_ipv6() || to.is_ipv4());
    // Port 0 is another one for each socket.
    endpoint.port() == listener.port() && listener.port() != 0 && (to == at || by_wildcard)
}
