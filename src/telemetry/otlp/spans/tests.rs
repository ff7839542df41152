use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::config::{PortRef, ServicePort};
use crate::telemetry::otlp::nanoseconds;
use crate::telemetry::{Negotiated, Parent, TlsRecord, Via};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span, span::SpanKind};
use prost::Message as _;

/// As a receiver reads them.
fn spans_of(record: &ConnectionRecord) -> Vec<Span> {
    let spans = of_ended(record, &mut Message::default());
    let read = ScopeSpans::decode(&*spans.message().clone().into_bytes()).unwrap().spans;
    assert_eq!(read.len(), spans.count());
    read
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Name, parent's name, from and to in milliseconds, and what is wrong with it.
type Row<'a> = (&'a str, &'a str, u64, u64, &'a str);

/// Fails unless these are the spans.
#[track_caller]
fn check(record: &ConnectionRecord, expected: &[Row<'_>]) -> Vec<Span> {
    let spans = spans_of(record);
    let name = |id: &[u8]| {
        let span = spans.iter().find(|span| span.span_id == id);
        span.map_or("", |span| &*span.name).to_owned()
    };
    let accepted = nanoseconds(record.timeline.accepted);
    let since = |time: u64| (time - accepted) / 1_000_000;
    let rows: Vec<_> = spans
        .iter()
        .map(|span| {
            let wrong = text(span, "error.type");
            let is_error = span.status.as_ref().is_some_and(|status| status.code == 2);
            assert_eq!(is_error, !wrong.is_empty(), "{}", span.name);
            assert_eq!(span.trace_id, record.trace.to_bytes());
            let (from, to) = (since(span.start_time_unix_nano), since(span.end_time_unix_nano));
            (span.name.clone(), name(&span.parent_span_id), from, to, wrong)
        })
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, parent, from, to, wrong)| {
            ((*name).to_owned(), (*parent).to_owned(), *from, *to, (*wrong).to_owned())
        })
        .collect();
    assert_eq!(rows, expected);
    spans
}

fn text(span: &Span, key: &str) -> String {
    value(span, key).map_or_else(String::new, |value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        other => panic!("{key} is {other:?}"),
    })
}

fn value<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    let mut attributes = span.attributes.iter().filter(|attribute| attribute.key == key);
    let value = attributes.next().and_then(|attribute| attribute.value.as_ref()?.value.as_ref());
    assert!(attributes.next().is_none(), "{key} twice");
    value
}

fn attempt(port: u16, started: u64, ended: u64, failure: Option<Outcome>) -> Attempt {
    Attempt {
        endpoint: ([127, 0, 0, 1], port).into(),
        started: ms(started),
        pod: None,
        local: None,
        handshake_started: None,
        ended: ms(ended),
        failure,
        reason: None,
    }
}

#[test]
fn a_clean_connection_is_a_small_tree() {
    let mut record = ConnectionRecord { bytes_sent: 7, ..ConnectionRecord::example() };
    record.local = Some(([127, 0, 0, 3], 80).into());
    record.timeline.half_close_downstream = Some(Duration::from_micros(3_500));
    record.timeline.half_close_upstream = Some(ms(5));
    let spans = check(
        &record,
        &[
            ("tcp a", "", 0, 5, ""),
            ("route", "tcp a", 0, 1, ""),
            ("connect a", "tcp a", 1, 2, ""),
            ("relay", "tcp a", 2, 5, ""),
        ],
    );
    let kinds: Vec<SpanKind> = spans.iter().map(Span::kind).collect();
    assert_eq!(kinds, [SpanKind::Server, SpanKind::Internal, SpanKind::Client, SpanKind::Internal]);
    let root = &spans[0];
    assert_eq!(root.span_id, identity::span_id(record.id).to_be_bytes());
    assert_eq!((&*root.parent_span_id, root.flags), (&[][..], 0x101));
    for (key, expected) in [
        ("client.address", "127.0.0.1"),
        ("client.port", "1"),
        ("network.peer.address", "127.0.0.1"),
        ("network.transport", "tcp"),
        ("network.type", "ipv4"),
        ("network.local.address", "127.0.0.3"),
        ("network.local.port", "80"),
        ("server.address", "127.0.0.3"),
        ("server.port", "80"),
        ("sheave.listener", "a"),
        ("sheave.endpoint", "127.0.0.1:2"),
        ("sheave.bytes.sent", "7"),
        ("sheave.outcome", "downstream_closed"),
        ("sheave.side", "downstream"),
    ] {
        assert_eq!(text(root, key), expected, "{key}");
    }
    assert_eq!(text(&spans[2], "server.port"), "2");
    let events: Vec<&str> = spans[3].events.iter().map(|event| &*event.name).collect();
    let expected =
        ["first_byte_downstream", "half_close_downstream", "first_byte_upstream", "half_close_upstream"];
    assert_eq!(events, expected);
    assert_eq!(spans[3].events[2].time_unix_nano, nanoseconds(record.timeline.accepted + ms(4)));
}

#[test]
fn a_retry_that_succeeds_is_the_attempts_failure_alone() {
    let mut record = ConnectionRecord::example();
    let refused = attempt(9, 1, 2, Some(Outcome::ConnectRefused));
    record.attempts = vec![refused, attempt(2, 2, 4, None)];
    record.timeline.connect_ended = Some(ms(4));
    let spans = check(
        &record,
        &[
            ("tcp a", "", 0, 5, ""),
            ("route", "tcp a", 0, 1, ""),
            ("connect a", "tcp a", 1, 2, "connect_refused"),
            ("connect a", "tcp a", 2, 4, ""),
            ("relay", "tcp a", 4, 5, ""),
        ],
    );
    let attempts: Vec<_> = spans[2..4].iter().map(|span| text(span, "sheave.attempt")).collect();
    assert_eq!(attempts, ["1", "2"]);
    assert_eq!(text(&spans[3], "sheave.hedged"), "false");
}

#[test]
fn who_was_outpaced_did_not_fail_and_the_second_was_hedged() {
    let mut record = ConnectionRecord::example();
    record.attempts = vec![attempt(2, 3, 4, None), attempt(9, 1, 4, Some(Outcome::Outpaced))];
    record.timeline.connect_ended = Some(ms(4));
    let spans = spans_of(&record);
    let hedged: Vec<_> = spans[2..4].iter().map(|span| text(span, "sheave.hedged")).collect();
    assert_eq!(hedged, ["true", "false"]);
    assert_eq!(
        (text(&spans[3], "sheave.result"), text(&spans[3], "error.type")),
        ("outpaced".into(), "".into())
    );
}

#[test]
fn tls_on_both_sides_has_its_handshakes() {
    let made = |resumed| Negotiated { version: "TLSv1.3", cipher: "A", alpn: Some("h2".into()), resumed };
    let mut record = ConnectionRecord::example();
    record.timeline.proxy_ended = Some(ms(1));
    record.timeline.routed = Some(ms(2));
    record.timeline.connect_started = Some(ms(2));
    record.timeline.connect_ended = Some(ms(4));
    let attempts = vec![Attempt { handshake_started: Some(ms(3)), ..attempt(2, 2, 4, None) }];
    let tls = TlsRecord {
        server_name: Some("example.com".into()),
        downstream: Some(made(true)),
        upstream: Some(made(false)),
        handshake_ended: Some(ms(2)),
        ..TlsRecord::default()
    };
    let parent = Some(Parent { span: 0xAB, is_sampled: true });
    let address = |last, port| SocketAddr::from(([127, 0, 0, last], port));
    let via = Some(Arc::new(Via { proxy: address(9, 9), destination: address(8, 443) }));
    let local = Some(address(7, 8443));
    let record = ConnectionRecord { attempts, tls: Some(Box::new(tls)), parent, via, local, ..record };
    let spans = check(
        &record,
        &[
            ("tcp a", "", 0, 5, ""),
            ("proxy header", "tcp a", 0, 1, ""),
            ("tls handshake", "tcp a", 1, 2, ""),
            ("route", "tcp a", 2, 2, ""),
            ("connect a", "tcp a", 2, 4, ""),
            ("tls handshake", "connect a", 3, 4, ""),
            ("relay", "tcp a", 4, 5, ""),
        ],
    );
    let root = &spans[0];
    assert_eq!((&*root.parent_span_id, root.flags), (&0xAB_u64.to_be_bytes()[..], 0x301));
    assert_eq!(spans[1].flags, 0x101);
    for (key, expected) in [
        ("server.address", "example.com"),
        ("server.port", "443"),
        ("network.peer.address", "127.0.0.9"),
        ("network.local.address", "127.0.0.7"),
        ("network.local.port", "8443"),
        ("network.protocol.name", "http"),
        ("network.protocol.version", "2"),
        ("tls.protocol.version", "1.3"),
        ("tls.next_protocol", "h2"),
        ("tls.resumed", "true"),
    ] {
        assert_eq!(text(root, key), expected, "{key}");
    }
    assert_eq!(text(&spans[5], "tls.resumed"), "false");
}

/// One that ended before it had an endpoint.
fn early(outcome: Outcome, tls: Option<TlsRecord>) -> ConnectionRecord {
    let mut record = ConnectionRecord::example();
    record.timeline.routed = None;
    record.timeline.connect_started = None;
    record.timeline.connect_ended = None;
    let (endpoint, attempts) = (None, Vec::new());
    ConnectionRecord { outcome, tls: tls.map(Box::new), endpoint, attempts, ..record }
}

#[test]
fn what_ends_early_says_where() {
    let failure = Some("the certificate has expired".into());
    let failed = TlsRecord { failure, ..TlsRecord::default() };
    let spans = check(
        &early(Outcome::TlsHandshakeFailed, Some(failed)),
        &[
            ("tcp a", "", 0, 5, "tls_handshake_failed"),
            ("tls handshake", "tcp a", 0, 5, "tls_handshake_failed"),
        ],
    );
    assert_eq!(spans[1].status.as_ref().unwrap().message, "the certificate has expired");
    check(
        &early(Outcome::NoRoute, Some(TlsRecord::default())),
        &[
            ("tcp a", "", 0, 5, "no_route"),
            ("tls handshake", "tcp a", 0, 5, ""),
            ("route", "tcp a", 5, 5, "no_route"),
        ],
    );
    check(
        &early(Outcome::NoRoute, None),
        &[("tcp a", "", 0, 5, "no_route"), ("route", "tcp a", 0, 5, "no_route")],
    );
    check(&early(Outcome::Denied, None), &[("tcp a", "", 0, 5, "denied")]);
    check(
        &early(Outcome::ProxyHeaderTimeout, None),
        &[
            ("tcp a", "", 0, 5, "proxy_header_timeout"),
            ("proxy header", "tcp a", 0, 5, "proxy_header_timeout"),
        ],
    );
    let mut record = early(Outcome::NoEndpoint, None);
    record.timeline.routed = Some(ms(1));
    check(&record, &[("tcp a", "", 0, 5, "no_endpoint"), ("route", "tcp a", 0, 5, "no_endpoint")]);
}

#[test]
fn resets_and_drains_are_the_relays() {
    let mut record = ConnectionRecord { outcome: Outcome::UpstreamReset, ..ConnectionRecord::example() };
    record.timeline.drain_started = Some(ms(3));
    check(
        &record,
        &[
            ("tcp a", "", 0, 5, "upstream_reset"),
            ("route", "tcp a", 0, 1, ""),
            ("connect a", "tcp a", 1, 2, ""),
            ("relay", "tcp a", 2, 5, "upstream_reset"),
            ("drain", "tcp a", 3, 5, ""),
        ],
    );
}

#[test]
fn an_attempt_says_which_pod_of_which_service() {
    let mut record = ConnectionRecord::example();
    record.service = Some(Arc::new(ServicePort {
        namespace: "db".into(),
        name: "pg".into(),
        port: PortRef::Number(5432),
    }));
    record.attempts[0].pod = Some("pg-0".into());
    record.attempts[0].local = Some(Box::new(([127, 0, 0, 3], 40_000).into()));
    let spans = spans_of(&record);
    for (key, expected) in [
        ("k8s.namespace.name", "db"),
        ("k8s.service.name", "pg"),
        ("k8s.pod.name", "pg-0"),
        ("service.peer.name", "a"),
        ("service.peer.namespace", "db"),
        ("network.local.address", "127.0.0.3"),
        ("network.local.port", "40000"),
        ("network.type", "ipv4"),
    ] {
        assert_eq!(text(&spans[2], key), expected, "{key}");
    }
    assert!(spans.iter().all(|span| span.name == "connect a" || value(span, "k8s.pod.name").is_none()));
}
