use std::os::unix::ffi::OsStringExt;

use super::*;
use crate::telemetry::{Parents, TraceRules};

/// Of traces and of metrics that the file says nothing of.
fn both(file: &Tracing, variables: &[(&str, &str)]) -> Settings {
    Settings::new(file, &MetricsOtlp::off(), owned(variables))
}

fn owned(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn settings(file: &Tracing, variables: &[(&str, &str)]) -> Option<TraceSettings> {
    both(file, variables).traces
}

fn enabled() -> Tracing {
    Tracing { enabled: true, ..Tracing::off() }
}

fn on(variables: &[(&str, &str)]) -> TraceSettings {
    settings(&enabled(), variables).unwrap()
}

fn complaints(variables: &[(&str, &str)]) -> Vec<String> {
    both(&enabled(), variables).complaints
}

fn metrics(file: &MetricsOtlp, variables: &[(&str, &str)]) -> Option<MetricSettings> {
    Settings::new(&Tracing::off(), file, owned(variables)).metrics
}

#[test]
fn the_file_holds_where_the_environment_says_nothing() {
    let file = Tracing { enabled: true, slower_than: Some(Duration::from_secs(7)), ..Tracing::off() };
    let variables = [("PATH", "/bin"), ("OTEL_SERVICE_NAME", " ")];
    let settings = settings(&file, &variables).unwrap();
    let rules = TraceRules { sample: 0.1, slower_than: file.slower_than, parents: Parents::Kept };
    assert_eq!(settings.rules, rules);
    assert_eq!(settings.receiver.url, "http://localhost:4317");
    assert_eq!((settings.receiver.timeout, settings.batches), (TIMEOUT, Batches::default()));
    assert_eq!(both(&file, &variables).complaints, Vec::<String>::new());
    assert_eq!(both(&Tracing::off(), &[]), Settings { traces: None, metrics: None, complaints: Vec::new() });
}

#[test]
fn the_environment_switches_traces_on_and_off() {
    let enabled = Tracing { enabled: true, ..Tracing::off() };
    for (file, variable, expected) in [
        (&enabled, ("OTEL_SDK_DISABLED", "TRUE"), false),
        (&enabled, ("OTEL_SDK_DISABLED", "no"), true),
        (&enabled, ("OTEL_TRACES_EXPORTER", "none"), false),
        (&enabled, ("OTEL_TRACES_EXPORTER", "zipkin"), true),
        (&enabled, ("OTEL_TRACES_EXPORTER", "zipkin, none"), false),
        (&Tracing::off(), ("OTEL_TRACES_EXPORTER", "zipkin,OTLP,"), true),
        (&Tracing::off(), ("OTEL_TRACES_EXPORTER", "zipkin"), false),
        (&enabled, ("OTEL_TRACES_SAMPLER", "always_off"), false),
        (&Tracing::off(), ("OTEL_TRACES_EXPORTER", "otlp"), true),
        (&Tracing::off(), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"), false),
    ] {
        assert_eq!(settings(file, &[variable]).is_some(), expected, "{variable:?}");
    }
}

#[test]
fn traces_go_where_the_environment_says() {
    let endpoint = |variables: &[(&str, &str)]| {
        let settings = on(variables);
        (settings.receiver.protocol, settings.receiver.url)
    };
    const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    let (grpc, http) = (OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf);
    assert_eq!(endpoint(&[HTTP]), (http, "http://localhost:4318/v1/traces".to_owned()));
    let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc");
    assert_eq!(endpoint(&[HTTP, of_traces]), (grpc, "http://localhost:4317".to_owned()));
    let (all, traces) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    assert_eq!(endpoint(&[(all, "http://a"), (traces, "http://b")]), (grpc, "http://b".to_owned()));
    assert_eq!(endpoint(&[HTTP, (all, "http://a/b/")]), (http, "http://a/b/v1/traces".to_owned()));
    assert_eq!(endpoint(&[HTTP, (all, "http://a/b?c=d")]), (http, "http://a/b/v1/traces?c=d".to_owned()));
    assert_eq!(endpoint(&[HTTP, (traces, "http://a/b/")]), (http, "http://a/b/".to_owned()));
    assert_eq!(endpoint(&[(all, "a:4317")]), (grpc, "https://a:4317".to_owned()));
    let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "True");
    assert_eq!(endpoint(&[(all, "a:4317"), insecure]), (grpc, "http://a:4317".to_owned()));
    let file =
        |url: &str| Tracing { enabled: true, protocol: http, endpoint: url.to_owned(), ..Tracing::off() };
    for (url, expected) in [
        ("http://a:4318", "http://a:4318/v1/traces"),
        ("http://a:4318/", "http://a:4318/v1/traces"),
        ("https://a/otlp/v1/traces", "https://a/otlp/v1/traces"),
    ] {
        assert_eq!(settings(&file(url), &[]).unwrap().receiver.url, expected);
    }
}

#[test]
fn the_log_is_not_told_secrets() {
    for (url, expected) in [
        ("https://user:word@a:4318/b?key=secret", "https://a:4318/b"),
        ("http://a", "http://a"),
        ("user@a:4317", "a:4317"),
        ("http://[::1]:4317/b@c", "http://[::1]:4317/b@c"),
    ] {
        assert_eq!(shown(url), expected);
    }
    let said = both(
        &Tracing::off(),
        &[
            ("OTEL_METRICS_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "token=letmein"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "letmein"),
        ],
    );
    let instead =
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS is not heeded; write key=value,key=value, percent-encoded";
    assert_eq!(said.complaints, [instead]);
    let headers = metrics(
        &MetricsOtlp::off(),
        &[("OTEL_METRICS_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_HEADERS", "token=letmein")],
    );
    let shown = format!("{headers:?}");
    assert!(shown.contains("token") && !shown.contains("letmein"), "{shown}");
}

#[test]
fn what_is_no_receiver_is_not_asked() {
    const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    const GRPC: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let complaint = format!("{name} is not heeded; write a URL like http://localhost:4317, or with https://");
    for (protocol, url) in [
        (GRPC, "http://user:let me in@a:4317"),
        (GRPC, "ftp://a:4317"),
        (GRPC, "a:99999"),
        (HTTP, "a:4318"),
        (HTTP, "http://a:0"),
        (HTTP, "http://[::1"),
    ] {
        assert_eq!(on(&[protocol, (name, url)]).receiver, on(&[protocol]).receiver, "{url}");
        assert_eq!(complaints(&[protocol, (name, url)]), [&*complaint], "{url}");
    }
    for url in ["http://user:word@a:4317/b?c", "https://[::1]:4317", "http://[::1]", "a", "a:1", "[::1]:4317"]
    {
        assert_eq!(complaints(&[GRPC, (name, url)]), Vec::<String>::new(), "{url}");
    }
}

#[test]
fn headers_and_compressions_that_are_none_are_named() {
    let said = complaints(&[
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "letmein"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zstd"),
    ]);
    let expected = [
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS is not heeded; write key=value,key=value, percent-encoded",
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION=zstd is not heeded; write gzip or none",
    ];
    assert_eq!(said, expected);
}

#[test]
fn samplers_say_what_is_kept() {
    let rules = |sampler: &str, argument: &str| {
        let rules = on(&[("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)]).rules;
        (rules.sample, rules.parents)
    };
    assert_eq!(rules("always_on", ""), (1.0, Parents::Ignored));
    assert_eq!(rules("traceidratio", "0.25"), (0.25, Parents::Ignored));
    assert_eq!(rules("traceidratio", ""), (1.0, Parents::Ignored));
    assert_eq!(rules("parentbased_always_on", ""), (1.0, Parents::Followed));
    assert_eq!(rules("parentbased_always_off", ""), (0.0, Parents::Followed));
    assert_eq!(rules("parentbased_traceidratio", "0.5"), (0.5, Parents::Followed));
    assert_eq!(rules("jaeger_remote", ""), (0.1, Parents::Kept));
}

#[test]
fn batches_and_times_are_as_the_environment_says() {
    let settings = on(&[
        ("OTEL_BSP_SCHEDULE_DELAY", "250"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "2000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2048"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "64"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "4000"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.crt"),
    ]);
    let batches = Batches {
        queue_max: 2048,
        batch_max: 64,
        delay: Duration::from_millis(250),
        timeout: Duration::from_secs(2),
    };
    assert_eq!((settings.batches, settings.receiver.timeout), (batches, Duration::from_secs(4)));
    assert_eq!(settings.receiver.certificate, Some("/ca.crt".into()));
}

#[test]
fn attributes_of_the_resource_are_decoded() {
    let resource =
        |text: &str| on(&[("OTEL_RESOURCE_ATTRIBUTES", text), ("OTEL_SERVICE_NAME", "edge")]).resource;
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        resource("k8s.pod.name=a-1, team%20name=caf%C3%A9%2Cbar=,empty="),
        [
            pair("k8s.pod.name", "a-1"),
            pair("team name", "café,bar="),
            pair("empty", ""),
            pair("service.name", "edge")
        ]
    );
    for wrong in ["a", "=b", "a=%", "a=%2", "a=%+1", "a=%zz", "a=%ff"] {
        assert_eq!(resource(wrong), [pair("service.name", "edge")], "{wrong}");
    }
}

#[test]
fn what_is_neither_true_nor_false_is_named() {
    let said = complaints(&[
        ("OTEL_SDK_DISABLED", "yes"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "maybe"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
    ]);
    let expected = [
        "OTEL_SDK_DISABLED=yes is not heeded; write true or false",
        "OTEL_EXPORTER_OTLP_INSECURE=maybe is not heeded; write true or false",
        "OTEL_EXPORTER_OTLP_TIMEOUT=0 is not heeded; write milliseconds, as a whole number from 1",
    ];
    assert!(expected.iter().all(|line| said.iter().any(|told| told == line)), "{said:#?}");
}

#[test]
fn exporters_that_are_not_there_are_named() {
    let said = complaints(&[
        ("OTEL_TRACES_EXPORTER", "otlp,zipkin,console"),
        ("OTEL_METRICS_EXPORTER", "prometheus,console"),
    ]);
    let expected = [
        "zipkin,console in OTEL_TRACES_EXPORTER is not heeded; write otlp or none",
        "console in OTEL_METRICS_EXPORTER is not heeded; write otlp, prometheus or none",
    ];
    assert_eq!(said, expected);
}

#[test]
fn what_is_no_text_is_named() {
    let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let variables = [
        (bytes(b"OTEL_SERVICE_NAME"), bytes(b"caf\xe9")),
        (bytes(b"OTEL_\xff"), bytes(b"a")),
        (bytes(b"PATH"), bytes(b"/\xff")),
    ];
    let settings = Settings::new(&enabled(), &MetricsOtlp::off(), variables);
    assert_eq!(settings.complaints, ["OTEL_SERVICE_NAME is not heeded; write it in UTF-8"]);
    assert_eq!(settings.traces.unwrap().resource, []);
}

#[test]
fn what_is_not_heeded_is_named() {
    let complaints = complaints(&[
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1s"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_PROPAGATORS", "b3"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "1"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ]);
    for (name, instead) in [
        ("OTEL_BSP_MAX_QUEUE_SIZE=0", "a whole number from 1 to 1048576"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL=http/json", "grpc or http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT=1s", "milliseconds, as a whole number from 1"),
        // Without the value, which may be a secret.
        ("OTEL_RESOURCE_ATTRIBUTES", "key=value,key=value, percent-encoded"),
        ("OTEL_TRACES_SAMPLER_ARG=2", "a number from 0 (none) to 1 (all)"),
    ] {
        assert!(complaints.contains(&format!("{name} is not heeded; write {instead}")), "{complaints:#?}");
    }
    let unknown = "these variables are not supported: OTEL_PROPAGATORS, OTEL_SPAN_EVENT_COUNT_LIMIT";
    assert_eq!(complaints.last().map(String::as_str), Some(unknown));
    assert_eq!(complaints.len(), 6);
}

#[test]
fn metrics_are_sent_where_the_file_or_the_environment_says() {
    let file = MetricsOtlp { enabled: true, ..MetricsOtlp::off() };
    let settings = metrics(&file, &[]).unwrap();
    assert_eq!((&*settings.receiver.url, settings.interval), ("http://localhost:4317", file.interval));
    let (otlp, http) =
        (("OTEL_METRICS_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"));
    for (file, variables, url) in [
        (MetricsOtlp::off(), &[][..], None),
        (MetricsOtlp::off(), &[otlp], Some("http://localhost:4317")),
        (MetricsOtlp::off(), &[otlp, http], Some("http://localhost:4318/v1/metrics")),
        (file.clone(), &[("OTEL_METRICS_EXPORTER", "none")], None),
        (file.clone(), &[("OTEL_METRICS_EXPORTER", "prometheus")], None),
        (file.clone(), &[("OTEL_METRICS_EXPORTER", "prometheus,none")], None),
        (MetricsOtlp::off(), &[("OTEL_METRICS_EXPORTER", "prometheus, otlp")], Some("http://localhost:4317")),
        (file.clone(), &[("OTEL_SDK_DISABLED", "true")], None),
        (file.clone(), &[("OTEL_TRACES_EXPORTER", "none")], Some("http://localhost:4317")),
        (file.clone(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"), http], Some("http://a/v1/metrics")),
        (file, &[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://b:1/x"), http], Some("http://b:1/x")),
    ] {
        let settings = metrics(&file, variables);
        assert_eq!(settings.map(|settings| settings.receiver.url).as_deref(), url, "{variables:?}");
    }
}

#[test]
fn metrics_are_sent_as_the_environment_says() {
    let file = MetricsOtlp { enabled: true, ..MetricsOtlp::off() };
    let variables = [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/all.crt"),
        ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "/ca.crt"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "X-Tenant=a%20b,token=c=="),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Cumulative"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "1500"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "2000"),
    ];
    let settings = metrics(&file, &variables).unwrap();
    assert_eq!(settings.receiver.certificate, Some("/ca.crt".into()));
    let times = (settings.receiver.timeout, settings.interval, settings.timeout);
    assert_eq!(times, (Duration::from_millis(1_500), Duration::from_secs(5), Duration::from_secs(2)));
    assert_eq!(
        (&settings.receiver.headers["x-tenant"], &settings.receiver.headers["token"]),
        (&"a b".parse().unwrap(), &"c==".parse().unwrap())
    );
    assert!(settings.receiver.is_compressed);
    assert_eq!(Settings::new(&Tracing::off(), &file, owned(&variables)).complaints, Vec::<String>::new());
}

#[test]
fn what_metrics_cannot_be_is_said() {
    let file = MetricsOtlp { enabled: true, ..MetricsOtlp::off() };
    let histograms = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
    let variables = [
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
        (histograms, "base2_exponential_bucket_histogram"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_METRICS_EXPORTER", "console"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "999"),
    ];
    let settings = Settings::new(&enabled(), &file, owned(&variables));
    let expected = [
        "OTEL_EXPORTER_OTLP_PROTOCOL=http/json is not heeded; write grpc or http/protobuf",
        "OTEL_EXPORTER_OTLP_COMPRESSION=zstd is not heeded; write gzip or none",
        "console in OTEL_METRICS_EXPORTER is not heeded; write otlp, prometheus or none",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta is not heeded; metrics are cumulative; the collector's \
         processor cumulativetodelta makes deltas of them",
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION=base2_exponential_bucket_histogram is not heeded; \
         histograms have the buckets that they have on /metrics",
        "OTEL_METRIC_EXPORT_INTERVAL=999 is not heeded; write milliseconds, 1000 or more",
    ];
    assert_eq!(settings.complaints, expected, "each once, though both signals are sent");
    assert_eq!(settings.metrics, metrics(&file, &[]), "and nothing else comes of them");
}
