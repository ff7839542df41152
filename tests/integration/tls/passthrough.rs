//! TLS that ends at the endpoint: only the ClientHello is looked at.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::support::{
    Authority, Driver, Endpoint, Pattern, Proxy, Settings, ask_securely, connect, echo_securely, eventually,
    on_both_drivers, secure_endpoint, shake_hands,
};

use super::assert_ended;

on_both_drivers!(
    the_name_decides_and_the_endpoint_answers,
    every_byte_is_handed_on_as_it_came,
    a_hello_in_single_bytes_arrives,
    bulk_is_spliced,
    a_name_that_nobody_has_is_told_so,
    a_client_that_leaves_meanwhile_is_noticed,
    a_route_that_leads_elsewhere_meanwhile_cuts,
);

const LISTENER: &str = "protocol: TLS, tls: {mode: Passthrough}";

fn the_name_decides_and_the_endpoint_answers(driver: Driver) {
    let authority = Authority::new();
    let (one, other) = (authority.certify(&["one.test"]), authority.certify(&["two.test"]));
    let one = secure_endpoint(one.server(), echo_securely);
    let other = secure_endpoint(other.server(), echo_securely);
    let mut settings = Settings::new(driver, &[one.address])
        .listener(LISTENER)
        .route("hostnames: [one.test], backendRefs: [{upstream: main}]");
    settings.more_routes.push(
        "{name: other, listener: main, hostnames: [\"*.test\"], backendRefs: [{upstream: other}]}".to_owned(),
    );
    settings.more_upstreams.push(format!("{{name: other, endpoints: [{{address: \"{}\"}}]}}", other.address));
    let proxy = Proxy::start(&settings);
    // The endpoint's certificate is for the name that was asked for, or there would be no answer.
    for name in ["one.test", "ONE.Test", "two.test"] {
        let mut client = shake_hands(proxy.address, name, authority.client()).unwrap();
        assert_eq!(ask_securely(&mut client, "hello").unwrap(), "hello", "{name}");
    }
    let records = proxy.records(3);
    let names: Vec<_> = records.iter().map(|r| r["tls"]["server_name"].as_str().unwrap()).collect();
    assert_eq!(names, ["one.test", "one.test", "two.test"]);
    assert_eq!((one.accepted(), other.accepted()), (2, 1));
}

/// What a client says first, for this name.
fn hello(name: &str) -> Vec<u8> {
    let authority = Authority::new();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(authority.client()), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// An endpoint that takes bytes for what they are, and answers once it has them all.
fn recorder(wanted: usize) -> (Endpoint, Arc<Mutex<Vec<u8>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&heard);
    let endpoint = Endpoint::start(move |mut stream| {
        let mut bytes = vec![0; wanted];
        stream.read_exact(&mut bytes).unwrap();
        *written.lock().unwrap() = bytes;
        stream.write_all(b"answer").unwrap();
    });
    (endpoint, heard)
}

fn every_byte_is_handed_on_as_it_came(driver: Driver) {
    let bytes = [hello("a.test"), b"and what follows it at once".to_vec()].concat();
    let (endpoint, heard) = recorder(bytes.len());
    let proxy = Proxy::start(&Settings::new(driver, &[endpoint.address]).listener(LISTENER));
    let mut client = connect(proxy.address);
    client.write_all(&bytes).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
    assert!(*heard.lock().unwrap() == bytes);
    drop(client);
    assert_ended(&proxy, "upstream_closed", bytes.len() as u64, 6);
}

fn a_hello_in_single_bytes_arrives(driver: Driver) {
    let bytes = hello("a.test");
    let (endpoint, heard) = recorder(bytes.len());
    let proxy = Proxy::start(&Settings::new(driver, &[endpoint.address]).listener(LISTENER));
    let mut client = connect(proxy.address);
    for byte in &bytes {
        client.write_all(&[*byte]).unwrap();
    }
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(*heard.lock().unwrap() == bytes);
}

fn bulk_is_spliced(driver: Driver) {
    const LONG: usize = 16 * 1024 * 1024;
    let bytes = hello("a.test");
    let length = bytes.len();
    let endpoint = Endpoint::start(move |mut stream| {
        stream.read_exact(&mut vec![0; length]).unwrap();
        assert_eq!(Pattern::new(1).read_to_end(&stream), LONG);
        Pattern::new(2).write(0..LONG, &mut stream);
    });
    let proxy = Proxy::start(&Settings::new(driver, &[endpoint.address]).listener(LISTENER));
    let mut client = connect(proxy.address);
    client.write_all(&bytes).unwrap();
    Pattern::new(1).write(0..LONG, &mut client);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(Pattern::new(2).read_to_end(&client), LONG);
    assert_ended(&proxy, "downstream_closed", (length + LONG) as u64, LONG as u64);
    assert!(proxy.metric("sheave_worker_spliced_bytes_total", &[]) > 0.0, "bulk is spliced");
}

fn a_name_that_nobody_has_is_told_so(driver: Driver) {
    let endpoint = Endpoint::echo();
    let settings = Settings::new(driver, &[endpoint.address])
        .listener(LISTENER)
        .route("hostnames: [one.test], backendRefs: [{upstream: main}]");
    let proxy = Proxy::start(&settings);
    for (name, alert) in [("two.test", 112), ("10.0.0.1", 109)] {
        let mut client = connect(proxy.address);
        client.write_all(&hello(name)).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, [21, 3, 3, 0, 2, 2, alert], "{name}");
    }
    let outcomes: Vec<_> = proxy.records(2).iter().map(|r| r["outcome"].clone()).collect();
    assert_eq!(outcomes, ["no_route", "no_route"]);
    assert_eq!(endpoint.accepted(), 0);
}

fn a_client_that_leaves_meanwhile_is_noticed(driver: Driver) {
    let endpoint = crate::support::FullEndpoint::start();
    let proxy = Proxy::start(&Settings::new(driver, &[endpoint.address]).listener(LISTENER));
    let mut client = connect(proxy.address);
    client.write_all(&hello("a.test")).unwrap();
    let has_upstream = |live: &Vec<serde_json::Value>| live.iter().any(|l| l["upstream"] == "main");
    eventually("a connection on its way", || proxy.live(), has_upstream);
    drop(client);
    let record = proxy.record();
    assert_eq!(record["outcome"], "downstream_closed", "{record}");
}

/// While the hello is read: it goes neither where the old table leads nor, having been accepted by that, where the new one does.
fn a_route_that_leads_elsewhere_meanwhile_cuts(driver: Driver) {
    let (old, new) = (Endpoint::echo(), Endpoint::echo());
    let mut settings = Settings::new(driver, &[old.address]).listener(LISTENER);
    settings.more_upstreams.push(format!("{{name: new, endpoints: [{{address: \"{}\"}}]}}", new.address));
    let (moves, stays) = (hello("moves.test"), hello("stays.test"));
    let proxy = Proxy::start(&settings);
    let mut clients = [moves, stays].map(|hello| {
        let mut client = connect(proxy.address);
        client.write_all(&hello[..50]).unwrap();
        (client, hello)
    });
    proxy.wait_for_live(clients.len());
    settings.more_routes.push(
        "{name: new, listener: main, hostnames: [moves.test], backendRefs: [{upstream: new}]}".to_owned(),
    );
    proxy.reload(&settings).unwrap();
    clients.iter_mut().for_each(|(client, hello)| client.write_all(&hello[50..]).unwrap());
    let [(mut moved, _), (mut stayed, hello)] = clients;
    assert_eq!(moved.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let record = proxy.record();
    assert_eq!((&record["outcome"], &record["tls"]["server_name"]), (&"policy".into(), &"moves.test".into()));
    let mut echoed = vec![0; hello.len()];
    stayed.read_exact(&mut echoed).unwrap();
    assert_eq!((echoed, old.accepted(), new.accepted()), (hello, 1, 0));
}
