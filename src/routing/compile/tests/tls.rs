//! What TLS goes by in a table: the same object until something in it changes.

use std::time::SystemTime;

use super::*;
use crate::config::{
    AuthorityRef, CertificateRef, ClientValidation, ClientValidationMode, ListenerTls, ObjectRef, Protocol,
    TlsMode, TlsVersion,
};
use crate::tls::examples::{Wanted, authority};
use crate::tls::{Credentials, Material, Source};

fn object(name: &str) -> ObjectRef {
    ObjectRef { namespace: "edge".into(), name: name.into() }
}

/// A listener that shows Secret edge/web, and trusts clients of ConfigMap edge/clients.
fn terminating() -> Config {
    let mut config = config();
    config.listeners[0].protocol = Protocol::Tls;
    config.listeners[0].tls = Some(ListenerTls {
        mode: TlsMode::Terminate,
        certificates: vec![CertificateRef::Secret(object("web"))],
        min_version: TlsVersion::Tls12,
        max_version: TlsVersion::Tls13,
        alpn: Vec::new(),
        start_tls: None,
        client_validation: Some(ClientValidation {
            mode: ClientValidationMode::Require,
            authorities: vec![AuthorityRef::ConfigMap(object("clients"))],
            names: Vec::new(),
            crls: Vec::new(),
        }),
    });
    config
}

fn certificate() -> Material {
    let (certificate, key) = Wanted::dns(&["web.example"]).by(&authority("ca").0);
    Material::certificate(certificate.as_bytes(), key.as_bytes()).unwrap()
}

fn authorities() -> Material {
    Material::authorities(authority("clients").1.pem().as_bytes()).unwrap()
}

#[test]
fn a_new_certificate_is_another_object_and_new_authorities_are_another_permission() {
    let (config, now) = (terminating(), Instant::now());
    let web = Source::Certificate(CertificateRef::Secret(object("web")));
    let clients = Source::Authorities(AuthorityRef::ConfigMap(object("clients")));
    let mut findings = none();
    findings.credentials.expect(&Credentials::wanted(&config));
    let take = |findings: &mut Findings, source: &Source, material: Material| {
        assert!(findings.credentials.take(source, Ok(material), SystemTime::now()).is_new);
    };
    take(&mut findings, &web, certificate());
    take(&mut findings, &clients, authorities());
    let mut table = compile(&config, &findings, &RouteTable::empty(), now);
    let mut next = |findings: &Findings| {
        let mut next = compile(&config, findings, &table, now);
        next.succeed(&table, now);
        let tls = |table: &RouteTable| Arc::clone(table.listeners[0].tls.as_ref().unwrap());
        let (before, after) = (tls(&table), tls(&next));
        table = next;
        (Arc::ptr_eq(&before, &after), table.restrictions)
    };
    assert_eq!(next(&findings), (true, 0), "nothing has changed");
    take(&mut findings, &web, certificate());
    assert_eq!(next(&findings), (false, 0), "the same clients may connect");
    take(&mut findings, &clients, authorities());
    assert_eq!(next(&findings), (false, 1));
    assert_eq!(next(&findings), (true, 1));
    assert!(table.listeners[0].tls.as_ref().unwrap().config().is_some());
}
