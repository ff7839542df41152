//! TLS of the clients' side: whole handshakes, with a certificate that the authority of the test vouches for.

use std::io;
use std::sync::{Arc, LazyLock};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Names the certificates (PEM) of those who are trusted.
const AUTHORITY: &str = "WORKLOAD_AUTHORITY";

static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let pem = std::env::var(AUTHORITY).unwrap_or_else(|_| panic!("who is trusted for TLS is in {AUTHORITY}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
});

pub(crate) async fn shake_hands(stream: TcpStream, name: &str) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::clone(&CONFIG)).connect(name, stream).await
}
