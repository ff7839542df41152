//! A client that leaves while the connection to the endpoint is still under way.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use serde_json::Value;

use crate::support::{
    Driver, FullEndpoint, Proxy, Settings, admin_get, connect, eventually, on_both_drivers, reset_on_close,
};

on_both_drivers!(
    a_reset_ends_the_attempt,
    a_silent_fin_ends_the_attempt,
    a_reset_after_bytes_ends_the_attempt,
    a_request_with_fin_waits_for_its_answer,
);

/// Far longer than these tests take.
const CONNECT_TIMEOUT: &str = "timeout: {tcp: {connectTimeout: 25s}}";

fn a_reset_ends_the_attempt(driver: Driver) {
    let (endpoint, proxy) = start(driver);
    let client = connect(proxy.address);
    wait_for_active(&proxy, 1);
    reset_on_close(&client);
    drop(client);
    assert_left(&proxy, &endpoint, "downstream_reset");
}

fn a_silent_fin_ends_the_attempt(driver: Driver) {
    let (endpoint, proxy) = start(driver);
    let client = connect(proxy.address);
    wait_for_active(&proxy, 1);
    drop(client);
    assert_left(&proxy, &endpoint, "downstream_closed");
}

fn a_reset_after_bytes_ends_the_attempt(driver: Driver) {
    let (endpoint, proxy) = start(driver);
    let mut client = connect(proxy.address);
    wait_for_active(&proxy, 1);
    client.write_all(b"request").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    reset_on_close(&client);
    drop(client);
    assert_left(&proxy, &endpoint, "downstream_reset");
}

fn a_request_with_fin_waits_for_its_answer(driver: Driver) {
    let (endpoint, proxy) = start(driver);
    let mut client = connect(proxy.address);
    client.write_all(b"request").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    wait_for_active(&proxy, 1);
    // Longer than Sheave waits for a client that has sent nothing.
    let is_older = |live: &Vec<Value>| live.len() != 1 || live[0]["ageSeconds"].as_f64().unwrap() > 0.3;
    assert_eq!(eventually("a waiting client", || proxy.live(), is_older).len(), 1, "it still waits");
    let serving = thread::spawn(move || {
        let mut stream = endpoint.accept();
        let mut request = String::new();
        stream.read_to_string(&mut request).unwrap();
        stream.write_all(b"answer").unwrap();
        request
    });
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!((serving.join().unwrap().as_str(), answer.as_str()), ("request", "answer"));
    let record = proxy.record();
    assert_eq!(record["outcome"], "downstream_closed", "{record}");
    assert_eq!((record["bytes_received"].as_u64(), record["bytes_sent"].as_u64()), (Some(7), Some(6)));
}

fn start(driver: Driver) -> (FullEndpoint, Proxy) {
    let endpoint = FullEndpoint::start();
    let proxy = Proxy::start(&Settings::new(driver, &[endpoint.address]).upstream(CONNECT_TIMEOUT));
    (endpoint, proxy)
}

/// Connections and attempts of the endpoint, in the table.
fn wait_for_active(proxy: &Proxy, wanted: u64) {
    let active = || {
        let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
        table["upstreams"][0]["endpoints"][0]["active"].as_u64().unwrap()
    };
    eventually(&format!("{wanted} active at the endpoint"), active, |active| *active == wanted);
}

fn assert_left(proxy: &Proxy, endpoint: &FullEndpoint, outcome: &str) {
    let record = proxy.record();
    assert_eq!(
        (record["outcome"].as_str(), record["side"].as_str()),
        (Some(outcome), Some("downstream")),
        "{record}"
    );
    let attempt = &record["attempts"][0];
    assert_eq!(
        (attempt["endpoint"].as_str(), attempt["result"].as_str()),
        (Some(&*endpoint.address.to_string()), Some(outcome)),
        "who was waited for: {record}"
    );
    let failures = proxy.metric("sheave_endpoint_failures_total", &[]);
    assert_eq!(failures, 0.0, "not the endpoint's failure");
    assert!(record["duration_ms"].as_f64().unwrap() < 10_000.0, "long before the timeout: {record}");
    wait_for_active(proxy, 0);
}
