//! A second attempt beside a slow one: the first that connects wins, and the other is nobody's failure.

use std::io::ErrorKind;
use std::time::Instant;

use serde_json::Value;

use crate::support::{
    Driver, Endpoint, FullEndpoint, Proxy, Settings, admin_get, ask, closed_port, connect, on_both_drivers,
    reset_on_close,
};

on_both_drivers!(
    a_silent_endpoint_is_outpaced,
    a_quick_one_is_not_joined,
    alone_there_is_nobody_to_join,
    a_second_that_fails_leaves_the_first,
    the_budget_holds_it_back,
    who_overtakes_costs_the_budget_nothing,
    a_client_that_leaves_ends_both,
);

const HEDGE: &str = "loadBalancer: {type: RoundRobin}, timeout: {tcp: {connectTimeout: 20s}}, circuitBreaker: {perEndpoint: \
                     {consecutiveFailures: 1}}";

fn hedge(retry: &str) -> String {
    format!("{HEDGE}, retry: {{hedgeAfter: 20ms, perRetry: {{timeout: 20s}}, {retry}}}")
}

fn failures(record: &Value) -> Vec<(&str, Option<&str>)> {
    let attempts = record["attempts"].as_array().unwrap();
    attempts
        .iter()
        .map(|attempt| (attempt["endpoint"].as_str().unwrap(), attempt["result"].as_str()))
        .collect()
}

fn endpoint(proxy: &Proxy, index: usize) -> Value {
    let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
    table["upstreams"][0]["endpoints"][index].clone()
}

fn a_silent_endpoint_is_outpaced(driver: Driver) {
    let (silent, echo) = (FullEndpoint::start(), Endpoint::echo());
    let settings = Settings::new(driver, &[silent.address, echo.address]).upstream(&hedge("numRetries: 0"));
    let proxy = Proxy::start(&settings);
    let started = Instant::now();
    for _ in 0..4 {
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
    }
    assert!(started.elapsed().as_secs() < 20, "no attempt ran into its timeout");
    let records = proxy.records(4);
    let (silent_at, echo_at) = (silent.address.to_string(), echo.address.to_string());
    let mut outpaced = 0;
    for record in &records {
        assert_eq!(record["outcome"], "downstream_closed", "{record:#}");
        assert_eq!(record["endpoint"], echo_at, "{record:#}");
        // Who is quick may be slow for once, and is joined then.
        let attempts = failures(record);
        assert_eq!(attempts[0], (echo_at.as_str(), Some("connected")), "{record:#}");
        for attempt in &attempts[1..] {
            assert_eq!(*attempt, (silent_at.as_str(), Some("outpaced")), "{record:#}");
            outpaced += 1;
        }
    }
    assert!(outpaced >= 2, "every other turn is the silent one's: {records:#?}");
    assert_eq!(proxy.metric("sheave_upstream_outpaced_attempts_total", &[]), f64::from(outpaced));
    assert_eq!(proxy.metric("sheave_upstream_retries_total", &[]), f64::from(outpaced));
    let state = endpoint(&proxy, 0);
    assert_eq!((&state["breaker"], &state["active"]), (&"closed".into(), &0.into()), "{state:#}");
    let silent = format!("endpoint=\"{}\"", silent.address);
    assert_eq!(proxy.metric("sheave_endpoint_failures_total", &[&silent]), 0.0, "it failed nobody");
}

fn a_quick_one_is_not_joined(driver: Driver) {
    let (one, other) = (Endpoint::echo(), Endpoint::echo());
    let upstream = hedge("numRetries: 0").replace("hedgeAfter: 20ms", "hedgeAfter: 10s");
    let proxy = Proxy::start(&Settings::new(driver, &[one.address, other.address]).upstream(&upstream));
    for _ in 0..4 {
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
    }
    assert!(proxy.records(4).iter().all(|record| failures(record).len() == 1));
    assert_eq!((one.accepted(), other.accepted()), (2, 2));
}

fn alone_there_is_nobody_to_join(driver: Driver) {
    let silent = FullEndpoint::start();
    let upstream = hedge("numRetries: 0").replace("connectTimeout: 20s", "connectTimeout: 200ms");
    let proxy = Proxy::start(&Settings::new(driver, &[silent.address]).upstream(&upstream));
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    let record = proxy.record();
    assert_eq!(record["outcome"], "connect_timeout", "{record:#}");
    assert_eq!(failures(&record).len(), 1, "{record:#}");
}

fn a_second_that_fails_leaves_the_first(driver: Driver) {
    let (silent, closed) = (FullEndpoint::start(), closed_port());
    let settings = Settings::new(driver, &[silent.address, closed]).upstream(&hedge("numRetries: 0"));
    let proxy = Proxy::start(&settings);
    let client = connect(proxy.address);
    let closed = format!("endpoint=\"{closed}\"");
    crate::support::eventually(
        "the breaker of the second is open",
        || endpoint(&proxy, 1)["breaker"].clone(),
        |breaker| *breaker == "open",
    );
    // The first goes on, and is let in after all.
    let accepted = silent.accept();
    drop((client, accepted));
    let record = proxy.record();
    let outcomes: Vec<_> = failures(&record).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, [Some("connect_refused"), Some("connected")], "{record:#}");
    assert_eq!(proxy.metric("sheave_endpoint_failures_total", &[&closed]), 1.0);
    assert_eq!(record["connect_start_ms"], record["attempts"][1]["start_ms"], "{record:#}");
}

fn the_budget_holds_it_back(driver: Driver) {
    let (silent, echo) = (FullEndpoint::start(), Endpoint::echo());
    let upstream = hedge("numRetries: 0, budget: {percent: 1, minRetriesPerSecond: 0}")
        .replace("connectTimeout: 20s", "connectTimeout: 1s");
    let proxy = Proxy::start(&Settings::new(driver, &[silent.address, echo.address]).upstream(&upstream));
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    assert_eq!(proxy.record()["outcome"], "connect_timeout");
    assert_eq!(proxy.metric("sheave_upstream_retries_refused_total", &[]), 1.0);
    assert_eq!(echo.accepted(), 0);
}

/// Ten retries may be in ten seconds.
fn who_overtakes_costs_the_budget_nothing(driver: Driver) {
    let (silent, echo) = (FullEndpoint::start(), Endpoint::echo());
    let upstream = hedge("numRetries: 0, budget: {percent: 0, minRetriesPerSecond: 1}");
    let proxy = Proxy::start(&Settings::new(driver, &[silent.address, echo.address]).upstream(&upstream));
    let started = Instant::now();
    for _ in 0..40 {
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
    }
    assert!(started.elapsed().as_secs() < 20, "no attempt ran into its timeout");
    let outpaced = proxy.metric("sheave_upstream_outpaced_attempts_total", &[]);
    assert!(outpaced >= 20.0, "every other turn is the silent one's: {outpaced}");
    assert_eq!(proxy.metric("sheave_upstream_retries_refused_total", &[]), 0.0);
}

fn a_client_that_leaves_ends_both(driver: Driver) {
    let silent = [FullEndpoint::start(), FullEndpoint::start()];
    let addresses = [silent[0].address, silent[1].address];
    let proxy = Proxy::start(&Settings::new(driver, &addresses).upstream(&hedge("numRetries: 0")));
    let client = connect(proxy.address);
    let both = || [endpoint(&proxy, 0)["active"].clone(), endpoint(&proxy, 1)["active"].clone()];
    crate::support::eventually("both attempts", both, |both| both.iter().all(|active| *active == 1));
    reset_on_close(&client);
    drop(client);
    let record = proxy.record();
    assert_eq!(record["outcome"], "downstream_reset", "{record:#}");
    assert_eq!(both(), [0, 0].map(Value::from));
    assert_eq!(endpoint(&proxy, 0)["breaker"], "closed");
}
