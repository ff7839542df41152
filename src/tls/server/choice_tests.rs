//! Which of several certificates is shown, and for how long.

use super::tests::{asking, client, clients_ca, fingerprint_of, server, settings, shake, shown, take};
use super::*;
use crate::config::{AuthorityRef, ClientValidationMode, ObjectRef};
use crate::tls::credentials::tests::{Wanted, authority, material, secret, with_certificates, year};
use crate::tls::{Material, Source};

#[test]
fn what_is_written_in_a_certificate_does_not_put_it_before_another() {
    let ((issuer, ca), (stranger, _)) = (authority("ca"), authority("stranger"));
    let of_one = Wanted { algorithm: &rcgen::PKCS_RSA_SHA256, ..Wanted::dns(&["a.example"]) }.by(&issuer);
    for names in [&["a.example"][..], &["b.example", "a.example"]] {
        let of_another = Wanted::dns(names).by(&stranger);
        let credentials = with_certificates(&[("one", &of_one), ("another", &of_another)]);
        let server = server(&settings(&["one", "another"]), &credentials);
        let (client, _) = shake(&Arc::new(client(&ca, None)), "a.example", &server).unwrap();
        assert_eq!(shown(&client), fingerprint_of(&of_one), "{names:?}");
    }
}

#[test]
fn a_trailing_dot_is_no_part_of_the_name() {
    let issuer = authority("ca").0;
    let pair = |name: &str| Wanted::dns(&[name]).by(&issuer);
    let (first, exact, wild) = (pair("first.example"), pair("a.example"), pair("*.shop.example"));
    let credentials = with_certificates(&[("first", &first), ("exact", &exact), ("wild", &wild)]);
    let shown = ["first", "exact", "wild"].map(|name| Shown::find(&secret(name), &credentials).unwrap());
    let by_name = ByName::new(&shown);
    for (name, expected) in [("A.example.", &exact), ("x.shop.example.", &wild), ("other.example.", &first)] {
        let named: Vec<_> = by_name.named(Some(name)).map(|shown| shown.certificate.fingerprint).collect();
        assert_eq!(named, [fingerprint_of(expected)], "{name}");
    }
}

#[test]
fn one_that_is_over_is_shown_only_for_want_of_another() {
    let (issuer, ca) = authority("ca");
    let pair = |name: &str, valid| Wanted { valid, ..Wanted::dns(&[name]) }.by(&issuer);
    // By the clock of the credentials. That of the client is the real one.
    let (first, second) = (pair("a.shop.example", (2020, 2098)), pair("a.shop.example", (2020, 2099)));
    let wild = pair("*.shop.example", (2020, 2099));
    let connect = |server: &ServerSide| {
        shown(&shake(&Arc::new(client(&ca, None)), "a.shop.example", server).unwrap().0)
    };
    for other in [&second, &wild] {
        let mut credentials = with_certificates(&[("first", &first), ("other", other)]);
        let settings = settings(&["first", "other"]);
        let before = server(&settings, &credentials);
        assert_eq!(connect(&before), fingerprint_of(&first));
        let over: Vec<_> = credentials.settle(year(2098) + std::time::Duration::from_secs(200_000));
        let is_new: Vec<bool> = over.iter().map(|(_, taken)| taken.is_new).collect();
        assert_eq!(is_new, [true, false], "{over:?}");
        let after = ServerSide::new(&"l".into(), &settings, &credentials, Some(&before));
        assert_eq!(connect(&after), fingerprint_of(other));
        assert!(credentials.settle(year(2026))[0].1.is_new, "the clock was set back");
        let again = ServerSide::new(&"l".into(), &settings, &credentials, Some(&after));
        assert_eq!(connect(&again), fingerprint_of(&first));
    }
}

#[test]
fn what_a_reload_no_longer_names_is_shown_until_its_successor_is_there() {
    let (issuer, ca) = authority("ca");
    let pair = |name: &str| Wanted::dns(&[name]).by(&issuer);
    let (a, b, next) = (pair("a.example"), pair("b.example"), pair("b.example"));
    let mut credentials = with_certificates(&[("a", &a), ("b", &b)]);
    let connect = |server: &ServerSide, name: &str| {
        shake(&Arc::new(client(&ca, None)), name, server).map(|(client, _)| shown(&client))
    };
    let mut side = server(&settings(&["a", "b"]), &credentials);
    let mut reload = |names: &[&str], credentials: &Credentials| {
        side = ServerSide::new(&"l".into(), &settings(names), credentials, Some(&side));
        Arc::clone(&side)
    };
    let renamed = reload(&["a", "b-2026"], &credentials);
    assert_eq!(connect(&renamed, "b.example"), Ok(fingerprint_of(&b)));
    // Until something of it changes the same again.
    assert!(Arc::ptr_eq(&renamed, &reload(&["a", "b-2026"], &credentials)));
    let none_is_there = reload(&["a-2026", "b-2026"], &credentials);
    assert_eq!(none_is_there.problem(), None);
    assert_eq!(connect(&none_is_there, "a.example"), Ok(fingerprint_of(&a)));
    take(&mut credentials, &Source::Certificate(secret("b-2026")), material(&next).unwrap());
    let one_is_there = reload(&["a-2026", "b-2026"], &credentials);
    assert_eq!(connect(&one_is_there, "b.example"), Ok(fingerprint_of(&next)));
    assert_eq!(connect(&one_is_there, "a.example"), Ok(fingerprint_of(&a)));
    let complete = reload(&["b-2026"], &credentials);
    assert!(connect(&complete, "a.example").is_err(), "nothing is kept once nothing is missing");
}

#[test]
fn a_certificate_that_changes_beside_a_missing_one_leaves_none_behind() {
    let (issuer, _) = authority("ca");
    let pair = || Wanted::dns(&["a.example"]).by(&issuer);
    let mut credentials = with_certificates(&[("a", &pair())]);
    let settings = settings(&["a", "missing"]);
    let mut side = server(&settings, &credentials);
    for _ in 0..3 {
        take(&mut credentials, &Source::Certificate(secret("a")), material(&pair()).unwrap());
        side = ServerSide::new(&"l".into(), &settings, &credentials, Some(&side));
        assert_eq!(side.shown.len(), 1);
    }
}

#[test]
fn an_authority_beside_others_may_be_missing_but_clients_are_never_judged_by_older_ones() {
    let ((issuer, ca), (clients, clients_certificate)) = (authority("ca"), authority("clients"));
    let mut credentials = with_certificates(&[("a", &Wanted::dns(&["a.example"]).by(&issuer))]);
    let authorities = Material::authorities(clients_certificate.pem().as_bytes()).unwrap();
    take(&mut credentials, &Source::Authorities(clients_ca()), authorities);
    let own = Wanted::dns(&["x.example"]).by(&clients);
    let mut settings = settings(&["a"]);
    settings.client_validation = asking(ClientValidationMode::Require, Vec::new(), &[]);
    let before = server(&settings, &credentials);
    let missing = AuthorityRef::Secret(ObjectRef { namespace: "edge".into(), name: "partners".into() });
    let asked = settings.client_validation.as_mut().unwrap();
    asked.authorities.push(missing.clone());
    let with_another = ServerSide::new(&"l".into(), &settings, &credentials, Some(&before));
    shake(&Arc::new(client(&ca, Some(&own))), "a.example", &with_another).unwrap();
    settings.client_validation.as_mut().unwrap().authorities = vec![missing];
    let without = ServerSide::new(&"l".into(), &settings, &credentials, Some(&before));
    assert_eq!(without.problem(), Some("Secret edge/partners could not be loaded"));
}
