use std::collections::BTreeSet;
use std::fs;
use std::time::SystemTime;

use super::super::metrics::documentation;
use super::*;
use crate::telemetry::{
    Attempt, ConnectionRecord, Negotiated, Outcome, Timeline, TlsRecord, Wants, WorkerRuntime, trace_id,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");

/// What two entries of [`record`], one by each worker, and a little more are exposed as.
const SAMPLES: &[(&str, f64)] = &[
    ("sheave_accepted_connections_total{worker=\"1\"}", 3.0),
    ("sheave_worker_runtime_info{worker=\"1\",driver=\"io_uring\",rung=\"defer\",core=\"4\"}", 1.0),
    (
        "sheave_listener_connections_total{listener=\"front\",outcome=\"downstream_closed\",side=\"downstream\"}",
        2.0,
    ),
    ("sheave_listener_bytes_total{listener=\"front\",direction=\"received\"}", 20.0),
    ("sheave_listener_connection_duration_seconds_sum{listener=\"front\"}", 10.0),
    ("sheave_listener_connection_duration_seconds_bucket{le=\"+Inf\",listener=\"front\"}", 2.0),
    ("sheave_listener_connection_limit{listener=\"front\"}", 7.0),
    ("sheave_route_connections_total{route=\"all\",outcome=\"downstream_closed\",side=\"downstream\"}", 2.0),
    ("sheave_route_connection_duration_seconds_count{route=\"all\"}", 2.0),
    ("sheave_upstream_bytes_total{upstream=\"pg\",direction=\"sent\"}", 40.0),
    ("sheave_upstream_open_breakers{upstream=\"pg\"}", 0.0),
    ("sheave_upstream_retries_total{upstream=\"pg\"}", 2.0),
    ("sheave_upstream_connect_seconds_count{upstream=\"pg\"}", 2.0),
    ("sheave_endpoint_connections_total{upstream=\"pg\",endpoint=\"127.0.0.1:1\"}", 2.0),
    ("sheave_endpoint_bytes_total{upstream=\"pg\",endpoint=\"127.0.0.1:1\",direction=\"sent\"}", 40.0),
    ("sheave_endpoint_connect_seconds_count{upstream=\"pg\",endpoint=\"127.0.0.1:1\"}", 2.0),
    ("sheave_listener_tls_handshakes_total{listener=\"front\",version=\"TLSv1.3\",kind=\"resumed\"}", 2.0),
    ("sheave_listener_tls_handshake_duration_seconds_count{listener=\"front\"}", 2.0),
    ("sheave_drain_phase{phase=\"serving\"}", 1.0),
    ("sheave_connection_places_max", 1_000.0),
    ("sheave_table_generation", 1.0),
];

/// A connection that failed at one endpoint and was carried by another.
fn record() -> ConnectionRecord {
    let seconds = Duration::from_secs;
    let attempt = |port: u16, failure| Attempt {
        endpoint: ([127, 0, 0, 1], port).into(),
        started: seconds(0),
        pod: None,
        local: None,
        handshake_started: None,
        ended: seconds(1),
        failure,
        reason: None,
    };
    ConnectionRecord {
        client: "192.0.2.1:1".parse().unwrap(),
        listener: "front".into(),
        route: Some("all".into()),
        upstream: Some("pg".into()),
        endpoint: Some("127.0.0.1:1".parse().unwrap()),
        attempts: vec![attempt(9, Some(Outcome::ConnectRefused)), attempt(1, None)],
        bytes_received: 10,
        bytes_sent: 20,
        tls: Some(Box::new(TlsRecord {
            downstream: Some(Negotiated { version: "TLSv1.3", cipher: "A", alpn: None, resumed: true }),
            handshake_ended: Some(seconds(1)),
            ..TlsRecord::default()
        })),
        timeline: Timeline {
            accepted: SystemTime::now(),
            proxy_ended: None,
            routed: None,
            connect_started: Some(seconds(0)),
            connect_ended: Some(seconds(1)),
            first_byte_downstream: None,
            first_byte_upstream: Some(seconds(2)),
            half_close_downstream: None,
            half_close_upstream: None,
            drain_started: None,
            ended: seconds(5),
        },
        ..ConnectionRecord::example()
    }
}

#[test]
fn the_documentation_is_what_the_code_says() {
    if std::env::var_os("SHEAVE_BLESS").is_some() {
        fs::write(FILE, documentation()).unwrap();
    }
    let hint = "run `SHEAVE_BLESS=1 cargo test --lib control::tests::metrics` to write it anew";
    assert!(
        fs::read_to_string(FILE).is_ok_and(|text| text == documentation()),
        "docs/metrics.md differs; {hint}"
    );
}

#[test]
fn everything_exposed_is_documented_and_the_other_way_round() {
    let control = builder().start();
    let reply = control.get("/metrics");
    assert!(reply.head.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(reply.body.ends_with("# EOF\n"));
    let types = reply.body.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let exposed: Vec<String> = types
        .map(|line| match line.split_once(' ').unwrap() {
            (name, "counter") => format!("{name}_total"),
            (name, "info") => format!("{name}_info"),
            (name, _) => name.into(),
        })
        .collect();
    let text = documentation();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: Vec<&str> = rows.map(|row| row.split('`').next().unwrap()).collect();
    assert_eq!(exposed, documented);
    let distinct: BTreeSet<&&str> = documented.iter().collect();
    assert_eq!(distinct.len(), documented.len());
}

#[test]
fn workers_are_summed_and_scraping_counts_nothing_twice() {
    let control = builder().start();
    for worker in &control.counters {
        worker.enter(&record());
    }
    WorkerCounters::add(&control.counters[1].accepted, 3);
    let runtime = WorkerRuntime { driver: "io_uring", rung: "defer", core: Some(4) };
    control.counters[1].runtime.set(runtime).unwrap();
    for _ in 0..2 {
        for (sample, value) in SAMPLES {
            assert_eq!(control.metric(sample), Some(*value), "{sample}");
        }
    }
    for sample in [
        "sheave_process_open_fds",
        "sheave_process_resident_memory_bytes",
        "sheave_process_cpu_seconds_total",
    ] {
        assert!(control.metric(sample).is_some_and(|value| value > 0.0), "{sample}");
    }
}

#[test]
fn a_connection_whose_trace_is_kept_is_an_exemplar() {
    let control = builder().start();
    let traced = |trace| ConnectionRecord { wants: Wants { trace, ..Wants::default() }, ..record() };
    control.counters[0].enter(&traced(true));
    control.counters[1].enter(&ConnectionRecord { trace: trace_id(9), ..traced(false) });
    let text = control.get("/metrics").body;
    let buckets: Vec<&str> = text.lines().filter(|line| line.contains("trace_id")).collect();
    let trace = record().trace;
    let is_named = |name: &str, bound: &str, seconds: &str| {
        let start = format!("sheave_{name}_bucket{{le=\"{bound}\",");
        let exemplar = format!("}} 2 # {{trace_id=\"{trace}\"}} {seconds} ");
        buckets.iter().filter(|line| line.starts_with(&start) && line.contains(&exemplar)).count() == 1
    };
    assert!(is_named("listener_connection_duration_seconds", "5.0", "5.0"), "{buckets:#?}");
    assert!(is_named("listener_tls_handshake_duration_seconds", "1.0", "1.0"), "{buckets:#?}");
    assert!(is_named("route_connection_duration_seconds", "5.0", "5.0"), "{buckets:#?}");
    assert!(is_named("upstream_connect_seconds", "1.0", "1.0"), "{buckets:#?}");
    assert!(is_named("upstream_first_byte_seconds", "1.0", "1.0"), "{buckets:#?}");
    assert_eq!(buckets.len(), 5, "{buckets:#?}");
}

#[test]
fn failures_of_an_endpoint_outlive_scrapes_and_end_with_it() {
    let both = || config(&["127.0.0.1:1", "127.0.0.1:9"]);
    let control =
        Builder { config: both(), load: Box::new(|| Ok(config(&["127.0.0.1:1"]))), ..builder() }.start();
    control.counters[0].enter(&record());
    let sample = "sheave_endpoint_failures_total{upstream=\"pg\",endpoint=\"127.0.0.1:9\",outcome=\"connect_refused\"}";
    assert_eq!(control.metric(sample), Some(1.0));
    control.handle.reload().unwrap();
    assert_eq!(control.metric(sample), None);
    let ledger = control.handle.shared.ledger.lock().unwrap();
    assert_eq!(ledger.endpoints["pg"].len(), 1);
}

#[test]
fn health_and_breakers_have_series_while_they_are_not_as_they_should_be() {
    const UNHEALTHY: &str = "sheave_endpoint_unhealthy{upstream=\"pg\",endpoint=\"127.0.0.1:1\"}";
    const OPEN: &str =
        "sheave_endpoint_breaker_state{upstream=\"pg\",endpoint=\"127.0.0.1:1\",state=\"open\"}";
    let control = Builder { config: config(&["127.0.0.1:1", "127.0.0.1:9"]), ..builder() }.start();
    let series = || {
        let text = control.get("/metrics").body;
        let lines = text.lines().filter(|line| {
            line.starts_with("sheave_endpoint_unhealthy") || line.starts_with("sheave_endpoint_breaker_state")
        });
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(series().is_empty());
    let table = control.handle.shared.publisher.current();
    let endpoint = &table.upstreams["pg"].endpoints[0];
    let (state, breaker) = (&endpoint.state, endpoint.breaker.as_ref().unwrap());
    state.health.set(false);
    while let Some(attempt) = breaker.permit() {
        attempt.failed(Instant::now());
    }
    assert_eq!(series(), [format!("{UNHEALTHY} 1"), format!("{OPEN} 1")]);
    state.health.set(true);
    assert_eq!(series(), [format!("{OPEN} 1")]);
}

#[test]
fn endpoints_are_left_out_when_the_configuration_says_so() {
    let mut config = config(&["127.0.0.1:1"]);
    config.metrics.per_endpoint = false;
    let control = Builder { config, ..builder() }.start();
    let text = control.get("/metrics").body;
    assert!(!text.contains("sheave_endpoint_"));
    assert!(text.contains("sheave_upstream_endpoints{upstream=\"pg\"} 1"));
}

#[test]
fn endpoints_are_left_out_when_they_are_too_many() {
    const LEFT_OUT: &str = "sheave_metrics_endpoints_left_out";
    let load = Box::new(|| Ok(many_endpoints(20_000)));
    let control = Builder { config: many_endpoints(20_001), load, ..builder() }.start();
    let text = control.get("/metrics").body;
    assert!(text.contains(&format!("\n{LEFT_OUT} 20001\n")));
    assert!(!text.contains("sheave_endpoint_"));
    assert!(text.contains("sheave_upstream_endpoints{upstream=\"pg\"} 20001"));
    control.handle.reload().unwrap();
    let text = control.get("/metrics").body;
    assert!(text.contains(&format!("\n{LEFT_OUT} 0\n")) && text.ends_with("\n# EOF\n"));
    let series = text.lines().filter(|line| line.starts_with("sheave_endpoint_active_connections{"));
    let distinct: BTreeSet<&str> = series.collect();
    assert_eq!(distinct.len(), 20_000);
}

/// A client that asks for more than sockets and queues hold, and reads nothing of it.
fn stalled_scrape(control: &Control) -> TcpStream {
    let mut stream = TcpStream::connect(control.handle.admin_address()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    eventually("a scrape under way", || is_scraped(control));
    stream
}

fn is_scraped(control: &Control) -> bool {
    control.handle.shared.ledger.try_lock().is_err()
}

#[test]
fn nothing_waits_for_a_scrape_but_the_next() {
    let load = Box::new(|| Ok(config(&["127.0.0.1:1"])));
    let control = Builder { config: many_endpoints(20_000), load, ..builder() }.start();
    let stalled = stalled_scrape(&control);
    assert_eq!(["/livez", "/readyz", "/healthz/lb"].map(|probe| control.get(probe).status), [200; 3]);
    control.handle.reload().unwrap();
    assert!(is_scraped(&control), "all that was while the scrape was under way");
    drop(stalled);
    let text = control.get("/metrics").body;
    assert!(text.contains("\nsheave_table_generation 2\n") && text.ends_with("\n# EOF\n"));
}

#[test]
fn a_scrape_does_not_delay_the_end() {
    let control = Builder { config: many_endpoints(20_000), ..builder() }.start();
    let _stalled = stalled_scrape(&control);
    let finished = control.handle.finished.clone();
    control.handle.stop();
    // The scrape's own patience is ten seconds.
    assert_eq!(finished.recv_timeout(Duration::from_secs(5)), Err(flume::RecvTimeoutError::Disconnected));
}

#[test]
fn operators_are_told_what_every_outcome_means() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let text = fs::read_to_string(file).unwrap();
    for outcome in Outcome::ALL {
        let row = format!("| `{}` | {} |", outcome.label(), outcome.side().label());
        assert!(text.contains(&row), "docs/operations.md lacks {row}");
    }
}
