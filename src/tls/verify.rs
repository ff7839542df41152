//! Whether the other side's certificate is good: clients' and endpoints'.
//!
//! webpki says whether an authority vouches for it, and for which names. What is added here: that one of several names is
//! enough, and errors that name them.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use crate::config::{ClientValidation, ClientValidationMode, SubjectAltName, UpstreamTls};

use super::client::sources;
use super::credentials::{Credentials, Facts, Source};
use super::provider;

/// What clients' certificates are judged by. The error says what is missing.
pub(super) fn clients(
    asked: &ClientValidation,
    credentials: &Credentials,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let sources: Vec<Source> = asked.authorities.iter().cloned().map(Source::Authorities).collect();
    let roots = roots(&sources, credentials)?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider()));
    for file in &asked.crls {
        let lists = credentials.revocations(file);
        let lists = lists.ok_or_else(|| format!("file {} could not be loaded", file.display()))?;
        builder = builder.with_crls(lists.lists.iter().cloned());
    }
    if !asked.crls.is_empty() {
        // As other proxies do: an authority whose list is late may have called back anything since.
        builder = builder.enforce_revocation_expiration();
    }
    if asked.mode == ClientValidationMode::Optional {
        builder = builder.allow_unauthenticated();
    }
    let chain = builder.build().map_err(|error| error.to_string())?;
    if asked.names.is_empty() {
        return Ok(chain);
    }
    Ok(Arc::new(NamedClients { chain, names: asked.names.clone() }))
}

/// What endpoints' certificates are judged by. The error says what is missing.
pub(super) fn endpoints(
    settings: &UpstreamTls,
    credentials: &Credentials,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let roots = roots(&sources(&settings.roots), credentials)?;
    Ok(Arc::new(Endpoints { roots, names: settings.names.clone() }))
}

/// Of those that are loaded: another one that is named beside them takes nothing away while it is missing.
fn roots(sources: &[Source], credentials: &Credentials) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for authorities in sources.iter().filter_map(|source| credentials.authorities(source)) {
        roots.extend(authorities.roots.roots.iter().cloned());
    }
    match sources {
        [first, ..] if roots.is_empty() => Err(format!("{first} could not be loaded")),
        _ => Ok(roots),
    }
}

/// Clients whose certificates have one of some names.
#[derive(Debug)]
struct NamedClients {
    chain: Arc<dyn ClientCertVerifier>,
    names: Vec<SubjectAltName>,
}

impl ClientCertVerifier for NamedClients {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        has_one_of(end_entity, &self.names, Names::AreIdentities)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Endpoints whose certificates have the name that they are asked for, or one of some others in its place
/// (Gateway API, BackendTLSPolicy).
#[derive(Debug)]
struct Endpoints {
    roots: RootCertStore,
    names: Vec<SubjectAltName>,
}

impl ServerCertVerifier for Endpoints {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        if self.names.is_empty() {
            verify_server_name(&certificate, server_name)?;
        } else {
            has_one_of(end_entity, &self.names, Names::ArePatterns)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// What the DNS names in a certificate mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// An endpoint may stand for all names that a wildcard matches (RFC 6125, 6.4.3).
    ArePatterns,
    /// A client is who it is: a wildcard is nobody's name.
    AreIdentities,
}

const SPIFFE: &str = "spiffe://";

/// Whether a certificate that an authority vouches for has one of `names`.
fn has_one_of(certificate: &CertificateDer<'_>, names: &[SubjectAltName], mean: Names) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let end_entity = webpki::EndEntityCert::try_from(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let presented = Facts::of(certificate).map(|facts| facts.names).unwrap_or_default();
    let uris = presented.iter().filter(|name| matches!(name, SubjectAltName::Uri(_))).count();
    let has = |name: &SubjectAltName| match name {
        SubjectAltName::Dns(name) if mean == Names::AreIdentities => {
            end_entity.valid_dns_names().any(|presented| presented.eq_ignore_ascii_case(name))
        }
        SubjectAltName::Dns(name) => {
            ServerName::try_from(name.as_str()).is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
        }
        SubjectAltName::Ip(address) => {
            verify_server_name(&parsed, &ServerName::IpAddress((*address).into())).is_ok()
        }
        // With another one beside it, it is no SPIFFE identity (X509-SVID, 2).
        SubjectAltName::Uri(uri) if is_spiffe(uri) && uris != 1 => false,
        SubjectAltName::Uri(uri) => end_entity.valid_uri_names().any(|name| name == uri),
    };
    if names.iter().any(has) {
        return Ok(());
    }
    let error = WrongName { presented, expected: names.to_vec() };
    Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error)))))
}

fn is_spiffe(uri: &str) -> bool {
    uri.get(..SPIFFE.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SPIFFE))
}

/// It is signed by whom it should be, but for somebody else.
#[derive(Debug)]
struct WrongName {
    presented: Vec<SubjectAltName>,
    expected: Vec<SubjectAltName>,
}

/// So many are named in an error.
const NAMED: usize = 5;

impl fmt::Display for WrongName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[SubjectAltName]| {
            let named: Vec<String> = names.iter().take(NAMED).map(ToString::to_string).collect();
            let more = if names.len() > NAMED { ", ..." } else { "" };
            if named.is_empty() { "no name".to_owned() } else { named.join(", ") + more }
        };
        write!(f, "it is for {}, and subjectAltNames has {}", list(&self.presented), list(&self.expected))?;
        let is_spiffe = |name: &&SubjectAltName| matches!(name, SubjectAltName::Uri(uri) if is_spiffe(uri));
        if self.presented.iter().filter(is_spiffe).any(|name| self.expected.contains(name)) {
            f.write_str("; a certificate with a SPIFFE name may have no other URI")?;
        }
        Ok(())
    }
}

impl std::error::Error for WrongName {}
