//! The addresses connections are accepted on.

use schemars::JsonSchema;
use serde::Deserialize;

use super::field::{Field, Later, List, Off, off};
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
    #[schemars(extend("default" = "TCP"))]
    protocol: Field<Later<Protocol>>,
    /// The PROXY protocol header that a load balancer in front may send.
    proxy_protocol: Field<Later<ProxyProtocol>>,
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
    tls: Field<Later<Tls>>,
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(in crate::config) enum Protocol {
    Tcp,
    Tls,
    Udp,
}

impl Off for Protocol {
    const INSTEAD: &'static str = "write TCP";

    fn is_off(&self) -> bool {
        matches!(self, Self::Tcp)
    }

    fn value_name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Udp => "UDP",
        })
    }
}

/// The PROXY protocol header that a load balancer in front may send.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct ProxyProtocol {
    /// Whether a connection starts with the header.
    #[schemars(extend("default" = "Off"))]
    mode: Field<ProxyProtocolMode>,
    /// Networks whose headers are believed.
    #[schemars(extend("default" = []))]
    trusted: List<Network>,
}

/// Whether a connection starts with a PROXY protocol header.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(in crate::config) enum ProxyProtocolMode {
    Off,
    Require,
    Optional,
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
    tls_handshake_timeout: Field<Later<GatewayDuration>>,
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
    #[schemars(range(min = 1, max = 127), extend("default" = 4))]
    pub(in crate::config) probes: Field<u32>,
}

/// TLS settings of a listener.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct Tls {
    /// Decrypt here, or route by server name and pass the encrypted bytes through.
    #[schemars(extend("default" = "Terminate"))]
    mode: Field<TlsMode>,
    /// The most specific name that matches the SNI wins; the first is the default.
    certificate_refs: List<CertificateRef>,
    /// The oldest TLS version that is accepted.
    #[schemars(extend("default" = "1.2"))]
    min_version: Field<TlsVersion>,
    /// The newest TLS version that is accepted.
    #[schemars(extend("default" = "1.3"))]
    max_version: Field<TlsVersion>,
    /// Application protocols that are offered, in order of preference.
    #[schemars(extend("default" = []))]
    alpn_protocols: List<String>,
    /// A plaintext negotiation that comes before TLS.
    #[schemars(extend("default" = "none"))]
    start_tls: Field<StartTls>,
    /// Ask clients for certificates. Without it they are not asked.
    client_validation: Field<ClientValidation>,
}

/// Where TLS ends.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(in crate::config) enum TlsMode {
    Terminate,
    Passthrough,
}

/// A version of TLS, in quotes.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(in crate::config) enum TlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// A plaintext negotiation that comes before TLS.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum StartTls {
    None,
    Postgres,
}

/// A certificate and its key: a Secret, or files.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct CertificateRef {
    /// namespace/name of a Secret of type kubernetes.io/tls.
    secret: Field<String>,
    /// PEM files, read again when they change.
    file: Field<CertificateFile>,
}

/// PEM files of a certificate.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["certificate", "key"]))]
pub(in crate::config) struct CertificateFile {
    /// Path of the certificate chain, the leaf first.
    certificate: Field<String>,
    /// Path of the private key.
    key: Field<String>,
}

/// Asking clients for certificates.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct ClientValidation {
    /// Whether a client without a certificate is turned away.
    #[schemars(extend("default" = "Require"))]
    mode: Field<ClientValidationMode>,
    /// Authorities whose certificates are accepted.
    ca_certificate_refs: List<CaCertificateRef>,
    /// Names of which a certificate must have one; empty: any.
    #[schemars(extend("default" = []))]
    subject_alt_names: List<String>,
    /// Paths of certificate revocation lists.
    #[schemars(extend("default" = []))]
    crl: List<String>,
}

/// Whether a client without a certificate is turned away.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(in crate::config) enum ClientValidationMode {
    Require,
    Optional,
}

/// Where a certificate authority's certificates are; one of the fields.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct CaCertificateRef {
    /// namespace/name of a ConfigMap with a key ca.crt.
    config_map: Field<String>,
    /// namespace/name of a Secret with a key ca.crt.
    secret: Field<String>,
    /// Path of a PEM file.
    file: Field<String>,
}

off! {
    ProxyProtocol, "remove it or write mode: Off", proxy_protocol =>
        proxy_protocol.mode.get().is_none_or(|mode| matches!(mode, ProxyProtocolMode::Off));
    Tls, "remove it", _ => false;
}
