//! Passive health: who fails its connections is ejected for a while, and only who fails them by itself.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use serde_json::Value;

use crate::support::{
    Authority, Bound, Driver, Endpoint, FullEndpoint, Proxy, Settings, admin_get, ask, closed_port, connect,
    echo_securely, eventually, on_both_drivers, reset_on_close, secure_endpoint, until_still,
};

on_both_drivers!(
    who_refuses_is_ejected,
    who_is_ejected_returns_by_itself,
    who_resets_before_any_answer_is_ejected,
    who_refuses_after_the_handshake_is_ejected,
    resets_do_not_count_unless_asked_for,
    who_has_answered_may_reset,
    a_client_that_aborts_ejects_nobody,
    an_idle_timeout_ejects_nobody,
    no_more_than_their_share_is_ejected,
    the_only_one_is_never_ejected,
    nearly_all_ejected_are_used_all_the_same,
    a_reload_keeps_it_unless_its_policy_changes,
    who_left_and_is_back_is_well,
);

/// Longer than any test takes.
const FOR_LONG: &str = "baseEjectionTime: 1h";

/// Of an upstream without breakers, so that every failure is one for passive health.
fn passive(keys: &str, retries: u32) -> String {
    format!(
        "loadBalancer: {{type: RoundRobin}}, retry: {{numRetries: {retries}}}, \
         circuitBreaker: {{perEndpoint: {{consecutiveFailures: 0}}}}, \
         healthCheck: {{panicThreshold: 50, passive: {{{keys}}}}}"
    )
}

fn start(driver: Driver, endpoints: &[SocketAddr], keys: &str, retries: u32) -> Proxy {
    Proxy::start(&Settings::new(driver, endpoints).upstream(&passive(keys, retries)))
}

fn who_refuses_is_ejected(driver: Driver) {
    let (echo, dead) = (Endpoint::echo(), closed_port());
    let keys = format!("consecutiveFailures: 3, {FOR_LONG}");
    let proxy = start(driver, &[dead, echo.address], &keys, 1);
    for _ in 0..6 {
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
    }
    await_ejected(&proxy, &[true, false]);
    let shown = &endpoints(&proxy)[0];
    assert_eq!((&shown["health"], &shown["unhealthyBy"][0]), (&"unhealthy".into(), &"passive".into()));
    let left = shown["ejectedForSeconds"].as_f64().unwrap();
    assert!((3_000.0..=3_600.0).contains(&left), "{shown:#}");
    let dead = dead.to_string();
    assert_eq!(proxy.metric("sheave_endpoint_ejected", &[&dead]), 1.0);
    assert_eq!(proxy.metric("sheave_endpoint_ejections_total", &[&dead]), 1.0);
    assert_eq!(proxy.metric("sheave_endpoint_unhealthy", &[]), 0.0, "no probe says so");
    assert_eq!(proxy.metric("sheave_upstream_healthy_endpoints", &[]), 1.0);
    for _ in 0..10 {
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
    }
    proxy.records(16);
    assert_eq!(proxy.metric("sheave_endpoint_failures_total", &[&dead]), 3.0, "nobody tried it any more");
}

fn who_is_ejected_returns_by_itself(driver: Driver) {
    let (echo, absent) = (Endpoint::echo(), Bound::new());
    let keys = "consecutiveFailures: 1, baseEjectionTime: 50ms";
    let proxy = start(driver, &[absent.address, echo.address], keys, 1);
    let address = absent.address.to_string();
    let ejections = || {
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
        proxy.metric("sheave_endpoint_ejections_total", &[&address])
    };
    eventually("that it is ejected again and again", ejections, |ejections| *ejections >= 3.0);
    let _back = absent.listen();
    let is_served = || {
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
        proxy.lines.all().iter().any(|record| record["endpoint"] == address)
    };
    eventually("a connection to who is back", is_served, |is_so| *is_so);
    await_ejected(&proxy, &[false, false]);
    assert_eq!(proxy.metric("sheave_endpoint_ejected", &[]), 0.0);
    assert_eq!(endpoints(&proxy)[0]["health"], "healthy");
    assert!(endpoints(&proxy)[0].get("unhealthyBy").is_none());
}

/// Resets once it has been asked, so that it is connected by then.
fn resets_when_asked(answer: &'static [u8]) -> Endpoint {
    Endpoint::start(move |mut stream| {
        reset_on_close(&stream);
        if stream.read(&mut [0]).is_ok() {
            stream.write_all(answer).ok();
        }
    })
}

fn who_resets_before_any_answer_is_ejected(driver: Driver) {
    let (echo, bad) = (Endpoint::echo(), resets_when_asked(b""));
    let keys = format!("consecutiveFailures: 3, resetWithin: 20s, {FOR_LONG}");
    let proxy = start(driver, &[bad.address, echo.address], &keys, 1);
    let mut resets = 0;
    for _ in 0..6 {
        resets += u32::from(ask(proxy.address, "hello") == Err(ErrorKind::ConnectionReset));
    }
    assert_eq!(resets, 3, "bytes are never sent again");
    await_ejected(&proxy, &[true, false]);
    for _ in 0..10 {
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
    }
    assert_eq!(bad.accepted(), 3);
}

/// In TLS 1.3 the handshake is over before an endpoint says that it wants a certificate.
fn who_refuses_after_the_handshake_is_ejected(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["pg.test"]);
    let picky = secure_endpoint(authority.server_that_asks(&certificate), echo_securely);
    let good = secure_endpoint(certificate.server(), echo_securely);
    let keys = format!("consecutiveFailures: 3, resetWithin: 20s, {FOR_LONG}");
    let upstream = format!(
        "{}, tls: {{validation: {{caCertificateRefs: [{{file: {}}}], hostname: pg.test}}}}",
        passive(&keys, 1),
        authority.file().display()
    );
    let settings = Settings::new(driver, &[picky.address, good.address]).upstream(&upstream);
    let proxy = Proxy::start(&settings);
    let refused = (0..6).filter(|_| ask(proxy.address, "hello").is_err()).count();
    assert_eq!(refused, 3, "{:#?}", proxy.records(6));
    await_ejected(&proxy, &[true, false]);
    assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
}

fn resets_do_not_count_unless_asked_for(driver: Driver) {
    for keys in ["", ", resetWithin: 1ms"] {
        let (echo, bad) = (Endpoint::echo(), resets_when_asked(b""));
        let keys = format!("consecutiveFailures: 1, {FOR_LONG}{keys}");
        let proxy = start(driver, &[bad.address, echo.address], &keys, 1);
        for _ in 0..4 {
            let mut client = connect(proxy.address);
            proxy.wait_for_live(1);
            let is_connected = |live: &Vec<Value>| live[0]["endpoint"].is_string();
            let live = eventually("its endpoint", || proxy.live(), is_connected);
            let connected_by = live[0]["ageSeconds"].as_f64().unwrap();
            let is_old = |live: &Vec<Value>| live[0]["ageSeconds"].as_f64().unwrap() > connected_by + 0.05;
            eventually("some time", || proxy.live(), is_old);
            client.write_all(b"?").unwrap();
            let _any = client.read(&mut [0]);
            drop(client);
            proxy.wait_for_live(0);
        }
        assert_eq!(bad.accepted(), 2);
        assert_none_ejected(&proxy);
    }
}

fn who_has_answered_may_reset(driver: Driver) {
    let (echo, rude) = (Endpoint::echo(), resets_when_asked(b"!"));
    let keys = format!("consecutiveFailures: 1, resetWithin: 20s, {FOR_LONG}");
    let proxy = start(driver, &[rude.address, echo.address], &keys, 1);
    for _ in 0..6 {
        let mut client = connect(proxy.address);
        client.write_all(b"?").unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 1);
        drop(client);
    }
    proxy.records(6);
    assert_none_ejected(&proxy);
}

fn a_client_that_aborts_ejects_nobody(driver: Driver) {
    let silent = Endpoint::start(|mut stream| while stream.read(&mut [0; 64]).is_ok_and(|read| read > 0) {});
    let full = FullEndpoint::start();
    let keys = format!("consecutiveFailures: 1, resetWithin: 20s, maxEjectionPercent: 100, {FOR_LONG}");
    let waits = "timeout: {tcp: {connectTimeout: 25s}}";
    let upstream = passive(&keys, 0).replace("numRetries: 0", "numRetries: 0, perRetry: {timeout: 0s}");
    let settings = Settings::new(driver, &[silent.address, full.address]).upstream(&upstream);
    let proxy = Proxy::start(&Settings { upstream: format!("{upstream}, {waits}"), ..settings });
    // Each with an attempt, or a connection, that came to nothing yet.
    for request in [&b""[..], b"", b"request", b"request"] {
        let mut client = connect(proxy.address);
        client.write_all(request).unwrap();
        let active = || endpoints(&proxy).iter().map(|endpoint| endpoint["active"].as_u64().unwrap()).sum();
        eventually("its attempt", active, |active: &u64| *active == 1);
        reset_on_close(&client);
        drop(client);
        proxy.wait_for_live(0);
    }
    assert!(proxy.records(4).iter().all(|record| record["outcome"] == "downstream_reset"));
    assert_none_ejected(&proxy);
}

fn an_idle_timeout_ejects_nobody(driver: Driver) {
    let silent = Endpoint::start(|mut stream| while stream.read(&mut [0; 64]).is_ok_and(|read| read > 0) {});
    let keys = format!("consecutiveFailures: 1, resetWithin: 20s, maxEjectionPercent: 100, {FOR_LONG}");
    let upstream = format!("{}, timeout: {{tcp: {{idleTimeout: 30ms}}}}", passive(&keys, 0));
    let proxy = Proxy::start(&Settings::new(driver, &[silent.address]).upstream(&upstream));
    for _ in 0..2 {
        let _end = connect(proxy.address).read(&mut [0]);
    }
    assert!(proxy.records(2).iter().all(|record| record["outcome"] == "idle_timeout"));
    assert_none_ejected(&proxy);
}

fn no_more_than_their_share_is_ejected(driver: Driver) {
    let dead: Vec<SocketAddr> = (0..5).map(|_| closed_port()).collect();
    let keys = format!("consecutiveFailures: 1, maxEjectionPercent: 59, {FOR_LONG}");
    let proxy = start(driver, &dead, &keys, 4);
    let ejected = || {
        ask(proxy.address, "hello").unwrap_err();
        let ejected = proxy.metric("sheave_endpoint_ejected", &[]);
        assert!(ejected <= 2.0, "{ejected} of 5 at 59%");
        ejected
    };
    eventually("two of five", ejected, |ejected| *ejected == 2.0);
    // Both in one table, or one after the other.
    let settled = until_still("tables", || generation(&proxy));
    for _ in 0..5 {
        ejected();
    }
    assert_eq!(until_still("tables", || generation(&proxy)), settled, "who waits for room makes no tables");
    assert_eq!(proxy.metric("sheave_endpoint_ejections_total", &[]), 2.0);
}

fn the_only_one_is_never_ejected(driver: Driver) {
    let proxy = start(driver, &[closed_port()], &format!("consecutiveFailures: 1, {FOR_LONG}"), 0);
    for _ in 0..3 {
        assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    }
    assert!(proxy.records(3).iter().all(|record| record["outcome"] == "connect_refused"));
    assert_none_ejected(&proxy);
}

fn nearly_all_ejected_are_used_all_the_same(driver: Driver) {
    let dead = [closed_port(), closed_port()];
    let keys = format!("consecutiveFailures: 1, maxEjectionPercent: 100, {FOR_LONG}");
    let proxy = start(driver, &dead, &keys, 1);
    ask(proxy.address, "hello").unwrap_err();
    await_ejected(&proxy, &[true, true]);
    assert_eq!(proxy.metric("sheave_upstream_panics", &["upstream=\"main\""]), 1.0);
    ask(proxy.address, "hello").unwrap_err();
    assert_eq!(proxy.records(2)[1]["outcome"], "connect_refused", "they were tried");
}

fn a_reload_keeps_it_unless_its_policy_changes(driver: Driver) {
    let (echo, dead) = (Endpoint::echo(), closed_port());
    let keys = format!("consecutiveFailures: 1, {FOR_LONG}");
    let settings = Settings::new(driver, &[dead, echo.address]).upstream(&passive(&keys, 1));
    let proxy = Proxy::start(&settings);
    let until_ejected = || {
        ask(proxy.address, "hello").unwrap();
        ask(proxy.address, "hello").unwrap();
        await_ejected(&proxy, &[true, false]);
    };
    until_ejected();
    proxy.reload(&settings.clone().listener("timeout: {tcp: {idleTimeout: 7s}}")).unwrap();
    until_still("tables", || generation(&proxy));
    assert_eq!(ejected(&proxy), [true, false]);
    proxy.reload(&settings.clone().upstream(&passive(&format!("{keys}, resetWithin: 1s"), 1))).unwrap();
    await_ejected(&proxy, &[false, false]);
    until_ejected();
    proxy.reload(&settings.upstream(&passive("consecutiveFailures: 0", 1))).unwrap();
    await_ejected(&proxy, &[false, false]);
    for _ in 0..6 {
        ask(proxy.address, "hello").unwrap();
    }
    assert_none_ejected(&proxy);
}

fn who_left_and_is_back_is_well(driver: Driver) {
    let (echo, dead) = (Endpoint::echo(), closed_port());
    let keys = format!("consecutiveFailures: 1, {FOR_LONG}");
    let both = Settings::new(driver, &[dead, echo.address]).upstream(&passive(&keys, 1));
    let proxy = Proxy::start(&both);
    ask(proxy.address, "hello").unwrap();
    ask(proxy.address, "hello").unwrap();
    await_ejected(&proxy, &[true, false]);
    proxy.reload(&Settings { endpoints: vec![echo.address], ..both.clone() }).unwrap();
    until_still("tables", || generation(&proxy));
    proxy.reload(&both).unwrap();
    assert_none_ejected(&proxy);
    assert_eq!(ejected(&proxy), [false, false]);
}

/// Of the upstream `main`, in the table's order.
fn endpoints(proxy: &Proxy) -> Vec<Value> {
    let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
    table["upstreams"][0]["endpoints"].as_array().unwrap().clone()
}

fn ejected(proxy: &Proxy) -> Vec<bool> {
    endpoints(proxy).iter().map(|endpoint| endpoint.get("ejectedForSeconds").is_some()).collect()
}

/// Waits for the verdicts, and until every worker has a table that heeds them: they are there a moment before it.
fn await_ejected(proxy: &Proxy, expected: &[bool]) {
    eventually(&format!("ejected: {expected:?}"), || ejected(proxy), |ejected| *ejected == expected);
    until_still("tables", || generation(proxy));
}

/// Of the newest table that all workers have.
fn generation(proxy: &Proxy) -> usize {
    let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
    let acknowledged = table["acknowledgedGenerations"].as_array().unwrap().iter();
    acknowledged.map(|generation| usize::try_from(generation.as_u64().unwrap()).unwrap()).min().unwrap()
}

/// Once all is said.
fn assert_none_ejected(proxy: &Proxy) {
    until_still("tables", || generation(proxy));
    assert_eq!(proxy.metric("sheave_endpoint_ejected", &[]), 0.0);
}
