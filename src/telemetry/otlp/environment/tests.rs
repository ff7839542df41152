use super::*;

fn settings(file: &Tracing, variables: &[(&str, &str)]) -> Option<Settings> {
    Settings::new(file, variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn on(variables: &[(&str, &str)]) -> Settings {
    settings(&Tracing { enabled: true, ..Tracing::off() }, variables).unwrap()
}

#[test]
fn the_file_holds_where_the_environment_says_nothing() {
    let file = Tracing { enabled: true, slower_than: Some(Duration::from_secs(7)), ..Tracing::off() };
    let settings = settings(&file, &[("PATH", "/bin"), ("OTEL_SERVICE_NAME", " ")]).unwrap();
    let rules = TraceRules { sample: 0.1, slower_than: file.slower_than, parents: Parents::Kept };
    assert_eq!(settings.rules, rules);
    assert_eq!(settings.endpoint, Endpoint::Url("http://localhost:4317".to_owned()));
    assert_eq!((settings.timeout, settings.batches), (TIMEOUT, Batches::default()));
    assert_eq!(settings.complaints, Vec::<String>::new());
    assert_eq!(self::settings(&Tracing::off(), &[]), None);
}

#[test]
fn the_environment_switches_traces_on_and_off() {
    let enabled = Tracing { enabled: true, ..Tracing::off() };
    for (file, variable, expected) in [
        (&enabled, ("OTEL_SDK_DISABLED", "TRUE"), false),
        (&enabled, ("OTEL_SDK_DISABLED", "no"), true),
        (&enabled, ("OTEL_TRACES_EXPORTER", "none"), false),
        (&enabled, ("OTEL_TRACES_EXPORTER", "zipkin"), true),
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
        (settings.protocol, settings.receiver().to_owned())
    };
    const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    let (grpc, http) = (TracingProtocol::Grpc, TracingProtocol::HttpProtobuf);
    assert_eq!(endpoint(&[HTTP]), (http, "http://localhost:4318/v1/traces".to_owned()));
    let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc");
    assert_eq!(endpoint(&[HTTP, of_traces]), (grpc, "http://localhost:4317".to_owned()));
    let (all, traces) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    assert_eq!(endpoint(&[(all, "http://a"), (traces, "http://b")]), (grpc, "http://b".to_owned()));
    assert_eq!(on(&[(all, "http://a")]).endpoint, Endpoint::Environment("http://a".to_owned()));
    let file =
        |url: &str| Tracing { enabled: true, protocol: http, endpoint: url.to_owned(), ..Tracing::off() };
    for (url, expected) in [
        ("http://a:4318", "http://a:4318/v1/traces"),
        ("http://a:4318/", "http://a:4318/v1/traces"),
        ("https://a/otlp/v1/traces", "https://a/otlp/v1/traces"),
    ] {
        assert_eq!(settings(&file(url), &[]).unwrap().receiver(), expected);
    }
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
    assert_eq!((settings.batches, settings.timeout), (batches, Duration::from_secs(4)));
    assert_eq!(settings.certificate, Some("/ca.crt".into()));
    assert_eq!(settings.complaints, Vec::<String>::new());
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
fn what_is_not_heeded_is_named() {
    let complaints = on(&[
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1s"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_PROPAGATORS", "b3"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "1"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ])
    .complaints;
    for (name, instead) in [
        ("OTEL_BSP_MAX_QUEUE_SIZE=0", "a whole number from 1 to 1048576"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL=http/json", "grpc or http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT=1s", "milliseconds, as a whole number"),
        ("OTEL_RESOURCE_ATTRIBUTES=a", "key=value,key=value, percent-encoded"),
        ("OTEL_TRACES_SAMPLER_ARG=2", "a number from 0 (none) to 1 (all)"),
    ] {
        assert!(complaints.contains(&format!("{name} is not heeded; write {instead}")), "{complaints:#?}");
    }
    let unknown = "these variables are not supported: OTEL_PROPAGATORS, OTEL_SPAN_EVENT_COUNT_LIMIT";
    assert_eq!(complaints.last().map(String::as_str), Some(unknown));
    assert_eq!(complaints.len(), 6);
}
