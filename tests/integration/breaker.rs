//! An endpoint that fails again and again is left alone for a while, and found again by one probe.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use serde_json::Value;

use crate::support::{
    Authority, Bound, Driver, Endpoint, Fault, FaultyEndpoint, FullEndpoint, Proxy, Settings, admin_get, ask,
    closed_port, connect, eventually, on_both_drivers,
};

on_both_drivers!(
    a_dead_endpoint_is_left_alone,
    without_another_endpoint_clients_are_reset_at_once,
    a_probe_finds_what_is_back,
    who_waits_is_there_when_the_time_is_over,
    a_failed_probe_keeps_it_open,
    an_outage_of_all_is_looked_at_often_and_waited_for_no_longer,
    a_client_that_leaves_is_no_verdict,
    a_probe_without_time_is_no_verdict,
    who_had_too_little_time_is_not_to_blame,
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

/// However long the pause between its attempts would be.
fn who_waits_is_there_when_the_time_is_over(driver: Driver) {
    for comes_later in [false, true] {
        let silent = Bound::new();
        let proxy = Proxy::start(&Settings::new(driver, &[silent.address]).upstream(&format!(
            "retry: {{numRetries: {}, perRetry: {{backOff: {{baseInterval: 1h, maxInterval: 1h}}}}}}, \
             timeout: {{tcp: {{connectTimeout: 20s}}}}, {}",
            u8::from(!comes_later),
            policy(1, "3s")
        )));
        if comes_later {
            assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
        }
        let mut client = connect(proxy.address);
        client.write_all(b"a").unwrap();
        eventually("the breaker is open", || breakers(&proxy), |breakers| *breakers == ["open"]);
        proxy.wait_for_live(1);
        let _echo = silent.listen();
        client.read_exact(&mut [0]).unwrap();
        drop(client);
        let record = &proxy.records(1 + usize::from(comes_later))[usize::from(comes_later)];
        let (tried, took) = (attempts(record), record["duration_ms"].as_f64().unwrap());
        assert_eq!(tried.len(), if comes_later { 1 } else { 2 }, "{record}");
        assert!(took < 15_000.0, "long before its time is over: {record}");
    }
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

/// The second client waits until there may be a probe, and then has less than the time that an attempt has.
fn a_probe_without_time_is_no_verdict(driver: Driver) {
    let full = FullEndpoint::start();
    let upstream = format!(
        "retry: {{numRetries: 0, perRetry: {{timeout: 0s, backOff: {{baseInterval: 10ms, maxInterval: 20ms}}}}}}, \
         timeout: {{tcp: {{connectTimeout: 1s}}}}, {}",
        policy(1, "800ms")
    );
    let proxy = Proxy::start(&Settings::new(driver, &[full.address]).upstream(&upstream));
    for (count, state, openings) in [(1, "open", 1.0), (2, "half_open", 1.0), (3, "open", 2.0)] {
        assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
        let records = proxy.records(count);
        assert!(records.iter().all(|record| record["outcome"] == "connect_timeout"), "{records:#?}");
        assert!(records.iter().all(|record| attempts(record).len() == 1), "{records:#?}");
        assert_eq!(breakers(&proxy), [state], "after {count}");
        assert_eq!(proxy.metric("sheave_endpoint_breaker_openings_total", &[]), openings, "after {count}");
    }
}

/// Two that never answer, by TCP and by TLS: the first attempt has all of its time, and the second what is left of the
/// connection's. It has its whole time, and is to blame, once it is the first.
fn who_had_too_little_time_is_not_to_blame(driver: Driver) {
    let holes = [FullEndpoint::start(), FullEndpoint::start()];
    not_to_blame(driver, holes.each_ref().map(|hole| hole.address), "connect_timeout", "");
    let mute = || Endpoint::start(|mut stream| while stream.read(&mut [0; 64]).is_ok_and(|read| read > 0) {});
    let (authority, mutes) = (Authority::new(), [mute(), mute()]);
    let tls = format!(
        ", tls: {{validation: {{caCertificateRefs: [{{file: {}}}], hostname: pg.test}}}}",
        authority.file().display()
    );
    not_to_blame(driver, mutes.each_ref().map(|mute| mute.address), "tls_upstream_timeout", &tls);
}

fn not_to_blame(driver: Driver, endpoints: [SocketAddr; 2], outcome: &str, more: &str) {
    let upstream = format!(
        "{ROUND_ROBIN}, timeout: {{tcp: {{connectTimeout: 1s}}}}, retry: {{numRetries: 1, perRetry: {{timeout: 600ms}}}}, \
         healthCheck: {{panicThreshold: 0, passive: {{consecutiveFailures: 1, maxEjectionPercent: 100, \
         baseEjectionTime: 1h}}}}, {}{more}",
        policy(1, "1h")
    );
    let proxy = Proxy::start(&Settings::new(driver, &endpoints).upstream(&upstream));
    let health = |endpoint: &Value| {
        let state = |key: &str| endpoint[key].as_str().unwrap().to_owned();
        (endpoint["address"].as_str().unwrap().to_owned(), state("breaker"), state("health"))
    };
    let seen = || -> Vec<_> { table(&proxy).iter().map(health).collect() };
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    let record = &proxy.records(1)[0];
    assert_eq!(record["outcome"], outcome, "{record:#}");
    let tried = attempts(record);
    assert!(tried.len() == 2 && tried.iter().all(|attempt| attempt["result"] == outcome), "{record:#}");
    let address = |attempt: &Value| attempt["endpoint"].as_str().unwrap().to_owned();
    let (first, second) = (address(&tried[0]), address(&tried[1]));
    let is = |address: &String, breaker: &str, health: &str| {
        let expected = (address.clone(), breaker.to_owned(), health.to_owned());
        move |seen: &Vec<_>| seen.contains(&expected)
    };
    eventually("the first is ejected", seen, is(&first, "open", "unhealthy"));
    assert!(is(&second, "closed", "healthy")(&seen()), "{:#?}", seen());
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    assert_eq!(address(&attempts(&proxy.records(2)[1])[0]), second);
    eventually("the second is ejected too", seen, is(&second, "open", "unhealthy"));
    assert_eq!(proxy.metric("sheave_endpoint_ejections_total", &[]), 2.0);
    assert_eq!(proxy.metric("sheave_endpoint_failures_total", &[]), 3.0, "an attempt that failed is one");
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
    table(proxy).iter().map(|endpoint| endpoint["breaker"].as_str().unwrap().to_owned()).collect()
}

fn table(proxy: &Proxy) -> Vec<Value> {
    let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
    table["upstreams"][0]["endpoints"].as_array().unwrap().clone()
}

fn attempts(record: &Value) -> Vec<Value> {
    record["attempts"].as_array().cloned().unwrap_or_default()
}
