use std::io::Read;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SupportedProtocolVersion};

use super::*;

/// Both sides, and what is between them.
struct Pair {
    client: Engine,
    server: Engine,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    at_server: Vec<u8>,
    at_client: Vec<u8>,
}

fn authority() -> rcgen::CertifiedIssuer<'static, rcgen::KeyPair> {
    let mut parameters = rcgen::CertificateParams::new([]).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertifiedIssuer::self_signed(parameters, key).unwrap()
}

fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let authority = authority();
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
    let certificate = parameters.signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut server = ServerConfig::builder_with_protocol_versions(&[version])
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"one".to_vec(), b"two".to_vec()];
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let client = ClientConfig::builder_with_protocol_versions(&[version])
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(client), Arc::new(server))
}

impl Pair {
    fn new((client, server): &(Arc<ClientConfig>, Arc<ServerConfig>), name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Self {
            client: Engine::connect(Arc::clone(client), name, vec![b"two".to_vec()]).unwrap(),
            server: Engine::accept(Arc::clone(server)).unwrap(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            at_server: Vec::new(),
            at_client: Vec::new(),
        }
    }

    /// Carries what there is to and fro in pieces of this length until both are silent.
    fn run(&mut self, piece: usize) -> Result<(), Error> {
        self.client.receive(&mut [], &mut self.at_client, &mut self.to_server)?;
        while !self.to_server.is_empty() || !self.to_client.is_empty() {
            for mut bytes in take(&mut self.to_server, piece) {
                self.server.receive(&mut bytes, &mut self.at_server, &mut self.to_client)?;
            }
            for mut bytes in take(&mut self.to_client, piece) {
                self.client.receive(&mut bytes, &mut self.at_client, &mut self.to_server)?;
            }
        }
        Ok(())
    }
}

fn take(bytes: &mut Vec<u8>, piece: usize) -> Vec<Vec<u8>> {
    std::mem::take(bytes).chunks(piece).map(<[u8]>::to_vec).collect()
}

fn send(engine: &mut Engine, plaintext: &[u8], wire: &mut Vec<u8>) {
    let mut output = vec![0; CIPHERTEXT_MAX];
    let length = engine.send(plaintext, &mut output).unwrap();
    wire.extend_from_slice(&output[..length]);
}

fn finish(engine: &mut Engine, wire: &mut Vec<u8>) {
    let mut output = [0; 100];
    let length = engine.finish(&mut output).unwrap();
    wire.extend_from_slice(&output[..length]);
}

/// What the server finds wrong with a client, and the end of what it says to it.
fn refused(client: &Arc<ClientConfig>, server: ServerConfig) -> (Error, Vec<u8>) {
    let mut pair = Pair::new(&(Arc::clone(client), Arc::new(server)), "a.test");
    let error = pair.run(100_000).unwrap_err();
    (error, pair.to_client)
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::server::ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
}

#[test]
fn alerts_are_those_of_the_rfcs() {
    let failure = plain_alert(AlertDescription::HandshakeFailure);
    for version in [&TLS12, &TLS13] {
        let (client, server) = configs(version);
        let mut without = ServerConfig::clone(&server);
        without.alpn_protocols.clear();
        without.cert_resolver = Arc::new(NoCertificate);
        let (error, said) = refused(&client, without);
        let reason = crate::tls::reason(&error);
        assert!(reason.contains("can check the signatures of none of the certificates"), "{reason}");
        assert_eq!(said, failure, "{version:?}");

        let mut roots = RootCertStore::empty();
        roots.add(authority().der().clone()).unwrap();
        let asking = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let mut asks = ServerConfig::builder_with_protocol_versions(&[version])
            .with_client_cert_verifier(asking)
            .with_cert_resolver(Arc::clone(&server.cert_resolver));
        asks.alpn_protocols.clone_from(&server.alpn_protocols);
        let (error, said) = refused(&client, asks);
        assert_eq!(error, Error::NoCertificatesPresented);
        assert_eq!(said == failure, version.version == rustls::ProtocolVersion::TLSv1_2, "{said:?}");
    }
}

#[test]
fn bytes_arrive_in_any_pieces() {
    for version in [&TLS12, &TLS13] {
        let configs = configs(version);
        for piece in [1, 7, 1_000, 100_000] {
            let mut pair = Pair::new(&configs, "a.test");
            pair.run(piece).unwrap();
            assert!(pair.client.is_established() && pair.server.is_established());
            assert_eq!((pair.client.alpn(), pair.server.alpn()), (Some(&b"two"[..]), Some(&b"two"[..])));
            let most: Vec<u8> = (0..PLAINTEXT_MAX).map(|at| (at % 251) as u8).collect();
            send(&mut pair.client, &most, &mut pair.to_server);
            send(&mut pair.server, b"hello", &mut pair.to_client);
            assert!(pair.to_server.len() < CIPHERTEXT_MAX);
            pair.run(piece).unwrap();
            assert!(pair.at_server == most, "{piece}");
            assert_eq!(pair.at_client, b"hello");
            assert!(
                pair.client.incoming.capacity() + pair.server.incoming.capacity() == 0,
                "idle, and holds a buffer"
            );
        }
    }
}

#[test]
fn of_a_long_read_only_the_beginning_of_a_record_is_kept() {
    let mut pair = Pair::new(&configs(&TLS13), "a.test");
    pair.run(1_000).unwrap();
    send(&mut pair.client, &[1; PLAINTEXT_MAX], &mut pair.to_server);
    send(&mut pair.client, b"more", &mut pair.to_server);
    let mut bytes = std::mem::take(&mut pair.to_server);
    bytes.truncate(bytes.len() - 3);
    let (begin, rest) = bytes.split_at_mut(10);
    for bytes in [begin, rest] {
        pair.server.receive(bytes, &mut pair.at_server, &mut pair.to_client).unwrap();
    }
    assert_eq!(pair.at_server.len(), PLAINTEXT_MAX);
    let kept = &pair.server.incoming;
    assert!(kept.capacity() <= 4 * kept.len(), "{} bytes for {}", kept.capacity(), kept.len());
}

#[test]
fn a_record_goes_on_in_the_next_read_from_a_socket() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::new(&configs(version), "a.test");
        pair.run(1_000).unwrap();
        let most: Vec<u8> = (0..PLAINTEXT_MAX).map(|at| (at % 251) as u8).collect();
        send(&mut pair.client, &most, &mut pair.to_server);
        let wire = std::mem::take(&mut pair.to_server);
        let (mut rest, mut memory) = (wire.as_slice(), Vec::new());
        for length in [3, 20_000, 1, 7, 40_000].into_iter().cycle() {
            let read = |room: &mut [u8]| rest.read(room);
            let Pair { server, at_server, to_client, .. } = &mut pair;
            let (read, result) =
                server.receive_from(read, length, &mut memory, at_server, to_client).unwrap();
            result.unwrap();
            if read == 0 {
                break;
            }
            assert!(read <= length);
        }
        assert!(pair.at_server == most && pair.server.held() == 0);
        let full = |_: &mut [u8]| Err(io::ErrorKind::WouldBlock.into());
        let mut server = pair.server;
        let nothing = server.receive_from(full, 10, &mut memory, &mut pair.at_server, &mut pair.to_client);
        assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn each_side_ends_for_itself() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::new(&configs(version), "a.test");
        pair.run(1_000).unwrap();
        send(&mut pair.client, b"last words", &mut pair.to_server);
        finish(&mut pair.client, &mut pair.to_server);
        finish(&mut pair.client, &mut pair.to_server);
        pair.run(3).unwrap();
        assert_eq!(pair.at_server, b"last words");
        assert!(pair.server.has_ended() && !pair.client.has_ended());
        send(&mut pair.server, b"an answer", &mut pair.to_client);
        finish(&mut pair.server, &mut pair.to_client);
        pair.run(3).unwrap();
        assert_eq!(pair.at_client, b"an answer");
        assert!(pair.client.has_ended());
        // What comes after the end is nobody's.
        pair.server.receive(&mut [1, 2, 3], &mut pair.at_server, &mut pair.to_client).unwrap();
        assert!(pair.to_client.is_empty());
    }
}

#[test]
fn the_second_time_both_remember() {
    for version in [&TLS12, &TLS13] {
        let configs = configs(version);
        let mut first = Pair::new(&configs, "a.test");
        first.run(1_000).unwrap();
        assert!(!first.client.is_resumed() && !first.server.is_resumed());
        let mut second = Pair::new(&configs, "a.test");
        second.run(1_000).unwrap();
        assert!(second.client.is_resumed() && second.server.is_resumed(), "{version:?}");
    }
}

#[test]
fn what_went_wrong_is_said_to_the_other() {
    let configs = configs(&TLS13);
    let mut pair = Pair::new(&configs, "b.test");
    let error = pair.run(1_000).unwrap_err();
    assert!(matches!(error, Error::InvalidCertificate(_)), "{error}");
    let mut alert = std::mem::take(&mut pair.to_server);
    let heard = pair.server.receive(&mut alert, &mut pair.at_server, &mut pair.to_client).unwrap_err();
    assert!(matches!(heard, Error::AlertReceived(_)), "{heard}");

    let mut pair = Pair::new(&configs, "a.test");
    let mut request = *b"GET / HTTP/1.1\r\n\r\n";
    pair.server.receive(&mut request, &mut pair.at_server, &mut pair.to_client).unwrap_err();
    assert_eq!(pair.to_client[..1], [21], "an alert");
}

#[test]
fn a_record_that_was_changed_is_found_out() {
    let mut pair = Pair::new(&configs(&TLS13), "a.test");
    pair.run(1_000).unwrap();
    send(&mut pair.client, b"secret", &mut pair.to_server);
    *pair.to_server.last_mut().unwrap() ^= 1;
    assert_eq!(pair.run(1_000), Err(Error::DecryptError));
    assert!(!pair.to_client.is_empty(), "it says so");
    assert!(pair.at_server.is_empty());
}

#[test]
fn versions_and_ciphers_have_the_names_that_all_know() {
    for (version, name) in [(&TLS12, "TLSv1.2"), (&TLS13, "TLSv1.3")] {
        let mut pair = Pair::new(&configs(version), "a.test");
        pair.run(1_000).unwrap();
        assert_eq!(pair.server.version(), Some(name));
        let cipher = pair.server.cipher().unwrap();
        assert!(cipher.starts_with("TLS_"), "{cipher}");
        assert_eq!(pair.client.certificates().len(), 1);
        assert!(pair.server.certificates().is_empty());
    }
}

#[test]
fn an_alert_is_one_record_of_its_length() {
    let record = |kind, length: u8| [&[kind, 3, 3, 0, length][..], &vec![7; usize::from(length)]].concat();
    let (tls12, tls13) = (record(21, 26), record(23, 19));
    assert!(is_alert(&tls12) && is_alert(&tls13) && tls12.len() == ALERT_RECORD_MAX);
    let two = [&tls13[..], &tls13].concat();
    for other in [&[][..], &tls13[..23], &two, &record(23, 20), &record(23, 18), &record(22, 19)] {
        assert!(!is_alert(other), "{other:?}");
    }
}
