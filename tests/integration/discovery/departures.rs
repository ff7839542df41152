//! Connections of endpoints that leave the cluster.

use std::io::Read;
use std::net::TcpStream;
use std::time::Instant;

use super::*;
use crate::support::{DEADLINE, echoed};

on_both_drivers!(
    held_connections_end_with_their_time,
    idle_connections_are_closed_one_by_one,
    an_endpoint_that_comes_back_keeps_its_connections
);

/// As measured with clocks that tick every few milliseconds.
const TICKS: Duration = Duration::from_millis(20);

fn draining(driver: Driver, api: &ApiServer, drain: &str) -> Settings {
    following(driver, api).upstream(&format!("{}, drain: {{{drain}}}", follows("db", "pg", "5432")))
}

fn end_of(mut stream: &TcpStream) -> Instant {
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "FIN, not RST");
    Instant::now()
}

fn held_connections_end_with_their_time(driver: Driver) {
    let (leaves, stays) = (Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    let first = slice("db", "pg", "first", leaves.address);
    api.put_all([service("db", "pg"), first.clone()]);
    let proxy = Proxy::start(&draining(driver, &api, "timeout: 1s"));
    let admin = proxy.admin;
    has(admin, "main", &[&leaves]);
    in_step(admin);
    let mut held = connect(proxy.address);
    echoed(&mut held, b"before").unwrap();
    api.put(slice("db", "pg", "second", stays.address));
    has(admin, "main", &[&leaves, &stays]);
    let left = Instant::now();
    api.delete(&first);
    // No look at the table between, which takes time of the connection's.
    echoed(&mut held, b"after").unwrap();
    has(admin, "main", &[&stays]);
    let end = end_of(&held);
    assert!(end - left + TICKS >= Duration::from_secs(1), "ended after {:?}", end - left);
    let record = proxy.record();
    assert_eq!(record["outcome"], "table_removed", "{record}");
    assert_eq!(record["endpoint"], leaves.address.to_string());
    exchange(proxy.address).unwrap();
    eventually("nothing that leaves", || upstream(admin, "main")["leaving"].clone(), |l| *l == json!([]));
}

fn idle_connections_are_closed_one_by_one(driver: Driver) {
    const IDLE: usize = 6;
    const PER_SECOND: f64 = 4.0;
    let (leaves, stays) = (Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    let first = slice("db", "pg", "first", leaves.address);
    api.put_all([service("db", "pg"), first.clone()]);
    let drain = format!("timeout: 60s, closePerSecond: {PER_SECOND}");
    // With several workers the order is each worker's.
    let proxy = Proxy::start(&Settings { workers: 1, ..draining(driver, &api, &drain) });
    let admin = proxy.admin;
    has(admin, "main", &[&leaves]);
    in_step(admin);
    let mut idle: Vec<TcpStream> = (0..IDLE).map(|_| connect(proxy.address)).collect();
    for stream in &mut idle {
        echoed(stream, b"hello").unwrap();
    }
    let idle_enough = |live: &Vec<Value>| {
        live.iter().filter(|one| one["idleSeconds"].as_f64() >= Some(0.05)).count() == IDLE
    };
    eventually("a difference in idleness", || proxy.live(), idle_enough);
    for stream in idle.iter_mut().step_by(2) {
        echoed(stream, b"once more").unwrap();
    }
    eventually("a difference in idleness", || proxy.live(), idle_enough);
    let busy = [Load::long(connect(proxy.address)), Load::long(connect(proxy.address))];
    proxy.wait_for_live(IDLE + busy.len());
    let name = |stream: &TcpStream| stream.local_addr().unwrap().to_string();
    let mut expected: Vec<String> = idle.iter().skip(1).step_by(2).map(name).collect();
    expected.extend(idle.iter().step_by(2).map(name));

    let (left, left_at) = (Instant::now(), SystemTime::now());
    api.put(slice("db", "pg", "second", stays.address));
    api.delete(&first);
    let records = proxy.records(IDLE);
    assert!(busy.iter().all(|load| load.exchanges() > 0 && !load.is_over()), "idle ones first");
    let order: Vec<&str> = records.iter().map(|record| record["client"].as_str().unwrap()).collect();
    assert_eq!(order, expected, "the longest idle first");
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record["outcome"], "table_removed", "{record}");
        let least = Duration::from_secs_f64((number + 1) as f64 / PER_SECOND);
        assert!(ended(record) + TICKS >= left_at + least, "number {number} too early: {records:?}");
    }
    assert!(left.elapsed() < DEADLINE, "long before their time is over");
    for stream in &idle {
        end_of(stream);
    }
    eventually("the end of busy ones", || busy.iter().all(Load::is_over), |over| *over);
    assert_eq!(proxy.records(IDLE + 2)[IDLE]["outcome"], "table_removed");
}

fn ended(record: &Value) -> SystemTime {
    let accepted = humantime::parse_rfc3339(record["time"].as_str().unwrap()).unwrap();
    accepted + Duration::from_secs_f64(record["duration_ms"].as_f64().unwrap() / 1_000.0)
}

fn an_endpoint_that_comes_back_keeps_its_connections(driver: Driver) {
    const TIMEOUT: Duration = Duration::from_secs(3);
    let (leaves, stays) = (Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    let first = slice("db", "pg", "first", leaves.address);
    api.put_all([service("db", "pg"), first.clone()]);
    // Slower than once in the time there is: it must not close anything, but it is told of the way back.
    let proxy = Proxy::start(&draining(driver, &api, "timeout: 3s, closePerSecond: 0.1"));
    let admin = proxy.admin;
    has(admin, "main", &[&leaves]);
    in_step(admin);
    let mut held = connect(proxy.address);
    echoed(&mut held, b"before").unwrap();
    api.put(slice("db", "pg", "second", stays.address));
    api.delete(&first);
    has(admin, "main", &[&stays]);
    let gone = Instant::now();
    assert_eq!(upstream(admin, "main")["leaving"][0]["active"], 1);
    api.put(first.clone());
    has(admin, "main", &[&leaves, &stays]);
    assert!(gone.elapsed() < TIMEOUT, "too slow a machine to tell");
    let active = || {
        let upstream = upstream(admin, "main");
        let endpoints = upstream["endpoints"].as_array().unwrap().clone();
        endpoints.into_iter().find(|e| e["address"] == leaves.address.to_string()).unwrap()["active"].clone()
    };
    assert_eq!(active(), 1, "it is the endpoint that it was");
    let past = gone + TIMEOUT + Duration::from_millis(500);
    let talk = || echoed(&mut held, b"still here").map(|()| Instant::now()).unwrap();
    eventually("the end of the time that it had", talk, |now| *now > past);

    // It leaves for good: the time begins anew.
    let left = Instant::now();
    api.delete(&first);
    has(admin, "main", &[&stays]);
    let end = end_of(&held);
    assert!(end - left + TICKS >= TIMEOUT, "ended after {:?}", end - left);
    assert_eq!(proxy.record()["outcome"], "table_removed");
}
