//! TLS that ends here.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use crate::support::{
    Authority, Driver, Endpoint, Pattern, Proxy, ask_securely, echo_securely, end, on_both_drivers,
    reset_on_close, secure_endpoint, shake_hands,
};

use super::{assert_ended, encrypting, terminating};

on_both_drivers!(
    a_client_is_understood,
    the_answer_after_the_clients_end_is_whole,
    the_client_goes_on_after_the_endpoints_end,
    bulk_goes_both_ways_at_once,
    an_end_without_a_word_is_no_end,
    a_reset_passes_on,
    small_messages_go_to_and_fro,
    what_comes_with_the_handshake_is_not_lost,
    a_client_is_known_by_its_certificate,
    a_timeout_is_told_in_tls,
);

fn a_client_is_understood(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let endpoint = Endpoint::echo();
    let proxy = Proxy::start(&terminating(driver, &certificate, &endpoint));
    let mut client = shake_hands(proxy.address, "a.test", authority.client()).unwrap();
    assert_eq!(ask_securely(&mut client, "hello").unwrap(), "hello");
    let record = assert_ended(&proxy, "downstream_closed", 5, 5);
    let tls = &record["tls"];
    assert_eq!(tls["server_name"], "a.test", "{record}");
    assert_eq!(tls["downstream"]["version"], "TLSv1.3", "{record}");
    assert!(tls["handshake_ms"].as_f64().unwrap() <= record["duration_ms"].as_f64().unwrap(), "{record}");
    assert_eq!(proxy.metric("sheave_listener_tls_handshakes_total", &["kind=\"full\""]), 1.0);
}

const LONG: usize = 8 * 1024 * 1024;

fn the_answer_after_the_clients_end_is_whole(driver: Driver) {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let authority = Authority::new();
        let certificate = authority.certify(&["a.test"]);
        let endpoint = Endpoint::start(|mut stream| {
            assert_eq!(Pattern::new(1).read_to_end(&stream), 1_000);
            Pattern::new(2).write(0..LONG, &mut stream);
        });
        let proxy = Proxy::start(&terminating(driver, &certificate, &endpoint));
        let config = rustls::ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        let mut client = shake_hands(proxy.address, "a.test", config).unwrap();
        Pattern::new(1).write(0..1_000, &mut client);
        end(&mut client).unwrap();
        assert_eq!(Pattern::new(2).read_to_end(&mut client), LONG);
        assert_ended(&proxy, "downstream_closed", 1_000, LONG as u64);
    }
}

fn the_client_goes_on_after_the_endpoints_end(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let (report, reported) = flume::bounded(1);
    let endpoint = Endpoint::start(move |mut stream| {
        Pattern::new(2).write(0..1_000, &mut stream);
        stream.shutdown(Shutdown::Write).unwrap();
        report.send(Pattern::new(1).read_to_end(&stream)).unwrap();
    });
    let proxy = Proxy::start(&terminating(driver, &certificate, &endpoint));
    let mut client = shake_hands(proxy.address, "a.test", authority.client()).unwrap();
    assert_eq!(Pattern::new(2).read_to_end(&mut client), 1_000);
    Pattern::new(1).write(0..LONG, &mut client);
    end(&mut client).unwrap();
    assert_eq!(reported.recv(), Ok(LONG));
    assert_ended(&proxy, "upstream_closed", LONG as u64, 1_000);
}

fn bulk_goes_both_ways_at_once(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let endpoint = Endpoint::echo();
    let proxy = Proxy::start(&terminating(driver, &certificate, &endpoint));
    let mut client = shake_hands(proxy.address, "a.test", authority.client()).unwrap();
    let pattern = Pattern::new(3);
    for offset in (0..LONG).step_by(64 * 1024) {
        pattern.write(offset..offset + 64 * 1024, &mut client);
        let mut back = vec![0; 64 * 1024];
        client.read_exact(&mut back).unwrap();
        assert!(pattern.at(offset).starts_with(&back), "at {offset}");
    }
    end(&mut client).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_ended(&proxy, "downstream_closed", LONG as u64, LONG as u64);
}

/// A stream that was cut is not one that has ended: its endpoint gets a reset.
fn an_end_without_a_word_is_no_end(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let (report, reported) = flume::bounded(1);
    let endpoint = Endpoint::start(move |mut stream| {
        let mut text = String::new();
        report.send(stream.read_to_string(&mut text).map_err(|error| error.kind())).unwrap();
    });
    let proxy = Proxy::start(&terminating(driver, &certificate, &endpoint));
    let mut client = shake_hands(proxy.address, "a.test", authority.client()).unwrap();
    client.write_all(b"half a sen").unwrap();
    client.sock.shutdown(Shutdown::Write).unwrap();
    assert_eq!(reported.recv(), Ok(Err(ErrorKind::ConnectionReset)));
    let record = proxy.record();
    assert_eq!(record["outcome"], "downstream_truncated", "{record}");
    assert_eq!(record["side"], "downstream");
}

fn a_reset_passes_on(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let endpoint = Endpoint::start(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        reset_on_close(&stream);
    });
    let proxy = Proxy::start(&terminating(driver, &certificate, &endpoint));
    let mut client = shake_hands(proxy.address, "a.test", authority.client()).unwrap();
    client.write_all(b"a").unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.record()["outcome"], "upstream_reset");
}

fn small_messages_go_to_and_fro(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let endpoint = Endpoint::echo();
    let proxy = Proxy::start(&terminating(driver, &certificate, &endpoint));
    let mut client = shake_hands(proxy.address, "a.test", authority.client()).unwrap();
    for number in 0..500_u32 {
        client.write_all(&number.to_be_bytes()).unwrap();
        let mut back = [0; 4];
        client.read_exact(&mut back).unwrap();
        assert_eq!(u32::from_be_bytes(back), number);
        if number % 100 == 50 {
            client.conn.refresh_traffic_keys().unwrap();
        }
    }
}

/// The last flight of the handshake, the request and the end, in one piece.
fn what_comes_with_the_handshake_is_not_lost(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let endpoint = Endpoint::echo();
    let proxy = Proxy::start(&terminating(driver, &certificate, &endpoint));
    let name = rustls::pki_types::ServerName::try_from("a.test").unwrap();
    let mut connection = rustls::ClientConnection::new(authority.client().into(), name).unwrap();
    let mut stream = crate::support::connect(proxy.address);
    connection.write_tls(&mut stream).unwrap();
    while connection.is_handshaking() {
        connection.read_tls(&mut stream).unwrap();
        connection.process_new_packets().unwrap();
    }
    connection.writer().write_all(b"hello").unwrap();
    connection.send_close_notify();
    let mut flight = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut flight).unwrap();
    }
    stream.write_all(&flight).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut client = rustls::StreamOwned::new(connection, stream);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "hello");
    assert_ended(&proxy, "downstream_closed", 5, 5);
}

fn a_client_is_known_by_its_certificate(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let endpoint = Endpoint::echo();
    let mut settings = terminating(driver, &certificate, &endpoint);
    let clients = format!(
        "clientValidation: {{mode: Require, caCertificateRefs: [{{file: {}}}]}}, mode:",
        authority.file().display()
    );
    settings.listener = settings.listener.replace("mode:", &clients);
    let proxy = Proxy::start(&settings);
    let mine = authority.certify(&["web.test", "10.0.0.7"]);
    let mut client = shake_hands(proxy.address, "a.test", authority.client_with(&mine)).unwrap();
    assert_eq!(ask_securely(&mut client, "hello").unwrap(), "hello");
    let record = proxy.record();
    let client = &record["tls"]["client"];
    assert_eq!(client["names"], serde_json::json!(["web.test", "10.0.0.7"]), "{record}");
    assert_eq!(client["common_name"], "web.test", "{record}");
    assert_eq!(client["fingerprint"].as_str().unwrap().len(), 64, "{record}");

    // Without one: in TLS 1.3 the client hears of it only after its own handshake is over.
    let refused = shake_hands(proxy.address, "a.test", authority.client())
        .and_then(|mut client| ask_securely(&mut client, "hello"))
        .unwrap_err();
    assert!(refused.to_string().contains("CertificateRequired"), "{refused}");
    let record = &proxy.records(2)[1];
    assert_eq!(record["outcome"], "tls_handshake_failed", "{record}");
    let failure = record["tls"]["failure"].as_str().unwrap();
    assert!(failure.contains("no certificate"), "{record}");
}

/// A timeout is an end that TLS tells of: nothing is missing.
fn a_timeout_is_told_in_tls(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let endpoint = secure_endpoint(certificate.server(), echo_securely);
    let mut settings = terminating(driver, &certificate, &endpoint);
    settings.listener.push_str(", timeout: {tcp: {idleTimeout: 300ms}}");
    settings.upstream = encrypting(driver, &authority, "a.test", &[&endpoint]).upstream;
    let proxy = Proxy::start(&settings);
    let mut client = shake_hands(proxy.address, "a.test", authority.client()).unwrap();
    client.write_all(b"hello").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "hello");
    assert_eq!(proxy.record()["outcome"], "idle_timeout");
}
