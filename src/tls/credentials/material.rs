//! From bytes to what handshakes can use, or what is wrong with them.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::OFlags;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{InconsistentKeys, RootCertStore};
use zeroize::{Zeroize, Zeroizing};

use crate::config::{AuthorityRef, CertificateRef};

use super::facts::{Facts, Fingerprint, Validity, fingerprint, next_update};
use super::{Problem, Source, chain};

/// As much as fits into a Secret.
const PEM_MAX: usize = 1024 * 1024;
/// Lists of revoked certificates, and bundles of authorities, may be long.
const LIST_MAX: usize = 32 * 1024 * 1024;
/// Certificates from the first to the authority's.
const CHAIN_MAX: usize = 16;

/// Something loaded. Cheap to clone.
#[derive(Clone)]
pub enum Material {
    Certificate(Arc<Certificate>),
    Authorities(Arc<Authorities>),
    Revocations(Arc<Revocations>),
}

/// A certificate that can be shown, with its key.
pub struct Certificate {
    pub(in crate::tls) key: Arc<CertifiedKey>,
    pub(in crate::tls) facts: Facts,
    /// Of the whole chain.
    pub(in crate::tls) fingerprint: Fingerprint,
}

/// Who is trusted to sign certificates.
pub struct Authorities {
    pub(in crate::tls) roots: RootCertStore,
    pub(in crate::tls) fingerprint: Fingerprint,
    not_after: Option<SystemTime>,
}

/// What authorities have called back.
pub struct Revocations {
    pub(in crate::tls) lists: Vec<CertificateRevocationListDer<'static>>,
    pub(in crate::tls) fingerprint: Fingerprint,
    next_update: Option<SystemTime>,
}

impl Material {
    /// Reads what is in files, or belongs to the system.
    ///
    /// # Errors
    /// It cannot be read, or used.
    pub fn read(source: &Source) -> Result<Self, Problem> {
        match source {
            Source::Certificate(CertificateRef::Files { certificate, key }) => {
                let (chain, bytes) = (read(certificate, PEM_MAX)?, read(key, PEM_MAX)?);
                let signing = signing_key(&bytes).map_err(|problem| problem.within(key.display()));
                Self::pair(certificates(&chain)?, signing?)
            }
            Source::Authorities(AuthorityRef::File(file)) => Self::authorities(&read(file, LIST_MAX)?),
            Source::Revocations(file) => Self::revocations(&read(file, LIST_MAX)?),
            Source::SystemAuthorities => Self::system(),
            Source::Certificate(CertificateRef::Secret(_)) | Source::Authorities(_) => {
                Err(Problem::missing("the cluster has not told yet"))
            }
        }
    }

    /// A certificate with the ones between it and its authority, and its key; both as PEM, as in a Secret.
    ///
    /// # Errors
    /// They cannot be used, or not together.
    pub fn certificate(chain: &[u8], key: &[u8]) -> Result<Self, Problem> {
        let chain = certificates(chain).map_err(|problem| problem.within("tls.crt"))?;
        Self::pair(chain, signing_key(key).map_err(|problem| problem.within("tls.key"))?)
    }

    fn pair(chain: Vec<CertificateDer<'static>>, key: Arc<dyn SigningKey>) -> Result<Self, Problem> {
        if chain.len() > CHAIN_MAX {
            return Err(invalid(format!("it has {} certificates; write at most {CHAIN_MAX}", chain.len())));
        }
        let first = chain.first().and_then(|first| Facts::of(first));
        let facts = first.ok_or_else(|| invalid("its first certificate cannot be read; make it anew"))?;
        let fingerprint = fingerprint(chain.iter().map(|certificate| &**certificate));
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                return Err(mismatched(&key));
            }
            Err(error) => return Err(invalid(format!("its first certificate cannot be used: {error}"))),
        }
        chain::check(&key.cert)?;
        Ok(Self::Certificate(Arc::new(Certificate { key: Arc::new(key), facts, fingerprint })))
    }

    /// Certificates of authorities, as PEM.
    ///
    /// # Errors
    /// There is none, or one that cannot be used.
    pub fn authorities(pem: &[u8]) -> Result<Self, Problem> {
        let certificates = certificates(pem)?;
        let mut roots = RootCertStore::empty();
        for (index, certificate) in certificates.iter().enumerate() {
            roots.add(certificate.clone()).map_err(|error| {
                invalid(format!(
                    "certificate {} of {} cannot be used: {error}",
                    index + 1,
                    certificates.len()
                ))
            })?;
        }
        Ok(Self::trusting(roots, &certificates))
    }

    /// One or more lists of revoked certificates, as PEM, or one as DER.
    ///
    /// # Errors
    /// There is none, or one that cannot be used.
    pub fn revocations(bytes: &[u8]) -> Result<Self, Problem> {
        let is_der = bytes.first() == Some(&0x30);
        let lists = if is_der {
            vec![CertificateRevocationListDer::from(bytes.to_vec())]
        } else {
            let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
            lists.map_err(|error| not_pem(&error))?
        };
        if lists.is_empty() {
            return Err(invalid("there is no X509 CRL in it; write one or more as PEM, or one as DER"));
        }
        let mut first_end: Option<SystemTime> = None;
        for list in &lists {
            webpki::OwnedCertRevocationList::from_der(list)
                .map_err(|error| invalid(format!("a list in it cannot be used: {error}")))?;
            let end = next_update(list).flatten();
            first_end = [first_end, end].into_iter().flatten().min();
        }
        let fingerprint = fingerprint(lists.iter().map(|list| &**list));
        Ok(Self::Revocations(Arc::new(Revocations { lists, fingerprint, next_update: first_end })))
    }

    /// The authorities that this system trusts: those of its `ca-certificates`, or of `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR`. Not a list that is compiled in, so that who runs Sheave decides, with the means of the system.
    fn system() -> Result<Self, Problem> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // Some that no one could use are in every system's list.
        let (added, _unusable) = roots.add_parsable_certificates(found.certs.iter().cloned());
        if added > 0 {
            return Ok(Self::trusting(roots, &found.certs));
        }
        let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        Err(Problem::missing(format!(
            "there are none{why}; install ca-certificates, or name a file in SSL_CERT_FILE"
        )))
    }

    fn trusting(roots: RootCertStore, certificates: &[CertificateDer<'static>]) -> Self {
        let ends = certificates.iter().filter_map(|der| Facts::of(der).map(|facts| facts.not_after));
        Self::Authorities(Arc::new(Authorities {
            roots,
            fingerprint: fingerprint(certificates.iter().map(|certificate| &**certificate)),
            not_after: ends.min(),
        }))
    }

    pub(super) fn facts(&self) -> Option<&Facts> {
        match self {
            Self::Certificate(certificate) => Some(&certificate.facts),
            Self::Authorities(_) | Self::Revocations(_) => None,
        }
    }

    pub(super) fn not_after(&self) -> Option<SystemTime> {
        match self {
            Self::Certificate(certificate) => Some(certificate.facts.not_after),
            Self::Authorities(authorities) => authorities.not_after,
            Self::Revocations(revocations) => revocations.next_update,
        }
    }

    pub(super) fn fingerprint(&self) -> &Fingerprint {
        match self {
            Self::Certificate(certificate) => &certificate.fingerprint,
            Self::Authorities(authorities) => &authorities.fingerprint,
            Self::Revocations(revocations) => &revocations.fingerprint,
        }
    }

    pub(super) fn validity(&self, now: SystemTime) -> Validity {
        match self {
            Self::Certificate(certificate) => certificate.facts.validity(now),
            // A bundle that has one which is over has others for that reason.
            Self::Authorities(_) => Validity::Valid,
            Self::Revocations(revocations) => {
                let is_over = revocations.next_update.is_some_and(|next| now > next);
                if is_over { Validity::Expired } else { Validity::Valid }
            }
        }
    }

    /// Whether a newer one is better than any before it, even one that is over. In a list that is late there may be a certificate
    /// that the one before it did not have; besides, the others in its file may be in time.
    pub(super) fn is_always_better(&self) -> bool {
        matches!(self, Self::Revocations(_))
    }

    /// What is wrong with it now that may not be at another time.
    pub(super) fn untimely(&self, now: SystemTime) -> Option<Problem> {
        let date = |time| humantime::format_rfc3339_seconds(time).to_string();
        match (self, self.validity(now)) {
            (_, Validity::Valid) => None,
            (Self::Revocations(revocations), _) => Some(Problem::new(
                "expired",
                format!(
                    "the list of revoked certificates was to be replaced by {}, so clients whose certificates it is for \
                     are refused; write the authority's new one",
                    revocations.next_update.map(date).unwrap_or_default()
                ),
            )),
            (_, Validity::Expired) => Some(Problem::new(
                "expired",
                format!(
                    "the certificate expired at {}; renew it",
                    self.not_after().map(date).unwrap_or_default()
                ),
            )),
            (_, Validity::NotYet) => Some(Problem::new(
                "not_yet_valid",
                format!(
                    "the certificate is not valid before {}; is this host's clock right?",
                    self.facts().map(|facts| date(facts.not_before)).unwrap_or_default()
                ),
            )),
        }
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| not_pem(&error))?;
    if certificates.is_empty() {
        return Err(invalid("there is no CERTIFICATE in it; write it as PEM"));
    }
    Ok(certificates)
}

/// The first certificate is not that of the key.
fn mismatched(pair: &CertifiedKey) -> Problem {
    let is_of_key = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], Arc::clone(&pair.key)).keys_match().is_ok()
    };
    let text = match pair.cert.iter().position(is_of_key) {
        Some(at) => format!(
            "the order of the chain is wrong: the key is that of certificate {}; write that first, then its issuer, then \
             the issuer of that",
            at + 1
        ),
        None => "the key does not belong to the certificate; write both of the same pair".to_owned(),
    };
    Problem::new("mismatched", text)
}

fn signing_key(pem: &[u8]) -> Result<Arc<dyn SigningKey>, Problem> {
    let mut key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        // In either form: as PKCS #8, or with a header that says so (`Proc-Type`).
        _ if is_encrypted(pem) => {
            invalid("the key is encrypted; decrypt it (openssl pkey), its file's permissions guard it")
        }
        PemError::NoItemsFound => invalid("there is no PRIVATE KEY in it; write it as PEM"),
        error => not_pem(&error),
    })?;
    let signing = any_supported_type(&key);
    key.zeroize();
    // What the library says of a key could show some of it.
    signing.map_err(|_| {
        invalid(
            "the key cannot be used; write an RSA one of 2048 to 8192 bits, or one of ECDSA (P-256, P-384, P-521) or Ed25519",
        )
    })
}

fn is_encrypted(pem: &[u8]) -> bool {
    pem.windows(b"ENCRYPTED".len()).any(|part| part == b"ENCRYPTED")
}

fn not_pem(error: &PemError) -> Problem {
    invalid(match error {
        PemError::NoItemsFound => "there is nothing in it; write it as PEM",
        PemError::MissingSectionEnd { .. } => "the PEM text ends too early; write all of it",
        _ => "the PEM text is broken; write it anew",
    })
}

fn invalid(text: impl Into<Arc<str>>) -> Problem {
    Problem::new("invalid", text)
}

/// The whole of a file that is not longer than `most`; wiped when dropped.
fn read(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Problem::missing(format!("there is no file {}; write it", path.display())),
        ErrorKind::PermissionDenied => {
            Problem::new("unreadable", format!("{} may not be read by this user; allow it", path.display()))
        }
        _ => Problem::new("unreadable", format!("{} cannot be read: {error}", path.display())),
    };
    // Non-blocking, because opening a FIFO would wait for somebody to write to it.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Problem::new("unreadable", format!("{} is no regular file", path.display())));
    }
    // Room for all of it at once, because what a vector grows out of is not wiped.
    let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX).min(most);
    let mut bytes = Zeroizing::new(Vec::with_capacity(length + 1));
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > most {
        return Err(Problem::new("unreadable", format!("{} is longer than {most} bytes", path.display())));
    }
    Ok(bytes)
}

/// Only what is public.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(certificate) => certificate.fmt(f),
            Self::Authorities(authorities) => write!(f, "{} authorities", authorities.roots.len()),
            Self::Revocations(revocations) => write!(f, "{} lists", revocations.lists.len()),
        }
    }
}
