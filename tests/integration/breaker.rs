//! An endpoint that fails again and again is left alone for a while, and found again by one probe.

use std::io::ErrorKind;
use std::net::SocketAddr;

use serde_json::Value;

use crate::support::{
    Bound, Driver, Endpoint, Fault, FaultyEndpoint, FullEndpoint, Proxy, Settings, admin_get, ask,
    closed_port, connect, eventually, on_both_drivers,
};

on_both_drivers!(
    a_dead_endpoint_is_left_alone,
    without_another_endpoint_clients_are_reset_at_once,
    a_probe_finds_what_is_back,
    a_failed_probe_keeps_it_open,
    an_outage_of_all_is_looked_at_often_and_waited_for_no_longer,
    a_client_that_leaves_is_no_verdict,
    a_reload_keeps_it_unless_its_policy_changes,
);

const ROUND_ROBIN: &str = "loadBalancer: {type: RoundRobin}";

fn policy(failures: u32, open_for: &str) -> String {
    format!(
        "circuitBreaker: {{perEndpoint: {{consecutiveFailures: {failures}, openFor: {{baseInterval: {open_for}, \
         maxInterval: {open_for}}}}}}}"
    )
}

/// One endpoint, one attempt for each connection.
fn alone(driver: Driver, endpoint: SocketAddr, policy: &str) -> Settings {
    Settings::new(driver, &[endpoint]).upstream(&format!("retry: {{numRetries: 0}}, {policy}"))
}

fn a_dead_endpoint_is_left_alone(driver: Driver) {
    let (echo, dead) = (Endpoint::echo(), closed_port());
    let settings =
        Settings::new(driver, &[dead, echo.address]).upstream(&format!("{ROUND_ROBIN}, {}", policy(3, "1h")));
    let proxy = Proxy::start(&settings);
    for _ in 0..20 {
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
    }
    proxy.records(20);
    let dead = format!("endpoint=\"{dead}\"");
    assert_eq!(proxy.metric("sheave_endpoint_failures_total", &[&dead]), 3.0);
    assert_eq!(proxy.metric("sheave_endpoint_breaker_state", &[&dead, "state=\"open\""]), 1.0);
    assert_eq!(proxy.metric("sheave_endpoint_breaker_openings_total", &[&dead]), 1.0);
    assert_eq!(breakers(&proxy), ["open", "closed"]);
}

fn without_another_endpoint_clients_are_reset_at_once(driver: Driver) {
    let proxy = Proxy::start(&alone(driver, closed_port(), &policy(2, "1h")));
    for _ in 0..5 {
        assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    }
    let mut records = proxy.records(5);
    // Two workers write them.
    records.sort_by_key(|record| record["id"].as_u64());
    let outcomes: Vec<&Value> = records.iter().map(|record| &record["outcome"]).collect();
    assert_eq!(
        outcomes,
        ["connect_refused", "connect_refused", "breaker_open", "breaker_open", "breaker_open"]
    );
    assert_eq!(records[4]["side"], "upstream", "{}", records[4]);
    assert!(attempts(&records[4]).is_empty(), "{}", records[4]);
    assert_eq!(proxy.metric("sheave_endpoint_failures_total", &[]), 2.0);
}

fn a_probe_finds_what_is_back(driver: Driver) {
    let silent = Bound::new();
    let proxy = Proxy::start(&alone(driver, silent.address, &policy(1, "50ms")));
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    let _echo = silent.listen();
    let answer = || ask(proxy.address, "hello");
    eventually("an answer", answer, |answer| *answer == Ok("hello".to_owned())).unwrap();
    assert_eq!(breakers(&proxy), ["closed"]);
    assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
}

fn a_failed_probe_keeps_it_open(driver: Driver) {
    let proxy = Proxy::start(&alone(driver, closed_port(), &policy(1, "20ms")));
    let mut asked = 0;
    let openings = || {
        asked += 1;
        assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
        proxy.metric("sheave_endpoint_breaker_openings_total", &[])
    };
    let openings = eventually("four openings", openings, |openings| *openings >= 4.0);
    let records = proxy.records(asked);
    let attempted: usize = records.iter().map(|record| attempts(record).len()).sum();
    assert_eq!(attempted as f64, openings, "one attempt for each time that it opened: {records:#?}");
    assert!(
        records.iter().all(|record| record["outcome"] == "connect_refused"),
        "who can wait is not cut short"
    );
}

/// Where nobody else is, a longer time would only hold up the return; and who comes late in an outage is not kept waiting.
fn an_outage_of_all_is_looked_at_often_and_waited_for_no_longer(driver: Driver) {
    const LOOKS: f64 = 40.0;
    let dead = [FaultyEndpoint::start(Fault::Refuse), FaultyEndpoint::start(Fault::Refuse)];
    let upstream = "retry: {numRetries: 0}, timeout: {tcp: {connectTimeout: 200ms}}, circuitBreaker: {perEndpoint: \
                    {consecutiveFailures: 1, openFor: {baseInterval: 50ms, maxInterval: 1h}}}";
    let addresses = dead.each_ref().map(|endpoint| endpoint.address);
    let proxy = Proxy::start(&Settings::new(driver, &addresses).upstream(upstream));
    let mut asked = 0;
    let openings = || {
        asked += 1;
        assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
        proxy.metric("sheave_endpoint_breaker_openings_total", &[])
    };
    // Doubled each time, the last of these would be half a day away.
    eventually("many looks", openings, |openings| *openings >= LOOKS);
    let records = proxy.records(asked);
    let attempted: usize = records.iter().map(|record| attempts(record).len()).sum();
    assert_eq!(attempted as f64, proxy.metric("sheave_endpoint_failures_total", &[]));
    assert!(attempted < LOOKS as usize + 2, "one attempt for each time that they opened: {attempted}");
    let at_once = |record: &&Value| {
        record["outcome"] == "breaker_open" && record["duration_ms"].as_f64().unwrap() < 20.0
    };
    let refused = records.iter().filter(at_once).count();
    assert!(refused >= 5, "{refused} of {asked}");
    dead[1].set(Fault::None);
    let answer = || ask(proxy.address, "hello");
    eventually("an answer", answer, |answer| *answer == Ok("hello".to_owned())).unwrap();
    assert_eq!(breakers(&proxy)[1], "closed");
}

/// The probe goes to an endpoint that never answers; who waits for its verdict is the next one when its client has left.
fn a_client_that_leaves_is_no_verdict(driver: Driver) {
    let full = FullEndpoint::start();
    let upstream = |timeout: &str| {
        format!(
            "retry: {{numRetries: 0, perRetry: {{timeout: {timeout}}}}}, timeout: {{tcp: {{connectTimeout: 20s}}}}, {}",
            policy(1, "50ms")
        )
    };
    let settings = Settings::new(driver, &[full.address]).upstream(&upstream("100ms"));
    let proxy = Proxy::start(&settings);
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    proxy.reload(&settings.clone().upstream(&upstream("20s"))).unwrap();
    let first = connect(proxy.address);
    eventually("a probe under way", || breakers(&proxy), |breakers| *breakers == ["half_open"]);
    let second = connect(proxy.address);
    proxy.wait_for_live(2);
    let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
    assert_eq!(table["upstreams"][0]["endpoints"][0]["active"], 1, "no second attempt beside it: {table:#}");
    drop(first);
    proxy.wait_for_live(1);
    let accepted = full.accept();
    eventually("the breaker is closed", || breakers(&proxy), |breakers| *breakers == ["closed"]);
    drop((second, accepted));
}

fn a_reload_keeps_it_unless_its_policy_changes(driver: Driver) {
    let settings = alone(driver, closed_port(), &policy(1, "1h"));
    let proxy = Proxy::start(&settings);
    let outcome = |count: usize| {
        assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
        proxy.records(count).last().unwrap()["outcome"].clone()
    };
    assert_eq!(outcome(1), "connect_refused");
    assert_eq!(outcome(2), "breaker_open");
    proxy.reload(&settings.clone().listener("timeout: {tcp: {idleTimeout: 7s}}")).unwrap();
    assert_eq!(outcome(3), "breaker_open");
    proxy
        .reload(&settings.clone().upstream(&format!("retry: {{numRetries: 0}}, {}", policy(2, "1h"))))
        .unwrap();
    assert_eq!(outcome(4), "connect_refused");
    assert_eq!(outcome(5), "connect_refused");
    assert_eq!(outcome(6), "breaker_open");
    proxy
        .reload(
            &settings
                .upstream("retry: {numRetries: 0}, circuitBreaker: {perEndpoint: {consecutiveFailures: 0}}"),
        )
        .unwrap();
    for count in 7..15 {
        assert_eq!(outcome(count), "connect_refused");
    }
    let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
    assert!(table["upstreams"][0]["endpoints"][0].get("breaker").is_none(), "{table:#}");
}

/// Of the endpoints of the upstream `main`, in the table.
fn breakers(proxy: &Proxy) -> Vec<String> {
    let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
    let endpoints = table["upstreams"][0]["endpoints"].as_array().unwrap().iter();
    endpoints.map(|endpoint| endpoint["breaker"].as_str().unwrap().to_owned()).collect()
}

fn attempts(record: &Value) -> Vec<Value> {
    record["attempts"].as_array().cloned().unwrap_or_default()
}
