//! Receivers that are spoken to through TLS.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Certificate, ClientTlsConfig};

use crate::telemetry::otlp::environment::Receiver;

/// For gRPC; `None`: without TLS.
pub(super) fn grpc(receiver: &Receiver) -> Result<Option<ClientTlsConfig>, String> {
    if receiver.url.starts_with("http://") {
        return Ok(None);
    }
    let tls = ClientTlsConfig::new();
    Ok(Some(match &receiver.certificate {
        Some(path) => tls.ca_certificate(Certificate::from_pem(authorities(path)?.0)),
        None => tls.with_native_roots(),
    }))
}

/// For HTTP, which is told by its URL whether there is TLS.
pub(super) fn connector(receiver: &Receiver) -> Result<HttpsConnector<HttpConnector>, String> {
    let builder = HttpsConnectorBuilder::new().with_tls_config(client(receiver.certificate.as_deref())?);
    Ok(builder.https_or_http().enable_http1().build())
}

fn client(certificate: Option<&Path>) -> Result<ClientConfig, String> {
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
