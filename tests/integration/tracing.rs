//! A trace for each connection: what it says, whose it is, and what it costs when nobody takes it.

mod ends;
mod environment;
mod long_lived;
mod lost;
mod parents;
mod places;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::collector::{attribute, hex, times};
use crate::support::{
    Authority, Collector, Driver, Endpoint, FullEndpoint, Proxy, Settings, Speech, Trace, ask, ask_securely,
    closed_port, connect, echo_securely, eventually, on_both_drivers, reset_on_close, round_trip,
    secure_endpoint, shake_hands,
};

on_both_drivers!(
    a_clean_connection,
    a_refused_attempt_is_followed_by_another,
    a_blackholed_endpoint,
    what_is_no_tls,
    a_name_that_has_no_route,
    a_name_that_has_no_route_where_tls_ends_elsewhere,
    tls_on_both_sides,
    an_endpoint_that_leaves,
    an_endpoint_that_resets,
    what_is_kept,
);

const ALL: &str = "sample: 1";

/// A proxy whose traces all go to a collector.
fn traced(collector: &Collector, settings: Settings) -> Proxy {
    let top = format!("{}\n{}", collector.settings(ALL), settings.top);
    Proxy::start(&Settings { top, ..settings })
}

/// The trace of a line of the access log; both say the same times.
fn trace_of(collector: &Collector, record: &Value) -> Trace {
    let trace = collector.trace(record["trace_id"].as_str().unwrap());
    let root = trace.root();
    let field = |name: &str| record[name].as_f64();
    close(times(root, root).1, field("duration_ms").unwrap());
    let attempts = record["attempts"].as_array().unwrap();
    let spans = trace.0.iter().filter(|span| span.kind == 3);
    for (span, attempt) in spans.zip(attempts) {
        let (from, duration) = times(root, span);
        let (start, end) = (attempt["start_ms"].as_f64().unwrap(), attempt["end_ms"].as_f64().unwrap());
        close(from, start);
        close(duration, end - start);
        let endpoint = attempt["endpoint"].as_str().unwrap();
        assert_eq!(
            format!("{}:{}", attribute(span, "server.address"), attribute(span, "server.port")),
            endpoint
        );
    }
    for relay in trace.of_name("relay") {
        close(times(root, relay).0, field("connect_end_ms").unwrap());
    }
    for (key, name) in
        [("sheave.outcome", "outcome"), ("sheave.side", "side"), ("sheave.listener", "listener")]
    {
        assert_eq!(attribute(root, key), record[name].as_str().unwrap());
    }
    for (key, name) in [("sheave.bytes.received", "bytes_received"), ("sheave.bytes.sent", "bytes_sent")] {
        assert_eq!(attribute(root, key), record[name].to_string());
    }
    trace
}

/// Within a millisecond.
#[track_caller]
fn close(one: f64, other: f64) {
    assert!((one - other).abs() < 1.0, "{one} ms and {other} ms");
}

#[track_caller]
fn assert_tree(trace: &Trace, expected: &[(&str, &str, &str)]) {
    let tree = trace.tree();
    let tree: Vec<(&str, &str, &str)> =
        tree.iter().map(|(name, parent, error)| (*name, *parent, error.as_str())).collect();
    assert_eq!(tree, expected);
}

fn a_clean_connection(driver: Driver) {
    let echo = Endpoint::echo();
    for speech in [Speech::Grpc, Speech::Http] {
        let collector = Collector::start(speech);
        let proxy = traced(&collector, Settings::new(driver, &[echo.address]));
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
        let record = proxy.record();
        let trace = trace_of(&collector, &record);
        assert_tree(
            &trace,
            &[
                ("tcp main", "", ""),
                ("route", "tcp main", ""),
                ("connect main", "tcp main", ""),
                ("relay", "tcp main", ""),
            ],
        );
        let root = trace.root();
        let client = record["client"].as_str().unwrap().rsplit_once(':').unwrap();
        assert_eq!(
            (attribute(root, "client.address").as_str(), attribute(root, "client.port").as_str()),
            client
        );
        let events = &trace.of_name("relay")[0].events;
        let answer = events.iter().find(|event| event.name == "first_byte_upstream").unwrap();
        let answered = (answer.time_unix_nano - root.start_time_unix_nano) as f64 / 1e6;
        close(answered, record["first_byte_upstream_ms"].as_f64().unwrap());
        let resource = collector.resource();
        assert_eq!(
            (&*resource["service.name"], &*resource["service.version"]),
            ("sheave", env!("CARGO_PKG_VERSION"))
        );
        assert!(
            !resource["host.name"].is_empty()
                && record["trace_id"].as_str().unwrap().starts_with(&resource["service.instance.id"])
        );
        let exported = || proxy.metric("sheave_trace_spans_exported_total", &[]);
        eventually("all spans counted", exported, |exported| *exported == 4.0);
    }
}

fn a_refused_attempt_is_followed_by_another(driver: Driver) {
    let (collector, echo) = (Collector::start(Speech::Grpc), Endpoint::echo());
    let settings =
        Settings::new(driver, &[closed_port(), echo.address]).upstream("loadBalancer: {type: RoundRobin}");
    let proxy = traced(&collector, settings);
    assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
    let trace = trace_of(&collector, &proxy.record());
    assert_tree(
        &trace,
        &[
            ("tcp main", "", ""),
            ("route", "tcp main", ""),
            ("connect main", "tcp main", "connect_refused"),
            ("connect main", "tcp main", ""),
            ("relay", "tcp main", ""),
        ],
    );
    let numbers: Vec<String> =
        trace.of_name("connect main").iter().map(|span| attribute(span, "sheave.attempt")).collect();
    assert_eq!(numbers, ["1", "2"]);
}

fn a_blackholed_endpoint(driver: Driver) {
    let (collector, full) = (Collector::start(Speech::Http), FullEndpoint::start());
    let settings = Settings::new(driver, &[full.address])
        .upstream("timeout: {tcp: {connectTimeout: 200ms}}, retry: {numRetries: 0}");
    let proxy = traced(&collector, settings);
    assert!(ask(proxy.address, "hello").is_err());
    let trace = trace_of(&collector, &proxy.record());
    assert_tree(
        &trace,
        &[
            ("tcp main", "", "connect_timeout"),
            ("route", "tcp main", ""),
            ("connect main", "tcp main", "connect_timeout"),
        ],
    );
    let attempt = trace.of_name("connect main")[0];
    assert!(times(trace.root(), attempt).1 >= 199.0);
}

fn secured(driver: Driver, authority: &Authority, endpoint: &Endpoint) -> Settings {
    let certificate = authority.certify(&["db.example.com"]);
    Settings::new(driver, &[endpoint.address])
        .listener(&format!(
            "protocol: TLS, tls: {{mode: Terminate, certificateRefs: [{}]}}",
            certificate.reference()
        ))
        .route("hostnames: [db.example.com], backendRefs: [{upstream: main}]")
}

fn what_is_no_tls(driver: Driver) {
    let (collector, echo, authority) = (Collector::start(Speech::Grpc), Endpoint::echo(), Authority::new());
    let proxy = traced(&collector, secured(driver, &authority, &echo));
    assert!(ask(proxy.address, "hello").is_err());
    let trace = trace_of(&collector, &proxy.record());
    assert_tree(&trace, &[("tcp main", "", "not_tls"), ("tls handshake", "tcp main", "not_tls")]);
}

fn a_name_that_has_no_route(driver: Driver) {
    let (collector, echo, authority) = (Collector::start(Speech::Grpc), Endpoint::echo(), Authority::new());
    let proxy = traced(&collector, secured(driver, &authority, &echo));
    assert!(shake_hands(proxy.address, "other.example.com", authority.client()).is_err());
    let trace = trace_of(&collector, &proxy.record());
    assert_tree(
        &trace,
        &[("tcp main", "", "no_route"), ("tls handshake", "tcp main", ""), ("route", "tcp main", "no_route")],
    );
    assert_eq!(attribute(trace.root(), "server.address"), "other.example.com");
}

fn a_name_that_has_no_route_where_tls_ends_elsewhere(driver: Driver) {
    let (collector, echo, authority) = (Collector::start(Speech::Grpc), Endpoint::echo(), Authority::new());
    let settings = Settings::new(driver, &[echo.address])
        .listener("protocol: TLS, tls: {mode: Passthrough}")
        .route("hostnames: [db.example.com], backendRefs: [{upstream: main}]");
    let proxy = traced(&collector, settings);
    assert!(shake_hands(proxy.address, "other.example.com", authority.client()).is_err());
    let record = proxy.record();
    let trace = trace_of(&collector, &record);
    assert_tree(
        &trace,
        &[("tcp main", "", "no_route"), ("client hello", "tcp main", ""), ("route", "tcp main", "no_route")],
    );
    let hello = trace.of_name("client hello")[0];
    close(times(trace.root(), hello).1, record["tls"]["handshake_ms"].as_f64().unwrap());
}

fn tls_on_both_sides(driver: Driver) {
    let (collector, authority) = (Collector::start(Speech::Grpc), Authority::new());
    let certificate = authority.certify(&["db.example.com"]);
    let endpoint = secure_endpoint(certificate.server(), echo_securely);
    let mut settings = secured(driver, &authority, &endpoint);
    settings.upstream = format!(
        "tls: {{validation: {{caCertificateRefs: [{{file: {}}}], hostname: db.example.com}}}}",
        authority.file().display()
    );
    let proxy = traced(&collector, settings);
    let mut client = shake_hands(proxy.address, "db.example.com", authority.client()).unwrap();
    assert_eq!(ask_securely(&mut client, "hello").unwrap(), "hello");
    let record = proxy.record();
    let trace = trace_of(&collector, &record);
    assert_tree(
        &trace,
        &[
            ("tcp main", "", ""),
            ("tls handshake", "tcp main", ""),
            ("route", "tcp main", ""),
            ("connect main", "tcp main", ""),
            ("tls handshake", "connect main", ""),
            ("relay", "tcp main", ""),
        ],
    );
    let root = trace.root();
    let with_client = &record["tls"]["downstream"];
    assert_eq!(attribute(root, "server.address"), "db.example.com");
    assert_eq!(attribute(root, "tls.cipher"), with_client["cipher"].as_str().unwrap());
    assert_eq!(attribute(root, "tls.protocol.version"), "1.3");
    let handshake = trace.of_name("tls handshake")[0];
    close(times(root, handshake).1, record["tls"]["handshake_ms"].as_f64().unwrap());
}

fn an_endpoint_that_leaves(driver: Driver) {
    let (collector, echo) = (Collector::start(Speech::Grpc), Endpoint::echo());
    let settings = Settings::new(driver, &[echo.address]).upstream("drain: {timeout: 300ms}");
    let proxy = traced(&collector, settings.clone());
    let mut client = connect(proxy.address);
    round_trip(&mut client);
    let top = collector.settings(ALL);
    proxy.reload(&Settings { endpoints: vec![closed_port()], top, ..settings }).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    let record = proxy.record();
    assert_eq!(record["outcome"], "table_removed");
    let trace = trace_of(&collector, &record);
    let tree = trace.tree();
    assert_eq!(tree.last().unwrap(), &("drain", "tcp main", String::new()));
    let drained = times(trace.root(), trace.of_name("drain")[0]).1;
    assert!((250.0..20_000.0).contains(&drained), "{drained} ms");
}

fn an_endpoint_that_resets(driver: Driver) {
    let collector = Collector::start(Speech::Http);
    let endpoint = Endpoint::start(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        reset_on_close(&stream);
    });
    let proxy = traced(&collector, Settings::new(driver, &[endpoint.address]));
    let mut client = connect(proxy.address);
    client.write_all(b"a").unwrap();
    assert!(client.read(&mut [0]).is_err());
    let trace = trace_of(&collector, &proxy.record());
    let tree = trace.tree();
    assert_eq!(tree[0], ("tcp main", "", "upstream_reset".to_owned()));
    assert_eq!(tree.last().unwrap(), &("relay", "tcp main", "upstream_reset".to_owned()));
    assert_eq!(attribute(trace.root(), "sheave.side"), "upstream");
}

/// Failed, retried and slow connections, whatever the share of others.
fn what_is_kept(driver: Driver) {
    let (collector, closed) = (Collector::start(Speech::Grpc), closed_port());
    // Takes its time with whoever asks for that.
    let endpoint = Endpoint::start(|mut stream| {
        let mut asked = [0];
        stream.read_exact(&mut asked).unwrap();
        if asked == *b"s" {
            thread::park_timeout(Duration::from_millis(300));
        }
        stream.write_all(&asked).unwrap();
    });
    let top = collector.settings("sample: 0, slowerThan: 250ms");
    let settings = Settings::new(driver, &[endpoint.address, closed]).top(&top);
    let proxy = Proxy::start(&settings.upstream("loadBalancer: {type: RoundRobin}"));
    let question = |byte: u8| {
        let mut client = connect(proxy.address);
        client.write_all(&[byte]).unwrap();
        client.read_exact(&mut [0]).unwrap();
        drop(client);
    };
    (0..6).for_each(|_| question(b'q'));
    question(b's');
    let records = proxy.records(7);
    let is_retried = |record: &&Value| record["attempts"].as_array().unwrap().len() > 1;
    let is_slow = |record: &&Value| record["first_byte_upstream_ms"].as_f64().unwrap() > 250.0;
    let kept: Vec<&Value> = records.iter().filter(|record| is_retried(record) || is_slow(record)).collect();
    assert!(kept.iter().any(is_retried) && kept.iter().any(is_slow));
    assert!(kept.len() < 7, "{records:#?}");
    for record in &kept {
        trace_of(&collector, record);
    }
    let lines: BTreeSet<&str> = kept.iter().map(|record| record["trace_id"].as_str().unwrap()).collect();
    let spans = collector.spans();
    let traces: BTreeSet<String> = spans.iter().map(|span| hex(&span.trace_id)).collect();
    assert_eq!(traces.iter().map(String::as_str).collect::<BTreeSet<_>>(), lines);
}
