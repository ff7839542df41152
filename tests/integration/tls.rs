//! TLS on both sides of a connection.

mod cuts;
mod endpoints;
mod passthrough;
mod programs;
mod protocols;
mod refusals;
mod scan;
mod shared;
mod terminate;

use serde_json::Value;

use crate::support::{Authority, Certificate, Driver, Endpoint, Proxy, Settings};

/// Settings in which the listener shows this certificate, and in front of an endpoint of plain TCP.
fn terminating(driver: Driver, certificate: &Certificate, endpoint: &Endpoint) -> Settings {
    Settings::new(driver, &[endpoint.address]).listener(&format!(
        "protocol: TLS, tls: {{mode: Terminate, certificateRefs: [{}]}}",
        certificate.reference()
    ))
}

/// Settings in which endpoints are spoken to in TLS, as `name`.
fn encrypting(driver: Driver, authority: &Authority, name: &str, endpoints: &[&Endpoint]) -> Settings {
    let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
    Settings::new(driver, &addresses).upstream(&format!(
        "tls: {{validation: {{caCertificateRefs: [{{file: {}}}], hostname: {name}}}}}",
        authority.file().display()
    ))
}

fn assert_ended(proxy: &Proxy, outcome: &str, received: u64, sent: u64) -> Value {
    let record = proxy.record();
    assert_eq!(record["outcome"], outcome, "{record}");
    let bytes = (record["bytes_received"].as_u64(), record["bytes_sent"].as_u64());
    assert_eq!(bytes, (Some(received), Some(sent)), "{record}");
    record
}
