//! How the receiver is spoken to: gRPC or HTTP, with TLS where its URL says so.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Certificate, ClientTlsConfig};

use crate::config::TracingProtocol;

use super::Settings;
use super::environment::Endpoint;

/// To be called where tokio runs.
pub(super) fn build(settings: &Settings) -> Result<SpanExporter, String> {
    match settings.protocol {
        TracingProtocol::Grpc => grpc(settings),
        TracingProtocol::HttpProtobuf => http(settings),
    }
}

fn grpc(settings: &Settings) -> Result<SpanExporter, String> {
    let mut builder = SpanExporter::builder().with_tonic().with_timeout(settings.timeout);
    if let Endpoint::Url(url) = &settings.endpoint {
        builder = builder.with_endpoint(url);
    }
    // One without a scheme may come to mean https (OTEL_EXPORTER_OTLP_INSECURE).
    if !settings.receiver().starts_with("http://") {
        let tls = ClientTlsConfig::new();
        builder = builder.with_tls_config(match &settings.certificate {
            Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
            None => tls.with_native_roots(),
        });
    }
    builder.build().map_err(|error| error.to_string())
}

fn http(settings: &Settings) -> Result<SpanExporter, String> {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls(settings.certificate.as_deref())?)
        .https_or_http()
        .enable_http1()
        .build();
    let client = HyperClient::new(connector, settings.timeout, None);
    let mut builder =
        SpanExporter::builder().with_http().with_http_client(client).with_timeout(settings.timeout);
    if let Endpoint::Url(url) = &settings.endpoint {
        builder = builder.with_endpoint(url);
    }
    let protocol = opentelemetry_otlp::Protocol::HttpBinary;
    builder.with_protocol(protocol).build().map_err(|error| error.to_string())
}

fn tls(certificate: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match certificate {
        Some(path) => {
            let pem = read(path)?;
            let authorities: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
            let authorities = authorities.map_err(|error| format!("{}: {error:?}", path.display()))?;
            let (added, _) = roots.add_parsable_certificates(authorities);
            if added == 0 {
                return Err(format!("{}: there is no certificate in it", path.display()));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}
