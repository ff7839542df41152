//! Metrics that are sent by OTLP: the numbers of `/metrics`, to whom the file or the environment says, and what it costs when
//! nobody takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::collector::{Mood, metric_settings};
use crate::support::{
    Authority, Collector, Driver, Endpoint, Process, Proxy, Settings, Speech, admin_get, ask, closed_port,
    eventually, exchange, metric, on_both_drivers,
};

on_both_drivers!(
    the_numbers_are_those_of_the_admin_port,
    variables_say_where_and_how,
    variables_switch_them_off,
    ten_thousand_endpoints,
    a_receiver_that_refuses,
    a_receiver_that_rejects_some,
    a_receiver_behind_tls,
    a_receiver_that_is_gone,
    a_receiver_that_never_answers,
    the_last_numbers_are_sent_at_the_end,
);

const BOTH: [Speech; 2] = [Speech::Grpc, Speech::Http];
/// For the exit.
const BOUNDED: Duration = Duration::from_secs(10);

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
];

/// What `/metrics` says: samples, and the traces of exemplars.
fn scraped(proxy: &Proxy) -> (BTreeMap<String, f64>, BTreeSet<String>) {
    let text = admin_get(proxy.admin, "/metrics");
    let (mut samples, mut traces) = (BTreeMap::new(), BTreeSet::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (sample, exemplar) = line.split_once(" # ").unwrap_or((line, ""));
        let (name, value) = sample.rsplit_once(' ').unwrap();
        samples.insert(name.to_owned(), value.parse().unwrap());
        traces.extend(exemplar.split('"').nth(1).map(str::to_owned));
    }
    (samples, traces)
}

/// What only one of them has, or another number of.
fn differences(one: &BTreeMap<String, f64>, other: &BTreeMap<String, f64>) -> Vec<String> {
    let is_restless = |name: &str| RESTLESS.iter().any(|restless| name.starts_with(restless));
    let is_same = |name: &str| match (one.get(name), other.get(name)) {
        (Some(_), Some(_)) if is_restless(name) => true,
        (one, other) => one == other,
    };
    one.keys().chain(other.keys()).filter(|name| !is_same(name)).cloned().collect()
}

fn the_numbers_are_those_of_the_admin_port(driver: Driver) {
    let echo = Endpoint::echo();
    for speech in BOTH {
        let collector = Collector::start(speech);
        let top = format!("{}{}", collector.metric_settings(), collector.settings("sample: 1"));
        let settings = Settings::new(driver, &[closed_port(), echo.address]).top(&top);
        let proxy = Proxy::start(&settings.upstream("loadBalancer: {type: RoundRobin}"));
        for _ in 0..10 {
            assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
        }
        let records = proxy.records(10);
        let differing = || {
            let ((samples, traces), pushed) = (scraped(&proxy), collector.metrics());
            let exemplars = traces.symmetric_difference(&pushed.traces).cloned();
            exemplars.chain(differences(&samples, &pushed.samples)).collect::<Vec<String>>()
        };
        eventually("the same on both ways", differing, Vec::is_empty);
        let pushed = collector.metrics();
        let number = |name: &str| pushed.samples[name];
        let closed = "outcome=\"downstream_closed\",side=\"downstream\"";
        assert_eq!(number(&format!("sheave_upstream_connections_total{{upstream=\"main\",{closed}}}")), 10.0);
        assert_eq!(number("sheave_upstream_connect_seconds_bucket{le=\"+Inf\",upstream=\"main\"}"), 10.0);
        let endpoint = format!("{{upstream=\"main\",endpoint=\"{}\"}}", echo.address);
        assert_eq!(number(&format!("sheave_endpoint_connect_seconds_count{endpoint}")), 10.0);
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(number(&format!("sheave_build_info{{version=\"{version}\"}}")), 1.0);
        let logged: BTreeSet<String> =
            records.iter().map(|record| record["trace_id"].as_str().unwrap().to_owned()).collect();
        assert!(!pushed.traces.is_empty() && pushed.traces.is_subset(&logged), "{:?}", pushed.traces);
        let exports = || proxy.metric("sheave_metrics_exports_total", &[]);
        eventually("counted exports", exports, |exports| *exports >= 1.0);
        assert_eq!(proxy.metric("sheave_metrics_export_failures_total", &[]), 0.0);
        assert_eq!(collector.resource()["service.version"], version);
    }
}

fn start(driver: Driver, endpoint: &Endpoint, top: &str, variables: &[(&str, &str)]) -> Process {
    Process::start(&Settings::new(driver, &[endpoint.address]).top(top), |command: &mut Command| {
        command.envs(variables.iter().copied());
    })
}

fn variables_say_where_and_how(driver: Driver) {
    let echo = Endpoint::polite();
    for speech in BOTH {
        let collector = Collector::start(speech);
        let address = format!("http://{}", collector.address());
        let variables = [
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*address),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", speech.protocol()),
            ("OTEL_METRICS_EXPORTER", "otlp"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
            ("OTEL_PROPAGATORS", "b3"),
            ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=sheave-0"),
            ("OTEL_SERVICE_NAME", "edge"),
        ];
        let process = start(driver, &echo, "", &variables);
        exchange(process.listener("main")).unwrap();
        let ended =
            || {
                collector.metrics().samples.into_iter().find(|(name, value)| {
                    name.starts_with("sheave_listener_connections_total") && *value == 1.0
                })
            };
        eventually("the end of a connection", ended, Option::is_some);
        let exports = || metric(process.admin(), "sheave_metrics_exports_total", &[]);
        eventually("an export", exports, |exports| *exports >= 1.0);
        assert_eq!(metric(process.admin(), "sheave_metrics_export_failures_total", &[]), 0.0);
        let resource = collector.resource();
        assert_eq!([&resource["service.name"], &resource["k8s.pod.name"]], ["edge", "sheave-0"]);
        let headers = collector.headers();
        assert_eq!(headers["x-tenant"], "a b");
        let encoding = if speech == Speech::Grpc { "grpc-encoding" } else { "content-encoding" };
        assert_eq!(headers[encoding], "gzip");
        assert!(headers["user-agent"].starts_with("sheave/"), "{headers:?}");
        assert!(collector.spans().is_empty(), "only metrics are sent");
        let log = process.log.get();
        for complaint in [
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta is not heeded; metrics are cumulative",
            "these variables are not supported: OTEL_PROPAGATORS",
        ] {
            assert!(log.contains(complaint), "{log}");
        }
        assert!(!log.contains("a b") && !log.contains("a%20b"), "headers may be secret: {log}");
    }
}

fn variables_switch_them_off(driver: Driver) {
    let (echo, collector) = (Endpoint::polite(), Collector::start(Speech::Http));
    for variable in [("OTEL_SDK_DISABLED", "true"), ("OTEL_METRICS_EXPORTER", "none")] {
        let top = format!("{}drain: {{delay: 0s}}", collector.metric_settings());
        let mut process = start(driver, &echo, &top, &[variable]);
        exchange(process.listener("main")).unwrap();
        assert_eq!(metric(process.admin(), "sheave_metrics_exports_total", &[]), 0.0);
        // Not even at the end.
        process.signal(Signal::TERM);
        assert!(process.wait().success());
        assert!(collector.metrics().requests.is_empty(), "{variable:?}");
    }
}

/// A collector takes 4 MiB at once by gRPC, if nobody has changed that.
fn ten_thousand_endpoints(driver: Driver) {
    const ENDPOINTS: u16 = 10_000;
    let echo = Endpoint::echo();
    let more = (1..ENDPOINTS).map(|number| {
        let [high, low] = number.to_be_bytes();
        ([127, 9, high, low], 9).into()
    });
    let endpoints: Vec<_> = [echo.address].into_iter().chain(more).collect();
    let collector = Collector::start(Speech::Grpc);
    let proxy = Proxy::start(&Settings::new(driver, &endpoints).top(&collector.metric_settings()));
    let series = || {
        let samples = collector.metrics().samples;
        samples.keys().filter(|name| name.starts_with("sheave_endpoint_active_connections{")).count()
    };
    eventually("all endpoints", series, |series| *series == usize::from(ENDPOINTS));
    let pushed = || proxy.metric("sheave_metrics_exports_total", &[]);
    eventually("the end of an export", pushed, |pushed| *pushed >= 1.0);
    let requests = collector.metrics().requests;
    assert!(requests.len() > 4 && requests.iter().all(|length| *length < 4 << 20), "{requests:?}");
    assert_eq!(proxy.metric("sheave_metrics_export_failures_total", &[]), 0.0);
}

/// How often the log has this message.
fn said(process: &Process, message: &str) -> usize {
    process.log.json().iter().filter(|line| line["message"] == message).count()
}

/// Why the log says that metrics cannot be sent: once, however often they cannot.
fn complaint(process: &Process) -> String {
    const MESSAGE: &str = "metrics cannot be sent";
    eventually("a word of it", || said(process, MESSAGE), |said| *said > 0);
    let lines = process.log.json();
    let complaints: Vec<_> = lines.iter().filter(|line| line["message"] == MESSAGE).collect();
    let [complaint] = complaints[..] else { panic!("not once: {complaints:?}") };
    complaint["error"].as_str().unwrap().to_owned()
}

fn a_receiver_that_refuses(driver: Driver) {
    let echo = Endpoint::polite();
    for speech in BOTH {
        let collector = Collector::start(speech);
        collector.set_mood(Mood::Refuses);
        let process = start(driver, &echo, &collector.metric_settings(), &[]);
        let admin = process.admin();
        let failed = || metric(admin, "sheave_metrics_export_failures_total", &[]);
        eventually("two failures", failed, |failed| *failed >= 2.0);
        collector.set_mood(Mood::Takes);
        let sent = || metric(admin, "sheave_metrics_exports_total", &[]);
        eventually("two successes", sent, |sent| *sent >= 2.0);
        eventually("one word of each", || said(&process, "metrics are sent again"), |said| *said == 1);
        let address = collector.address();
        let expected = match speech {
            Speech::Grpc => format!("http://{address}: gRPC code Unavailable"),
            Speech::Http => format!("http://{address}/v1/metrics answers 503 Service Unavailable"),
        };
        assert_eq!(complaint(&process), expected);
    }
}

fn a_receiver_that_rejects_some(driver: Driver) {
    let echo = Endpoint::polite();
    for speech in BOTH {
        let collector = Collector::start(speech);
        collector.set_mood(Mood::Rejects);
        let process = start(driver, &echo, &collector.metric_settings(), &[]);
        let failed = || metric(process.admin(), "sheave_metrics_export_failures_total", &[]);
        eventually("a failure", failed, |failed| *failed >= 1.0);
        let why = complaint(&process);
        assert!(why.ends_with(" rejects 3 points: \"too old\""), "{why}");
    }
}

/// Traces go there too, with the same settings. What ends TLS in front of the collector is a Sheave.
fn a_receiver_behind_tls(driver: Driver) {
    let (echo, authority) = (Endpoint::polite(), Authority::new());
    let certificate = authority.certify(&["localhost"]);
    for speech in BOTH {
        let collector = Collector::start(speech);
        let ends = format!(
            "protocol: TLS, tls: {{mode: Terminate, alpnProtocols: [h2, http/1.1], certificateRefs: [{}]}}",
            certificate.reference()
        );
        let front = Proxy::start(&Settings::new(driver, &[collector.address()]).listener(&ends));
        let url = format!("https://localhost:{}", front.address.port());
        let known = authority.file().display().to_string();
        let start = |variables: &[(&str, &str)]| {
            let all = [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &*url),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", speech.protocol()),
                ("OTEL_METRICS_EXPORTER", "otlp"),
                ("OTEL_TRACES_EXPORTER", "otlp"),
                ("OTEL_TRACES_SAMPLER", "always_on"),
            ];
            start(driver, &echo, "", &[&all, variables].concat())
        };
        let stranger = start(&[]);
        let failed = || metric(stranger.admin(), "sheave_metrics_export_failures_total", &[]);
        eventually("an authority that nobody knows", failed, |failed| *failed == 1.0);
        let why = complaint(&stranger);
        assert!(why.contains(&url) && why.contains("invalid peer certificate"), "{why}");
        let process = start(&[("OTEL_EXPORTER_OTLP_CERTIFICATE", &known)]);
        exchange(process.listener("main")).unwrap();
        let arrived = || (collector.spans().len(), collector.metrics().samples.len());
        eventually("traces and metrics", arrived, |(spans, samples)| *spans == 4 && *samples > 100);
    }
}

fn a_receiver_that_is_gone(driver: Driver) {
    let echo = Endpoint::echo();
    for speech in BOTH {
        let gone = closed_port();
        let process = start(driver, &echo, &metric_settings(speech, gone, "1s"), &[]);
        let (address, admin) = (process.listener("main"), process.admin());
        let failed = || {
            assert_eq!(ask(address, "hello"), Ok("hello".to_owned()));
            metric(admin, "sheave_metrics_export_failures_total", &[])
        };
        eventually("two failures", failed, |failed| *failed >= 2.0);
        assert_eq!(metric(admin, "sheave_metrics_exports_total", &[]), 0.0);
        assert_eq!(metric(admin, "sheave_worker_records_dropped_total", &[]), 0.0);
        let why = complaint(&process);
        assert!(why.starts_with(&format!("http://{gone}")) && why.contains("Connection refused"), "{why}");
    }
}

fn a_receiver_that_never_answers(driver: Driver) {
    let echo = Endpoint::echo();
    // It takes connections, and whatever fits into its buffers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for speech in BOTH {
        let top = metric_settings(speech, silent.local_addr().unwrap(), "1s");
        let top = format!("{top}drain: {{delay: 0s}}");
        let mut process = start(driver, &echo, &top, &[("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")]);
        let (address, admin) = (process.listener("main"), process.admin());
        let failed = || {
            assert_eq!(ask(address, "hello"), Ok("hello".to_owned()));
            metric(admin, "sheave_metrics_export_failures_total", &[])
        };
        eventually("a failure", failed, |failed| *failed >= 1.0);
        let why = complaint(&process);
        assert!(why.contains("no answer after 1s"), "{why}");
        let asked = Instant::now();
        process.signal(Signal::TERM);
        assert!(process.wait().success());
        assert!(asked.elapsed() < BOUNDED, "{:?}", asked.elapsed());
    }
}

fn the_last_numbers_are_sent_at_the_end(driver: Driver) {
    let echo = Endpoint::echo();
    for speech in BOTH {
        let collector = Collector::start(speech);
        let top = metric_settings(speech, collector.address(), "1h");
        let proxy = Proxy::start(&Settings::new(driver, &[echo.address]).top(&top));
        let first = || proxy.metric("sheave_metrics_exports_total", &[]);
        eventually("the first numbers", first, |exports| *exports == 1.0);
        for _ in 0..10 {
            assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
        }
        proxy.records(10);
        drop(proxy);
        let samples = collector.metrics().samples;
        let ended = samples.iter().filter(|(name, _)| name.starts_with("sheave_listener_connections_total{"));
        assert_eq!(ended.map(|(_, value)| value).sum::<f64>(), 10.0);
    }
}
