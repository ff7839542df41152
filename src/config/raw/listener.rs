//! The addresses connections are accepted on.

use schemars::JsonSchema;
use serde::Deserialize;

use super::field::{Field, List};
use super::proxy::ProxyProtocol;
use super::tls::Tls;
use super::whole::Whole;
use crate::config::scalar::{GatewayDuration, ListenAddress, Network, ObjectName};

/// A named address, port and protocol that connections are accepted on.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "address"]))]
pub(in crate::config) struct Listener {
    /// Names the listener in routes, logs, metrics and traces.
    pub(in crate::config) name: Field<ObjectName>,
    /// Where connections are accepted. [::] takes IPv4 too.
    pub(in crate::config) address: Field<ListenAddress>,
    /// What is spoken there.
    #[schemars(extend("default" = "TCP", "$comment" = "Not supported yet: UDP."))]
    pub(in crate::config) protocol: Field<Protocol>,
    /// The PROXY protocol header that a load balancer in front may send.
    pub(in crate::config) proxy_protocol: Field<ProxyProtocol>,
    /// Client networks that may connect; empty: every client.
    #[schemars(extend("default" = []))]
    pub(in crate::config) allow: List<Network>,
    /// Client networks that may not connect, even when they are allowed.
    #[schemars(extend("default" = []))]
    pub(in crate::config) deny: List<Network>,
    /// Bounds on the listener's connections.
    pub(in crate::config) connection: Field<Connection>,
    /// How long things may take.
    pub(in crate::config) timeout: Field<Timeout>,
    /// TCP keepalive towards clients.
    pub(in crate::config) tcp_keepalive: Field<TcpKeepalive>,
    /// Certificates and TLS settings of a TLS listener.
    pub(in crate::config) tls: Field<Tls>,
}

/// What is spoken on a listener. UDP is not supported yet.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(in crate::config) enum Protocol {
    Tcp,
    Tls,
    Udp,
}

/// Bounds on a listener's connections. Without it there are none.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct Connection {
    /// Connections at once; 0: no limit.
    #[schemars(extend("default" = 0))]
    pub(in crate::config) limit: Field<u32>,
    /// Connections at once from one client address (IPv6: one /64 network); 0: no limit.
    #[schemars(extend("default" = 0))]
    pub(in crate::config) limit_per_source: Field<u32>,
    /// New connections per second from one client address, a second's worth of them at once; 0: no limit.
    #[schemars(range(min = 0, max = 1_000_000), extend("default" = 0))]
    pub(in crate::config) rate_per_source: Field<f64>,
    /// What happens to a connection above `limit`: it is reset, or it waits in the backlog.
    #[schemars(extend("default" = "Reset"))]
    pub(in crate::config) when_full: Field<WhenFull>,
}

/// What happens to a connection above the listener's limit.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(in crate::config) enum WhenFull {
    Reset,
    Wait,
}

/// How long things may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct Timeout {
    /// Timeouts of TCP connections.
    pub(in crate::config) tcp: Field<TcpTimeout>,
}

/// Timeouts on the client's side. 0s: never.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct TcpTimeout {
    /// A connection with no byte in either direction for this long is closed; 0s: never.
    #[schemars(extend("default" = "1h"))]
    pub(in crate::config) idle_timeout: Field<GatewayDuration>,
    /// A connection this old is closed; 0s: never.
    #[schemars(extend("default" = "0s"))]
    pub(in crate::config) max_connection_duration: Field<GatewayDuration>,
    /// Once one side has ended its stream, the other may be silent this long; 0s: for ever.
    #[schemars(extend("default" = "1m"))]
    pub(in crate::config) half_close_timeout: Field<GatewayDuration>,
    /// The TLS handshake, or peeking at the ClientHello, must end in this time.
    #[schemars(extend("default" = "10s"))]
    pub(in crate::config) tls_handshake_timeout: Field<GatewayDuration>,
}

/// TCP keepalive: how a connection whose other end has vanished is noticed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct TcpKeepalive {
    /// Silence before the first probe, in whole seconds from 1s to 32767s.
    #[schemars(extend("default" = "2m"))]
    pub(in crate::config) idle_time: Field<GatewayDuration>,
    /// Time between probes, in whole seconds from 1s to 32767s.
    #[schemars(extend("default" = "15s"))]
    pub(in crate::config) interval: Field<GatewayDuration>,
    /// Unanswered probes before the connection is closed.
    #[schemars(extend("default" = 4))]
    pub(in crate::config) probes: Field<Whole<1, 127>>,
}
