//! EndpointSlices and Services that no controller makes: the test says what is in them.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::Namespace;
use super::endpoints::{PORT_NAME, service};

/// A Service without a selector, which no controller fills and kube-proxy leaves alone.
pub(crate) fn bare_service(namespace: &Namespace, name: &str) {
    namespace.apply::<Service>(bare_service_object(name));
}

pub(crate) fn bare_service_object(name: &str) -> Value {
    let mut object = service(name, &json!({"clusterIP": "None"}));
    object["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "none"});
    object
}

/// A slice of `service` whose port [`PORT_NAME`] is `port`.
pub(crate) fn slice(namespace: &Namespace, name: &str, service: &str, port: u16, endpoints: &[Value]) {
    namespace.apply::<EndpointSlice>(slice_object(name, service, port, endpoints));
}

pub(crate) fn slice_object(name: &str, service: &str, port: u16, endpoints: &[Value]) -> Value {
    let first = endpoints.first().map(|endpoint| endpoint["addresses"][0].as_str().unwrap_or_default());
    let family = match first {
        Some(address) if address.contains(':') => "IPv6",
        Some(address) if address.ends_with(|last: char| last.is_ascii_alphabetic()) => "FQDN",
        _ => "IPv4",
    };
    let labels = json!({
        "kubernetes.io/service-name": service,
        "endpointslice.kubernetes.io/managed-by": "sheave-e2e",
        "service.kubernetes.io/service-proxy-name": "none",
    });
    json!({
        "metadata": {"name": name, "labels": labels},
        "addressType": family,
        "ports": [{"name": PORT_NAME, "port": port, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// One without conditions, which counts as ready.
pub(crate) fn endpoint(address: &str) -> Value {
    json!({"addresses": [address]})
}

/// `conditions` like `{"ready": false}`.
pub(crate) fn endpoint_that_is(address: &str, conditions: &Value) -> Value {
    json!({"addresses": [address], "conditions": conditions})
}
