//! A receiver of traces that is gone, or slow: connections do not notice, what is lost is counted, and the end does not wait.

use std::io::Read;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::collector::{Mood, settings as sent_to};
use crate::support::{
    Collector, Driver, Endpoint, Process, Proxy, Settings, Speech, ask, closed_port, connect, eventually,
    exchange, metric, on_both_drivers,
};

on_both_drivers!(
    a_receiver_that_is_gone,
    the_log_says_what_went_wrong,
    a_receiver_that_never_answers,
    a_receiver_that_is_busy_for_a_moment,
    a_receiver_that_rejects_some,
    a_connection_that_leads_nowhere,
    the_last_spans_are_sent_at_the_end
);

/// For the exit, beside what cutting connections takes.
const BOUNDED: Duration = Duration::from_secs(10);

fn dropped(proxy: &Proxy, reason: &str) -> f64 {
    proxy.metric("sheave_trace_spans_dropped_total", &[&format!("reason=\"{reason}\"")])
}

fn start(driver: Driver, endpoint: &Endpoint, speech: Speech, receiver: SocketAddr) -> Proxy {
    Proxy::start(&Settings::new(driver, &[endpoint.address]).top(&sent_to(speech, receiver, "sample: 1")))
}

fn ends_soon(proxy: Proxy) {
    let asked = Instant::now();
    drop(proxy);
    assert!(asked.elapsed() < BOUNDED, "{:?}", asked.elapsed());
}

fn a_receiver_that_is_gone(driver: Driver) {
    let echo = Endpoint::echo();
    for speech in [Speech::Grpc, Speech::Http] {
        let proxy = start(driver, &echo, speech, closed_port());
        for _ in 0..100 {
            assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
        }
        eventually("lost spans", || dropped(&proxy, "export_failed"), |lost| *lost > 0.0);
        assert!(proxy.metric("sheave_trace_export_failures_total", &[]) >= 1.0);
        assert_eq!(proxy.metric("sheave_trace_spans_exported_total", &[]), 0.0);
        assert_eq!(proxy.metric("sheave_worker_records_dropped_total", &[]), 0.0);
        assert_eq!(proxy.records(100).len(), 100);
        ends_soon(proxy);
    }
}

fn the_log_says_what_went_wrong(driver: Driver) {
    let (echo, gone) = (Endpoint::polite(), closed_port());
    let refusing = Collector::start(Speech::Http);
    refusing.set_mood(Mood::Refuses);
    for (speech, receiver, expected) in [
        (Speech::Grpc, gone, "Connection refused".to_owned()),
        (Speech::Http, gone, format!("http://{gone}/v1/traces: ")),
        (Speech::Http, gone, "Connection refused".to_owned()),
        (Speech::Http, refusing.address(), format!("http://{}/v1/traces answers 503", refusing.address())),
    ] {
        let top = sent_to(speech, receiver, "sample: 1");
        let process = Process::start(&Settings::new(driver, &[echo.address]).top(&top), |command| {
            command.env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20letmein");
        });
        exchange(process.listener("main")).unwrap();
        let why = || {
            let lines = process.log.json();
            let is_it = |line: &&serde_json::Value| {
                line["message"] == "spans are dropped, as their receiver does not take them"
            };
            lines.iter().find(is_it).map(|line| line["error"].as_str().unwrap().to_owned())
        };
        let why = eventually("a word of it", why, Option::is_some).unwrap();
        assert!(why.contains(&expected), "{why}");
        assert!(!process.log.get().contains("letmein"));
    }
}

fn a_receiver_that_never_answers(driver: Driver) {
    let echo = Endpoint::polite();
    // It takes connections, and whatever fits into its buffers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for speech in [Speech::Grpc, Speech::Http] {
        let top = sent_to(speech, silent.local_addr().unwrap(), "sample: 1");
        let settings = Settings::new(driver, &[echo.address]).top(&format!("{top}drain: {{delay: 0s}}"));
        let mut process = Process::start(&settings, |command| {
            command.env("OTEL_BSP_MAX_QUEUE_SIZE", "64");
        });
        let (address, admin) = (process.listener("main"), process.admin());
        let lost = || metric(admin, "sheave_trace_spans_dropped_total", &["reason=\"queue_full\""]);
        let mut connections = 0;
        let full = || {
            exchange(address).unwrap();
            connections += 1;
            lost()
        };
        eventually("a full queue", full, |lost| *lost > 0.0);
        assert!(metric(admin, "sheave_trace_spans_queued", &[]) <= 64.0);
        assert_eq!(metric(admin, "sheave_worker_records_dropped_total", &[]), 0.0);
        let lines = || process.output.json().len();
        eventually("a line for each", lines, |lines| *lines == connections);
        let asked = Instant::now();
        process.signal(Signal::TERM);
        assert!(process.wait().success());
        assert!(asked.elapsed() < BOUNDED, "{:?}", asked.elapsed());
    }
}

fn a_receiver_that_is_busy_for_a_moment(driver: Driver) {
    let echo = Endpoint::echo();
    for speech in [Speech::Grpc, Speech::Http] {
        let collector = Collector::start(speech);
        collector.set_mood(Mood::RefusesOne);
        let proxy = start(driver, &echo, speech, collector.address());
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
        let exported = || proxy.metric("sheave_trace_spans_exported_total", &[]);
        assert_eq!(eventually("spans", exported, |exported| *exported > 0.0), 4.0);
        assert_eq!(collector.spans().len(), 4);
        assert_eq!(proxy.metric("sheave_trace_export_failures_total", &[]), 0.0);
    }
}

fn a_receiver_that_rejects_some(driver: Driver) {
    let echo = Endpoint::echo();
    for speech in [Speech::Grpc, Speech::Http] {
        let collector = Collector::start(speech);
        collector.set_mood(Mood::Rejects);
        let proxy = start(driver, &echo, speech, collector.address());
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
        eventually("rejected spans", || dropped(&proxy, "export_failed"), |lost| *lost == 3.0);
        assert_eq!(proxy.metric("sheave_trace_spans_exported_total", &[]), 1.0);
        assert_eq!(proxy.metric("sheave_trace_export_failures_total", &[]), 1.0);
    }
}

/// Stands before `collector`, and keeps what comes by the first connection, which it ends if it `breaks`.
fn swallowing_the_first(collector: SocketAddr, breaks: bool) -> Endpoint {
    let is_first = AtomicBool::new(true);
    Endpoint::start(move |mut stream| {
        if is_first.swap(false, Ordering::Relaxed) {
            if breaks {
                stream.read_exact(&mut [0; 100]).unwrap();
            } else {
                std::io::copy(&mut stream, &mut std::io::sink()).ok();
            }
            return;
        }
        let mut onward = connect(collector);
        let (mut back, mut to) = (onward.try_clone().unwrap(), stream.try_clone().unwrap());
        thread::scope(|scope| {
            scope.spawn(move || {
                std::io::copy(&mut back, &mut to).ok();
                to.shutdown(Shutdown::Both).ok();
            });
            std::io::copy(&mut stream, &mut onward).ok();
            onward.shutdown(Shutdown::Both).ok();
        });
    })
}

fn a_connection_that_leads_nowhere(driver: Driver) {
    let echo = Endpoint::polite();
    for (speech, breaks) in
        [Speech::Grpc, Speech::Http].into_iter().flat_map(|way| [(way, false), (way, true)])
    {
        let collector = Collector::start(speech);
        let front = swallowing_the_first(collector.address(), breaks);
        let top = sent_to(speech, front.address, "sample: 1");
        let process = Process::start(&Settings::new(driver, &[echo.address]).top(&top), |command| {
            command.env("OTEL_EXPORTER_OTLP_TIMEOUT", "500");
        });
        exchange(process.listener("main")).unwrap();
        let exported = || metric(process.admin(), "sheave_trace_spans_exported_total", &[]);
        assert_eq!(eventually("spans", exported, |exported| *exported > 0.0), 4.0, "{speech:?}, {breaks}");
        assert_eq!(collector.spans().len(), 4);
        assert_eq!(metric(process.admin(), "sheave_trace_export_failures_total", &[]), 0.0);
    }
}

fn the_last_spans_are_sent_at_the_end(driver: Driver) {
    let echo = Endpoint::echo();
    for speech in [Speech::Grpc, Speech::Http] {
        let collector = Collector::start(speech);
        let proxy = start(driver, &echo, speech, collector.address());
        for _ in 0..10 {
            assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
        }
        proxy.records(10);
        drop(proxy);
        let roots = collector.spans().into_iter().filter(|span| span.kind == 2).count();
        assert_eq!(roots, 10);
    }
}
