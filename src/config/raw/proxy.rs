//! The PROXY protocol: headers that come in, and those that go out.

use schemars::JsonSchema;
use serde::Deserialize;

use super::field::{Field, List};
use crate::config::scalar::Network;

/// The PROXY protocol header that a load balancer in front may send.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct ProxyProtocol {
    /// Whether a connection starts with the header.
    #[schemars(extend("default" = "Off"))]
    pub(in crate::config) mode: Field<ProxyProtocolMode>,
    /// Networks whose headers are believed; with any mode but Off there must be one.
    #[schemars(extend("default" = []))]
    pub(in crate::config) trusted: List<Network>,
}

/// Whether a connection starts with a PROXY protocol header.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(in crate::config) enum ProxyProtocolMode {
    Off,
    Require,
    Optional,
}

/// Sending a PROXY protocol header to endpoints.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct UpstreamProxyProtocol {
    /// Text (V1) or binary (V2).
    #[schemars(extend("default" = "V2"))]
    pub(in crate::config) version: Field<ProxyProtocolVersion>,
    /// What a V2 header says besides the addresses; V1 has no room for it.
    #[schemars(extend("default" = []))]
    pub(in crate::config) tlvs: List<Tlv>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(in crate::config) enum ProxyProtocolVersion {
    V1,
    V2,
}

/// What a PROXY protocol V2 header says besides the addresses.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum Tlv {
    Authority,
    Alpn,
    UniqueId,
    Traceparent,
    Tls,
}
