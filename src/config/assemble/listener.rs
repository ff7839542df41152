//! Listeners, and which of their addresses collide.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::process::Cluster;
use super::{Context, proxy, seconds, tls, unless_zero};
use crate::config::raw::{self, Field, List};
use crate::config::scalar::ListenAddress;
use crate::config::{ConnectionLimit, Listener, ListenerTimeouts, Protocol, SourceLimit, WhenFull};

/// Whoever takes longer only holds a place.
const MAX_HANDSHAKE: Duration = Duration::from_secs(3_600);
/// More than one address can make.
const MAX_RATE: f64 = 1_000_000.0;
/// With less, a client would wait for longer than any process lives.
const MIN_RATE: f64 = 0.001;

pub(super) fn listeners(
    cx: &Context<'_>,
    list: List<raw::Listener>,
    admin: SocketAddr,
    cluster: &Cluster,
) -> Vec<Listener> {
    let mut addresses = Addresses { admin, seen: HashMap::new() };
    let items = cx.items(list, "listeners");
    items.filter_map(|(path, raw)| listener(cx, &path, raw, &mut addresses, cluster)).collect()
}

fn listener(
    cx: &Context<'_>,
    path: &str,
    raw: raw::Listener,
    addresses: &mut Addresses,
    cluster: &Cluster,
) -> Option<Listener> {
    let protocol = protocol(cx, path, raw.protocol);
    let address = address(cx, path, raw.address, protocol, addresses);
    let proxy = proxy::listener(cx, path, raw.proxy_protocol);
    let tls = tls::listener(cx, path, raw.tls, protocol, cluster);
    let timeouts = timeouts(cx, path, raw.timeout.or_default().tcp.or_default());
    let connection = raw.connection.or_default();
    let sources = sources(cx, &format!("{path}.connection"), &connection);
    let limit = limit(cx, &format!("{path}.connection"), connection);
    let allow = cx.networks(raw.allow, &format!("{path}.allow"));
    let deny = cx.networks(raw.deny, &format!("{path}.deny"));
    let keepalive = cx.keepalive(raw.tcp_keepalive, &format!("{path}.tcpKeepalive"));
    Some(Listener {
        name: raw.name.value()?.0.into(),
        address: address?,
        protocol: protocol?,
        proxy,
        tls,
        allow,
        deny,
        limit,
        sources,
        timeouts,
        keepalive,
    })
}

/// `None`: it is not known.
fn protocol(cx: &Context<'_>, path: &str, field: Field<raw::Protocol>) -> Option<Protocol> {
    if field.is_wrong() {
        return None;
    }
    match field.or(raw::Protocol::Tcp) {
        raw::Protocol::Tcp => Some(Protocol::Tcp),
        raw::Protocol::Tls => Some(Protocol::Tls),
        raw::Protocol::Udp => {
            cx.report.add(format!("{path}.protocol"), "UDP is not supported yet; write TCP or TLS");
            None
        }
    }
}

fn timeouts(cx: &Context<'_>, path: &str, raw: raw::TcpTimeout) -> ListenerTimeouts {
    let at = format!("{path}.timeout.tcp.tlsHandshakeTimeout");
    let tls_handshake = cx.no_longer(seconds(raw.tls_handshake_timeout, 10), &at, MAX_HANDSHAKE);
    if tls_handshake.is_zero() {
        cx.report.add(at, "a handshake in no time always fails; write how long it may take, like 10s");
    }
    ListenerTimeouts {
        idle: unless_zero(seconds(raw.idle_timeout, 3600)),
        max_duration: unless_zero(seconds(raw.max_connection_duration, 0)),
        half_close: unless_zero(seconds(raw.half_close_timeout, 60)),
        tls_handshake,
    }
}

fn limit(cx: &Context<'_>, path: &str, raw: raw::Connection) -> Option<ConnectionLimit> {
    let is_known = !raw.limit.is_wrong();
    let limit = usize::try_from(raw.limit.or(0)).ok().and_then(NonZeroUsize::new);
    let when_full = match raw.when_full.or(raw::WhenFull::Reset) {
        raw::WhenFull::Reset => WhenFull::Reset,
        raw::WhenFull::Wait => WhenFull::Wait,
    };
    if is_known && limit.is_none() && when_full == WhenFull::Wait {
        cx.report.add(
            format!("{path}.whenFull"),
            "without limit it is never full, and who is above another limit is reset; write limit too, or Reset",
        );
    }
    limit.map(|limit| ConnectionLimit { limit, when_full })
}

fn sources(cx: &Context<'_>, path: &str, raw: &raw::Connection) -> Option<SourceLimit> {
    let rate = raw.rate_per_source.get().copied().unwrap_or_default();
    // -0 is no number that anybody means.
    let is_none = rate == 0.0 && rate.is_sign_positive();
    if !is_none && !(MIN_RATE..=MAX_RATE).contains(&rate) {
        cx.report.add(
            format!("{path}.ratePerSource"),
            format_args!(
                "{rate} is out of range; write a number from {MIN_RATE} to {MAX_RATE}, or 0 for no limit"
            ),
        );
    }
    let limit = raw.limit_per_source.get().copied().and_then(NonZeroU32::new);
    let rate = (rate > 0.0).then_some(rate);
    (limit.is_some() || rate.is_some()).then_some(SourceLimit { limit, rate })
}

fn address(
    cx: &Context<'_>,
    path: &str,
    field: Field<ListenAddress>,
    protocol: Option<Protocol>,
    addresses: &mut Addresses,
) -> Option<SocketAddr> {
    let path = format!("{path}.address");
    let address = cx.required(field, &path, "one, like address: \"[::]:5432\"")?.0;
    if address.port() == 0 {
        if !cx.options.allow_port_zero {
            cx.report
                .add(path, "port 0 is a different port at every start; write the port clients connect to");
        }
        return Some(address);
    }
    if let Some(message) = addresses.overlaps_admin(address) {
        cx.report.add(path.as_str(), message);
    }
    if let Some(message) = addresses.add(address, protocol, &path) {
        cx.report.add(path, message);
    }
    Some(address)
}

/// The addresses bound so far. Two are one bind when they are equal; a wildcard and one of its
/// addresses are two, of which the kernel prefers the more specific. But [::] takes IPv4 as well, so
/// beside 0.0.0.0 it is not decided which of the two gets a connection. Listeners with protocol TLS may share one.
struct Addresses {
    admin: SocketAddr,
    seen: HashMap<SocketAddr, Seen>,
}

struct Seen {
    path: String,
    /// As it is written.
    address: SocketAddr,
    /// `None`: it is not known.
    protocol: Option<Protocol>,
}

impl Addresses {
    fn overlaps_admin(&self, address: SocketAddr) -> Option<String> {
        let (ip, admin) = (address.ip().to_canonical(), self.admin.ip().to_canonical());
        (address.port() == self.admin.port() && overlaps(ip, admin)).then(|| {
            format!("{address} overlaps admin.address {}; write another port here or there", self.admin)
        })
    }

    /// Adds one; an answer says what it collides with.
    fn add(&mut self, address: SocketAddr, protocol: Option<Protocol>, path: &str) -> Option<String> {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        if let Some(first) = self.seen.get(&SocketAddr::new(ip, port)) {
            return first.collides(address, protocol);
        }
        let (any4, any6) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        let twin = if ip == any4 { any6 } else { any4 };
        if ip.is_unspecified()
            && let Some(first) = self.seen.get(&SocketAddr::new(twin, port))
        {
            let first = first.path.trim_end_matches(".address");
            return Some(format!(
                "{address} overlaps {first}, because [::] takes IPv4 too; remove one of the two, or write another port"
            ));
        }
        self.seen.insert(SocketAddr::new(ip, port), Seen { path: path.to_owned(), address, protocol });
        None
    }
}

impl Seen {
    /// What is wrong with another listener that has the same address, if something is.
    fn collides(&self, address: SocketAddr, protocol: Option<Protocol>) -> Option<String> {
        let first = self.path.trim_end_matches(".address");
        let may_share = |protocol: Option<Protocol>| protocol != Some(Protocol::Tcp);
        if !may_share(self.protocol) || !may_share(protocol) {
            return Some(format!(
                "{address} is already the address of {first}, which only listeners with protocol TLS can share; write \
                 another port, or add routes to that listener"
            ));
        }
        (address != self.address).then(|| {
            format!("{address} is the address of {first} in other words; write {} here too", self.address)
        })
    }
}

/// The admin socket does not share its port, so that for it a wildcard collides with everything.
fn overlaps(a: IpAddr, b: IpAddr) -> bool {
    let any6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    a == b
        || a == any6
        || b == any6
        || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
}
