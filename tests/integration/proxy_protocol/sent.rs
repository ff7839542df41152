//! The headers that endpoints get.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::secured::echo_behind_headers;
use crate::support::{Driver, Endpoint, Proxy, Settings, closed_port, connect, eventually, on_both_drivers};

on_both_drivers!(
    a_line_comes_first,
    a_binary_header_with_extensions_comes_first,
    what_a_header_named_is_passed_on,
    each_attempt_begins_with_it,
    probes_introduce_themselves,
);

/// Hands on what each connection begins with, up to this end, and echoes from then on.
fn takes_headers(end: &'static [u8]) -> (Endpoint, flume::Receiver<Vec<u8>>) {
    let (found, headers) = flume::bounded(64);
    let endpoint = Endpoint::start(move |mut stream| {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(end) {
            // A probe only connects.
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                break;
            }
            bytes.push(byte[0]);
        }
        found.try_send(bytes).ok();
        std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).ok();
    });
    (endpoint, headers)
}

fn ask(client: &mut TcpStream) {
    client.write_all(b"question").unwrap();
    let mut answer = [0; 8];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"question");
}

fn line(source: SocketAddr, destination: SocketAddr) -> String {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port())
}

fn a_line_comes_first(driver: Driver) {
    let (endpoint, headers) = takes_headers(b"\r\n");
    for (listen, target) in
        [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]"), ("[::]:0", "127.0.0.1"), ("[::]:0", "[::1]")]
    {
        let mut settings =
            Settings::new(driver, &[endpoint.address]).upstream("proxyProtocol: {version: V1}");
        settings.listen = listen.to_owned();
        let proxy = Proxy::start(&settings);
        let address: SocketAddr = format!("{target}:{}", proxy.address.port()).parse().unwrap();
        let mut client = connect(address);
        // Before the client has sent anything.
        let header = String::from_utf8(headers.recv().unwrap()).unwrap();
        assert_eq!(header, line(client.local_addr().unwrap(), address), "listening on {listen}");
        ask(&mut client);
        drop(client);
        let record = proxy.record();
        assert_eq!((&record["bytes_received"], &record["bytes_sent"]), (&8.into(), &8.into()), "{record}");
    }
}

fn a_binary_header_with_extensions_comes_first(driver: Driver) {
    let (endpoint, headers) = echo_behind_headers(None);
    let settings = Settings::new(driver, &[endpoint.address])
        .upstream("proxyProtocol: {version: V2, tlvs: [authority, alpn, unique-id, tls, traceparent]}");
    let proxy = Proxy::start(&settings);
    let mut client = connect(proxy.address);
    let header = headers.recv().unwrap();
    ask(&mut client);
    let (source, destination) = (client.local_addr().unwrap(), proxy.address);
    drop(client);
    let record = proxy.record();
    let trace = record["trace_id"].as_str().unwrap();
    let [from, to] = [source, destination].map(|address| match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets(),
        std::net::IpAddr::V6(ip) => panic!("{ip}"),
    });
    let [source, destination] = [source, destination].map(|address| address.port().to_be_bytes());
    let begin = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &[0, 105], &from, &to, &source, &destination].concat();
    assert_eq!(header[..28], begin, "{}", header.escape_ascii());
    // Of a plain connection there is no name, no protocol and no TLS.
    let unique_id = [&[5, 0, 32], trace.as_bytes()].concat();
    assert_eq!(header[28..63], unique_id, "{}", header.escape_ascii());
    let traceparent = String::from_utf8(header[66..].to_vec()).unwrap();
    assert_eq!(header[63..66], [0xE0, 0, 55]);
    assert!(traceparent.starts_with(&format!("00-{trace}-")) && traceparent.len() == 55, "{traceparent}");
}

fn what_a_header_named_is_passed_on(driver: Driver) {
    let (endpoint, headers) = takes_headers(b"\r\n");
    let settings = Settings::new(driver, &[endpoint.address])
        .listener("proxyProtocol: {mode: Require, trusted: [127.0.0.0/8]}")
        .upstream("proxyProtocol: {version: V1}");
    let proxy = Proxy::start(&settings);
    for (sent, expected) in [
        ("PROXY TCP4 192.0.2.7 192.0.2.1 4000 443\r\n", None),
        ("PROXY TCP6 2001:db8::7 2001:db8::1 4000 443\r\n", None),
        (
            "PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 1 2\r\n",
            Some("PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n"),
        ),
    ] {
        let mut client = connect(proxy.address);
        client.write_all(sent.as_bytes()).unwrap();
        let header = String::from_utf8(headers.recv().unwrap()).unwrap();
        assert_eq!(header, expected.unwrap_or(sent));
        ask(&mut client);
    }
    let mut client = connect(proxy.address);
    client.write_all(b"PROXY UNKNOWN\r\n").unwrap();
    let header = String::from_utf8(headers.recv().unwrap()).unwrap();
    assert_eq!(header, line(client.local_addr().unwrap(), proxy.address));
}

fn each_attempt_begins_with_it(driver: Driver) {
    let (endpoint, headers) = takes_headers(b"\r\n");
    let settings = Settings::new(driver, &[closed_port(), endpoint.address])
        .upstream("proxyProtocol: {version: V1}, retry: {numRetries: 1}");
    let proxy = Proxy::start(&settings);
    for _ in 0..4 {
        let mut client = connect(proxy.address);
        let header = String::from_utf8(headers.recv().unwrap()).unwrap();
        assert_eq!(header, line(client.local_addr().unwrap(), proxy.address));
        ask(&mut client);
    }
}

fn probes_introduce_themselves(driver: Driver) {
    for (version, expected) in [("V1", &b"PROXY UNKNOWN\r\n"[..]), ("V2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")]
    {
        let (endpoint, headers) = takes_headers(b"no end");
        let settings = Settings::new(driver, &[endpoint.address]).upstream(&format!(
            "proxyProtocol: {{version: {version}}}, healthCheck: {{active: {{type: TCP, interval: 50ms, jitter: 0s, \
             timeout: 40ms}}}}"
        ));
        let proxy = Proxy::start(&settings);
        let header = headers.recv().unwrap();
        assert_eq!(header.escape_ascii().to_string(), expected.escape_ascii().to_string());
        let table = || crate::support::admin_get(proxy.admin, "/table");
        let is_healthy = |table: &String| {
            let table: Value = serde_json::from_str(table).unwrap();
            table["upstreams"][0]["endpoints"][0]["health"] == "healthy"
        };
        eventually("a healthy endpoint", table, is_healthy);
    }
}
