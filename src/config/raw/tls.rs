//! What listeners, routes and upstreams may say about TLS.

use schemars::JsonSchema;
use serde::Deserialize;

use super::field::{Field, List};
use crate::config::scalar::{AlpnName, FilePath};
use crate::config::{ObjectRef, ServerNameText, SubjectAltName};

/// TLS settings of a listener.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct Tls {
    /// Decrypt here, or route by server name and pass the encrypted bytes through; a route may say otherwise.
    #[schemars(extend("default" = "Terminate"))]
    pub(in crate::config) mode: Field<TlsMode>,
    /// The most specific name that matches the SNI wins; the first is the default. Empty where no route terminates.
    pub(in crate::config) certificate_refs: List<CertificateRef>,
    /// The oldest TLS version that is accepted.
    #[schemars(extend("default" = "1.2"))]
    pub(in crate::config) min_version: Field<TlsVersion>,
    /// The newest TLS version that is accepted.
    #[schemars(extend("default" = "1.3"))]
    pub(in crate::config) max_version: Field<TlsVersion>,
    /// Application protocols that are offered, in order of preference.
    #[schemars(extend("default" = []))]
    pub(in crate::config) alpn_protocols: List<AlpnName>,
    /// A plaintext negotiation that comes before TLS.
    #[schemars(extend("default" = "none"))]
    pub(in crate::config) start_tls: Field<StartTls>,
    /// Ask clients for certificates. Without it they are not asked.
    pub(in crate::config) client_validation: Field<ClientValidation>,
}

/// Where TLS ends.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(in crate::config) enum TlsMode {
    Terminate,
    Passthrough,
}

/// A version of TLS, in quotes.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(in crate::config) enum TlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// A plaintext negotiation that comes before TLS.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum StartTls {
    None,
    Postgres,
}

/// A certificate and its key: a Secret, or files.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct CertificateRef {
    /// namespace/name of a Secret of type kubernetes.io/tls.
    pub(in crate::config) secret: Field<ObjectRef>,
    /// PEM files, read again when they change.
    pub(in crate::config) file: Field<CertificateFile>,
}

/// PEM files of a certificate.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["certificate", "key"]))]
pub(in crate::config) struct CertificateFile {
    /// Path of the certificate chain: the leaf first, then each one's issuer.
    pub(in crate::config) certificate: Field<FilePath>,
    /// Path of the private key.
    pub(in crate::config) key: Field<FilePath>,
}

/// Asking clients for certificates.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["caCertificateRefs"]))]
pub(in crate::config) struct ClientValidation {
    /// Whether a client without a certificate is turned away.
    #[schemars(extend("default" = "Require"))]
    pub(in crate::config) mode: Field<ClientValidationMode>,
    /// Authorities whose certificates are accepted.
    pub(in crate::config) ca_certificate_refs: List<CaCertificateRef>,
    /// Names of which a certificate must have one, to the letter; empty: any.
    #[schemars(extend("default" = []))]
    pub(in crate::config) subject_alt_names: List<SubjectAltName>,
    /// Paths of certificate revocation lists: one of each issuer, from the client's certificate up to its authority.
    #[schemars(extend("default" = []))]
    pub(in crate::config) crl: List<FilePath>,
}

/// Whether a client without a certificate is turned away.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(in crate::config) enum ClientValidationMode {
    Require,
    Optional,
}

/// Where a certificate authority's certificates are; one of the fields.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct CaCertificateRef {
    /// namespace/name of a ConfigMap with a key ca.crt.
    pub(in crate::config) config_map: Field<ObjectRef>,
    /// namespace/name of a Secret with a key ca.crt.
    pub(in crate::config) secret: Field<ObjectRef>,
    /// Path of a PEM file.
    pub(in crate::config) file: Field<FilePath>,
}

/// Where TLS of a route's connections ends.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(in crate::config) struct RouteTls {
    /// Decrypt here, or pass the encrypted bytes through; absent: what the listener says.
    pub(in crate::config) mode: Field<TlsMode>,
}

/// Speaking TLS to endpoints.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["validation"]))]
pub(in crate::config) struct UpstreamTls {
    /// How endpoints' certificates are checked.
    pub(in crate::config) validation: Field<TlsValidation>,
    /// The certificate that Sheave shows.
    pub(in crate::config) client_certificate_ref: Field<CertificateRef>,
}

/// How endpoints' certificates are checked: by `caCertificateRefs` or by `wellKnownCACertificates`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["hostname"]))]
pub(in crate::config) struct TlsValidation {
    /// Authorities whose certificates are accepted.
    pub(in crate::config) ca_certificate_refs: List<CaCertificateRef>,
    /// Or those that this system trusts.
    #[serde(rename = "wellKnownCACertificates")]
    pub(in crate::config) well_known_ca_certificates: Field<WellKnownCaCertificates>,
    /// The name that is sent as SNI and that the certificate must have.
    pub(in crate::config) hostname: Field<ServerNameText>,
    /// Other names, of which the certificate must have one instead.
    #[schemars(extend("default" = []))]
    pub(in crate::config) subject_alt_names: List<SubjectAltName>,
}

/// Authorities that need no reference.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(in crate::config) enum WellKnownCaCertificates {
    System,
}
