//! Whether the certificates of a chain belong together: who is shown one that cannot be read ends the handshake, and many
//! clients look for each one's issuer right behind it.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::tls::provider;

use super::Problem;
use super::facts::{Facts, Signed};

/// Each certificate behind the first must have issued one of those before it. That is the one right before it, or, where two
/// authorities vouch for the same issuer, one further up. One that is only there for completeness, at the end, has issued itself.
///
/// # Errors
/// Which one has not, or cannot be read.
pub(super) fn check(chain: &[CertificateDer<'_>]) -> Result<(), Problem> {
    let mut links: Vec<Link<'_>> = Vec::with_capacity(chain.len());
    for (at, certificate) in chain.iter().enumerate() {
        let number = at + 1;
        let link = Link::read(certificate).ok_or_else(|| {
            let text =
                format!("certificate {number} of the chain cannot be read; write it anew, or remove it");
            Problem::new("invalid", text)
        })?;
        if at > 0 && !links.iter().any(|before| link.has_issued(before)) {
            let text = format!(
                "certificate {number} of the chain{} has issued none of those before it; write the certificate of the key \
                 first, then its issuer, then the issuer of that, and no others",
                named(certificate)
            );
            return Err(Problem::new("invalid", text));
        }
        links.push(link);
    }
    Ok(())
}

fn named(certificate: &[u8]) -> String {
    let name = Facts::of(certificate).and_then(|facts| facts.common_name);
    name.map(|name| format!(" (CN={name})")).unwrap_or_default()
}

struct Link<'a> {
    signed: Signed<'a>,
    /// `None`: it is of the first version of X.509, as old authorities are, and nothing can be checked with its key.
    parsed: Option<EndEntityCert<'a>>,
}

impl<'a> Link<'a> {
    fn read(certificate: &'a CertificateDer<'_>) -> Option<Self> {
        let signed = Signed::of(certificate)?;
        let parsed = EndEntityCert::try_from(certificate).ok();
        let is_readable = parsed.is_some() || webpki::anchor_from_trusted_cert(certificate).is_ok();
        is_readable.then_some(Self { signed, parsed })
    }

    /// By the signature; where that is of a kind that nobody here can check, by the names. So it is with short keys of RSA,
    /// which old authorities still have: whether to trust them is for who is shown them.
    fn has_issued(&self, other: &Self) -> bool {
        let issuer = self.parsed.as_ref().filter(|_| !self.signed.has_short_rsa_key());
        let by_signature = issuer.and_then(|issuer| verify(issuer, &other.signed));
        by_signature.unwrap_or(self.signed.subject == other.signed.issuer)
    }
}

/// `None`: there is no telling.
fn verify(issuer: &EndEntityCert<'_>, signed: &Signed<'_>) -> Option<bool> {
    let algorithms = provider().signature_verification_algorithms.all.iter();
    let mut verdict = None;
    for algorithm in algorithms.filter(|algorithm| *algorithm.signature_alg_id() == *signed.algorithm) {
        match issuer.verify_signature(*algorithm, signed.bytes, signed.signature) {
            Ok(()) => return Some(true),
            // The same signature with a key of another kind is another algorithm.
            Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
            Err(_) => verdict = Some(false),
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::credentials::tests::{Wanted, authority, below};
    use crate::tls::{Material, Problem};

    fn load(chain: &[&str], key: &str) -> Result<(), String> {
        let loaded = Material::certificate(chain.concat().as_bytes(), key.as_bytes());
        loaded.map(|_| ()).map_err(|Problem { text, .. }| text.to_string())
    }

    #[test]
    fn each_certificate_has_issued_one_before_it() {
        let (root, root_certificate) = authority("root");
        let root_certificate = root_certificate.pem();
        let (middle, middle_certificate) = below("middle", &root);
        let (_, stranger) = below("stranger", &root);
        let (leaf, key) = Wanted::dns(&["a.example"]).by(&middle);
        let (leaf, middle_certificate) = (leaf.as_str(), middle_certificate.as_str());
        let root_certificate = root_certificate.as_str();
        for good in [
            &[leaf][..],
            &[leaf, middle_certificate],
            &[leaf, middle_certificate, root_certificate],
            // Of the same key, by whom nobody here knows: another way to another authority.
            &[leaf, middle_certificate, middle_certificate],
        ] {
            assert_eq!(load(good, &key), Ok(()), "{good:?}");
        }
        // Somebody else's, of the same name.
        let (_, impostor) = below("middle", &authority("root").0);
        for (wrong, expected) in [
            (&[leaf, &stranger][..], "certificate 2 of the chain (CN=stranger) has issued none"),
            (
                &[leaf, root_certificate, middle_certificate],
                "certificate 2 of the chain (CN=root) has issued",
            ),
            (&[leaf, middle_certificate, &stranger], "certificate 3 of the chain (CN=stranger)"),
            (&[leaf, &impostor], "certificate 2 of the chain (CN=middle)"),
            (
                &[middle_certificate, leaf],
                "the order of the chain is wrong: the key is that of certificate 2",
            ),
        ] {
            let error = load(wrong, &key).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn every_certificate_is_read() {
        let (root, _) = authority("root");
        let (leaf, key) = Wanted::dns(&["a.example"]).by(&root);
        // PEM around five bytes; and a certificate that is cut, inside of whole PEM.
        let garbage = "-----BEGIN CERTIFICATE-----\nAAECAwQ=\n-----END CERTIFICATE-----\n";
        assert!(
            load(&[&leaf, garbage], &key).unwrap_err().contains("certificate 2 of the chain cannot be read")
        );
        assert!(load(&[garbage, &leaf], &key).unwrap_err().contains("first certificate cannot be read"));
    }

    #[test]
    fn an_authority_with_a_short_key_is_judged_by_names() {
        let old = pem(OLD_AUTHORITY);
        let (leaf, issuer) = (pem(BELOW_IT), Link::read(&old).unwrap());
        assert!(issuer.has_issued(&Link::read(&leaf).unwrap()));
        let (_, other) = authority("other");
        assert!(!issuer.has_issued(&Link::read(other.der()).unwrap()));
        assert!(issuer.signed.has_short_rsa_key() && !Link::read(&leaf).unwrap().signed.has_short_rsa_key());
    }

    /// By `openssl req -x509 -newkey rsa:1024 -days 36500`: nothing else here makes such keys any more.
    const OLD_AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIB+jCCAWOgAwIBAgIUdfyd04MBVpL2E4OdFQla6CV3NwAwDQYJKoZIhvcNAQEL
BQAwDjEMMAoGA1UEAwwDb2xkMCAXDTI2MTEyODA2NDI0OVoYDzIxMjYxMTA0MDY0
MjQ5WjAOMQwwCgYDVQQDDANvbGQwgZ8wDQYJKoZIhvcNAQEBBQADgY0AMIGJAoGB
AMDBeq+ywAv76ofH/5GNwtmVdNacJTRfCEekcaBBGLmfaguQXp2qNu9fb+iySPjA
C1MUsknWrdFMFHadCjM/l6Nc/1KNUZakWORmFbU5KKwY4Y2SOKQO6Vji0AzPvk1+
VosaRbQ0DnGKjG2Y3igHJv34aabwHrh7GikqY2n2rYg/AgMBAAGjUzBRMB0GA1Ud
DgQWBBT/e8rxWVjELifx3hE79piPn5gy7TAfBgNVHSMEGDAWgBT/e8rxWVjELifx
3hE79piPn5gy7TAPBgNVHRMBAf8EBTADAQH/MA0GCSqGSIb3DQEBCwUAA4GBAGEE
7zt8r6C9nYkozDbQBFQEesbe+U4acVYqQOo9fs+ssDpsZMGQcN96E3tAx81wu1wS
0zL/s5UtBZLxtnl1QXI4woRRQE7gSSX1pXZjATRdTLmxhP+XDxRff8VI1pl4KMVN
x+yC0Me7SbFD9idsivIRje7bn4isxh9bV7i+jQpM
-----END CERTIFICATE-----
";
    const BELOW_IT: &str = "\
-----BEGIN CERTIFICATE-----
MIIBvjCCASegAwIBAgIUA1QhIpoA+KUNchLoEKPS1stkE04wDQYJKoZIhvcNAQEL
BQAwDjEMMAoGA1UEAwwDb2xkMCAXDTI2MTEyODA2NDI0OVoYDzIxMjYxMTA0MDY0
MjQ5WjAUMRIwEAYDVQQDDAlhLmV4YW1wbGUwWTATBgcqhkjOPQIBBggqhkjOPQMB
BwNCAASswmYsu4Ci84QzQj57slc0/WU3NC8pYLwsAT7ogRbTb7Pr3t12QTGwevH8
EUxvL0X9so+GTbWCna6pZoBT2zjHo1gwVjAUBgNVHREEDTALgglhLmV4YW1wbGUw
HQYDVR0OBBYEFIeE6IC1xLENQFkkXMbqDLwtwI69MB8GA1UdIwQYMBaAFP97yvFZ
WMQuJ/HeETv2mI+fmDLtMA0GCSqGSIb3DQEBCwUAA4GBAEW5GO5LrvzXdmpGm4fd
vOyqR1lNOTlbgAGvUTP/eZ78n4c00cBvnrsI90niRgxcjsLwSI5g3xIg+F+j5yAo
vGZb6swwuqYcnyfRFivmNJr7XlOd0QMN4peABXfjFGRPiO/z3MHJSZsjv74ZzIyd
bBOZPnqihd/6AsP3TWtFJMbL
-----END CERTIFICATE-----
";

    #[test]
    fn a_signature_of_an_unknown_kind_is_judged_by_names() {
        let (root, certificate) = authority("root");
        let (leaf, _) = Wanted::dns(&["a.example"]).by(&root);
        let leaf = pem(&leaf);
        let mut link = Link::read(&leaf).unwrap();
        let issuer = Link::read(certificate.der()).unwrap();
        assert!(issuer.has_issued(&link) && !link.has_issued(&issuer));
        link.signed.algorithm = b"no such";
        assert!(issuer.has_issued(&link));
        link.signed.issuer = b"another";
        assert!(!issuer.has_issued(&link));
    }

    fn pem(text: &str) -> CertificateDer<'static> {
        use rustls::pki_types::pem::PemObject;
        CertificateDer::from_pem_slice(text.as_bytes()).unwrap()
    }
}
