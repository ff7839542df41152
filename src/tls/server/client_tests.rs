//! Who a client is by its certificate, and until when.

use rcgen::SanType;
use rustls::pki_types::pem::PemObject;

use super::tests::{Mutual, admitted, asking, mutual, server, settings, take};
use super::*;
use crate::tls::credentials::tests::{Wanted, below, revoked, year};
use crate::tls::{Material, reason};

#[test]
fn who_a_client_is_is_no_pattern() {
    let Mutual { ca, clients, credentials } = mutual();
    let (one, two) = ("spiffe://cluster.local/ns/shop/sa/web", "spiffe://cluster.local/ns/shop/sa/db");
    let uri = |uri: &str| SanType::URI(uri.try_into().unwrap());
    let with_uris =
        |uris: &[&str]| Wanted { names: uris.iter().copied().map(uri).collect(), ..Wanted::dns(&[]) };
    let expected = |name: SubjectAltName, shown: &Wanted| {
        let mut settings = settings(&["a"]);
        settings.client_validation = asking(ClientValidationMode::Require, vec![name], &[]);
        admitted(&server(&settings, &credentials), &ca, Some(&shown.by(&clients))).map(|_| ())
    };
    let reports = || SubjectAltName::Dns("reports.example.com".into());
    assert_eq!(expected(reports(), &Wanted::dns(&["Reports.Example.com"])), Ok(()));
    for other in ["*.example.com", "a.reports.example.com", "example.com"] {
        let error = expected(reports(), &Wanted::dns(&[other])).unwrap_err();
        assert!(error.contains(&format!("it is for {other}, and")), "{error}");
    }
    let spiffe = || SubjectAltName::Uri(one.into());
    assert_eq!(expected(spiffe(), &with_uris(&[one])), Ok(()));
    for uris in [[one, two], [two, one], [one, "https://shop.example"]] {
        let error = expected(spiffe(), &with_uris(&uris)).unwrap_err();
        assert!(error.contains("a certificate with a SPIFFE name may have no other URI"), "{error}");
    }
    let other = || SubjectAltName::Uri("https://shop.example".into());
    assert_eq!(expected(other(), &with_uris(&["https://shop.example", "https://b.example"])), Ok(()));
}

#[test]
fn dates_of_live_clients_are_judged_as_of_their_handshake() {
    let Mutual { clients, mut credentials, .. } = mutual();
    let short = Wanted { valid: (2020, 2027), serial: 1, ..Wanted::dns(&["x.example"]) }.by(&clients);
    let mut settings = settings(&["a"]);
    settings.client_validation = asking(ClientValidationMode::Require, Vec::new(), &["/crl"]);
    let chain = [CertificateDer::from_pem_slice(short.0.as_bytes()).unwrap()];
    let at = |of| UnixTime::since_unix_epoch(year(of).duration_since(std::time::UNIX_EPOCH).unwrap());
    let source = Source::Revocations("/crl".into());
    let list = |serials: &[u64]| Material::revocations(revoked(&clients, serials, 2090).as_bytes()).unwrap();
    take(&mut credentials, &source, list(&[]));
    let with = server(&settings, &credentials);
    assert!(with.admits_client(&chain, at(2026)).is_ok(), "it was good then");
    let error = with.admits_client(&chain, at(2028)).unwrap_err();
    assert!(reason(&error).contains("it has expired"), "who comes now: {error}");
    take(&mut credentials, &source, list(&[1]));
    let error = server(&settings, &credentials).admits_client(&chain, at(2026)).unwrap_err();
    assert_eq!(reason(&error), "its certificate is not good: it was revoked");
}

/// As with HAProxy, nginx and Envoy.
#[test]
fn there_must_be_a_list_of_each_issuer() {
    let Mutual { ca, clients, mut credentials } = mutual();
    let (middle, middle_certificate) = below("middle", &clients);
    let (leaf, key) = Wanted::dns(&["x.example"]).by(&middle);
    let shown = (leaf + &middle_certificate, key);
    let mut settings = settings(&["a"]);
    settings.client_validation = asking(ClientValidationMode::Require, Vec::new(), &["/crl"]);
    let source = Source::Revocations("/crl".into());
    let of_both = revoked(&middle, &[], 2090) + &revoked(&clients, &[], 2091);
    for (lists, expected) in [
        (of_both, Ok(2)),
        (revoked(&middle, &[], 2090), Err("of its authority, or of one between")),
        (revoked(&clients, &[], 2090), Err("of its authority, or of one between")),
        (revoked(&middle, &[1], 2090) + &revoked(&clients, &[], 2090), Err("it was revoked")),
    ] {
        take(&mut credentials, &source, Material::revocations(lists.as_bytes()).unwrap());
        let result = admitted(&server(&settings, &credentials), &ca, Some(&shown));
        match expected {
            Ok(_) => assert_eq!(result.as_ref().ok(), expected.as_ref().ok(), "{result:?}"),
            Err(why) => assert!(result.as_ref().is_err_and(|error| error.ends_with(why)), "{result:?}"),
        }
    }
}
