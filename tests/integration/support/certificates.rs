//! An authority of a test's own, and certificates that it vouches for, as files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Its files go with it.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

/// PEM files.
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::new([]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.distinguished_name.push(DnType::CommonName, "an authority of a test");
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.crt"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    /// The authority's own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// A certificate for these names (DNS names and addresses; the first is its common name, too).
    pub(crate) fn certify(&self, names: &[&str]) -> Certificate {
        self.certify_until(names, 2100)
    }

    /// The same, good until that year begins.
    pub(crate) fn certify_until(&self, names: &[&str], year: i32) -> Certificate {
        self.certify_with(names, |parameters| parameters.not_after = rcgen::date_time_ymd(year, 1, 1))
    }

    /// The same, good for so long from now on.
    pub(crate) fn certify_for(&self, names: &[&str], time: Duration) -> Certificate {
        self.certify_with(names, |parameters| parameters.not_after = (SystemTime::now() + time).into())
    }

    /// The same, of a key of RSA.
    pub(crate) fn certify_rsa(&self, names: &[&str]) -> Certificate {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        self.certify_key(key, names, |_| {})
    }

    /// One that is for no name, and has this common name.
    pub(crate) fn certify_nameless(&self, common_name: &str) -> Certificate {
        self.certify_with(&[common_name], |parameters| parameters.subject_alt_names.clear())
    }

    fn certify_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        self.certify_key(KeyPair::generate().unwrap(), names, change)
    }

    fn certify_key(
        &self,
        key: KeyPair,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names.clone()).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, names[0].clone());
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        change(&mut parameters);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let file = |end: &str| self.directory.path().join(format!("{}.{end}", names[0]));
        let files = Certificate { certificate: file("crt"), key: file("key") };
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    /// The authority's list of certificates that are called back, in place of the one before it.
    pub(crate) fn revoke(&self, certificates: &[&Certificate]) -> PathBuf {
        let revoked = certificates.iter().map(|certificate| {
            let first = certificate.load().0.swap_remove(0);
            let serial = webpki::EndEntityCert::try_from(&first).unwrap().serial().to_vec();
            RevokedCertParams {
                serial_number: serial.into(),
                revocation_time: rcgen::date_time_ymd(2021, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }
        });
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2021, 1, 1),
            next_update: rcgen::date_time_ymd(2100, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let (file, next) = (self.directory.path().join("crl.pem"), self.directory.path().join("crl.next"));
        std::fs::write(&next, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        std::fs::rename(&next, &file).unwrap();
        file
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// Of clients that trust this authority.
    pub(crate) fn client(&self) -> ClientConfig {
        ClientConfig::builder().with_root_certificates(self.roots()).with_no_client_auth()
    }

    /// Of clients that trust this authority, and show this certificate.
    pub(crate) fn client_with(&self, certificate: &Certificate) -> ClientConfig {
        let (chain, key) = certificate.load();
        let builder = ClientConfig::builder().with_root_certificates(self.roots());
        builder.with_client_auth_cert(chain, key).unwrap()
    }

    /// Of servers that ask for a certificate of this authority.
    pub(crate) fn server_that_asks(&self, certificate: &Certificate) -> ServerConfig {
        let clients = WebPkiClientVerifier::builder(Arc::new(self.roots())).build().unwrap();
        let (chain, key) = certificate.load();
        ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap()
    }
}

impl Certificate {
    pub(crate) fn load(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_file_iter(&self.certificate).unwrap().map(Result::unwrap).collect();
        (chain, PrivateKeyDer::from_pem_file(&self.key).unwrap())
    }

    /// As the configuration refers to it.
    pub(crate) fn reference(&self) -> String {
        format!("{{file: {{certificate: {}, key: {}}}}}", self.certificate.display(), self.key.display())
    }

    pub(crate) fn server(&self) -> ServerConfig {
        let (chain, key) = self.load();
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap()
    }
}
