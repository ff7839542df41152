//! Headers and TLS: both come before the client's own bytes, the header first.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy_header::{ParseConfig, ProxyHeader, Tlv};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use crate::support::{
    Authority, Certificate, Driver, Endpoint, Proxy, SecureClient, Settings, ask_securely, connect,
    echo_securely, on_both_drivers, shake_hands,
};

on_both_drivers!(
    endpoints_are_told_of_the_clients_tls,
    tls_to_endpoints_begins_behind_the_header,
    what_is_passed_through_begins_behind_the_header,
    a_header_comes_before_the_clients_tls,
);

const OUT: &str = "proxyProtocol: {version: V2, tlvs: [authority, alpn, unique-id, traceparent, tls]}";

/// The header that a connection begins with; none if it ends first, as that of a probe may.
fn take_header(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut header = vec![0; 16];
    stream.read_exact(&mut header).ok()?;
    let length = u16::from_be_bytes([header[14], header[15]]);
    header.resize(16 + usize::from(length), 0);
    stream.read_exact(&mut header[16..]).ok()?;
    Some(header)
}

/// An echo that hands on the headers of its connections; with a configuration, it speaks TLS behind them.
pub(super) fn echo_behind_headers(config: Option<ServerConfig>) -> (Endpoint, flume::Receiver<Vec<u8>>) {
    let config = config.map(Arc::new);
    let (found, headers) = flume::bounded(16);
    let endpoint = Endpoint::start(move |mut stream| {
        let Some(header) = take_header(&mut stream) else { return };
        found.try_send(header).ok();
        let Some(config) = &config else {
            std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).ok();
            return;
        };
        let mut connection = ServerConnection::new(Arc::clone(config)).unwrap();
        while connection.is_handshaking() {
            if connection.complete_io(&mut stream).is_err() {
                return;
            }
        }
        echo_securely(StreamOwned::new(connection, stream));
    });
    (endpoint, headers)
}

fn terminates(certificate: &Certificate, more: &str) -> String {
    format!("protocol: TLS, tls: {{mode: Terminate, certificateRefs: [{}], {more}}}", certificate.reference())
}

/// The values of a header's extensions of this type.
fn custom(header: &ProxyHeader<'_>, kind: u8) -> Vec<String> {
    let values = header.tlvs().flatten().filter_map(|tlv| match tlv {
        Tlv::Custom(is, value) if is == kind => Some(String::from_utf8(value.into_owned()).unwrap()),
        _ => None,
    });
    values.collect()
}

fn endpoints_are_told_of_the_clients_tls(driver: Driver) {
    let authority = Authority::new();
    let (certificate, client) = (authority.certify(&["a.test"]), authority.certify(&["someone.test"]));
    let (endpoint, headers) = echo_behind_headers(None);
    let more = format!(
        "alpnProtocols: [h2], clientValidation: {{mode: Optional, caCertificateRefs: [{{file: {}}}]}}",
        authority.file().display()
    );
    let settings =
        Settings::new(driver, &[endpoint.address]).listener(&terminates(&certificate, &more)).upstream(OUT);
    let proxy = Proxy::start(&settings);
    for shows in [true, false] {
        let mut config = if shows { authority.client_with(&client) } else { authority.client() };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let mut stream = shake_hands(proxy.address, "a.test", config).unwrap();
        let own = stream.sock.local_addr().unwrap();
        assert_eq!(ask_securely(&mut stream, "hello").unwrap(), "hello");
        let header = headers.recv().unwrap();
        let (header, _) = ProxyHeader::parse(&header, ParseConfig::default()).unwrap();
        let addresses = header.proxied_address().unwrap();
        assert_eq!((addresses.source, addresses.destination), (own, proxy.address));
        assert_eq!((header.authority(), header.alpn()), (Some("a.test"), Some(&b"h2"[..])));
        let tls = header.ssl().unwrap();
        assert_eq!((tls.client_ssl(), tls.version()), (true, Some("TLSv1.3")));
        assert!(tls.cipher().is_some_and(|cipher| cipher.starts_with("TLS_")), "{tls:?}");
        assert_eq!((tls.client_cert_conn(), tls.verify() == 0), (shows, shows));
        assert_eq!(tls.cn(), shows.then_some("someone.test"));
        drop(stream);
        let records = proxy.records(if shows { 1 } else { 2 });
        let fingerprint = records.last().unwrap()["tls"]["client"]["fingerprint"].as_str();
        assert_eq!(custom(&header, 0xE1), fingerprint.into_iter().collect::<Vec<_>>());
        let names: &[&str] = if shows { &["DNS:someone.test"] } else { &[] };
        assert_eq!(custom(&header, 0xE2), names);
    }
}

fn tls_to_endpoints_begins_behind_the_header(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let (endpoint, headers) = echo_behind_headers(Some(certificate.server()));
    let settings = Settings::new(driver, &[endpoint.address])
        .listener(&terminates(&certificate, ""))
        .upstream(&format!(
            "{OUT}, tls: {{validation: {{caCertificateRefs: [{{file: {}}}], hostname: a.test}}}}",
            authority.file().display()
        ));
    let proxy = Proxy::start(&settings);
    let mut stream = shake_hands(proxy.address, "a.test", authority.client()).unwrap();
    assert_eq!(ask_securely(&mut stream, "hello").unwrap(), "hello");
    let header = headers.recv().unwrap();
    let (header, _) = ProxyHeader::parse(&header, ParseConfig::default()).unwrap();
    assert_eq!(header.authority(), Some("a.test"));
}

fn what_is_passed_through_begins_behind_the_header(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let (endpoint, headers) = echo_behind_headers(Some(certificate.server()));
    let settings = Settings::new(driver, &[endpoint.address])
        .listener("protocol: TLS, tls: {mode: Passthrough}")
        .upstream(OUT);
    let proxy = Proxy::start(&settings);
    let mut stream = shake_hands(proxy.address, "a.test", authority.client()).unwrap();
    assert_eq!(ask_securely(&mut stream, "hello").unwrap(), "hello");
    let header = headers.recv().unwrap();
    let (header, _) = ProxyHeader::parse(&header, ParseConfig::default()).unwrap();
    // What was agreed on with the endpoint is between the two.
    assert_eq!((header.authority(), header.alpn(), header.ssl()), (Some("a.test"), None, None));
}

fn secure(mut stream: TcpStream, config: ClientConfig) -> SecureClient {
    let mut connection =
        ClientConnection::new(Arc::new(config), ServerName::try_from("a.test").unwrap()).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).unwrap();
    }
    StreamOwned::new(connection, stream)
}

fn a_header_comes_before_the_clients_tls(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let (plain, tls) =
        (Endpoint::echo(), crate::support::secure_endpoint(certificate.server(), echo_securely));
    let passes = "protocol: TLS, tls: {mode: Passthrough}".to_owned();
    for (listener, endpoint) in [(terminates(&certificate, ""), &plain), (passes, &tls)] {
        for mode in ["Require", "Optional"] {
            let settings = Settings::new(driver, &[endpoint.address]).listener(&format!(
                "proxyProtocol: {{mode: {mode}, trusted: [127.0.0.1/32]}}, timeout: {{tcp: {{tlsHandshakeTimeout: 2s}}}}, \
                 {listener}"
            ));
            let proxy = Proxy::start(&settings);
            let mut stream = connect(proxy.address);
            stream.write_all(super::V2).unwrap();
            let mut client = secure(stream, authority.client());
            assert_eq!(ask_securely(&mut client, "hello").unwrap(), "hello", "{mode}, {listener}");
            drop(client);
            let record = &proxy.records(1)[0];
            assert_eq!(
                (&record["client"], &record["tls"]["server_name"]),
                (&super::NAMED.into(), &"a.test".into())
            );
            if mode == "Optional" {
                let mut client = shake_hands(proxy.address, "a.test", authority.client()).unwrap();
                assert_eq!(ask_securely(&mut client, "hello").unwrap(), "hello");
            }
            // The header and the handshake share one deadline.
            let started = Instant::now();
            let mut silent = connect(proxy.address);
            assert!(matches!(silent.read(&mut [0]), Ok(0) | Err(_)));
            let lasted = started.elapsed();
            assert!((Duration::from_millis(1_900)..Duration::from_secs(20)).contains(&lasted), "{lasted:?}");
            let expected = if mode == "Require" { "proxy_header_timeout" } else { "tls_handshake_timeout" };
            let count = if mode == "Require" { 2 } else { 3 };
            assert_eq!(proxy.records(count).pop().unwrap()["outcome"], expected);
        }
    }
}
