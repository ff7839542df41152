//! Endpoints that refuse, do not answer or reset: the next one is tried, and an end has a name.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Instant;

use serde_json::Value;

use crate::support::{
    Driver, Endpoint, FullEndpoint, Proxy, Settings, admin_get, ask, closed_port, command, eventually,
    in_namespace, on_both_drivers, reset_on_close,
};

on_both_drivers!(
    a_refusal_is_followed_by_the_next_endpoint,
    a_dead_one_of_two_gets_its_turn_and_no_more,
    a_full_backlog_is_followed_by_the_next_endpoint,
    a_lost_syn_is_followed_by_the_next_endpoint,
    a_reset_at_accept_is_never_an_empty_answer,
    each_round_tries_every_endpoint_once,
    rounds_back_off,
    an_outage_is_no_storm_of_retries,
    the_connect_timeout_bounds_silence,
    the_connect_timeout_bounds_refusals,
    one_attempt_is_bounded,
    weight_zero_is_never_tried,
    an_upstream_that_takes_no_connection_is_refused,
    an_unreachable_endpoint_is_called_so,
);

const ROUND_ROBIN: &str = "loadBalancer: {type: RoundRobin}";

fn a_refusal_is_followed_by_the_next_endpoint(driver: Driver) {
    let (echo, closed) = (Endpoint::echo(), [closed_port(), closed_port()]);
    let endpoints = [closed[0], closed[1], echo.address];
    let proxy = Proxy::start(&Settings::new(driver, &endpoints).upstream(ROUND_ROBIN));
    assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
    let record = proxy.record();
    assert_eq!(
        attempts(&record),
        [
            (closed[0], "connect_refused".to_owned()),
            (closed[1], "connect_refused".to_owned()),
            (echo.address, "connected".to_owned())
        ]
    );
    assert_eq!(record["outcome"], "downstream_closed", "{record}");
    assert_eq!(record["endpoint"], echo.address.to_string(), "{record}");
    for endpoint in closed {
        let label = format!("endpoint=\"{endpoint}\"");
        assert_eq!(proxy.metric("sheave_endpoint_failures_total", &[&label]), 1.0, "{endpoint}");
    }
    nothing_is_held(&proxy);
}

fn a_dead_one_of_two_gets_its_turn_and_no_more(driver: Driver) {
    let echo = Endpoint::echo();
    let endpoints = [closed_port(), echo.address];
    let proxy = Proxy::start(&Settings::new(driver, &endpoints).upstream(ROUND_ROBIN));
    for _ in 0..10 {
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
    }
    let records = proxy.records(10);
    let attempts: Vec<usize> = records.iter().map(|record| attempts(record).len()).collect();
    assert_eq!(attempts.iter().filter(|attempts| **attempts == 2).count(), 5, "{attempts:?}");
}

fn a_full_backlog_is_followed_by_the_next_endpoint(driver: Driver) {
    let (echo, full) = (Endpoint::echo(), FullEndpoint::start());
    silence_is_followed_by_the_next_endpoint(driver, full.address, &echo);
}

fn a_lost_syn_is_followed_by_the_next_endpoint(driver: Driver) {
    in_namespace(move || {
        let (echo, lost) = (Endpoint::echo(), Endpoint::echo());
        let port = lost.address.port();
        command("nft", &["add table inet test"]);
        command("nft", &["add chain inet test input { type filter hook input priority 0; }"]);
        command("nft", &[&format!("add rule inet test input tcp dport {port} drop")]);
        silence_is_followed_by_the_next_endpoint(driver, lost.address, &echo);
        // So that its value, which connects to it, can end.
        command("nft", &["delete table inet test"]);
    });
}

fn silence_is_followed_by_the_next_endpoint(driver: Driver, silent: SocketAddr, echo: &Endpoint) {
    let upstream = "retry: {perRetry: {timeout: 100ms}}, timeout: {tcp: {connectTimeout: 20s}}";
    let settings =
        Settings::new(driver, &[silent, echo.address]).upstream(&format!("{ROUND_ROBIN}, {upstream}"));
    let proxy = Proxy::start(&settings);
    assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
    let record = proxy.record();
    assert_eq!(
        attempts(&record),
        [(silent, "connect_timeout".to_owned()), (echo.address, "connected".to_owned())]
    );
    assert_eq!(record["outcome"], "downstream_closed", "{record}");
    nothing_is_held(&proxy);
}

/// Such an endpoint has accepted: whether its reset is a failed attempt or the end of an established connection is a
/// race that the endpoint decides. Either way the client gets an answer or a reset.
fn a_reset_at_accept_is_never_an_empty_answer(driver: Driver) {
    const CLIENTS: usize = 30;
    let (echo, resetting) = (Endpoint::echo(), Endpoint::start(|stream| reset_on_close(&stream)));
    let proxy =
        Proxy::start(&Settings::new(driver, &[resetting.address, echo.address]).upstream(ROUND_ROBIN));
    let answers: Vec<_> = (0..CLIENTS).map(|_| ask(proxy.address, "hello")).collect();
    let served = answers.iter().filter(|answer| **answer == Ok("hello".to_owned())).count();
    let reset = answers.iter().filter(|answer| **answer == Err(ErrorKind::ConnectionReset)).count();
    assert_eq!(served + reset, CLIENTS, "{answers:?}");
    let records = proxy.records(CLIENTS);
    let is = |record: &&Value, outcome: &str| record["outcome"] == outcome;
    assert_eq!(records.iter().filter(|r| is(r, "upstream_reset")).count(), reset, "{records:#?}");
    assert_eq!(records.iter().filter(|r| is(r, "downstream_closed")).count(), served, "{records:#?}");
    for record in &records {
        let attempts = attempts(record);
        let expected: &[(SocketAddr, &str)] = match (record["outcome"].as_str(), attempts.len()) {
            (Some("upstream_reset"), _) => &[(resetting.address, "connected")],
            (_, 1) => &[(echo.address, "connected")],
            _ => &[(resetting.address, "connect_failed"), (echo.address, "connected")],
        };
        assert!(
            attempts.iter().map(|(address, result)| (*address, result.as_str())).eq(expected.iter().copied()),
            "{record}"
        );
    }
    nothing_is_held(&proxy);
}

fn each_round_tries_every_endpoint_once(driver: Driver) {
    for load_balancer in ["RoundRobin", "LeastConnections", "Random", "PeakEWMA", "ConsistentHash"] {
        let endpoints = [closed_port(), closed_port(), closed_port()];
        let upstream = format!(
            "loadBalancer: {{type: {load_balancer}}}, \
             retry: {{numRetries: 7, perRetry: {{backOff: {{baseInterval: 1ms, maxInterval: 1ms}}}}}}"
        );
        let proxy = Proxy::start(&Settings::new(driver, &endpoints).upstream(&upstream));
        assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
        let record = proxy.record();
        let attempts = attempts(&record);
        assert_eq!(attempts.len(), 8, "one and seven more: {record}");
        for round in attempts.chunks(3) {
            let mut tried: Vec<_> = round.iter().map(|(address, _)| address).collect();
            tried.sort();
            tried.dedup();
            assert_eq!(tried.len(), round.len(), "{load_balancer}: twice in one round: {record}");
        }
        assert!(attempts.iter().all(|(_, result)| result == "connect_refused"), "{record}");
        assert_eq!((&record["outcome"], &record["side"]), (&"connect_refused".into(), &"upstream".into()));
        nothing_is_held(&proxy);
    }
}

/// The budget is all connections' together: two of a hundred percent, and none that is always allowed.
fn an_outage_is_no_storm_of_retries(driver: Driver) {
    const CONNECTIONS: usize = 20;
    let upstream = "retry: {numRetries: 10, budget: {percent: 200, minRetriesPerSecond: 0}, \
                    perRetry: {backOff: {baseInterval: 1ms, maxInterval: 1ms}}}, \
                    circuitBreaker: {perEndpoint: {consecutiveFailures: 0}}";
    let proxy = Proxy::start(&Settings::new(driver, &[closed_port(), closed_port()]).upstream(upstream));
    for _ in 0..CONNECTIONS {
        assert_eq!(ask(proxy.address, ""), Err(ErrorKind::ConnectionReset));
    }
    let records = proxy.records(CONNECTIONS);
    let retries: usize = records.iter().map(|record| attempts(record).len() - 1).sum();
    assert!(retries > 0 && retries <= 2 * CONNECTIONS, "{retries} retries");
    assert_eq!(attempts(&records[0]).len(), 3, "the first connection has two, and asks for a third");
    assert!(records.iter().all(|record| record["outcome"] == "connect_refused"), "{records:#?}");
    let refused = proxy.metric("sheave_upstream_retries_refused_total", &["upstream=\"main\""]);
    assert_eq!(refused, CONNECTIONS as f64, "each of them was refused one in the end");
    nothing_is_held(&proxy);
}

/// Each wait is random from nothing up to 50 ms, so only their sum says something: that of twelve is less than 50 ms
/// once in 12! (480 million) runs.
fn rounds_back_off(driver: Driver) {
    let upstream = "retry: {numRetries: 12, perRetry: {backOff: {baseInterval: 50ms, maxInterval: 50ms}}}, \
                    circuitBreaker: {perEndpoint: {consecutiveFailures: 0}}";
    let proxy = Proxy::start(&Settings::new(driver, &[closed_port()]).upstream(upstream));
    assert_eq!(ask(proxy.address, ""), Err(ErrorKind::ConnectionReset));
    let record = proxy.record();
    assert_eq!(attempts(&record).len(), 13, "{record}");
    let duration = record["duration_ms"].as_f64().unwrap();
    assert!(duration >= 50.0, "{record}");
}

fn the_connect_timeout_bounds_silence(driver: Driver) {
    let full = FullEndpoint::start();
    let upstream = "timeout: {tcp: {connectTimeout: 350ms}}, \
                    retry: {numRetries: 100, perRetry: {timeout: 100ms, backOff: {baseInterval: 1ms, maxInterval: 1ms}}}";
    let proxy = Proxy::start(&Settings::new(driver, &[full.address]).upstream(upstream));
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    let record = proxy.record();
    assert_eq!((&record["outcome"], &record["side"]), (&"connect_timeout".into(), &"upstream".into()));
    // A hundred attempts would have taken 10 s.
    assert!((350.0..5_000.0).contains(&record["duration_ms"].as_f64().unwrap()), "{record}");
    assert!((2..=4).contains(&attempts(&record).len()), "{record}");
    assert!(attempts(&record).iter().all(|(_, result)| result == "connect_timeout"), "{record}");
    nothing_is_held(&proxy);
}

fn the_connect_timeout_bounds_refusals(driver: Driver) {
    let upstream = "timeout: {tcp: {connectTimeout: 300ms}}, \
                    retry: {numRetries: 100, perRetry: {backOff: {baseInterval: 200ms, maxInterval: 1s}}}";
    let proxy = Proxy::start(&Settings::new(driver, &[closed_port()]).upstream(upstream));
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    let record = proxy.record();
    assert_eq!(record["outcome"], "connect_refused", "{record}");
    // A hundred rounds would have taken most of a minute.
    assert!((300.0..5_000.0).contains(&record["duration_ms"].as_f64().unwrap()), "{record}");
    nothing_is_held(&proxy);
}

fn one_attempt_is_bounded(driver: Driver) {
    let full = FullEndpoint::start();
    let upstream =
        "timeout: {tcp: {connectTimeout: 20s}}, retry: {numRetries: 0, perRetry: {timeout: 120ms}}";
    let proxy = Proxy::start(&Settings::new(driver, &[full.address]).upstream(upstream));
    let started = Instant::now();
    assert_eq!(ask(proxy.address, ""), Err(ErrorKind::ConnectionReset));
    let record = proxy.record();
    assert!(started.elapsed().as_secs() < 10, "{record}");
    assert_eq!(attempts(&record), [(full.address, "connect_timeout".to_owned())]);
    let attempt = &record["attempts"][0];
    let took = attempt["end_ms"].as_f64().unwrap() - attempt["start_ms"].as_f64().unwrap();
    assert!((120.0..10_000.0).contains(&took), "{record}");
}

fn weight_zero_is_never_tried(driver: Driver) {
    let (closed, echo) = (closed_port(), Endpoint::echo());
    for load_balancer in ["RoundRobin", "LeastConnections", "Random", "PeakEWMA", "ConsistentHash"] {
        let mut settings = Settings::new(driver, &[closed, echo.address])
            .upstream(&format!("loadBalancer: {{type: {load_balancer}}}, retry: {{numRetries: 3}}"));
        settings.weights = vec![1, 0];
        let proxy = Proxy::start(&settings);
        assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
        let record = proxy.record();
        let tried = attempts(&record);
        assert!(tried.len() == 4 && tried.iter().all(|(address, _)| *address == closed), "{record}");
    }
    assert_eq!(echo.accepted(), 0);
}

/// Where every endpoint has weight 0, the outcome would be `no_endpoint`; a configuration file cannot get there.
fn an_upstream_that_takes_no_connection_is_refused(driver: Driver) {
    let echo = Endpoint::echo();
    let good = Settings::new(driver, &[echo.address]);
    let proxy = Proxy::start(&good);
    let mut weightless = good.clone();
    weightless.weights = vec![0];
    let error = proxy.reload(&weightless).unwrap_err();
    assert!(error.contains("every weight is 0"), "{error}");
    let error = proxy.reload(&Settings::new(driver, &[])).unwrap_err();
    assert!(error.contains("it has no endpoints"), "{error}");
    assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()), "the table before it serves");
}

fn an_unreachable_endpoint_is_called_so(driver: Driver) {
    in_namespace(move || {
        command("ip", &["route", "add", "unreachable", "192.0.2.0/24"]);
        let (host, network) = ("192.0.2.1:80".parse().unwrap(), "198.51.100.1:80".parse().unwrap());
        let network6 = "[2001:db8::1]:80".parse().unwrap();
        let proxy = Proxy::start(&Settings::new(driver, &[host, network, network6]).upstream(ROUND_ROBIN));
        assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
        let record = proxy.record();
        let unreachable = || "connect_unreachable".to_owned();
        assert_eq!(
            attempts(&record),
            [(host, unreachable()), (network, unreachable()), (network6, unreachable())]
        );
        assert_eq!(
            (&record["outcome"], &record["side"]),
            (&"connect_unreachable".into(), &"upstream".into())
        );
        nothing_is_held(&proxy);
    });
}

/// Endpoint and result of each.
fn attempts(record: &Value) -> Vec<(SocketAddr, String)> {
    let attempt = |attempt: &Value| {
        let text = |field: &str| attempt[field].as_str().unwrap().to_owned();
        (text("endpoint").parse().unwrap(), text("result"))
    };
    record["attempts"].as_array().unwrap().iter().map(attempt).collect()
}

/// Attempts and connections that ended are counted on no endpoint any more.
fn nothing_is_held(proxy: &Proxy) {
    let active = || -> Vec<u64> {
        let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
        let endpoints = table["upstreams"][0]["endpoints"].as_array().unwrap();
        endpoints.iter().map(|endpoint| endpoint["active"].as_u64().unwrap()).collect()
    };
    eventually("no connection on any endpoint", active, |active| active.iter().all(|count| *count == 0));
}
