//! Following a cluster, through the whole program, against an API server that the test owns.

mod asked;
mod departures;
mod outages;
mod problems;
mod refusals;
mod reloads;
mod storms;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::{
    ApiServer, Driver, Endpoint, Gone, Load, Process, Proxy, Reply, Request, Settings, Verb, admin_get,
    admin_request, ask, connect, eventually, exchange, metric, on_both_drivers,
};

on_both_drivers!(endpoints_come_change_and_leave_under_load);

/// What is watched, where there is one namespace.
const RESOURCES: [&str; 2] = ["services", "endpointslices"];

/// One upstream, which follows port 5432 of Service db/pg.
fn following(driver: Driver, api: &ApiServer) -> Settings {
    Settings::new(driver, &[]).upstream(&follows("db", "pg", "5432")).top(&api.top())
}

fn follows(namespace: &str, name: &str, port: &str) -> String {
    format!("service: {{namespace: {namespace}, name: {name}, port: {port}}}")
}

/// A further listener, a route and an upstream of these `members`, all of this name.
fn also(mut settings: Settings, name: &str, members: &str) -> Settings {
    let number = settings.more_listeners.len() + 2;
    settings.more_listeners.push(format!("{{name: {name}, address: \"127.0.0.{number}:0\"}}"));
    settings
        .more_routes
        .push(format!("{{name: {name}, listener: {name}, backendRefs: [{{upstream: {name}}}]}}"));
    settings.more_upstreams.push(format!("{{name: {name}, {members}}}"));
    settings
}

/// With port 5432 only, named `sql`.
pub(crate) fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"type": "ClusterIP", "ipFamilies": ["IPv4"], "ports": [{"name": "sql", "port": 5432}]},
    })
}

/// With one ready endpoint for the port `sql`, which nobody dates.
pub(crate) fn slice(namespace: &str, service: &str, name: &str, endpoint: SocketAddr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "sql", "protocol": "TCP", "port": endpoint.port()}],
        "endpoints": [{"addresses": [endpoint.ip()], "conditions": {"ready": true}}],
    })
}

/// The slice as its controller dates it.
pub(crate) fn dated(mut slice: Value, at: SystemTime) -> Value {
    let at = humantime::format_rfc3339_millis(at).to_string();
    slice["metadata"]["annotations"] = json!({"endpoints.kubernetes.io/last-change-trigger-time": at});
    slice
}

/// The address of an endpoint that nobody ever connects to.
pub(crate) fn nowhere(number: usize) -> SocketAddr {
    SocketAddr::from(([127, 1, u8::try_from(number / 256).unwrap(), (number % 256) as u8], 1))
}

fn table(admin: SocketAddr) -> Value {
    serde_json::from_str(&admin_get(admin, "/table")).unwrap()
}

fn generation(admin: SocketAddr) -> u64 {
    table(admin)["generation"].as_u64().unwrap()
}

fn upstream(admin: SocketAddr, name: &str) -> Value {
    let table = table(admin);
    let upstreams = table["upstreams"].as_array().unwrap();
    upstreams.iter().find(|upstream| upstream["name"] == name).unwrap().clone()
}

/// Of the endpoints that may be chosen.
fn addresses(admin: SocketAddr, name: &str) -> Vec<SocketAddr> {
    let upstream = upstream(admin, name);
    let endpoints = upstream["endpoints"].as_array().unwrap().iter();
    endpoints.map(|endpoint| endpoint["address"].as_str().unwrap().parse().unwrap()).collect()
}

/// Waits until the upstream has just these endpoints.
fn has(admin: SocketAddr, name: &str, endpoints: &[&Endpoint]) {
    let mut expected: Vec<SocketAddr> = endpoints.iter().map(|endpoint| endpoint.address).collect();
    expected.sort();
    eventually(&format!("{expected:?} in {name}"), || addresses(admin, name), |found| *found == expected);
}

/// The reason why an upstream is without its endpoints.
fn problem(admin: SocketAddr, name: &str) -> Value {
    upstream(admin, name)["problem"]["reason"].clone()
}

/// Status and text.
fn readiness(admin: SocketAddr) -> (u16, String) {
    admin_request(admin, "GET", "/readyz?verbose")
}

fn becomes_ready(admin: SocketAddr) {
    eventually("readiness", || readiness(admin), |(status, _)| *status == 200);
}

/// Whether the watches of this resource are in step, where there is one namespace.
fn synced(admin: SocketAddr, resource: &str) -> bool {
    metric(admin, "sheave_kubernetes_synced", &[&format!("resource=\"{resource}\"")]) > 0.5
}

fn in_step(admin: SocketAddr) {
    for resource in RESOURCES {
        eventually(&format!("{resource} in step"), || synced(admin, resource), |synced| *synced);
    }
}

fn watch_errors(admin: SocketAddr, reason: &str) -> f64 {
    RESOURCES.iter().map(|resource| watch_errors_of(admin, resource, reason)).sum()
}

fn watch_errors_of(admin: SocketAddr, resource: &str, reason: &str) -> f64 {
    let labels = [&*format!("resource=\"{resource}\""), &*format!("reason=\"{reason}\"")];
    metric(admin, "sheave_kubernetes_watch_errors_total", &labels)
}

/// The client is let in and reset, because the upstream has no endpoint.
fn is_reset(address: SocketAddr) {
    assert_eq!(ask(address, ""), Err(std::io::ErrorKind::ConnectionReset));
}

fn endpoints_come_change_and_leave_under_load(driver: Driver) {
    let (leaves, comes) = (Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    let mut first = slice("db", "pg", "first", leaves.address);
    first["endpoints"][0]["nodeName"] = "n1".into();
    first["endpoints"][0]["zone"] = "a".into();
    first["endpoints"][0]["hints"] = json!({"forZones": [{"name": "b"}], "forNodes": [{"name": "n2"}]});
    api.put_all([service("db", "pg"), first.clone()]);
    let proxy = Proxy::start(&following(driver, &api));
    let admin = proxy.admin;
    has(admin, "main", &[&leaves]);
    in_step(admin);
    let shown = upstream(admin, "main");
    assert_eq!(shown["service"], json!({"namespace": "db", "name": "pg", "port": 5432}));
    let endpoint = &shown["endpoints"][0];
    assert_eq!((&endpoint["zone"], &endpoint["nodeName"]), (&"a".into(), &"n1".into()), "{shown:#}");
    assert_eq!(endpoint["hints"], json!({"forZones": ["b"], "forNodes": ["n2"]}));
    let long = Load::long(connect(proxy.address));
    let short: Vec<Load> = (0..3).map(|_| Load::short(proxy.address)).collect();

    let measured =
        |from: &str| proxy.metric("sheave_propagation_seconds_count", &[&format!("from=\"{from}\"")]);
    let undated =
        |reason: &str| proxy.metric("sheave_propagation_undated_total", &[&format!("reason=\"{reason}\"")]);
    let count = |what: &str, look: &dyn Fn() -> f64, expected: f64| {
        eventually(what, look, |count| (*count - expected).abs() < 0.5);
    };
    count("nothing measured of a list", &|| measured("receipt"), 0.0);
    let second = slice("db", "pg", "second", comes.address);
    api.put(dated(second.clone(), SystemTime::now()));
    has(admin, "main", &[&leaves, &comes]);
    count("a dated change", &|| measured("change"), 1.0);
    eventually("connections to what came", || comes.accepted(), |accepted| *accepted > 10);

    first["endpoints"][0]["zone"] = "c".into();
    api.put(first.clone());
    eventually("another zone", || zones(admin), |zones| zones.contains(&"c".to_owned()));
    count("an undated change", &|| undated("absent"), 1.0);
    let mut later = dated(second, SystemTime::now() + Duration::from_secs(3600));
    later["endpoints"][0]["zone"] = "d".into();
    api.put(later);
    eventually("another zone", || zones(admin), |zones| zones.contains(&"d".to_owned()));
    count("a change from the future", &|| undated("skewed"), 1.0);

    api.delete(&first);
    has(admin, "main", &[&comes]);
    count("all changes", &|| measured("receipt"), 4.0);
    count("one change that is dated", &|| measured("change"), 1.0);
    let before = comes.accepted();
    eventually("more connections", || comes.accepted(), |accepted| *accepted > before + 10);
    assert!(long.stop().unwrap() > 0);
    for load in short {
        assert!(load.stop().unwrap() > 0);
    }
}

/// Of the endpoints of `main`.
fn zones(admin: SocketAddr) -> Vec<String> {
    let upstream = upstream(admin, "main");
    let endpoints = upstream["endpoints"].as_array().unwrap().iter();
    endpoints.filter_map(|endpoint| Some(endpoint["zone"].as_str()?.to_owned())).collect()
}
