//! Listeners with protocol TLS may share an address: the name that a client asks for says which of them it means. What
//! counts before that is known must be the same in all of them.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::Context;
use super::names::Names;
use crate::config::errors::quoted;
use crate::config::{Listener, Protocol, WhenFull};

/// For each listener the first one with its address.
pub(super) fn first_of_each(listeners: &[Listener]) -> HashMap<&str, &Listener> {
    let mut first: HashMap<SocketAddr, &Listener> = HashMap::new();
    let mut of = HashMap::new();
    for listener in listeners.iter().filter(|listener| listener.protocol == Protocol::Tls) {
        of.insert(&*listener.name, *first.entry(listener.address).or_insert(listener));
    }
    of
}

/// Reports what differs in listeners that share an address, and must not.
pub(super) fn agree(cx: &Context<'_>, names: &Names, listeners: &[Listener]) {
    let first_of = first_of_each(listeners);
    let index_of: HashMap<&str, usize> = names.all().collect();
    for listener in listeners {
        let Some(first) = first_of.get(&*listener.name).filter(|first| first.name != listener.name) else {
            continue;
        };
        let Some(i) = index_of.get(&*listener.name) else { continue };
        let start_tls = |listener: &Listener| listener.tls.as_ref().and_then(|tls| tls.start_tls);
        let limits = |listener: &Listener| {
            let sources = listener.sources.unwrap_or_default();
            (sources.limit, sources.rate)
        };
        let same = [
            ("proxyProtocol", listener.proxy == first.proxy),
            ("allow", listener.allow == first.allow),
            ("deny", listener.deny == first.deny),
            ("connection.limitPerSource", limits(listener).0 == limits(first).0),
            ("connection.ratePerSource", limits(listener).1 == limits(first).1),
            ("tcpKeepalive", listener.keepalive == first.keepalive),
            (
                "timeout.tcp.tlsHandshakeTimeout",
                listener.timeouts.tls_handshake == first.timeouts.tls_handshake,
            ),
            ("tls.startTls", start_tls(listener) == start_tls(first)),
        ];
        for (field, _) in same.iter().filter(|(_, is_same)| !is_same) {
            cx.report.add(
                format!("listeners[{i}].{field}"),
                format_args!(
                    "it shares {} with listener {}, and this counts before a client has said which of the two it wants; \
                     write the same in both",
                    listener.address,
                    quoted(&first.name)
                ),
            );
        }
        for waits in [listener, first] {
            let (Some(i), Some(limit)) = (index_of.get(&*waits.name), waits.limit) else { continue };
            if limit.when_full == WhenFull::Wait {
                cx.report.add(
                    format!("listeners[{i}].connection.whenFull"),
                    format_args!(
                        "in the backlog of {} nobody knows yet which listener a connection is for; write Reset, or \
                         another address",
                        waits.address
                    ),
                );
            }
        }
    }
}
