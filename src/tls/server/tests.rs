//! Handshakes between a client and a listener's settings, in memory.

use std::sync::Arc;

use rcgen::{Issuer, KeyPair, SanType};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore,
    ServerConnection,
};

use super::*;
use crate::config::{AuthorityRef, ClientValidation, ClientValidationMode, ObjectRef, TlsMode};
use crate::tls::credentials::tests::{Wanted, authority, material, revoked, secret, with_certificates, year};
use crate::tls::{Material, Source, reason};

pub(in crate::tls) fn settings(certificates: &[&str]) -> ListenerTls {
    ListenerTls {
        mode: TlsMode::Terminate,
        certificates: certificates.iter().map(|name| secret(name)).collect(),
        min_version: TlsVersion::Tls12,
        max_version: TlsVersion::Tls13,
        alpn: Vec::new(),
        start_tls: None,
        client_validation: None,
    }
}

pub(in crate::tls) fn asking(
    mode: ClientValidationMode,
    names: Vec<SubjectAltName>,
    crls: &[&str],
) -> Option<ClientValidation> {
    Some(ClientValidation {
        mode,
        authorities: vec![clients_ca()],
        names,
        crls: crls.iter().map(Into::into).collect(),
    })
}

pub(in crate::tls) fn clients_ca() -> AuthorityRef {
    AuthorityRef::ConfigMap(ObjectRef { namespace: "edge".into(), name: "clients".into() })
}

pub(super) fn server(settings: &ListenerTls, credentials: &Credentials) -> Arc<ServerSide> {
    ServerSide::new(&"l".into(), settings, credentials, None)
}

pub(in crate::tls) fn take(credentials: &mut Credentials, source: &Source, material: Material) {
    let mut wanted: std::collections::BTreeSet<Source> =
        credentials.reports().map(|report| report.source).collect();
    wanted.insert(source.clone());
    credentials.expect(&wanted);
    assert!(credentials.take(source, Ok(material), year(2026)).is_new);
}

pub(super) fn client(ca: &rcgen::Certificate, own: Option<&(String, String)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                .unwrap()
        }
    }
}

/// Both ends once they have shaken hands, or what the listener's end says.
pub(super) fn shake(
    client: &Arc<ClientConfig>,
    name: &str,
    server: &ServerSide,
) -> Result<(ClientConnection, ServerConnection), String> {
    shake_with(client, ServerName::try_from(name.to_owned()).unwrap(), server)
}

pub(in crate::tls) fn shake_with(
    client: &Arc<ClientConfig>,
    name: ServerName<'static>,
    server: &ServerSide,
) -> Result<(ClientConnection, ServerConnection), String> {
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server.config().expect("a configuration"))).unwrap();
    let mut bytes = Vec::new();
    for _ in 0..10 {
        bytes.clear();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        feed(&mut (&mut server).into(), &bytes).map_err(|error| reason(&error))?;
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        feed(&mut (&mut client).into(), &bytes).map_err(|error| format!("client: {}", reason(&error)))?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

enum End<'a> {
    Client(&'a mut ClientConnection),
    Listener(&'a mut ServerConnection),
}

impl<'a> From<&'a mut ClientConnection> for End<'a> {
    fn from(end: &'a mut ClientConnection) -> Self {
        Self::Client(end)
    }
}

impl<'a> From<&'a mut ServerConnection> for End<'a> {
    fn from(end: &'a mut ServerConnection) -> Self {
        Self::Listener(end)
    }
}

fn feed(end: &mut End<'_>, mut bytes: &[u8]) -> Result<(), rustls::Error> {
    while !bytes.is_empty() {
        match end {
            End::Client(client) => {
                client.read_tls(&mut bytes).unwrap();
                client.process_new_packets()?;
            }
            End::Listener(server) => {
                server.read_tls(&mut bytes).unwrap();
                server.process_new_packets()?;
            }
        }
    }
    Ok(())
}

/// The fingerprint of the certificate that was shown.
pub(super) fn shown(client: &ClientConnection) -> Fingerprint {
    fingerprint(client.peer_certificates().unwrap().iter().map(|certificate| &**certificate))
}

pub(super) fn fingerprint_of(pair: &(String, String)) -> Fingerprint {
    match material(pair) {
        Ok(Material::Certificate(certificate)) => certificate.fingerprint,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_most_specific_name_chooses_the_certificate() {
    let (issuer, ca) = authority("ca");
    let pair = |names: &[&str]| Wanted::dns(names).by(&issuer);
    let (first, wild, exact) =
        (pair(&["first.example"]), pair(&["*.shop.example"]), pair(&["a.shop.example"]));
    let credentials = with_certificates(&[("first", &first), ("wild", &wild), ("exact", &exact)]);
    let server = server(&settings(&["first", "wild", "exact"]), &credentials);
    let client = Arc::new(client(&ca, None));
    for (name, expected) in [("first.example", &first), ("A.Shop.example", &exact), ("b.shop.example", &wild)]
    {
        let (client, _) = shake(&client, name, &server).unwrap();
        assert_eq!(shown(&client), fingerprint_of(expected), "{name}");
        assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    }
    // One label only, and not the name itself.
    for name in ["a.b.shop.example", "shop.example", "other.example"] {
        let error = shake(&client, name, &server).unwrap_err();
        assert!(error.contains(&format!("it is for first.example, and not for {name}")), "{name}: {error}");
    }
}

#[test]
fn two_algorithms_stand_side_by_side() {
    let (issuer, ca) = authority("ca");
    let ecdsa = Wanted::dns(&["a.example"]).by(&issuer);
    let rsa = Wanted { algorithm: &rcgen::PKCS_RSA_SHA256, ..Wanted::dns(&["a.example"]) }.by(&issuer);
    let credentials = with_certificates(&[("rsa", &rsa), ("ecdsa", &ecdsa)]);
    let server = server(&settings(&["ecdsa", "rsa"]), &credentials);
    let (modern, _) = shake(&Arc::new(client(&ca, None)), "a.example", &server).unwrap();
    assert_eq!(shown(&modern), fingerprint_of(&ecdsa));
    // One of TLS 1.2 without any cipher suite for ECDSA.
    let mut provider = (**provider()).clone();
    provider
        .cipher_suites
        .retain(|suite| suite.suite() == CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256);
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let old = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (old, _) = shake(&Arc::new(old), "a.example", &server).unwrap();
    assert_eq!(shown(&old), fingerprint_of(&rsa));
}

#[test]
fn versions_and_alpn_are_as_configured() {
    let (issuer, ca) = authority("ca");
    let credentials = with_certificates(&[("a", &Wanted::dns(&["a.example"]).by(&issuer))]);
    let mut settings = settings(&["a"]);
    let connect = |settings: &ListenerTls, alpn: &[&str]| {
        let mut client = client(&ca, None);
        client.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let (client, _) = shake(&Arc::new(client), "a.example", &server(settings, &credentials))?;
        let alpn = client.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap());
        Ok::<_, String>((client.protocol_version().unwrap(), alpn))
    };
    assert_eq!(connect(&settings, &["h2"]), Ok((ProtocolVersion::TLSv1_3, None)), "none is configured");
    settings.max_version = TlsVersion::Tls12;
    settings.alpn = vec!["h2".into(), "http/1.1".into()];
    assert_eq!(connect(&settings, &["http/1.1", "h2"]), Ok((ProtocolVersion::TLSv1_2, Some("h2".into()))));
    settings.start_tls = Some(StartTls::Postgres);
    assert_eq!(connect(&settings, &["postgresql"]).unwrap().1.as_deref(), Some("postgresql"));
    let error = connect(&settings, &["imap"]).unwrap_err();
    assert!(error.contains("none of the configured ALPN"), "{error}");
}

/// What a listener that asks for certificates says to this client.
pub(super) fn admitted(
    server: &ServerSide,
    ca: &rcgen::Certificate,
    own: Option<&(String, String)>,
) -> Result<usize, String> {
    let (_, server) = shake(&Arc::new(client(ca, own)), "a.example", server)?;
    Ok(server.peer_certificates().map_or(0, <[_]>::len))
}

pub(super) struct Mutual {
    pub(super) ca: rcgen::Certificate,
    pub(super) clients: Issuer<'static, KeyPair>,
    pub(super) credentials: Credentials,
}

pub(super) fn mutual() -> Mutual {
    let ((issuer, ca), (clients, clients_certificate)) = (authority("ca"), authority("clients"));
    let mut credentials = with_certificates(&[("a", &Wanted::dns(&["a.example"]).by(&issuer))]);
    let authorities = Material::authorities(clients_certificate.pem().as_bytes()).unwrap();
    take(&mut credentials, &Source::Authorities(clients_ca()), authorities);
    Mutual { ca, clients, credentials }
}

#[test]
fn clients_are_asked_for_certificates_of_some_authority_and_name() {
    let Mutual { ca, clients, credentials } = mutual();
    let spiffe = "spiffe://cluster.local/ns/shop/sa/web";
    let mut of_web = Wanted::dns(&[]);
    of_web.names =
        vec![SanType::URI(spiffe.try_into().unwrap()), SanType::IpAddress("10.0.0.7".parse().unwrap())];
    let (web, other) = (of_web.by(&clients), Wanted::dns(&["db.example"]).by(&clients));
    let stranger = of_web.by(&authority("clients").0);

    let mut settings = settings(&["a"]);
    settings.client_validation = asking(ClientValidationMode::Require, Vec::new(), &[]);
    let require = server(&settings, &credentials);
    assert_eq!(admitted(&require, &ca, Some(&web)), Ok(1));
    let error = admitted(&require, &ca, None).unwrap_err();
    assert!(error.contains("no certificate, and one is required"), "{error}");
    let error = admitted(&require, &ca, Some(&stranger)).unwrap_err();
    assert!(error.contains("not signed by the authority"), "{error}");

    settings.client_validation = asking(ClientValidationMode::Optional, Vec::new(), &[]);
    let optional = server(&settings, &credentials);
    assert_eq!(admitted(&optional, &ca, Some(&web)), Ok(1));
    assert_eq!(admitted(&optional, &ca, None), Ok(0));
    assert!(admitted(&optional, &ca, Some(&stranger)).is_err(), "a wrong one is not as good as none");

    for (name, expects_web, expects_other) in [
        (SubjectAltName::Uri(spiffe.into()), true, false),
        (SubjectAltName::Ip("10.0.0.7".parse().unwrap()), true, false),
        (SubjectAltName::Dns("db.example".into()), false, true),
        (SubjectAltName::Uri("spiffe://cluster.local/ns/shop/sa/we".into()), false, false),
    ] {
        settings.client_validation = asking(ClientValidationMode::Require, vec![name.clone()], &[]);
        let named = server(&settings, &credentials);
        assert_eq!(admitted(&named, &ca, Some(&web)).is_ok(), expects_web, "{name}");
        let result = admitted(&named, &ca, Some(&other));
        assert_eq!(result.is_ok(), expects_other, "{name}");
        if let Err(error) = result {
            let expected = format!("it is for db.example, and subjectAltNames has {name}");
            assert!(error.contains(&expected), "{error}");
        }
    }
}

#[test]
fn revoked_certificates_and_late_lists_are_refused() {
    let Mutual { ca, clients, mut credentials } = mutual();
    let pair = |serial| Wanted { serial, ..Wanted::dns(&["x.example"]) }.by(&clients);
    let (good, called_back) = (pair(1), pair(7));
    let mut settings = settings(&["a"]);
    settings.client_validation = asking(ClientValidationMode::Require, Vec::new(), &["/crl"]);
    let without = server(&settings, &credentials);
    assert_eq!(
        (without.config().is_none(), without.problem()),
        (true, Some("file /crl could not be loaded"))
    );

    let list = |until| Material::revocations(revoked(&clients, &[7], until).as_bytes()).unwrap();
    let source = Source::Revocations("/crl".into());
    take(&mut credentials, &source, list(2090));
    let with = server(&settings, &credentials);
    assert_eq!(admitted(&with, &ca, Some(&good)), Ok(1));
    let error = admitted(&with, &ca, Some(&called_back)).unwrap_err();
    assert!(error.contains("it was revoked"), "{error}");
    let chain = |pair: &(String, String)| vec![CertificateDer::from_pem_slice(pair.0.as_bytes()).unwrap()];
    assert!(with.admits_client(&chain(&good), UnixTime::now()).is_ok());
    assert!(with.admits_client(&chain(&called_back), UnixTime::now()).is_err());

    let mut late = mutual().credentials;
    take(&mut late, &source, list(2022));
    let late = server(&settings, &late);
    assert!(admitted(&late, &ca, Some(&good)).is_err());
    assert!(!with.admits_as(&late) && with.admits_as(&with));
}

#[test]
fn the_same_settings_and_certificates_stay_the_same() {
    let issuer = authority("ca").0;
    let pair = Wanted::dns(&["a.example"]).by(&issuer);
    let mut credentials = with_certificates(&[("a", &pair)]);
    let settings = settings(&["a", "missing"]);
    let first = server(&settings, &credentials);
    let again = ServerSide::new(&"l".into(), &settings, &credentials, Some(&first));
    assert!(Arc::ptr_eq(&first, &again), "one that is missing keeps the other from nothing");
    take(&mut credentials, &Source::Certificate(secret("missing")), material(&pair).unwrap());
    let next = ServerSide::new(&"l".into(), &settings, &credentials, Some(&first));
    assert!(!Arc::ptr_eq(&first, &next));
    let none = server(&self::settings(&["gone"]), &credentials);
    assert_eq!(none.problem(), Some("none of its certificates could be loaded"));
}

#[test]
fn sessions_are_resumed_across_tables_and_only_where_the_same_is_asked() {
    let Mutual { ca, clients, mut credentials } = mutual();
    let own = Wanted::dns(&["x.example"]).by(&clients);
    let mut asking_none = settings(&["a"]);
    let mut asking_all = asking_none.clone();
    asking_all.client_validation = asking(ClientValidationMode::Require, Vec::new(), &[]);
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        asking_none.max_version = version;
        asking_all.max_version = version;
        let mut client = client(&ca, Some(&own));
        client.resumption = Resumption::in_memory_sessions(8);
        let client = Arc::new(client);
        let kind = |server: &ServerSide| {
            let (client, server) = shake(&client, "a.example", server).unwrap();
            (client.handshake_kind().unwrap(), server.peer_certificates().map_or(0, <[_]>::len))
        };
        let full = HandshakeKind::Full;
        let first = server(&asking_none, &credentials);
        assert_eq!(kind(&first), (full, 0), "{version}");
        let next = server(&asking_none, &credentials);
        assert!(!Arc::ptr_eq(&first, &next));
        assert_eq!(kind(&next), (HandshakeKind::Resumed, 0), "{version}: of another table");
        let all = server(&asking_all, &credentials);
        assert_eq!(kind(&all), (full, 1), "{version}: one that showed no certificate");
        assert_eq!(kind(&all), (HandshakeKind::Resumed, 1), "{version}");

        let (others, other_certificate) = authority("others");
        let both = other_certificate.pem() + &authority_pem(&credentials, &clients);
        let _only_signs = others;
        take(
            &mut credentials,
            &Source::Authorities(clients_ca()),
            Material::authorities(both.as_bytes()).unwrap(),
        );
        let changed = server(&asking_all, &credentials);
        assert_eq!(kind(&changed), (full, 1), "{version}: other authorities");
    }
}

/// A certificate of the same authority, made anew.
fn authority_pem(_credentials: &Credentials, clients: &Issuer<'static, KeyPair>) -> String {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "clients");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(clients.key()).unwrap().pem()
}

#[test]
fn tickets_are_opaque_and_of_no_other_listener() {
    let tickets = |bond| BoundTickets { tickets: Arc::clone(tickets().unwrap()), bond };
    let (one, other) = (tickets([1; 32]), tickets([2; 32]));
    let ticket = one.encrypt(b"secret").unwrap();
    assert!(!ticket.windows(6).any(|part| part == b"secret"));
    assert_eq!(tickets([1; 32]).decrypt(&ticket).as_deref(), Some(&b"secret"[..]));
    assert_eq!(other.decrypt(&ticket), None);
    assert_eq!(one.decrypt(b"garbage"), None);
}
