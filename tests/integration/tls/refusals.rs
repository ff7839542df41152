//! Clients that do not come to a connection, and what they and the log are told.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use rustls::version::TLS12;

use crate::support::{
    Authority, Driver, Endpoint, FullEndpoint, Proxy, ask_securely, connect, end, eventually,
    on_both_drivers, shake_hands,
};

use super::terminating;

on_both_drivers!(
    what_is_no_tls_is_cut,
    a_slow_hello_has_one_deadline,
    an_unfinished_handshake_has_the_same,
    a_name_without_a_route_gets_an_alert,
    a_client_that_trusts_nobody_is_recorded,
    garbage_leaves_nothing_behind,
    a_flood_of_idle_clients_leaves_the_others_alone,
    who_leaves_while_it_waits_for_an_endpoint_is_gone,
);

fn proxy(driver: Driver, more: &str) -> (Authority, Endpoint, Proxy) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let endpoint = Endpoint::echo();
    let mut settings = terminating(driver, &certificate, &endpoint);
    settings.listener.push_str(more);
    let proxy = Proxy::start(&settings);
    (authority, endpoint, proxy)
}

fn what_is_no_tls_is_cut(driver: Driver) {
    let (_authority, endpoint, proxy) = proxy(driver, "");
    for request in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x80, 0x2e, 1, 3, 1, 0, 0x15], &[22, 3, 1, 0, 4, 1, 1, 0, 0]]
    {
        let mut client = connect(proxy.address);
        client.write_all(request).unwrap();
        // Cut, or told by an alert: in either case that was all.
        let mut answer = Vec::new();
        let _cut = client.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    let mut outcomes: Vec<_> =
        proxy.records(3).iter().map(|r| r["outcome"].as_str().unwrap().to_owned()).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["client_hello_too_large", "not_tls", "not_tls"]);
    assert_eq!(endpoint.accepted(), 0);
}

const SHORT: &str = ", timeout: {tcp: {tlsHandshakeTimeout: 300ms}}";

fn a_slow_hello_has_one_deadline(driver: Driver) {
    let (_authority, _endpoint, proxy) = proxy(driver, SHORT);
    let started = Instant::now();
    let mut client = connect(proxy.address);
    client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    // A record of 100 bytes, one after the other, each well within any timeout for itself.
    for byte in [22, 3, 1, 0, 100, 1].into_iter().chain(std::iter::repeat(0)) {
        if client.write_all(&[byte]).is_err() {
            break;
        }
        match client.read(&mut [0]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(proxy.record()["outcome"], "tls_handshake_timeout");
}

fn an_unfinished_handshake_has_the_same(driver: Driver) {
    let (authority, _endpoint, proxy) = proxy(driver, SHORT);
    let name = rustls::pki_types::ServerName::try_from("a.test").unwrap();
    let mut connection = rustls::ClientConnection::new(authority.client().into(), name).unwrap();
    let mut client = connect(proxy.address);
    connection.write_tls(&mut client).unwrap();
    let mut answer = Vec::new();
    let _cut = client.read_to_end(&mut answer);
    assert!(answer.len() > 500, "its half of the handshake came: {} bytes", answer.len());
    assert_eq!(proxy.record()["outcome"], "tls_handshake_timeout");
}

fn a_name_without_a_route_gets_an_alert(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let endpoint = Endpoint::echo();
    let settings = terminating(driver, &certificate, &endpoint)
        .route("hostnames: [a.test], backendRefs: [{upstream: main}]");
    let proxy = Proxy::start(&settings);
    let error = shake_hands(proxy.address, "b.test", authority.client()).unwrap_err();
    assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    let record = proxy.record();
    assert_eq!((&record["outcome"], &record["tls"]["server_name"]), (&"no_route".into(), &"b.test".into()));
}

fn a_client_that_trusts_nobody_is_recorded(driver: Driver) {
    let (_authority, endpoint, proxy) = proxy(driver, "");
    shake_hands(proxy.address, "a.test", Authority::new().client()).unwrap_err();
    let record = proxy.record();
    assert_eq!(record["outcome"], "tls_handshake_failed", "{record}");
    assert!(record["tls"]["failure"].as_str().unwrap().contains("alert"), "{record}");
    assert_eq!(endpoint.accepted(), 0);
}

fn garbage_leaves_nothing_behind(driver: Driver) {
    let (authority, _endpoint, proxy) = proxy(driver, SHORT);
    let mut hello = Vec::new();
    let name = rustls::pki_types::ServerName::try_from("a.test").unwrap();
    rustls::ClientConnection::new(authority.client().into(), name).unwrap().write_tls(&mut hello).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..300 {
        let mut bytes = hello.clone();
        match round % 3 {
            0 => random.fill(&mut bytes),
            1 => bytes.truncate(random.usize(..bytes.len())),
            _ => (0..4).for_each(|_| {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }),
        }
        let mut client = connect(proxy.address);
        // It may have been cut already.
        let _cut = client.write_all(&bytes);
    }
    eventually("an end of all of them", || proxy.live().len(), |live| *live == 0);
    let config = rustls::ClientConfig::builder_with_protocol_versions(&[&TLS12])
        .with_root_certificates(authority.roots())
        .with_no_client_auth();
    let mut client = shake_hands(proxy.address, "a.test", config).unwrap();
    assert_eq!(ask_securely(&mut client, "hello").unwrap(), "hello");
}

/// Clients that say nothing take nothing from the others; nor do those that begin a handshake and leave it at that.
fn a_flood_of_idle_clients_leaves_the_others_alone(driver: Driver) {
    /// As many as a worker has places for handshakes.
    const PLACES: usize = 1_024;
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let endpoint = Endpoint::echo();
    let mut settings = terminating(driver, &certificate, &endpoint);
    settings.workers = 1;
    settings.listener.push_str(", timeout: {tcp: {tlsHandshakeTimeout: 2m}}");
    let proxy = Proxy::start(&settings);
    let mut early = shake_hands(proxy.address, "a.test", authority.client()).unwrap();
    let mut idle: Vec<_> = (0..PLACES).map(|_| connect(proxy.address)).collect();
    proxy.wait_for_live(PLACES + 1);
    let is_served = || {
        shake_hands(proxy.address, "a.test", authority.client())
            .and_then(|mut client| ask_securely(&mut client, "hello"))
            .map_err(|error| error.to_string())
    };
    assert_eq!(is_served(), Ok("hello".to_owned()));

    let name = rustls::pki_types::ServerName::try_from("a.test").unwrap();
    let mut connection = rustls::ClientConnection::new(authority.client().into(), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    idle.iter_mut().for_each(|client| client.write_all(&hello).unwrap());
    idle.iter_mut().for_each(|client| client.read_exact(&mut [0]).unwrap());
    // Some of them have to go once they had time enough.
    assert_eq!(eventually("a place", is_served, Result::is_ok), Ok("hello".to_owned()));
    let limited =
        |records: &Vec<serde_json::Value>| records.iter().any(|r| r["outcome"] == "handshake_limit");
    eventually("an outcome", || proxy.lines.all(), limited);
    early.write_all(b"still here").unwrap();
    let mut answer = [0; 10];
    early.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"still here");
    drop(idle);
    proxy.wait_for_live(1);
}

/// Its goodbye comes after the handshake, or with its end.
fn who_leaves_while_it_waits_for_an_endpoint_is_gone(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let full = FullEndpoint::start();
    let mut settings = terminating(driver, &certificate, &Endpoint::echo());
    settings.endpoints = vec![full.address];
    settings.upstream = "retry: {perRetry: {timeout: 0s}}, timeout: {tcp: {connectTimeout: 5m}}".to_owned();
    let proxy = Proxy::start(&settings);
    for version in [&TLS12, &rustls::version::TLS13] {
        let config = rustls::ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        let mut client = shake_hands(proxy.address, "a.test", config).unwrap();
        proxy.wait_for_live(1);
        end(&mut client).unwrap();
        proxy.wait_for_live(0);
    }
    let name = rustls::pki_types::ServerName::try_from("a.test").unwrap();
    let mut connection = rustls::ClientConnection::new(authority.client().into(), name).unwrap();
    let mut stream = connect(proxy.address);
    connection.write_tls(&mut stream).unwrap();
    while connection.is_handshaking() {
        connection.read_tls(&mut stream).unwrap();
        connection.process_new_packets().unwrap();
    }
    connection.send_close_notify();
    let mut flight = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut flight).unwrap();
    }
    stream.write_all(&flight).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    proxy.wait_for_live(0);
    for record in proxy.records(3) {
        assert_eq!(record["outcome"], "downstream_closed", "{record}");
    }
}
