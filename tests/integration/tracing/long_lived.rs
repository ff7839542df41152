//! Connections that live long: their traces show them before they end.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use opentelemetry_proto::tonic::trace::v1::Span;

use crate::support::collector::{attribute, hex};
use crate::support::{
    Collector, Driver, Endpoint, Process, Settings, Speech, closed_port, connect, eventually,
    on_both_drivers, round_trip,
};

on_both_drivers!(a_long_connection_shows_before_its_end, so_do_those_that_were_retried_or_are_slow);

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
    let has_ended = |spans: &Vec<_>| spans.iter().any(|span: &Span| span.kind == 2);
    let all = eventually("its end", || collector.spans(), has_ended);
    let root = all.iter().find(|span| span.kind == 2).unwrap();
    assert_eq!((&root.trace_id, &root.span_id), (&spans[0].trace_id, &spans[0].parent_span_id));
}

/// The traces of spans that are so.
fn traces(spans: &[Span], is_so: impl Fn(&Span) -> bool) -> BTreeSet<String> {
    spans.iter().filter(|span| is_so(span)).map(|span| hex(&span.trace_id)).collect()
}

/// Those that are kept at the end are those that were shown before, whatever the share of others.
fn so_do_those_that_were_retried_or_are_slow(driver: Driver) {
    let (collector, closed) = (Collector::start(Speech::Http), closed_port());
    // Whoever asks for nothing gets nothing.
    let endpoint = Endpoint::start(|mut stream| {
        let mut asked = [0];
        while stream.read_exact(&mut asked).is_ok() {
            if asked != [0] && stream.write_all(&asked).is_err() {
                return;
            }
        }
    });
    let settings = Settings::new(driver, &[endpoint.address, closed])
        .upstream("loadBalancer: {type: RoundRobin}")
        .top(&collector.settings("sample: 0, slowerThan: 250ms"));
    let process = Process::start(&settings, |command| {
        command.env("SHEAVE_FAULT", "long-lived=300").env("OTEL_BSP_SCHEDULE_DELAY", "10");
    });
    let mut clients: Vec<_> = (0..7).map(|_| connect(process.listener("main"))).collect();
    let (slow, others) = clients.split_last_mut().unwrap();
    others.iter_mut().for_each(round_trip);
    slow.write_all(&[0]).unwrap();
    let slow = slow.local_addr().unwrap().port().to_string();
    let is_told_twice =
        |spans: &Vec<Span>| spans.iter().filter(|span| attribute(span, "client.port") == slow).count() >= 2;
    // The others are older, and so told of by then.
    let shown = eventually("its times", || collector.spans(), is_told_twice);
    let shown = traces(&shown, |span| span.name == "tcp main (live)");
    drop(clients);
    let lines = eventually("all lines", || process.output.json(), |lines| lines.len() == 7);
    let line_of = |trace: &String| lines.iter().find(|line| line["trace_id"] == **trace).unwrap();
    let attempts = |trace: &String| line_of(trace)["attempts"].as_array().unwrap().len();
    assert!(shown.iter().any(|trace| attempts(trace) == 2), "{lines:#?}");
    assert!(shown.len() < 7, "{lines:#?}");
    let ended = || traces(&collector.spans(), |span| span.kind == 2);
    eventually("the ends of just those", ended, |ended| *ended == shown);
}
