//! A probe that makes a whole TLS handshake, and ends it properly.
//!
//! Endpoints that are probed so log an error for each connection that only connects. Of an upstream with `tls` the certificate
//! is checked as that of any connection is. Otherwise it is not: whether the endpoint answers is asked then, not who it is,
//! and nothing of the client's bytes ever goes over such a connection.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::tls::{ClientSide, reason};

use super::polite::Polite;
use super::probe::say_goodbye;

static CONFIG: LazyLock<Result<Arc<ClientConfig>, Error>> = LazyLock::new(config);

/// Shakes hands over `stream`, as connections of the upstream do if they speak TLS, and says goodbye.
pub(super) async fn shake_hands(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<&ClientSide>,
    by: Instant,
) -> Result<(), String> {
    let stream = match tls {
        Some(tls) => connect(stream, tls, &[]).await?,
        None => {
            let config = CONFIG.as_ref().map_err(ToString::to_string)?;
            let name = ServerName::IpAddress(address.ip().into());
            secured(stream, Arc::clone(config), name).await?
        }
    };
    say_goodbye(by, Polite::new(stream).shutdown()).await;
    Ok(())
}

/// Shakes hands over `stream` as connections of the upstream do.
pub(super) async fn connect(
    stream: TcpStream,
    tls: &ClientSide,
    alpn: &[&[u8]],
) -> Result<TlsStream<TcpStream>, String> {
    let (Some(config), Some(name)) = (tls.config(), tls.server_name()) else {
        let problem = tls.problem().unwrap_or_default();
        return Err(format!("shaking hands: {problem}"));
    };
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // Each probe is to make a whole handshake.
    config.resumption = Resumption::disabled();
    secured(stream, Arc::new(config), name.clone()).await
}

/// What the upstream's endpoints are called, if that is a name.
pub(super) fn hostname(tls: &ClientSide) -> Option<String> {
    match tls.server_name()? {
        ServerName::DnsName(name) => Some(name.as_ref().to_owned()),
        _ => None,
    }
}

async fn secured(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<TlsStream<TcpStream>, String> {
    let handshake = TlsConnector::from(config).connect(name, stream).await;
    handshake.map_err(|error| {
        let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        format!("shaking hands: {}", of_tls.map_or_else(|| error.to_string(), reason))
    })
}

fn config() -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    // Each probe is to make a whole handshake.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
