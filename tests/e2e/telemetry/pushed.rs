//! Metrics by OTLP in a real Prometheus: its query API knows all that `/metrics` says, under the same names, with the same numbers.
//!
//! Prometheus and this Sheave are processes beside the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Beside, Metrics, eventually, figures, get_text, skip_or_fail};

use super::prometheus::Prometheus;
use super::tool;

const ARRIVES: Duration = Duration::from_secs(30);

/// These differ from one moment to the next.
const RESTLESS: &[&str] = &[
    "sheave_process_uptime_seconds",
    "sheave_process_cpu_seconds_total",
    "sheave_process_resident_memory_bytes",
    "sheave_process_open_fds",
    "sheave_control_cpu_seconds_total",
    "sheave_cgroup_memory_used_bytes",
    "sheave_worker_cpu_seconds_total",
    "sheave_worker_loop_lag_seconds",
    "sheave_worker_heartbeat_age_seconds",
    "sheave_metrics_exports_total",
    // Of a receiver that is not there.
    "sheave_trace_",
];

/// Name and labels, and the number.
type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

#[test]
fn prometheus_takes_metrics_by_otlp() {
    let Ok(program) = tool("prometheus") else {
        skip_or_fail("prometheus", "it is not there (tests/cluster/build prometheus makes it)");
        return;
    };
    let prometheus = Prometheus::start(&program.join("prometheus"), &[], &json!({"groups": []}));
    let (echo, closed) = (echo(), closed());
    let sheave = Beside::start(&config(prometheus.address(), closed, echo));
    for listener in ["retried", "refused"].into_iter().cycle().take(20) {
        talk(sheave.listener(listener));
    }
    let differences = || differences(&scraped(sheave.admin()), &pushed(&prometheus));
    eventually("the same in Prometheus as in /metrics", ARRIVES, differences, Vec::is_empty);

    let (told, taken) = (scraped(sheave.admin()), pushed(&prometheus));
    let connections = |listener: &str, outcome: &str| {
        let is_it = |labels: &BTreeMap<String, String>| {
            labels.get("listener").is_some_and(|name| name == listener) && labels["outcome"] == outcome
        };
        let mut found = taken
            .iter()
            .filter(|((name, labels), _)| name == "sheave_listener_connections_total" && is_it(labels));
        found.next().map(|(_, count)| *count)
    };
    assert_eq!(connections("retried", "downstream_closed"), Some(10.0), "{taken:#?}");
    assert_eq!(connections("refused", "connect_refused"), Some(10.0), "{taken:#?}");
    assert_eq!(value(&told, "sheave_metrics_export_failures_total"), 0.0);
    let families: BTreeSet<&str> = told.keys().map(|(name, _)| &**name).collect();
    let exemplars = exemplars_are_those_of_the_text(&prometheus, sheave.admin());
    figures!("pushed", names = families.len(), series = told.len(), exemplars = exemplars);
}

/// All metrics go to Prometheus each second, and all connections have a trace that nobody takes.
fn config(prometheus: SocketAddr, closed: SocketAddr, echo: SocketAddr) -> Value {
    let names = ["retried", "refused"];
    let listener = |(number, name): (usize, &&str)| json!({"name": name, "address": format!("127.0.0.{}:0", number + 1)});
    let route = |name: &&str| json!({"name": name, "listener": name, "backendRefs": [{"upstream": name}]});
    let upstream = |name: &str, endpoints: &[SocketAddr], retries: usize| {
        let endpoints: Vec<Value> = endpoints.iter().map(|address| json!({"address": address})).collect();
        json!({
            "name": name, "endpoints": endpoints, "loadBalancer": {"type": "RoundRobin"},
            "retry": {"numRetries": retries}, "circuitBreaker": {"perEndpoint": {"consecutiveFailures": 0}},
        })
    };
    json!({
        "admin": {"address": "127.0.0.1:0"},
        "metrics": {"otlp": {
            "enabled": true, "protocol": "http/protobuf", "interval": "1s",
            "endpoint": format!("http://{prometheus}/api/v1/otlp/v1/metrics"),
        }},
        "tracing": {"enabled": true, "sample": 1, "endpoint": format!("http://{closed}")},
        "listeners": names.iter().enumerate().map(listener).collect::<Vec<_>>(),
        "routes": names.iter().map(route).collect::<Vec<_>>(),
        "upstreams": [upstream("retried", &[closed, echo], 1), upstream("refused", &[closed], 0)],
    })
}

fn scraped(admin: SocketAddr) -> Samples {
    let text = get_text(admin, "/metrics").expect("/metrics");
    let metrics = Metrics::parse(&text);
    metrics.all().map(|(name, labels, value)| (key(name, labels.clone()), value)).collect()
}

/// What Prometheus says there is, without the labels that say whose it is.
fn pushed(prometheus: &Prometheus) -> Samples {
    let found = prometheus.get("query", &[("query", "{__name__=~\"sheave_.+\"}")]);
    let series = found["result"].as_array().unwrap().iter().map(|series| {
        let mut labels: BTreeMap<String, String> = serde_json::from_value(series["metric"].clone()).unwrap();
        let name = labels.remove("__name__").unwrap();
        assert_eq!(labels.remove("job").as_deref(), Some("sheave"), "{series}");
        assert!(labels.remove("instance").is_some_and(|instance| !instance.is_empty()), "{series}");
        (key(&name, labels), series["value"][1].as_str().unwrap().parse().unwrap())
    });
    series.collect()
}

/// A bound is a number, however it is written.
fn key(name: &str, mut labels: BTreeMap<String, String>) -> (String, BTreeMap<String, String>) {
    if let Some(bound) = labels.get_mut("le") {
        *bound = bound.parse::<f64>().unwrap().to_string();
    }
    (name.to_owned(), labels)
}

fn value(samples: &Samples, name: &str) -> f64 {
    samples.iter().find(|((other, _), _)| other == name).map(|(_, value)| *value).unwrap()
}

/// What only one of them has, or another number of.
fn differences(told: &Samples, taken: &Samples) -> Vec<String> {
    let is_restless = |name: &str| RESTLESS.iter().any(|restless| name.starts_with(restless));
    let keys: BTreeSet<_> = told.keys().chain(taken.keys()).collect();
    let differs = keys.into_iter().filter(|key| match (told.get(key), taken.get(key)) {
        (Some(_), Some(_)) if is_restless(&key.0) => false,
        (told, taken) => told != taken,
    });
    differs
        .map(|key| format!("{key:?}: {:?} in the text, {:?} taken", told.get(key), taken.get(key)))
        .collect()
}

/// The newest of each bucket, which come in the order of their times, names a trace that `/metrics` names too; how many those are.
/// Prometheus keeps those that they have replaced as well.
fn exemplars_are_those_of_the_text(prometheus: &Prometheus, admin: SocketAddr) -> usize {
    let text = get_text(admin, "/metrics").expect("/metrics");
    let found = || prometheus.exemplars("sheave_upstream_connect_seconds_bucket");
    let exemplars = eventually("exemplars", ARRIVES, found, |found| !found.is_empty());
    let newest: BTreeMap<String, String> =
        exemplars.into_iter().map(|(series, trace)| (series.to_string(), trace)).collect();
    for (series, trace) in &newest {
        assert!(text.contains(&format!("trace_id=\"{trace}\"")), "{trace} of {series}");
    }
    newest.len()
}

/// A word there and back, or the end.
fn talk(address: SocketAddr) {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(ARRIVES)).unwrap();
    if client.write_all(b"a").is_ok() {
        client.read_exact(&mut [0]).ok();
    }
}

fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
        }
    });
    address
}

/// Where nobody listens.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
