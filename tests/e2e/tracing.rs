//! Traces in Jaeger: connections of all kinds arrive there, each with its tree, its times and its client's span as the parent.
//!
//! Jaeger and this Sheave are processes beside the cluster: what is proven is what leaves Sheave and what Jaeger makes of it.

mod scene;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use serde_json::Value;

use crate::support::{Jaeger, Span, figures, skip_or_fail};

use scene::{Scene, connect, is_over};

/// The span that a connection is a part of, in a trace of each protocol's own.
const PARENT: &str = "00f067aa0ba902b7";
const PROTOCOLS: [(&str, &str); 2] =
    [("grpc", "4bf92f3577b34da6a3ce929d0e0e4736"), ("http/protobuf", "4bf92f3577b34da6a3ce929d0e0e4737")];

#[test]
fn every_kind_of_connection_is_a_trace_in_jaeger() {
    let Some(jaeger) = Jaeger::start(Ipv4Addr::LOCALHOST.into()) else {
        skip_or_fail("jaeger", "there is no program `jaeger` on PATH (tests/cluster/build jaeger makes it)");
        return;
    };
    for (protocol, trace) in PROTOCOLS {
        let scene = Scene::set(&jaeger, protocol);
        clean(&scene);
        retried(&scene);
        blackholed(&scene);
        no_tls(&scene);
        untrusted(&scene);
        unknown_name(&scene);
        reset(&scene);
        part_of_another(&scene, trace);
        // The last, as it ends Sheave.
        let records = drained(scene);
        let mut worst: f64 = 0.0;
        for (listener, expected) in EXPECTED {
            let record = records.iter().find(|record| record["listener"] == *listener).unwrap();
            let spans = jaeger.trace(record["trace_id"].as_str().unwrap());
            assert_eq!(tree(&spans), *expected, "{listener}");
            worst = worst.max(time_apart(&spans, record));
        }
        let spans = jaeger.trace(trace);
        assert_eq!(spans[0].parent.as_deref(), Some(PARENT), "{spans:#?}");
        figures!(format!("jaeger-{protocol}"), traces = records.len(), most_apart_ms = worst);
        assert!(worst < 1.0, "{worst} ms");
    }
}

/// Name, parent's name, `error.type`.
type Row = (&'static str, &'static str, &'static str);

const EXPECTED: &[(&str, &[Row])] = &[
    (
        "clean",
        &[
            ("tcp clean", "", ""),
            ("route", "tcp clean", ""),
            ("connect clean", "tcp clean", ""),
            ("relay", "tcp clean", ""),
        ],
    ),
    (
        "retried",
        &[
            ("tcp retried", "", ""),
            ("route", "tcp retried", ""),
            ("connect retried", "tcp retried", "connect_refused"),
            ("connect retried", "tcp retried", ""),
            ("relay", "tcp retried", ""),
        ],
    ),
    (
        "blackholed",
        &[
            ("tcp blackholed", "", "connect_timeout"),
            ("route", "tcp blackholed", ""),
            ("connect blackholed", "tcp blackholed", "connect_timeout"),
        ],
    ),
    ("no-tls", &[("tcp no-tls", "", "not_tls"), ("tls handshake", "tcp no-tls", "not_tls")]),
    (
        "untrusted",
        &[
            ("tcp untrusted", "", "tls_handshake_failed"),
            ("tls handshake", "tcp untrusted", "tls_handshake_failed"),
        ],
    ),
    (
        "named",
        &[
            ("tcp named", "", "no_route"),
            ("client hello", "tcp named", ""),
            ("route", "tcp named", "no_route"),
        ],
    ),
    (
        "reset",
        &[
            ("tcp reset", "", "upstream_reset"),
            ("route", "tcp reset", ""),
            ("connect reset", "tcp reset", ""),
            ("relay", "tcp reset", "upstream_reset"),
        ],
    ),
    (
        "proxied",
        &[
            ("tcp proxied", "", ""),
            ("proxy header", "tcp proxied", ""),
            ("route", "tcp proxied", ""),
            ("connect clean", "tcp proxied", ""),
            ("relay", "tcp proxied", ""),
        ],
    ),
    (
        "drained",
        &[
            ("tcp drained", "", ""),
            ("route", "tcp drained", ""),
            ("connect clean", "tcp drained", ""),
            ("relay", "tcp drained", ""),
            ("drain", "tcp drained", ""),
        ],
    ),
];

fn tree(spans: &[Span]) -> Vec<(&str, &str, &str)> {
    let name = |id: &str| spans.iter().find(|span| span.id == id).map_or("", |span| &*span.name);
    let parent = |span: &'_ Span| span.parent.clone().unwrap_or_default();
    spans.iter().map(|span| (&*span.name, name(&parent(span)), span.tag("error.type"))).collect()
}

/// How far the times of trace and access log are apart at most, in milliseconds.
fn time_apart(spans: &[Span], record: &Value) -> f64 {
    let root = &spans[0];
    let of = |value: &Value| value.as_f64().unwrap();
    let mut apart = vec![(root.duration - of(&record["duration_ms"])).abs()];
    // From accepting to where a phase ends or begins.
    let end = |span: &Span| span.start + span.duration - root.start;
    for span in spans {
        let told = match &*span.name {
            "client hello" => (end(span), of(&record["tls"]["handshake_ms"])),
            "route" if record["connect_start_ms"].is_number() => (end(span), of(&record["connect_start_ms"])),
            "relay" => (span.start - root.start, of(&record["connect_end_ms"])),
            "drain" => (span.start - root.start, of(&record["drain_start_ms"])),
            _ => continue,
        };
        apart.push((told.0 - told.1).abs());
    }
    let attempts = record["attempts"].as_array().unwrap();
    for (span, attempt) in spans.iter().filter(|span| span.name.starts_with("connect ")).zip(attempts) {
        let (start, end) = (attempt["start_ms"].as_f64().unwrap(), attempt["end_ms"].as_f64().unwrap());
        apart.push((span.start - root.start - start).abs());
        apart.push((span.duration - (end - start)).abs());
    }
    apart.into_iter().fold(0.0, f64::max)
}

fn ask(mut client: TcpStream) {
    client.write_all(b"a").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

fn clean(scene: &Scene) {
    ask(connect(scene.listener("clean")));
}

fn retried(scene: &Scene) {
    ask(connect(scene.listener("retried")));
}

fn blackholed(scene: &Scene) {
    is_over(&mut connect(scene.listener("blackholed")));
}

fn no_tls(scene: &Scene) {
    let mut client = connect(scene.listener("no-tls"));
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    is_over(&mut client);
}

/// The client does not like the certificate, and says so.
fn untrusted(scene: &Scene) {
    let mut client = connect(scene.listener("untrusted"));
    let mut tls = scene::tls_client(scene::NAME);
    let error = tls.complete_io(&mut client).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
    is_over(&mut client);
}

fn unknown_name(scene: &Scene) {
    let mut client = connect(scene.listener("named"));
    client.write_all(&scene::client_hello("other.example.com")).unwrap();
    is_over(&mut client);
}

fn reset(scene: &Scene) {
    let mut client = connect(scene.listener("reset"));
    client.write_all(b"a").unwrap();
    is_over(&mut client);
}

fn part_of_another(scene: &Scene, trace: &str) {
    let traceparent = format!("00-{trace}-{PARENT}-01");
    let mut header =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x46\xc0\0\x02\x07\xc0\0\x02\x01\x0f\xa0\x01\xbb\xe0\0\x37".to_vec();
    header.extend(traceparent.bytes());
    let mut client = connect(scene.listener("proxied"));
    client.write_all(&header).unwrap();
    ask(client);
}

/// All lines of the access log, after the end.
fn drained(scene: Scene) -> Vec<Value> {
    let mut client = connect(scene.listener("drained"));
    client.write_all(b"a").unwrap();
    client.read_exact(&mut [0]).unwrap();
    let records = scene.end();
    is_over(&mut client);
    records
}
