//! How a receiver is spoken to: gRPC or HTTP, with TLS where its URL says so.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Certificate, ClientTlsConfig};

use crate::config::OtlpProtocol;

use super::TraceSettings;
use super::environment::Receiver;
use super::http::{HttpSender, Trouble};

/// What sends spans, and what then went wrong with HTTP. To be called where tokio runs.
pub(super) fn spans(settings: &TraceSettings) -> Result<(SpanExporter, Trouble), String> {
    let receiver = &settings.receiver;
    match receiver.protocol {
        OtlpProtocol::Grpc => Ok((spans_by_grpc(receiver)?, Trouble::default())),
        OtlpProtocol::HttpProtobuf => spans_by_http(receiver),
    }
}

fn spans_by_grpc(receiver: &Receiver) -> Result<SpanExporter, String> {
    let builder = SpanExporter::builder().with_tonic().with_timeout(receiver.timeout);
    let builder = builder.with_endpoint(&receiver.url);
    let builder = match grpc_tls(receiver)? {
        Some(tls) => builder.with_tls_config(tls),
        None => builder,
    };
    builder.build().map_err(|error| error.to_string())
}

fn spans_by_http(receiver: &Receiver) -> Result<(SpanExporter, Trouble), String> {
    let sender = http(receiver)?;
    let trouble = sender.trouble().clone();
    let builder = SpanExporter::builder().with_http().with_http_client(sender);
    let builder = builder.with_timeout(receiver.timeout).with_endpoint(&receiver.url);
    let protocol = opentelemetry_otlp::Protocol::HttpBinary;
    let exporter = builder.with_protocol(protocol).build().map_err(|error| error.to_string())?;
    Ok((exporter, trouble))
}

/// `None`: without TLS.
pub(super) fn grpc_tls(receiver: &Receiver) -> Result<Option<ClientTlsConfig>, String> {
    if receiver.url.starts_with("http://") {
        return Ok(None);
    }
    let tls = ClientTlsConfig::new();
    Ok(Some(match &receiver.certificate {
        Some(path) => tls.ca_certificate(Certificate::from_pem(authorities(path)?.0)),
        None => tls.with_native_roots(),
    }))
}

pub(super) fn http(receiver: &Receiver) -> Result<HttpSender, String> {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls(receiver.certificate.as_deref())?)
        .https_or_http()
        .enable_http1()
        .build();
    Ok(HttpSender::new(connector, receiver.timeout))
}

fn tls(certificate: Option<&Path>) -> Result<ClientConfig, String> {
    let roots = match certificate {
        Some(path) => authorities(path)?.1,
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// What the file of authorities holds, as it is and understood; at least one.
fn authorities(path: &Path) -> Result<(Vec<u8>, RootCertStore), String> {
    let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let authorities: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let authorities = authorities.map_err(|error| format!("{}: {error:?}", path.display()))?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(authorities);
    if added == 0 {
        return Err(format!("{}: there is no certificate in it", path.display()));
    }
    Ok((pem, roots))
}
