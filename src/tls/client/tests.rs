//! Handshakes between an upstream's settings and an endpoint, in memory.

use rcgen::SanType;
use rustls::HandshakeKind;

use super::*;
use crate::config::{AuthorityRef, CertificateRef, SubjectAltName};
use crate::tls::credentials::tests::{Wanted, authority, material, secret, with_certificates};
use crate::tls::server::tests::{asking, settings as listener, shake_with, take};
use crate::tls::{Material, ServerSide};

fn settings(hostname: &str, names: &[SubjectAltName]) -> UpstreamTls {
    let ca = AuthorityRef::File("/ca".into());
    UpstreamTls {
        roots: Roots::Authorities(vec![ca]),
        hostname: ServerNameText::Dns(hostname.into()),
        names: names.to_vec(),
        client_certificate: None,
    }
}

/// Credentials with an authority, and an endpoint with a certificate of it.
fn endpoint(names: &Wanted) -> (Credentials, Arc<ServerSide>) {
    let (issuer, ca) = authority("ca");
    let pair = names.by(&issuer);
    let own = with_certificates(&[("endpoint", &pair)]);
    let server = ServerSide::new(&"e".into(), &listener(&["endpoint"]), &own, None);
    let mut credentials = Credentials::default();
    let source = Source::Authorities(AuthorityRef::File("/ca".into()));
    take(&mut credentials, &source, Material::authorities(ca.pem().as_bytes()).unwrap());
    (credentials, server)
}

fn connect(client: &ClientSide, server: &ServerSide) -> Result<HandshakeKind, String> {
    let name = client.server_name().unwrap().clone();
    let (client, _) = shake_with(client.config().unwrap(), name, server)?;
    Ok(client.handshake_kind().unwrap())
}

#[test]
fn an_endpoint_must_have_the_name_or_one_of_those_in_its_place() {
    let mut wanted = Wanted::dns(&["pg.db.svc"]);
    wanted.names.push(SanType::URI("spiffe://cluster.local/ns/db/sa/pg".try_into().unwrap()));
    wanted.names.push(SanType::IpAddress("10.0.0.7".parse().unwrap()));
    let (credentials, server) = endpoint(&wanted);
    let result = |settings: &UpstreamTls| connect(&ClientSide::new(settings, &credentials, None), &server);
    let full = Ok(HandshakeKind::Full);
    assert_eq!(result(&settings("pg.db.svc", &[])), full);
    let error = result(&settings("other.db.svc", &[])).unwrap_err();
    assert!(error.contains("other.db.svc") && error.contains("pg.db.svc"), "{error}");
    let mut by_address = settings("", &[]);
    by_address.hostname = ServerNameText::Ip("10.0.0.7".parse().unwrap());
    assert_eq!(result(&by_address), full);
    by_address.hostname = ServerNameText::Ip("10.0.0.8".parse().unwrap());
    assert!(result(&by_address).is_err());

    let spiffe = SubjectAltName::Uri("spiffe://cluster.local/ns/db/sa/pg".into());
    let no_one = SubjectAltName::Dns("nobody.example".into());
    assert_eq!(
        result(&settings("other.db.svc", &[no_one.clone(), spiffe])),
        full,
        "the hostname is SNI only"
    );
    let error = result(&settings("pg.db.svc", &[no_one])).unwrap_err();
    assert!(error.contains("subjectAltNames has nobody.example"), "{error}");
}

#[test]
fn an_endpoint_of_another_authority_is_refused() {
    let (_, server) = endpoint(&Wanted::dns(&["pg.db.svc"]));
    let (credentials, _) = endpoint(&Wanted::dns(&["pg.db.svc"]));
    let client = ClientSide::new(&settings("pg.db.svc", &[]), &credentials, None);
    let error = connect(&client, &server).unwrap_err();
    assert!(error.contains("its certificate is not good"), "{error}");
    let system = UpstreamTls { roots: Roots::System, ..settings("pg.db.svc", &[]) };
    let client = ClientSide::new(&system, &credentials, None);
    assert_eq!(client.problem(), Some("the system's authorities could not be loaded"));
    assert!(client.config().is_none() && client.server_name().is_none());
}

#[test]
fn handshakes_are_resumed_until_something_changes() {
    let (mut credentials, server) = endpoint(&Wanted::dns(&["pg.db.svc"]));
    let settings = settings("pg.db.svc", &[]);
    let client = ClientSide::new(&settings, &credentials, None);
    assert_eq!(connect(&client, &server), Ok(HandshakeKind::Full));
    let again = ClientSide::new(&settings, &credentials, Some(&client));
    assert!(Arc::ptr_eq(&client, &again));
    assert_eq!(connect(&again, &server), Ok(HandshakeKind::Resumed));
    let source = Source::Authorities(AuthorityRef::File("/ca".into()));
    let other = Material::authorities(authority("other").1.pem().as_bytes()).unwrap();
    take(&mut credentials, &source, other);
    let changed = ClientSide::new(&settings, &credentials, Some(&again));
    assert!(connect(&changed, &server).is_err(), "what was dropped is not trusted for having been");
}

#[test]
fn an_endpoint_is_shown_the_client_certificate() {
    let ((issuer, ca), (clients, clients_ca)) = (authority("ca"), authority("clients"));
    let own = Wanted::dns(&["sheave.example"]).by(&clients);
    let mut credentials = with_certificates(&[("endpoint", &Wanted::dns(&["pg.db.svc"]).by(&issuer))]);
    let authorities = Source::Authorities(crate::tls::server::tests::clients_ca());
    take(&mut credentials, &authorities, Material::authorities(clients_ca.pem().as_bytes()).unwrap());
    let mut asks = listener(&["endpoint"]);
    asks.client_validation = asking(crate::config::ClientValidationMode::Require, Vec::new(), &[]);
    let server = ServerSide::new(&"e".into(), &asks, &credentials, None);

    let source = Source::Authorities(AuthorityRef::File("/ca".into()));
    take(&mut credentials, &source, Material::authorities(ca.pem().as_bytes()).unwrap());
    let mut settings = settings("pg.db.svc", &[]);
    let without = ClientSide::new(&settings, &credentials, None);
    assert!(connect(&without, &server).is_err());
    let of: CertificateRef = secret("own");
    settings.client_certificate = Some(of.clone());
    let missing = ClientSide::new(&settings, &credentials, None);
    assert_eq!(missing.problem(), Some("its client certificate could not be loaded"));
    let as_before = ClientSide::new(&settings, &credentials, Some(&without));
    assert_eq!(as_before.problem(), None, "endpoints that do not ask for it are not lost");
    take(&mut credentials, &Source::Certificate(of), material(&own).unwrap());
    let with = ClientSide::new(&settings, &credentials, Some(&as_before));
    assert_eq!(connect(&with, &server), Ok(HandshakeKind::Full));
    settings.client_certificate = Some(secret("renamed"));
    let Roots::Authorities(authorities) = &mut settings.roots else { panic!() };
    authorities.push(AuthorityRef::File("/missing".into()));
    let renamed = ClientSide::new(&settings, &credentials, Some(&with));
    assert_eq!(connect(&renamed, &server), Ok(HandshakeKind::Full), "the one before it is shown");
}
