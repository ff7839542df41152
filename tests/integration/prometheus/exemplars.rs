//! From a bucket in Prometheus to the one connection that it tells of.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Driver, Endpoint, Process, Settings, ask, closed_port, eventually, on_both_drivers};

use super::server::Prometheus;
use super::{Several, endpoints};

on_both_drivers!(exemplars_are_connections_of_the_access_log, of_ordinary_connections_only_a_share_is_kept);

/// A collector that is not there: exemplars are what is kept, not what has arrived.
fn start(driver: Driver, echo: &Endpoint, sample: &str) -> Process {
    let top = format!(
        "tracing: {{enabled: true, endpoint: \"http://{}\", sample: {sample}, slowerThan: 1h}}",
        closed_port()
    );
    let mut several = Several(Settings::new(driver, &[echo.address]).top(&top));
    several.add("dead", "", &endpoints(&[closed_port()]));
    Process::start(&several.0, |_| {})
}

/// The exemplars of these series, once there are some.
fn exemplars(prometheus: &Prometheus, series: &str) -> Vec<Value> {
    eventually(
        &format!("exemplars of {series}"),
        || {
            let [start, end] = prometheus.span();
            let found =
                prometheus.get("query_exemplars", &[("query", series), ("start", &*start), ("end", &*end)]);
            let each = found.as_array().unwrap().iter();
            each.flat_map(|series| series["exemplars"].as_array().unwrap().clone()).collect::<Vec<Value>>()
        },
        |exemplars| !exemplars.is_empty(),
    )
}

fn traces(exemplars: &[Value]) -> BTreeSet<&str> {
    exemplars.iter().map(|exemplar| exemplar["labels"]["trace_id"].as_str().unwrap()).collect()
}

fn exemplars_are_connections_of_the_access_log(driver: Driver) {
    let echo = Endpoint::echo();
    let process = start(driver, &echo, "1");
    let prometheus = Prometheus::start(&[process.admin()], "groups: []");
    for _ in 0..10 {
        assert_eq!(ask(process.listener("main"), "hello"), Ok("hello".to_owned()));
    }
    for series in [
        "sheave_upstream_connect_seconds_bucket{upstream=\"main\"}",
        "sheave_upstream_first_byte_seconds_bucket{upstream=\"main\"}",
        "sheave_listener_connection_duration_seconds_bucket{listener=\"main\"}",
        "sheave_route_connection_duration_seconds_bucket{route=\"main\"}",
    ] {
        let exemplars = exemplars(&prometheus, series);
        let lines = eventually("ten lines", || process.output.json(), |lines| lines.len() >= 10);
        let logged: BTreeSet<&str> = lines.iter().map(|line| line["trace_id"].as_str().unwrap()).collect();
        assert!(traces(&exemplars).is_subset(&logged), "{exemplars:?} and {logged:?}");
    }
}

fn of_ordinary_connections_only_a_share_is_kept(driver: Driver) {
    let echo = Endpoint::echo();
    let process = start(driver, &echo, "0");
    let prometheus = Prometheus::start(&[process.admin()], "groups: []");
    assert_eq!(ask(process.listener("main"), "hello"), Ok("hello".to_owned()));
    ask(process.listener("dead"), "hello").unwrap_err();
    let exemplars = exemplars(&prometheus, "{__name__=~\"sheave_.*_bucket\"}");
    let lines = eventually("two lines", || process.output.json(), |lines| lines.len() == 2);
    let failed = lines.iter().filter(|line| line["outcome"] == "connect_refused");
    let failed: BTreeSet<&str> = failed.map(|line| line["trace_id"].as_str().unwrap()).collect();
    assert_eq!((traces(&exemplars), failed.len()), (failed, 1));
}
