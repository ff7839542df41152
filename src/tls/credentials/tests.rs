//! Certificates made here, and what becomes of good and bad ones.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm,
};

use super::*;
use crate::config::SubjectAltName;

/// An authority of this name.
pub(crate) fn authority(name: &str) -> (Issuer<'static, KeyPair>, Certificate) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (Issuer::new(params, key), certificate)
}

/// An authority of this name below another one, and its certificate.
pub(crate) fn below(name: &str, issuer: &Issuer<'static, KeyPair>) -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    (Issuer::new(params, key), certificate.pem())
}

/// What a certificate is to be.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) names: Vec<SanType>,
    pub(crate) algorithm: &'static SignatureAlgorithm,
    /// Years.
    pub(crate) valid: (i32, i32),
    pub(crate) serial: u64,
}

impl Wanted {
    pub(crate) fn dns(names: &[&str]) -> Self {
        let names = names.iter().map(|name| SanType::DnsName((*name).try_into().unwrap()));
        Self {
            names: names.collect(),
            algorithm: &rcgen::PKCS_ECDSA_P256_SHA256,
            valid: (2020, 2100),
            serial: 1,
        }
    }

    /// Its certificate and its key, as PEM.
    pub(crate) fn by(&self, issuer: &Issuer<'static, KeyPair>) -> (String, String) {
        let mut params = CertificateParams::default();
        params.subject_alt_names.clone_from(&self.names);
        params.not_before = rcgen::date_time_ymd(self.valid.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(self.valid.1, 1, 1);
        params.serial_number = Some(SerialNumber::from(self.serial));
        params.distinguished_name.push(DnType::CommonName, "one");
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// What `issuer` has called back, to be replaced in that year.
pub(crate) fn revoked(issuer: &Issuer<'static, KeyPair>, serials: &[u64], until: i32) -> String {
    let revoked = serials.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: rcgen::date_time_ymd(2021, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().pem().unwrap()
}

pub(crate) fn secret(name: &str) -> CertificateRef {
    CertificateRef::Secret(ObjectRef { namespace: "edge".into(), name: name.into() })
}

/// Credentials with these certificates, by their Secrets' names.
pub(crate) fn with_certificates(pairs: &[(&str, &(String, String))]) -> Credentials {
    let mut credentials = Credentials::default();
    credentials.expect(&pairs.iter().map(|(name, _)| Source::Certificate(secret(name))).collect());
    for (name, pair) in pairs {
        let taken = credentials.take(&Source::Certificate(secret(name)), material(pair), year(2026));
        assert_eq!(taken, Taken { is_new: true, news: None }, "{name}");
    }
    credentials
}

pub(crate) fn material((certificate, key): &(String, String)) -> Result<Material, Problem> {
    Material::certificate(certificate.as_bytes(), key.as_bytes())
}

pub(crate) fn year(year: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_557_600)
}

fn wrong(taken: &Taken) -> (&'static str, &str) {
    match &taken.news {
        Some(News::Wrong(problem)) => (problem.reason, &problem.text),
        other => panic!("{other:?}"),
    }
}

#[test]
fn facts_are_those_of_the_certificate() {
    let mut wanted = Wanted::dns(&["Db.Example.com", "*.shop.example"]);
    wanted.names.push(SanType::URI("spiffe://cluster.local/ns/shop/sa/web".try_into().unwrap()));
    wanted.names.push(SanType::IpAddress("10.0.0.7".parse().unwrap()));
    wanted.names.push(SanType::IpAddress("fd00::7".parse().unwrap()));
    wanted.valid = (2025, 2051);
    let Ok(Material::Certificate(certificate)) = material(&wanted.by(&authority("ca").0)) else { panic!() };
    let facts = &certificate.facts;
    assert_eq!(
        facts.names,
        [
            SubjectAltName::Dns("db.example.com".into()),
            SubjectAltName::Dns("*.shop.example".into()),
            SubjectAltName::Uri("spiffe://cluster.local/ns/shop/sa/web".into()),
            SubjectAltName::Ip("10.0.0.7".parse().unwrap()),
            SubjectAltName::Ip("fd00::7".parse().unwrap()),
        ]
    );
    assert_eq!(facts.common_name.as_deref(), Some("one"));
    let date = |time| humantime::format_rfc3339(time).to_string();
    assert_eq!(date(facts.not_before), "2025-01-01T00:00:00Z");
    assert_eq!(date(facts.not_after), "2051-01-01T00:00:00Z", "GeneralizedTime");
}

#[test]
fn what_is_broken_leaves_the_last_good_one_in_use() {
    let issuer = authority("ca").0;
    let good = Wanted::dns(&["a.example"]).by(&issuer);
    let other = Wanted::dns(&["a.example"]).by(&issuer);
    let source = Source::Certificate(secret("a"));
    let mut credentials = with_certificates(&[("a", &good)]);
    let serving = |credentials: &Credentials| credentials.certificate(&secret("a")).unwrap().fingerprint;
    let before = serving(&credentials);

    for (certificate, key, reason, text) in [
        (good.0.as_str(), other.1.as_str(), "mismatched", "the key does not belong to the certificate"),
        (&good.0, "", "invalid", "no PRIVATE KEY"),
        (
            &good.0,
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "invalid",
            "decrypt",
        ),
        (
            &good.0,
            "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n",
            "invalid",
            "in tls.key: the PEM",
        ),
        (
            &good.0,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "invalid",
            "in tls.key: the key cannot be used; write an RSA one of 2048",
        ),
        (
            &good.0,
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA \
             PRIVATE KEY-----\n",
            "invalid",
            "in tls.key: the key is encrypted; decrypt it",
        ),
        ("", &good.1, "invalid", "in tls.crt: there is no CERTIFICATE"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &good.1,
            "invalid",
            "cannot be read",
        ),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", &good.1, "invalid", "ends too early"),
    ] {
        let found = Material::certificate(certificate.as_bytes(), key.as_bytes());
        let taken = credentials.take(&source, found, year(2026));
        let (is, said) = wrong(&taken);
        assert_eq!(is, reason, "{said}");
        assert!(said.starts_with("Secret edge/a: ") && said.contains(text), "{said}");
        assert!(said.ends_with("; the one before it is used meanwhile"), "{said}");
        assert_eq!((taken.is_new, serving(&credentials)), (false, before));
    }
    assert_eq!(credentials.reports().next().unwrap().errors, 9);
    let again = credentials.take(&source, material(&good), year(2026));
    assert_eq!(again, Taken { is_new: false, news: Some(News::WellAgain) });
    let next = credentials.take(&source, material(&other), year(2026));
    assert_eq!(next, Taken { is_new: true, news: None });
    assert_ne!(serving(&credentials), before);
}

#[test]
fn a_certificate_of_another_time_waits_and_is_used_only_for_want_of_a_better_one() {
    let issuer = authority("ca").0;
    let pair = |valid| Wanted { valid, ..Wanted::dns(&["a.example"]) }.by(&issuer);
    let (good, expired, future) = (pair((2020, 2030)), pair((2020, 2021)), pair((2028, 2040)));
    let source = Source::Certificate(secret("a"));
    let mut credentials = with_certificates(&[("a", &good)]);

    let taken = credentials.take(&source, material(&expired), year(2026));
    assert_eq!((taken.is_new, wrong(&taken).0), (false, "expired"));
    assert!(
        wrong(&taken).1.contains("expired at 2021-01-01T00:00:00Z; renew it; the one before"),
        "{taken:?}"
    );
    let taken = credentials.take(&source, material(&future), year(2026));
    assert_eq!((taken.is_new, wrong(&taken).0), (false, "not_yet_valid"));
    assert_eq!(credentials.settle(year(2027)), [(source.clone(), Taken::default())]);
    let settled = credentials.settle(year(2029));
    assert_eq!(settled, [(source.clone(), Taken { is_new: true, news: Some(News::WellAgain) })]);
    let settled = credentials.settle(year(2041));
    assert_eq!(
        wrong(&settled[0].1),
        ("expired", "Secret edge/a: the certificate expired at 2040-01-01T00:00:00Z; renew it")
    );

    let mut first = Credentials::default();
    first.expect(&[source.clone()].into());
    let taken = first.take(&source, material(&expired), year(2026));
    assert_eq!((taken.is_new, wrong(&taken).0), (true, "expired"), "better than none");
}

#[test]
fn nothing_of_a_key_is_printed() {
    let pair = Wanted::dns(&["a.example"]).by(&authority("ca").0);
    let credentials = with_certificates(&[("a", &pair)]);
    let key = pair.1.lines().nth(1).unwrap();
    let text = format!("{credentials:?} {:?}", credentials.reports().collect::<Vec<_>>());
    assert!(!text.contains(&key[..16]) && text.contains("a.example"), "{text}");
}

#[test]
fn files_are_read_with_bounds() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let pair = Wanted::dns(&["a.example"]).by(&authority("ca").0);
    let (certificate, key) = (file("crt", pair.0.as_bytes()), file("key", pair.1.as_bytes()));
    let read = |certificate: &Path| {
        let files = CertificateRef::Files { certificate: certificate.into(), key: key.clone() };
        Material::read(&Source::Certificate(files)).map(|_| ()).map_err(|problem| problem.reason)
    };
    assert_eq!(read(&certificate), Ok(()));
    let broken = file("broken", b"-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n");
    let files = CertificateRef::Files { certificate: certificate.clone(), key: broken.clone() };
    let problem = Material::read(&Source::Certificate(files)).unwrap_err();
    assert_eq!(*problem.text, *format!("in {}: the PEM text is broken; write it anew", broken.display()));
    assert_eq!(read(&directory.path().join("none")), Err("missing"));
    assert_eq!(read(directory.path()), Err("unreadable"));
    assert_eq!(read(Path::new("/dev/zero")), Err("unreadable"));
    assert_eq!(read(&file("long", &vec![b'\n'; 1024 * 1024 + 1])), Err("unreadable"));
}

#[test]
fn lists_of_revoked_certificates_are_known_to_be_late() {
    let issuer = authority("ca").0;
    let source = Source::Revocations("/crl".into());
    let mut credentials = Credentials::default();
    credentials.expect(&[source.clone()].into());
    let list = |until| Material::revocations(revoked(&issuer, &[7], until).as_bytes());
    let taken = credentials.take(&source, list(2030), year(2026));
    assert_eq!(taken, Taken { is_new: true, news: None });
    let report = credentials.reports().next().unwrap();
    assert_eq!(humantime::format_rfc3339(report.not_after.unwrap()).to_string(), "2030-01-01T00:00:00Z");
    let settled = credentials.settle(year(2031));
    let (reason, text) = wrong(&settled[0].1);
    assert_eq!(reason, "expired");
    assert!(
        text.starts_with("file /crl: the list of revoked certificates was to be replaced by 2030-01-01"),
        "{text}"
    );
    // A newer file is taken whatever its dates: there may be more in it.
    let newer = list(2029);
    let newer_fingerprint = *newer.as_ref().unwrap().fingerprint();
    let mut in_time = credentials.clone();
    in_time.take(&source, list(2090), year(2031));
    let taken = in_time.take(&source, newer, year(2031));
    assert_eq!((taken.is_new, wrong(&taken).0), (true, "expired"));
    assert_eq!(in_time.revocations(Path::new("/crl")).unwrap().fingerprint, newer_fingerprint);
    assert!(matches!(Material::revocations(b"x"), Err(Problem { reason: "invalid", .. })));
}

#[test]
fn the_system_has_authorities() {
    let system = Material::read(&Source::SystemAuthorities);
    assert!(matches!(system, Ok(Material::Authorities(_))), "{system:?}");
}

#[test]
fn a_certificate_without_names_is_named() {
    let pair = Wanted::dns(&[]).by(&authority("ca").0);
    let text = "listeners: [{name: x, address: \"127.0.0.1:1\", protocol: TLS, tls: {certificateRefs: [{secret: edge/a}, \
                {secret: edge/b}]}}]\nroutes: [{name: r, listener: x, backendRefs: [{upstream: a}]}]\n\
                upstreams: [{name: a, endpoints: [{address: \"10.0.0.1:1\"}]}]\n";
    let config = Config::parse(text, "t.yaml").unwrap_or_else(|errors| panic!("{errors}"));
    let named = Wanted::dns(&["a.example"]).by(&authority("ca").0);
    let credentials = with_certificates(&[("a", &pair), ("b", &named)]);
    let nameless: Vec<_> = credentials.nameless(&config).into_iter().collect();
    let [(source, text)] = &nameless[..] else { panic!("{nameless:?}") };
    assert_eq!(*source, Source::Certificate(secret("a")));
    assert!(text.starts_with("Secret edge/a: the certificate has no subjectAltName, so"), "{text}");
}

#[test]
fn what_is_wrong_from_the_beginning_is_news() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (certificate, key) =
        Wanted { valid: (2020, 2021), ..Wanted::dns(&["a.example"]) }.by(&authority("ca").0);
    std::fs::write(at("tls.crt"), certificate).unwrap();
    std::fs::write(at("tls.key"), key).unwrap();
    let text = format!(
        "listeners: [{{name: x, address: \"127.0.0.1:1\", protocol: TLS, tls: {{certificateRefs: [{{file: {{certificate: \
         {:?}, key: {:?}}}}}]}}}}]\nroutes: [{{name: r, listener: x, backendRefs: [{{upstream: a}}]}}]\n\
         upstreams: [{{name: a, endpoints: [{{address: \"10.0.0.1:1\"}}]}}]\n",
        at("tls.crt"),
        at("tls.key"),
    );
    let config = Config::parse(&text, "t.yaml").unwrap_or_else(|errors| panic!("{errors}"));
    let mut credentials = Credentials::default();
    credentials.read_new(&config, year(2026)).unwrap();
    let news = credentials.problems_since(&Credentials::default());
    let [(_, Problem { reason: "expired", .. })] = &news[..] else { panic!("{news:?}") };
    assert!(credentials.problems_since(&credentials.clone()).is_empty(), "it was said");
}
