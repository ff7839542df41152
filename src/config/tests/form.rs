//! Mistakes of form: unknown, repeated, missing and mistyped fields.

use super::*;

#[test]
#[rustfmt::skip]
fn unknown_and_repeated_fields() {
    check(&[
        (top("worker: {count: 2}"), &[
            "t.yaml:1: worker: there is no such field; write workers",
        ]),
        (top("metrix: {}"), &[
            "t.yaml:1: metrix: there is no such field; write metrics",
        ]),
        (top("zzz: 1"), &[
            "t.yaml:1: zzz: there is no such field; write workers, admin, drain, limits, log, accessLog, metrics, tracing, kubernetes, listeners, routes or upstreams",
        ]),
        (listener("adress: 1"), &[
            r#"t.yaml:4: listeners[0].adress: there is no such field; write address (listener "pg")"#,
        ]),
        (listener("timeout: {tcp: {idle: 1h}}"), &[
            r#"t.yaml:4: listeners[0].timeout.tcp.idle: there is no such field; write idleTimeout, maxConnectionDuration, halfCloseTimeout or tlsHandshakeTimeout (listener "pg")"#,
        ]),
        (listener("timeouts: {tcp: {idleTimeout: 1}}"), &[
            r#"t.yaml:4: listeners[0].timeouts: there is no such field; write timeout (listener "pg")"#,
            r#"t.yaml:4: listeners[0].timeouts.tcp.idleTimeout: 1 has no unit; write 1s for seconds, or use ms, m or h (listener "pg")"#,
        ]),
        (top("log: {level: info, level: warn}"), &[
            "t.yaml:1: log.level: written twice, first on line 1; keep one of them",
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn wrong_types_in_the_process() {
    check(&[
        (top("log: {level: loud}"), &[
            r#"t.yaml:1: log.level: "loud" is not a known value; write error, warn, info, debug or trace"#,
        ]),
        (top("log: [info]"), &[
            "t.yaml:1: log: this is a list; write its fields below it, indented, or in braces {}",
        ]),
        (top("log:"), &[
            "t.yaml:1: log: there is no value; write its fields below it, indented, or in braces {}",
        ]),
        (top("log: info"), &[
            r#"t.yaml:1: log: "info" is text; write its fields below it, indented, or in braces {}"#,
        ]),
        (top("workers: {pin: yes}"), &[
            r#"t.yaml:1: workers.pin: "yes" is text; write true or false"#,
        ]),
        (top("workers: {count: 0}"), &[
            r#"t.yaml:1: workers.count: "0" is not a count; write auto, or a whole number of at least 1"#,
        ]),
        (top("workers: {count: -1}"), &[
            r#"t.yaml:1: workers.count: "-1" is not a count; write auto, or a whole number of at least 1"#,
        ]),
        (top("workers: {count: many}"), &[
            r#"t.yaml:1: workers.count: "many" is not a count; write auto, or a whole number of at least 1"#,
        ]),
        (top("workers: {count: 2000}"), &[
            "t.yaml:1: workers.count: too many threads; write at most 1024, or auto for one per core",
        ]),
        (top("workers: {driver: IoUring}"), &[
            r#"t.yaml:1: workers.driver: "IoUring" is not a known value; write io_uring"#,
        ]),
        (top("metrics: {perEndpoint: 1}"), &[
            "t.yaml:1: metrics.perEndpoint: 1 is a number; write true or false",
        ]),
        (top("tracing: {endpoint: localhost:4317, sample: 2}"), &[
            r#"t.yaml:1: tracing.endpoint: "localhost:4317" is not the URL of a receiver; write one like http://localhost:4317, or with https://"#,
            "t.yaml:1: tracing.sample: 2 is not a share; write a number from 0 (none) to 1 (all)",
        ]),
        (top("metrics: {otlp: {endpoint: otel, interval: 100ms}}"), &[
            r#"t.yaml:1: metrics.otlp.endpoint: "otel" is not the URL of a receiver; write one like http://localhost:4317, or with https://"#,
            "t.yaml:1: metrics.otlp.interval: 100ms is too often; write 1s or more",
        ]),
        (top("tracing: {protocol: http/json}"), &[
            r#"t.yaml:1: tracing.protocol: "http/json" is not a known value; write grpc or http/protobuf"#,
        ]),
        (top("tracing: {protocol: http/protobuf, endpoint: \"https://a:70000/v1\"}"), &[
            r#"t.yaml:1: tracing.endpoint: "https://a:70000/v1" is not the URL of a receiver; write one like http://localhost:4318, or with https://"#,
        ]),
        (top("accessLog: {sample: 1.5}"), &[
            "t.yaml:1: accessLog.sample: 1.5 is not a share; write a number from 0 (none) to 1 (all)",
        ]),
        (top("accessLog: {sample: .nan}"), &[
            "t.yaml:1: accessLog.sample: NaN is not a share; write a number from 0 (none) to 1 (all)",
        ]),
        (top("accessLog: {sample: -0.0}"), &[
            "t.yaml:1: accessLog.sample: -0 is not a share; write a number from 0 (none) to 1 (all)",
        ]),
        (top("accessLog: {sample: half}"), &[
            r#"t.yaml:1: accessLog.sample: "half" is text; write a number"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn what_is_no_place_of_a_receiver() {
    check(&[
        (top("tracing: {endpoint: \"http://[::1:4317\"}"), &[
            r#"t.yaml:1: tracing.endpoint: "http://[::1:4317" is not the URL of a receiver; write one like http://localhost:4317, or with https://"#,
        ]),
        (top("tracing: {endpoint: \"http://a:4317:4317\"}"), &[
            r#"t.yaml:1: tracing.endpoint: "http://a:4317:4317" is not the URL of a receiver; write one like http://localhost:4317, or with https://"#,
        ]),
        (top("tracing: {endpoint: \"https://user:letmein@a:4317\"}"), &[
            "t.yaml:1: tracing.endpoint: users, passwords and queries cannot be a part of it; write a URL like http://localhost:4317, and what the receiver is to know in OTEL_EXPORTER_OTLP_HEADERS",
        ]),
        (top("metrics: {otlp: {endpoint: \"https://a/v1?key=letmein\"}}"), &[
            "t.yaml:1: metrics.otlp.endpoint: users, passwords and queries cannot be a part of it; write a URL like http://localhost:4317, and what the receiver is to know in OTEL_EXPORTER_OTLP_HEADERS",
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn wrong_types_in_lists() {
    check(&[
        (listener("connection: {limit: -1}"), &[
            r#"t.yaml:4: listeners[0].connection.limit: -1 is out of range; write a whole number from 0 to 4294967295 (listener "pg")"#,
        ]),
        (listener("connection: {limit: 1.5}"), &[
            r#"t.yaml:4: listeners[0].connection.limit: 1.5 is not a whole number; write one from 0 to 4294967295 (listener "pg")"#,
        ]),
        (listener("connection: {whenFull: wait}"), &[
            r#"t.yaml:4: listeners[0].connection.whenFull: "wait" is not a known value; write Wait (listener "pg")"#,
        ]),
        (listener("allow: 10.0.0.0/8"), &[
            r#"t.yaml:4: listeners[0].allow: "10.0.0.0/8" is text; write a list: [a, b], or one item per line after a - (listener "pg")"#,
        ]),
        (edit("  - name: pg\n    address", "  - nonsense\n  - name: pg\n    address"), &[
            r#"t.yaml:2: listeners[0]: "nonsense" is text; write its fields below it, indented, or in braces {}"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn names() {
    check(&[
        (edit("name: pg\n    address", "name: 5\n    address"), &[
            r#"t.yaml:2: listeners[0].name: 5 is not text; write "5" in quotes"#,
        ]),
        (edit("name: pg\n    address", "name: Pg 1\n    address"), &[
            r#"t.yaml:2: listeners[0].name: "Pg 1" has characters a name may not have (only a-z, 0-9 and - . _ / :); write "pg-1""#,
        ]),
        (edit("name: pg\n    address", "name: \"\"\n    address"), &[
            "t.yaml:2: listeners[0].name: the name is empty; write 1 to 253 characters",
        ]),
        (edit("name: pg\n    address", "address"), &[
            "t.yaml:2: listeners[0].name: missing; write a name of your choice, like name: postgres",
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn missing_fields() {
    check(&[
        (edit("    address: \"[::]:5432\"\n", ""), &[
            r#"t.yaml:2: listeners[0].address: missing; write one, like address: "[::]:5432" (listener "pg")"#,
        ]),
        (edit("    listener: pg\n", ""), &[
            r#"t.yaml:5: routes[0].listener: missing; write the name of a listener, like listener: postgres (route "pg")"#,
        ]),
        (edit("    backendRefs: [{upstream: pg}]\n", ""), &[
            r#"t.yaml:5: routes[0].backendRefs: missing; write at least one, like backendRefs: [{upstream: pg}] (route "pg")"#,
        ]),
        (edit("{upstream: pg}", "{}"), &[
            r#"t.yaml:7: routes[0].backendRefs[0].upstream: missing; write the name of an upstream, like upstream: pg (route "pg")"#,
        ]),
        (edit("{upstream: pg}", ""), &[
            r#"t.yaml:7: routes[0].backendRefs: the list is empty; write at least one, like backendRefs: [{upstream: pg}] (route "pg")"#,
        ]),
    ]);
}
