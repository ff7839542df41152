//! Which connections get a line of the access log.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::{Driver, Endpoint, Proxy, Settings, ask, closed_port, eventually, on_both_drivers};

on_both_drivers!(ordinary_connections_are_sampled_and_others_are_not, without_a_log_there_are_no_lines);

const ORDINARY: usize = 200;

/// A listener whose first endpoint refuses, with another that has no other endpoint than such a one.
fn settings(driver: Driver, endpoint: SocketAddr, top: &str) -> Settings {
    let mut settings = Settings::new(driver, &[endpoint]).top(top);
    let retried = (2, "retried", vec![closed_port(), endpoint]);
    for (number, name, endpoints) in [retried, (3, "broken", vec![closed_port()])] {
        let endpoints: Vec<String> =
            endpoints.iter().map(|endpoint| format!("{{address: \"{endpoint}\"}}")).collect();
        settings.more_listeners.push(format!("{{name: {name}, address: \"127.0.0.{number}:0\"}}"));
        let backend = format!("backendRefs: [{{upstream: {name}}}]");
        settings.more_routes.push(format!("{{name: {name}, listener: {name}, {backend}}}"));
        let balancer = "loadBalancer: {type: RoundRobin}";
        settings
            .more_upstreams
            .push(format!("{{name: {name}, endpoints: [{}], {balancer}}}", endpoints.join(", ")));
    }
    settings
}

/// Ordinary connections, then one that is retried, and one that fails.
fn connections_of_all_kinds(proxy: &Proxy) {
    for _ in 0..ORDINARY {
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
    }
    assert_eq!(ask(proxy.listener("retried"), "hello"), Ok("hello".to_owned()));
    assert!(ask(proxy.listener("broken"), "hello").is_err());
    let ended = || proxy.metric("sheave_listener_connections_total", &[]);
    eventually("the end of all connections", ended, |ended| *ended >= (ORDINARY + 2) as f64);
}

fn of_listener<'a>(records: &'a [Value], name: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["listener"] == name).collect()
}

fn ordinary_connections_are_sampled_and_others_are_not(driver: Driver) {
    let echo = Endpoint::echo();
    for (sample, least, most) in [("0", 0, 0), ("0.5", 40, 160), ("1", ORDINARY, ORDINARY)] {
        let top = format!("accessLog: {{sample: {sample}}}");
        let proxy = Proxy::start(&settings(driver, echo.address, &top));
        connections_of_all_kinds(&proxy);
        let all = |records: &Vec<Value>| {
            let of = |name| of_listener(records, name).len();
            (of("retried"), of("broken")) == (1, 1) && of("main") >= least
        };
        let records = eventually("the lines", || proxy.records(2), all);
        assert_eq!(of_listener(&records, "broken")[0]["outcome"], "connect_refused");
        assert_eq!(of_listener(&records, "retried")[0]["attempts"].as_array().unwrap().len(), 2);
        let ordinary = of_listener(&records, "main").len();
        assert!((least..=most).contains(&ordinary), "{ordinary} of {ORDINARY} at {sample}");
        assert_eq!(proxy.metric("sheave_access_log_sample", &[]), sample.parse::<f64>().unwrap());
    }
}

fn without_a_log_there_are_no_lines(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&settings(driver, echo.address, "accessLog: {enabled: false}"));
    connections_of_all_kinds(&proxy);
    assert_eq!(proxy.metric("sheave_access_log_sample", &[]), 0.0);
    assert_eq!(proxy.metric("sheave_worker_records_dropped_total", &[]), 0.0);
    let lines = proxy.lines.clone();
    drop(proxy);
    assert_eq!(lines.all(), Vec::<Value>::new());
}
