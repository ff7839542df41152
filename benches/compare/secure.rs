//! TLS of the client, and the certificate that every proxy presents to it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::cases::Layer;
use crate::error::{Context, Error, Result};
use crate::guard;

/// The name in the certificate and in the client's SNI.
pub(super) const HOSTNAME: &str = "bench.test";

/// The certificate's files.
pub(super) struct Credentials {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// Certificate and key in one, as haproxy wants them.
    pub(super) both: PathBuf,
    roots: Arc<RootCertStore>,
}

/// How a client speaks.
#[derive(Clone)]
pub(super) enum Speech {
    Plain,
    Tls(Arc<ClientConfig>),
    /// A ClientHello that the proxy routes by and passes on, and plain bytes after it: what TLS itself costs is between client
    /// and backend, who share a core.
    Hello(Arc<[u8]>),
}

/// The client in every layer that is measured.
#[derive(Default)]
pub(super) struct Voices {
    tls: Option<Speech>,
    resumed: Option<Speech>,
    hello: Option<Speech>,
}

impl Voices {
    /// Without credentials there are plain connections only.
    pub(super) fn of(credentials: Option<&Credentials>) -> Result<Self> {
        let Some(credentials) = credentials else { return Ok(Self::default()) };
        Ok(Self {
            tls: Some(Speech::Tls(credentials.client(false)?)),
            resumed: Some(Speech::Tls(credentials.client(true)?)),
            hello: Some(Speech::Hello(credentials.hello()?)),
        })
    }

    pub(super) fn in_layer(&self, layer: Layer) -> Result<Speech> {
        let speech = match layer {
            Layer::Plain | Layer::Many => return Ok(Speech::Plain),
            Layer::Tls => &self.tls,
            Layer::TlsResumed => &self.resumed,
            Layer::Sni => &self.hello,
        };
        speech.clone().ok_or_else(|| Error::new("TLS was not prepared"))
    }

    /// The first bytes of a client of TLS.
    pub(super) fn hello(&self) -> Result<&[u8]> {
        match &self.hello {
            Some(Speech::Hello(hello)) => Ok(hello),
            _ => Err(Error::new("TLS was not prepared")),
        }
    }
}

impl Credentials {
    /// A self-signed P-256 certificate for [`HOSTNAME`].
    pub(super) fn make() -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("make a key")?;
        let params = CertificateParams::new([HOSTNAME.to_owned()]).context("make a certificate")?;
        let certificate = params.self_signed(&key).context("make a certificate")?;
        let (certificate_pem, key_pem) = (certificate.pem(), key.serialize_pem());
        let write = |name: &str, text: String| {
            let file = guard::directory()?.join(name);
            fs::write(&file, text).context(file.display())?;
            Ok(file)
        };
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).context("trust the certificate")?;
        Ok(Self {
            both: write("bench-both.pem", format!("{certificate_pem}{key_pem}"))?,
            certificate: write("bench.crt", certificate_pem)?,
            key: write("bench.key", key_pem)?,
            roots: Arc::new(roots),
        })
    }

    /// TLS 1.3 with the one key exchange that all peers have. With `resumes`, sessions are taken up again where they can be.
    pub(super) fn client(&self, resumes: bool) -> Result<Arc<ClientConfig>> {
        let provider =
            CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).context("client's TLS")?;
        let mut config = builder.with_root_certificates(Arc::clone(&self.roots)).with_no_client_auth();
        config.resumption = if resumes { Resumption::in_memory_sessions(64) } else { Resumption::disabled() };
        Ok(Arc::new(config))
    }

    /// The first bytes of such a client, as they are.
    pub(super) fn hello(&self) -> Result<Arc<[u8]>> {
        let mut hello = Vec::new();
        connection(&self.client(false)?)?.write_tls(&mut hello).context("make a ClientHello")?;
        Ok(hello.into())
    }
}

pub(super) fn connection(config: &Arc<ClientConfig>) -> Result<ClientConnection> {
    let name = HOSTNAME.try_into().context("the client's SNI")?;
    ClientConnection::new(Arc::clone(config), name).context("the client's TLS")
}
