//! TLS as checked values: what listeners show and ask, which routes names lead to, how endpoints are spoken to.
//!
//! Certificates are only referred to here; who reads them is not this module's business.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use super::Name;

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Tls,
}

/// TLS settings of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Where a route does not say otherwise.
    pub mode: TlsMode,
    /// The first is the default. Empty only where no route terminates.
    pub certificates: Vec<CertificateRef>,
    pub min_version: TlsVersion,
    /// At least `min_version`.
    pub max_version: TlsVersion,
    /// Offered to clients, in order of preference; each of 1 to 255 bytes.
    pub alpn: Vec<String>,
    pub start_tls: Option<StartTls>,
    /// `None`: clients are not asked for certificates.
    pub client_validation: Option<ClientValidation>,
}

impl ListenerTls {
    /// Whether this can come to be what is spoken in TLS that ends here.
    pub fn agrees_on(&self, protocol: &str) -> bool {
        let of_postgres = self.start_tls == Some(StartTls::Postgres) && protocol == POSTGRES_ALPN;
        of_postgres || self.alpn.iter().any(|offered| offered == protocol)
    }
}

/// Where TLS ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Here.
    Terminate,
    /// At the endpoint: only the ClientHello is looked at.
    Passthrough,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// A plaintext negotiation that comes before TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartTls {
    Postgres,
}

/// What clients have to offer in ALPN that begin with TLS where they could ask for it first (PostgreSQL, 54.2.8). Agreed on in any case
/// there.
pub const POSTGRES_ALPN: &str = "postgresql";

/// An object of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    pub namespace: Name,
    pub name: Name,
}

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CertificateRef {
    /// Of type kubernetes.io/tls.
    Secret(ObjectRef),
    /// PEM files.
    Files { certificate: PathBuf, key: PathBuf },
}

/// Where the certificates of authorities are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AuthorityRef {
    /// In its key ca.crt.
    ConfigMap(ObjectRef),
    /// In its key ca.crt.
    Secret(ObjectRef),
    /// A PEM file.
    File(PathBuf),
}

/// Asking clients for certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientValidation {
    pub mode: ClientValidationMode,
    /// At least one.
    pub authorities: Vec<AuthorityRef>,
    /// A certificate must have one of these; empty: any will do.
    pub names: Vec<SubjectAltName>,
    /// Files of revoked certificates.
    pub crls: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientValidationMode {
    Require,
    /// A client without a certificate is served too; one with a wrong certificate is not.
    Optional,
}

/// A name that a certificate may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SubjectAltName {
    /// In lower case.
    Dns(String),
    /// As written: `spiffe://cluster.local/ns/shop/sa/web`.
    Uri(String),
    Ip(IpAddr),
}

/// Speaking TLS to endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    pub roots: Roots,
    /// Sent as SNI, and what the certificate must be for where `names` is empty.
    pub hostname: ServerNameText,
    /// Of these the certificate must have one in the place of `hostname`; empty: that counts.
    pub names: Vec<SubjectAltName>,
    /// What Sheave shows.
    pub client_certificate: Option<CertificateRef>,
}

/// Whose certificates are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Of those that this system trusts.
    System,
    /// At least one.
    Authorities(Vec<AuthorityRef>),
}

/// A DNS name in lower case, or an IP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerNameText {
    Dns(String),
    Ip(IpAddr),
}

impl Protocol {
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }
}

impl TlsMode {
    pub fn label(self) -> &'static str {
        match self {
            Self::Terminate => "Terminate",
            Self::Passthrough => "Passthrough",
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        })
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for CertificateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(secret) => write!(f, "Secret {secret}"),
            Self::Files { certificate, .. } => write!(f, "file {}", certificate.display()),
        }
    }
}

impl fmt::Display for AuthorityRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigMap(map) => write!(f, "ConfigMap {map}"),
            Self::Secret(secret) => write!(f, "Secret {secret}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

impl fmt::Display for SubjectAltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Uri(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

impl fmt::Display for ServerNameText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

impl ListenerTls {
    /// What it refers to of a cluster: Secrets, then ConfigMaps.
    pub fn objects(&self) -> (Vec<&ObjectRef>, Vec<&ObjectRef>) {
        let authorities = self.client_validation.iter().flat_map(|validation| &validation.authorities);
        objects(&self.certificates, authorities)
    }
}

impl UpstreamTls {
    /// What it refers to of a cluster: Secrets, then ConfigMaps.
    pub fn objects(&self) -> (Vec<&ObjectRef>, Vec<&ObjectRef>) {
        let authorities = match &self.roots {
            Roots::System => &[][..],
            Roots::Authorities(authorities) => authorities,
        };
        objects(&self.client_certificate, authorities)
    }
}

fn objects<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateRef>,
    authorities: impl IntoIterator<Item = &'a AuthorityRef>,
) -> (Vec<&'a ObjectRef>, Vec<&'a ObjectRef>) {
    let (mut secrets, mut maps) = (Vec::new(), Vec::new());
    for certificate in certificates {
        if let CertificateRef::Secret(secret) = certificate {
            secrets.push(secret);
        }
    }
    for authority in authorities {
        match authority {
            AuthorityRef::ConfigMap(map) => maps.push(map),
            AuthorityRef::Secret(secret) => secrets.push(secret),
            AuthorityRef::File(_) => {}
        }
    }
    (secrets, maps)
}
