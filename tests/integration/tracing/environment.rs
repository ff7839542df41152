//! The OTEL_* variables win over the file.

use std::net::SocketAddr;
use std::process::Command;

use crate::support::collector::settings as sent_to;
use crate::support::{
    Collector, Driver, Endpoint, Process, Settings, Speech, closed_port, eventually, exchange, metric,
    on_both_drivers,
};

on_both_drivers!(variables_say_where_what_and_how, variables_switch_traces_off);

/// A process whose file sends all traces to where nobody listens.
fn start(driver: Driver, endpoint: SocketAddr, variables: &[(&str, &str)]) -> Process {
    let top = sent_to(Speech::Grpc, closed_port(), "sample: 0");
    Process::start(&Settings::new(driver, &[endpoint]).top(&top), |command: &mut Command| {
        command.envs(variables.iter().copied());
    })
}

fn variables_say_where_what_and_how(driver: Driver) {
    let echo = Endpoint::polite();
    for (speech, protocol) in [(Speech::Grpc, "grpc"), (Speech::Http, "http/protobuf")] {
        let collector = Collector::start(speech);
        let process = start(
            driver,
            echo.address,
            &[
                ("OTEL_BSP_SCHEDULE_DELAY", "10"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", collector.address())),
                ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_PROPAGATORS", "b3"),
                ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=sheave-0,k8s.namespace.name=a%2Fb"),
                ("OTEL_SERVICE_NAME", "edge"),
                ("OTEL_TRACES_SAMPLER", "always_on"),
            ],
        );
        exchange(process.listener("main")).unwrap();
        eventually("spans", || collector.spans().len(), |spans| *spans == 4);
        let resource = collector.resource();
        let names =
            ["service.name", "k8s.pod.name", "k8s.namespace.name"].map(|name| resource[name].as_str());
        assert_eq!(names, ["edge", "sheave-0", "a/b"]);
        let headers = collector.headers();
        assert_eq!(headers["x-tenant"], "a b");
        let encoding = if speech == Speech::Grpc { "grpc-encoding" } else { "content-encoding" };
        assert_eq!(headers[encoding], "gzip");
        let log = process.log.get();
        assert!(log.contains("these variables are not supported: OTEL_PROPAGATORS"), "{log}");
    }
}

fn variables_switch_traces_off(driver: Driver) {
    let echo = Endpoint::polite();
    for variable in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
        let sampler = ("OTEL_TRACES_SAMPLER", "always_on");
        let process = start(driver, echo.address, &[variable, sampler]);
        exchange(process.listener("main")).unwrap();
        let admin = process.admin();
        let ended = || metric(admin, "sheave_listener_connections_total", &[]);
        eventually("the end of the connection", ended, |ended| *ended == 1.0);
        let nothing =
            ["sheave_trace_sample", "sheave_trace_spans_queued", "sheave_trace_spans_dropped_total"]
                .map(|name| metric(admin, name, &[]));
        assert_eq!(nothing, [0.0; 3], "{variable:?}");
    }
}
