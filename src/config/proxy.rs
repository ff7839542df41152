//! The PROXY protocol as checked values: whom to believe who the client is, and whom to tell.

use ipnet::IpNet;

/// A header that a load balancer in front sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyIn {
    pub mode: ProxyMode,
    /// Networks whose headers are believed; at least one.
    pub trusted: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// Every connection begins with a header.
    Require,
    /// Some do.
    Optional,
}

/// A header that endpoints get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyOut {
    pub version: ProxyVersion,
    /// Each once; empty with V1.
    pub tlvs: Vec<ProxyTlv>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// What a V2 header says besides the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyTlv {
    /// The name that the client asked for.
    Authority,
    Alpn,
    UniqueId,
    Traceparent,
    /// Version, cipher, and what the client's certificate says.
    Tls,
}
