//! Whose trace a connection belongs to, by the PROXY protocol header that it begins with, and what endpoints are told.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::{ALL, traced};
use crate::support::collector::hex;
use crate::support::{Collector, Driver, Endpoint, Proxy, Settings, Speech, connect, on_both_drivers};

on_both_drivers!(a_connection_is_a_part_of_its_clients_trace, endpoints_are_told_whether_it_is_kept);

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const TRUSTED: &str = "proxyProtocol: {mode: Require, trusted: [127.0.0.0/8]}";
/// Behind the type and the length.
const TEXT_LEN: usize = 55;

/// A header of version 2 that names a client, with this extension.
fn header(extension: u8, value: &str) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\0\xc0\0\x02\x07\xc0\0\x02\x01\x0f\xa0\x01\xbb".to_vec();
    header.extend([extension, 0, u8::try_from(value.len()).unwrap()]);
    header.extend(value.bytes());
    header[15] = u8::try_from(header.len() - 16).unwrap();
    header
}

/// Hands on the traceparent that each connection begins with, and echoes from then on.
fn takes_traceparents() -> (Endpoint, flume::Receiver<String>) {
    let (found, traceparents) = flume::bounded(64);
    let endpoint = Endpoint::start(move |mut stream| {
        let mut bytes = [0; 28 + 3 + TEXT_LEN];
        stream.read_exact(&mut bytes).unwrap();
        let [.., kind, 0, length] = bytes[..31] else { panic!("{bytes:?}") };
        assert_eq!((kind, usize::from(length)), (0xE0, TEXT_LEN));
        found.send(String::from_utf8(bytes[31..].to_vec()).unwrap()).unwrap();
        std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).ok();
    });
    (endpoint, traceparents)
}

fn ask_behind(proxy: &Proxy, header: &[u8]) -> TcpStream {
    let mut client = connect(proxy.address);
    client.write_all(header).unwrap();
    client.write_all(b"a").unwrap();
    client.read_exact(&mut [0]).unwrap();
    client
}

fn a_connection_is_a_part_of_its_clients_trace(driver: Driver) {
    let collector = Collector::start(Speech::Grpc);
    let (endpoint, traceparents) = takes_traceparents();
    let settings = Settings::new(driver, &[endpoint.address])
        .listener(TRUSTED)
        .upstream("proxyProtocol: {version: V2, tlvs: [traceparent]}");
    let proxy = traced(&collector, settings);
    drop(ask_behind(&proxy, &header(0xE0, &format!("00-{TRACE}-{SPAN}-01"))));
    let record = proxy.record();
    assert_eq!(record["trace_id"], TRACE);
    let trace = collector.trace(TRACE);
    let root = trace.root();
    assert_eq!((hex(&root.trace_id), hex(&root.parent_span_id)), (TRACE.to_owned(), SPAN.to_owned()));
    assert!(trace.tree().contains(&("proxy header", "tcp main", String::new())), "{:?}", trace.tree());
    assert_eq!(traceparents.recv().unwrap(), format!("00-{TRACE}-{}-01", hex(&root.span_id)));
    // What is none is as none, and another extension is another matter.
    for (extension, text) in [(0xE0, "00-0-0-01".to_owned()), (0xE1, format!("00-{TRACE}-{SPAN}-01"))] {
        let before = proxy.records(1).len();
        drop(ask_behind(&proxy, &header(extension, &text)));
        let record = proxy.records(before + 1)[before].clone();
        let own = record["trace_id"].as_str().unwrap();
        assert_ne!(own, TRACE);
        let root = collector.trace(own).root().clone();
        assert_eq!(root.parent_span_id, [0_u8; 0]);
        assert_eq!(traceparents.recv().unwrap(), format!("00-{own}-{}-01", hex(&root.span_id)));
    }
}

/// The flag of a trace that is kept only if something goes wrong is not set; one that its client's side keeps is kept.
fn endpoints_are_told_whether_it_is_kept(driver: Driver) {
    let collector = Collector::start(Speech::Grpc);
    let (endpoint, traceparents) = takes_traceparents();
    let settings = Settings::new(driver, &[endpoint.address])
        .listener(TRUSTED)
        .upstream("proxyProtocol: {version: V2, tlvs: [traceparent]}");
    for (share, flag, expected) in [("sample: 0", "00", "00"), ("sample: 0", "01", "01"), (ALL, "00", "01")] {
        let proxy = Proxy::start(&settings.clone().top(&collector.settings(share)));
        let before = collector.spans().len();
        drop(ask_behind(&proxy, &header(0xE0, &format!("00-{TRACE}-{SPAN}-{flag}"))));
        assert!(traceparents.recv().unwrap().ends_with(&format!("-{expected}")), "{share}, {flag}");
        let record: Value = proxy.record();
        assert_eq!(record["trace_id"], TRACE);
        // The last spans are sent at the end.
        drop(proxy);
        assert_eq!(collector.spans().len() > before, expected == "01", "{share}, {flag}");
    }
}
