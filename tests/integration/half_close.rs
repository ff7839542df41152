//! Half-close in either order: FIN passes on, the other direction goes on.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use serde_json::Value;

use crate::support::{Driver, Endpoint, Pattern, Proxy, Settings, connect, eventually, on_both_drivers};

on_both_drivers!(
    the_answer_after_the_clients_fin_is_whole,
    the_client_goes_on_after_the_servers_fin,
    bulk_in_flight_while_the_client_ends_first,
    bulk_in_flight_while_the_server_ends_first,
    a_fin_without_a_byte_from_the_client,
    a_fin_without_a_byte_from_the_server,
    a_fin_right_after_connecting,
);

/// Far more than a pipe and the sockets' usual buffers.
const LONG: usize = 16 * 1024 * 1024;

fn the_answer_after_the_clients_fin_is_whole(driver: Driver) {
    let endpoint = Endpoint::start(|mut stream| {
        assert_eq!(Pattern::new(1).read_to_end(&stream), 1_000);
        Pattern::new(2).write(0..LONG, &mut stream);
    });
    let proxy = Proxy::start(&Settings::new(driver, &[endpoint.address]));
    let mut client = connect(proxy.address);
    Pattern::new(1).write(0..1_000, &mut client);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(Pattern::new(2).read_to_end(&client), LONG);
    assert_ended(&proxy, "downstream_closed", 1_000, LONG);
}

fn the_client_goes_on_after_the_servers_fin(driver: Driver) {
    let (report, reported) = flume::bounded(1);
    let endpoint = Endpoint::start(move |mut stream| {
        Pattern::new(2).write(0..1_000, &mut stream);
        stream.shutdown(Shutdown::Write).unwrap();
        report.send(Pattern::new(1).read_to_end(&stream)).unwrap();
    });
    let proxy = Proxy::start(&Settings::new(driver, &[endpoint.address]));
    let mut client = connect(proxy.address);
    assert_eq!(Pattern::new(2).read_to_end(&client), 1_000);
    // The server has ended; the client's bytes still go, small ones and bulk.
    for byte in 0..100 {
        Pattern::new(1).write(byte..byte + 1, &mut client);
    }
    Pattern::new(1).write(100..LONG, &mut client);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(reported.recv(), Ok(LONG));
    assert_ended(&proxy, "upstream_closed", LONG, 1_000);
}

fn bulk_in_flight_while_the_client_ends_first(driver: Driver) {
    let endpoint = Endpoint::start(|stream| ends_second(&stream));
    let proxy = Proxy::start(&Settings::new(driver, &[endpoint.address]));
    ends_first(&connect(proxy.address));
    assert_ended(&proxy, "downstream_closed", LONG, LONG);
    assert_spliced(&proxy);
}

fn bulk_in_flight_while_the_server_ends_first(driver: Driver) {
    let (report, reported) = flume::bounded(1);
    let endpoint = Endpoint::start(move |stream| {
        ends_first(&stream);
        report.send(()).unwrap();
    });
    let proxy = Proxy::start(&Settings::new(driver, &[endpoint.address]));
    ends_second(&connect(proxy.address));
    reported.recv().unwrap();
    assert_ended(&proxy, "upstream_closed", LONG, LONG);
    assert_spliced(&proxy);
}

fn a_fin_without_a_byte_from_the_client(driver: Driver) {
    let endpoint = Endpoint::start(|mut stream| {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        stream.write_all(b"bye").unwrap();
    });
    let proxy = Proxy::start(&Settings::new(driver, &[endpoint.address]));
    let mut client = connect(proxy.address);
    wait_until_connected(&proxy);
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "bye");
    assert_ended(&proxy, "downstream_closed", 0, 3);
}

fn a_fin_without_a_byte_from_the_server(driver: Driver) {
    let endpoint = Endpoint::start(drop);
    let proxy = Proxy::start(&Settings::new(driver, &[endpoint.address]));
    let mut client = connect(proxy.address);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(client);
    assert_ended(&proxy, "upstream_closed", 0, 0);
}

/// `nc host port </dev/null`: a client that only listens.
fn a_fin_right_after_connecting(driver: Driver) {
    let endpoint = Endpoint::start(|mut stream| {
        stream.write_all(b"220 ready").unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
    let proxy = Proxy::start(&Settings::new(driver, &[endpoint.address]));
    let mut client = connect(proxy.address);
    client.shutdown(Shutdown::Write).unwrap();
    let mut greeting = String::new();
    client.read_to_string(&mut greeting).unwrap();
    assert_eq!(greeting, "220 ready");
    assert_ended(&proxy, "downstream_closed", 0, 9);
}

/// Sends all it has and FIN, while it reads.
fn ends_first(stream: &TcpStream) {
    thread::scope(|scope| {
        scope.spawn(|| {
            Pattern::new(1).write(0..LONG, stream);
            stream.shutdown(Shutdown::Write).unwrap();
        });
        assert_eq!(Pattern::new(2).read_to_end(stream), LONG);
    });
}

/// Sends half before it reads anything, so that the other's bytes fill every buffer on the way, and half after the
/// other's FIN.
fn ends_second(stream: &TcpStream) {
    Pattern::new(2).write(0..LONG / 2, stream);
    assert_eq!(Pattern::new(1).read_to_end(stream), LONG);
    Pattern::new(2).write(LONG / 2..LONG, stream);
    stream.shutdown(Shutdown::Write).unwrap();
}

fn wait_until_connected(proxy: &Proxy) {
    let is_connected = |live: &Vec<Value>| live.iter().any(|connection| connection["endpoint"].is_string());
    eventually("a connection with an endpoint", || proxy.live(), is_connected);
}

fn assert_ended(proxy: &Proxy, outcome: &str, received: usize, sent: usize) {
    let record = proxy.record();
    assert_eq!(record["outcome"], outcome, "{record}");
    assert_eq!(
        (record["bytes_received"].as_u64(), record["bytes_sent"].as_u64()),
        (Some(received as u64), Some(sent as u64)),
        "{record}"
    );
}

fn assert_spliced(proxy: &Proxy) {
    assert!(proxy.metric("sheave_worker_spliced_bytes_total", &[]) > 0.0, "bulk is spliced");
}
