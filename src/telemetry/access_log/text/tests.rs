use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::config::SubjectAltName;
use crate::telemetry::{ClientIdentity, Timeline};

/// The fields of a line, by their names in docs/access-log.md.
const FIELDS: [&str; 17] = [
    "time",
    "listener",
    "client",
    "upstream",
    "endpoint",
    "outcome",
    "side",
    "timers",
    "bytes_received",
    "bytes_sent",
    "attempts",
    "route",
    "worker",
    "id",
    "trace_id",
    "via",
    "details",
];

fn line(record: &ConnectionRecord) -> String {
    let mut output = Vec::new();
    write_line(record, &mut output).unwrap();
    String::from_utf8(output).unwrap()
}

fn fields(line: &str) -> BTreeMap<&'static str, String> {
    let values: Vec<&str> = line.strip_suffix('\n').unwrap().split(' ').collect();
    assert_eq!(values.len(), FIELDS.len(), "{line}");
    assert!(values.iter().all(|value| !value.is_empty()), "{line}");
    FIELDS.into_iter().zip(values.into_iter().map(ToOwned::to_owned)).collect()
}

/// What was meant by a value; `None`: there is none.
fn read(value: &str) -> Option<String> {
    match value {
        "-" => return None,
        "\"\"" => return Some(String::new()),
        _ => {}
    }
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'\\' {
            let hexadecimal = std::str::from_utf8(&after[1..3]).unwrap();
            bytes.push(u8::from_str_radix(hexadecimal, 16).unwrap());
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Some(String::from_utf8(bytes).unwrap())
}

#[test]
fn an_ordinary_line_is_short() {
    let expected = "1970-01-01T00:00:00.000000Z a 127.0.0.1:1 a 127.0.0.1:2 downstream_closed downstream \
                    1.000/1.000/2.000/5.000/-1/-1 0 0 127.0.0.1:2@1.000+1.000=connected a 0 1 ";
    let record = ConnectionRecord::example();
    assert_eq!(line(&record), format!("{expected}{} - -\n", record.trace));
}

#[test]
fn who_got_no_endpoint_was_not_connected() {
    let mut record = ConnectionRecord::example();
    record.endpoint = None;
    assert_eq!(fields(&line(&record))["timers"], "1.000/-1/-1/5.000/-1/-1");
}

#[test]
fn what_did_not_happen_is_told_from_what_was_quick() {
    let mut record = ConnectionRecord::example();
    record.timeline = Timeline {
        accepted: UNIX_EPOCH,
        proxy_ended: None,
        routed: Some(Duration::ZERO),
        connect_started: None,
        connect_ended: None,
        first_byte_downstream: None,
        first_byte_upstream: None,
        half_close_downstream: Some(Duration::from_millis(1_200)),
        half_close_upstream: None,
        drain_started: None,
        ended: Duration::from_micros(1_234_567),
    };
    record.attempts.clear();
    (record.route, record.upstream, record.endpoint) = (None, None, None);
    record.outcome = Outcome::NoRoute;
    let fields = fields(&line(&record));
    let expected = [
        ("timers", "0.000/-1/-1/1234.567/1200.000/-1"),
        ("attempts", "-"),
        ("route", "-"),
        ("upstream", "-"),
        ("endpoint", "-"),
        ("outcome", "no_route"),
        ("side", "sheave"),
    ];
    for (name, value) in expected {
        assert_eq!(fields[name], value, "{name}");
    }
}

#[test]
fn attempts_and_tls_are_told_in_full() {
    let mut record = ConnectionRecord::example();
    let failed = Attempt {
        endpoint: "[2001:db8::1]:443".parse().unwrap(),
        started: Duration::from_micros(1_250),
        pod: None,
        local: None,
        handshake_started: None,
        ended: Duration::from_micros(1_550),
        failure: Some(Outcome::TlsUpstreamFailed),
        reason: Some("the certificate (of b) expired".into()),
    };
    record.attempts.insert(0, failed);
    record.attempts[1].pod = Some("pg-0".into());
    record.timeline.drain_started = Some(Duration::from_millis(4));
    record.tls = Some(Box::new(TlsRecord {
        server_name: Some("db.example".into()),
        downstream: Some(Negotiated {
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256",
            alpn: Some("http/1.1".into()),
            resumed: true,
        }),
        upstream: Some(Negotiated { version: "TLSv1.2", cipher: "C", alpn: None, resumed: false }),
        client: Some(ClientIdentity {
            names: ["spiffe://example.org/web", "a;b"].map(|name| SubjectAltName::Uri(name.into())).into(),
            common_name: Some("web".into()),
            fingerprint: [0xab; 32],
        }),
        handshake_ended: Some(Duration::from_micros(3_200)),
        failure: None,
    }));
    let fields = fields(&line(&record));
    assert_eq!(
        fields["attempts"],
        "[2001:db8::1]:443@1.250+0.300=tls_upstream_failed(the\\x20certificate\\x20\\x28of\\x20b\\x29\\x20expired),\
         127.0.0.1:2@1.000+1.000=connected"
    );
    let expected = format!(
        "pod=pg-0;drain_start_ms=4.000;server_name=db.example;handshake_ms=3.200;downstream=TLSv1.3/TLS_AES_128_GCM_SHA256/resumed/http/1.1;\
         upstream=TLSv1.2/C/full/-;client_name=spiffe://example.org/web;client_name=a\\x3bb;client_common_name=web;\
         client_fingerprint={}",
        "ab".repeat(32)
    );
    assert_eq!(fields["details"], expected);
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,8}",
        Just("-".to_owned()),
        Just("\"\"".to_owned()),
        Just("\\x20\n".to_owned())
    ]
}

fn time() -> impl Strategy<Value = Duration> {
    (0..1_u64 << 50).prop_map(Duration::from_micros)
}

prop_compose! {
    fn attempt()(address: [u8; 16], port: u16, started in time(), took in time(), failed: bool, reason in option::of(text()))
        -> Attempt
    {
        Attempt {
            endpoint: SocketAddr::from((address, port)),
            started,
            pod: None,
            local: None,
            handshake_started: None,
            ended: started + took,
            failure: failed.then_some(Outcome::ConnectRefused),
            reason: reason.map(Into::into),
        }
    }
}

prop_compose! {
    fn tls()(
        server_name in option::of(text()), handshake_ended in option::of(time()), failure in option::of(text()),
        alpn in option::of(text()), resumed: bool, names in prop::collection::vec(text(), 0..3),
        common_name in option::of(text()), fingerprint: [u8; 32]
    ) -> TlsRecord {
        let negotiated = Negotiated { version: "TLSv1.3", cipher: "C", alpn: alpn.map(Into::into), resumed };
        TlsRecord {
            server_name: server_name.map(Into::into),
            downstream: Some(negotiated.clone()),
            upstream: resumed.then_some(negotiated),
            client: Some(ClientIdentity {
                names: names.into_iter().map(SubjectAltName::Uri).collect(),
                common_name: common_name.map(Into::into),
                fingerprint,
            }),
            handshake_ended,
            failure: failure.map(Into::into),
        }
    }
}

prop_compose! {
    fn record()(
        listener in text(), route in option::of(text()), upstream in option::of(text()), outcome in 0..Outcome::ALL.len(),
        attempts in prop::collection::vec(attempt(), 0..4), tls in option::of(tls()), ended in time(),
        routed in option::of(time()), bytes: (u64, u64)
    ) -> ConnectionRecord {
        let mut record = ConnectionRecord {
            listener: listener.as_str().into(),
            route: route.map(|route| route.as_str().into()),
            upstream: upstream.map(|upstream| upstream.as_str().into()),
            outcome: Outcome::ALL[outcome],
            attempts,
            bytes_received: bytes.0,
            bytes_sent: bytes.1,
            tls: tls.map(Box::new),
            ..ConnectionRecord::example()
        };
        (record.timeline.routed, record.timeline.ended) = (routed, ended);
        record
    }
}

fn microseconds(milliseconds: &str) -> u128 {
    let (whole, part) = milliseconds.split_once('.').unwrap();
    whole.parse::<u128>().unwrap() * 1_000 + part.parse::<u128>().unwrap()
}

fn read_attempt(text: &str) -> Attempt {
    let (endpoint, rest) = text.split_once('@').unwrap();
    let (started, rest) = rest.split_once('+').unwrap();
    let (took, rest) = rest.split_once('=').unwrap();
    let (result, reason) = match rest.split_once('(') {
        Some((result, reason)) => (result, Some(reason.strip_suffix(')').unwrap())),
        None => (rest, None),
    };
    let time = |text: &str| Duration::from_micros(u64::try_from(microseconds(text)).unwrap());
    Attempt {
        endpoint: endpoint.parse().unwrap(),
        started: time(started),
        pod: None,
        local: None,
        handshake_started: None,
        ended: time(started) + time(took),
        failure: Outcome::ALL.into_iter().find(|outcome| outcome.label() == result),
        reason: reason.map(|reason| read(reason).unwrap().into()),
    }
}

proptest! {
    #[test]
    fn a_line_is_one_line_of_printable_ascii_and_says_what_the_record_says(record in record()) {
        let line = line(&record);
        prop_assert!(line.trim_end_matches('\n').bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{:?}", line);
        prop_assert_eq!(line.matches('\n').count(), 1);
        let fields = fields(&line);
        prop_assert_eq!(read(&fields["listener"]), Some(record.listener.to_string()));
        prop_assert_eq!(read(&fields["route"]), record.route.as_deref().map(ToOwned::to_owned));
        prop_assert_eq!(read(&fields["upstream"]), record.upstream.as_deref().map(ToOwned::to_owned));
        prop_assert_eq!(fields["outcome"].as_str(), record.outcome.label());
        prop_assert_eq!(fields["bytes_received"].parse::<u64>(), Ok(record.bytes_received));
        prop_assert_eq!(fields["bytes_sent"].parse::<u64>(), Ok(record.bytes_sent));
        let timers: Vec<&str> = fields["timers"].split('/').collect();
        prop_assert_eq!(timers.len(), 6);
        prop_assert_eq!(microseconds(timers[3]), record.timeline.ended.as_micros());
        match record.timeline.routed {
            Some(routed) => prop_assert_eq!(microseconds(timers[0]), routed.as_micros()),
            None => prop_assert_eq!(timers[0], "-1"),
        }
        let attempts = read(&fields["attempts"]).map_or_else(Vec::new, |_| {
            fields["attempts"].split(',').map(read_attempt).collect::<Vec<_>>()
        });
        prop_assert_eq!(attempts, record.attempts);
        let details: Vec<(&str, &str)> =
            fields["details"].split(';').filter_map(|detail| detail.split_once('=')).collect();
        let all = |key: &str| -> Vec<String> {
            details.iter().filter(|(known, _)| *known == key).map(|(_, value)| read(value).unwrap_or_default()).collect()
        };
        let tls = record.tls.as_deref().cloned().unwrap_or_default();
        let said = |text: &Option<Box<str>>| -> Vec<String> { text.iter().map(ToString::to_string).collect() };
        prop_assert_eq!(all("server_name"), said(&tls.server_name));
        prop_assert_eq!(all("failure"), said(&tls.failure));
        let names = tls.client.iter().flat_map(|client| &client.names).map(ToString::to_string);
        prop_assert_eq!(all("client_name"), names.collect::<Vec<_>>());
        let alpn = details.iter().find(|(key, _)| *key == "downstream").map(|(_, side)| {
            let alpn = side.splitn(4, '/').nth(3).unwrap();
            read(alpn)
        });
        prop_assert_eq!(alpn, tls.downstream.map(|side| side.alpn.map(|alpn| alpn.to_string())));
    }
}
