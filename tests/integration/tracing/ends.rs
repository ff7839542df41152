//! How a trace tells of the end of a connection: whose stream ended when, and since when it was to end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use serde_json::Value;

use super::{ALL, close, trace_of, traced};
use crate::support::collector::times;
use crate::support::{
    Collector, Driver, Endpoint, Proxy, Settings, Speech, Trace, connect, on_both_drivers, reset_on_close,
    round_trip,
};

on_both_drivers!(
    each_half_close_is_an_event,
    what_breaks_is_no_half_close,
    a_listener_that_leaves,
    a_listener_that_permits_it_no_more,
);

/// Names and times in milliseconds of what happened in the relay.
fn events(trace: &Trace) -> Vec<(String, f64)> {
    let root = trace.root();
    let since = |time: u64| (time - root.start_time_unix_nano) as f64 / 1e6;
    let relay = trace.of_name("relay")[0];
    relay.events.iter().map(|event| (event.name.clone(), since(event.time_unix_nano))).collect()
}

fn each_half_close_is_an_event(driver: Driver) {
    let collector = Collector::start(Speech::Grpc);
    // Answers when it has heard all.
    let endpoint = Endpoint::start(|mut stream| {
        stream.read_to_end(&mut Vec::new()).unwrap();
        stream.write_all(b"b").unwrap();
    });
    let proxy = traced(&collector, Settings::new(driver, &[endpoint.address]));
    let mut client = connect(proxy.address);
    client.write_all(b"a").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 1);
    let record = proxy.record();
    let events = events(&trace_of(&collector, &record));
    let names: Vec<&str> = events.iter().map(|(name, _)| &**name).collect();
    let expected =
        ["first_byte_downstream", "half_close_downstream", "first_byte_upstream", "half_close_upstream"];
    assert_eq!(names, expected);
    for (name, at) in &events {
        close(*at, record[format!("{name}_ms")].as_f64().unwrap());
    }
    let last = record["half_close_upstream_ms"].as_f64().unwrap();
    assert!(last <= record["duration_ms"].as_f64().unwrap(), "{record}");
}

/// Neither what was reset nor what was ended by this process: both read like an end.
fn what_breaks_is_no_half_close(driver: Driver) {
    let collector = Collector::start(Speech::Http);
    let endpoint = Endpoint::start(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        stream.write_all(b"b").unwrap();
        if stream.read(&mut [0]).is_ok_and(|length| length > 0) {
            reset_on_close(&stream);
        }
    });
    let settings =
        Settings::new(driver, &[endpoint.address]).listener("timeout: {tcp: {idleTimeout: 300ms}}");
    let proxy = traced(&collector, settings);
    let asked = || {
        let mut client = connect(proxy.address);
        client.write_all(b"a").unwrap();
        client.read_exact(&mut [0]).unwrap();
        client
    };
    let told = |number: usize, outcome: &str| {
        let record = proxy.records(number)[number - 1].clone();
        assert_eq!(record["outcome"], outcome);
        let events = events(&trace_of(&collector, &record));
        let names: Vec<&str> = events.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["first_byte_downstream", "first_byte_upstream"], "{outcome}");
        assert!(record["half_close_downstream_ms"].is_null() && record["half_close_upstream_ms"].is_null());
    };
    let mut client = asked();
    client.write_all(b"r").unwrap();
    assert!(client.read(&mut [0]).is_err());
    told(1, "upstream_reset");
    let client = asked();
    reset_on_close(&client);
    drop(client);
    told(2, "downstream_reset");
    let mut client = asked();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    told(3, "idle_timeout");
}

/// The drain of a connection whose listener is not as before, and its line in the access log.
fn drained(collector: &Collector, proxy: &Proxy, client: &mut TcpStream, outcome: &str) -> (Value, f64) {
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    let record = proxy.record();
    assert_eq!(record["outcome"], outcome);
    let trace = trace_of(collector, &record);
    let drain = trace.of_name("drain")[0];
    let (from, drained) = times(trace.root(), drain);
    close(from, record["drain_start_ms"].as_f64().unwrap());
    close(from + drained, record["duration_ms"].as_f64().unwrap());
    (record, drained)
}

fn a_listener_that_leaves(driver: Driver) {
    let (collector, echo) = (Collector::start(Speech::Grpc), Endpoint::echo());
    let mut settings = Settings::new(driver, &[echo.address])
        .top(&format!("drain: {{delay: 0s, timeout: 1s}}\n{}", collector.settings(ALL)));
    let before = settings.clone();
    settings.more_listeners.push("{name: guest, address: \"127.0.0.2:0\"}".to_owned());
    settings.more_routes.push("{name: guest, listener: guest, backendRefs: [{upstream: main}]}".to_owned());
    let proxy = Proxy::start(&settings);
    let mut client = connect(proxy.listener("guest"));
    round_trip(&mut client);
    proxy.reload(&before).unwrap();
    let (record, drained) = drained(&collector, &proxy, &mut client, "table_removed");
    assert_eq!(record["listener"], "guest");
    assert!((950.0..20_000.0).contains(&drained), "{drained} ms");
}

fn a_listener_that_permits_it_no_more(driver: Driver) {
    let (collector, echo) = (Collector::start(Speech::Grpc), Endpoint::echo());
    let top = collector.settings(ALL);
    let settings = Settings::new(driver, &[echo.address]).top(&top);
    let proxy = Proxy::start(&settings);
    let mut client = connect(proxy.address);
    round_trip(&mut client);
    proxy.reload(&settings.listener("deny: [127.0.0.0/8]")).unwrap();
    let (record, drained) = drained(&collector, &proxy, &mut client, "policy");
    assert!(record["drain_start_ms"].as_f64().unwrap() > 0.0);
    assert!(drained < 20_000.0, "{drained} ms");
}
