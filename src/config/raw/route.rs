//! Which connections of a listener go to which upstreams.

use schemars::JsonSchema;
use serde::Deserialize;

use super::field::{Field, List};
use super::tls::RouteTls;
use super::whole::Whole;
use crate::config::Hostname;
use crate::config::scalar::{AlpnName, Network, ObjectName};

/// That of Gateway API.
const MAX_WEIGHT: u32 = 1_000_000;

/// Which connections of a listener go to which upstreams.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "listener", "backendRefs"]))]
pub(in crate::config) struct Route {
    /// Names the route in logs, metrics and traces.
    pub(in crate::config) name: Field<ObjectName>,
    /// The name of the listener.
    pub(in crate::config) listener: Field<ObjectName>,
    /// TLS server names: exact or *.wildcard (any depth); the most specific wins. Empty: every name.
    #[schemars(extend("default" = []))]
    pub(in crate::config) hostnames: List<Hostname>,
    /// Client networks; the most specific wins. Empty: every client.
    #[schemars(extend("default" = []))]
    pub(in crate::config) sources: List<Network>,
    /// Application protocols that TLS clients offer (ALPN), one of these. Empty: every protocol, or none.
    #[schemars(extend("default" = []))]
    pub(in crate::config) alpn_protocols: List<AlpnName>,
    /// Where TLS ends, on a TLS listener; absent: where the listener says.
    pub(in crate::config) tls: Field<RouteTls>,
    /// The upstreams that share the route's connections.
    pub(in crate::config) backend_refs: List<BackendRef>,
}

/// An upstream, and its share of a route's connections.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["upstream"]))]
pub(in crate::config) struct BackendRef {
    /// The name of the upstream.
    pub(in crate::config) upstream: Field<ObjectName>,
    /// Its share, relative to the sum of the route's weights; 0 takes no connections.
    #[schemars(extend("default" = 1))]
    pub(in crate::config) weight: Field<Whole<0, MAX_WEIGHT>>,
}
