//! Connections that live long: their traces show them before they end.

use crate::support::collector::attribute;
use crate::support::{
    Collector, Driver, Endpoint, Process, Settings, Speech, connect, eventually, on_both_drivers, round_trip,
};

on_both_drivers!(a_long_connection_shows_before_its_end);

fn a_long_connection_shows_before_its_end(driver: Driver) {
    let (collector, echo) = (Collector::start(Speech::Grpc), Endpoint::echo());
    let settings = Settings::new(driver, &[echo.address]).top(&collector.settings("sample: 1"));
    let process = Process::start(&settings, |command| {
        // Milliseconds in place of five minutes.
        command.env("SHEAVE_FAULT", "long-lived=300").env("OTEL_BSP_SCHEDULE_DELAY", "10");
    });
    let mut client = connect(process.listener("main"));
    round_trip(&mut client);
    let spans = eventually("two of its times", || collector.spans(), |spans| spans.len() >= 2);
    for span in &spans {
        assert_eq!((&*span.name, span.kind), ("tcp main (live)", 1));
        assert_eq!(attribute(span, "sheave.bytes.sent"), "1");
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 300_000_000);
    }
    assert_ne!(spans[0].span_id, spans[1].span_id);
    drop(client);
    let has_ended = |spans: &Vec<_>| {
        spans.iter().any(|span: &opentelemetry_proto::tonic::trace::v1::Span| span.kind == 2)
    };
    let all = eventually("its end", || collector.spans(), has_ended);
    let root = all.iter().find(|span| span.kind == 2).unwrap();
    assert_eq!((&root.trace_id, &root.span_id), (&spans[0].trace_id, &spans[0].parent_span_id));
}
