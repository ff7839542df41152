//! The same with HAProxy and nginx on either side, over IPv4 and IPv6, each test in a network of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use crate::support::{
    DEADLINE, Driver, Endpoint, Program, Proxy, Settings, eventually_some, in_namespace, on_both_drivers,
    round_trip,
};

on_both_drivers!(
    headers_of_haproxy_are_read,
    headers_of_nginx_are_read,
    haproxy_reads_what_is_sent,
    nginx_reads_what_is_sent,
    a_chain_names_the_client_to_its_end,
);

/// Where the program in front of Sheave listens.
const FRONT: u16 = 7001;
/// Where the one behind it does.
const BEHIND: u16 = 7002;

fn loopback(listen: &str, port: u16) -> SocketAddr {
    if listen.starts_with('[') {
        (Ipv6Addr::LOCALHOST, port).into()
    } else {
        (Ipv4Addr::LOCALHOST, port).into()
    }
}

/// A connection to a program that may only be starting.
fn reach(address: SocketAddr) -> TcpStream {
    let stream = eventually_some(&format!("a connection to {address}"), || {
        TcpStream::connect_timeout(&address, DEADLINE).ok()
    });
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// A Sheave that believes whoever is on this machine, in front of an echo.
fn behind_a_proxy(driver: Driver, listen: &str, endpoint: &Endpoint) -> Proxy {
    let mut settings = Settings::new(driver, &[endpoint.address])
        .listener("proxyProtocol: {mode: Require, trusted: [127.0.0.1/32, \"::1/128\"]}");
    settings.listen = listen.to_owned();
    Proxy::start(&settings)
}

/// Sends something through the program in front, and looks at what Sheave knows of it.
fn assert_named(proxy: &Proxy, front: SocketAddr) {
    // The program's own look at its port, and ours at it, may be records too.
    let mut client = reach(front);
    round_trip(&mut client);
    let own = client.local_addr().unwrap().to_string();
    drop(client);
    let records = proxy.records(1);
    let named = records.iter().find(|record| record["client"] == own.as_str());
    let named = named.unwrap_or_else(|| panic!("no record of {own}: {records:#?}"));
    assert!(named["via"].is_string() && named["outcome"] == "downstream_closed", "{named}");
}

fn headers_of_haproxy_are_read(driver: Driver) {
    in_namespace(move || {
        let endpoint = Endpoint::echo();
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            for option in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"] {
                let proxy = behind_a_proxy(driver, listen, &endpoint);
                let (front, sheave) = (loopback(listen, FRONT), proxy.address);
                let _haproxy = Program::haproxy(&format!(
                    "listen front\n  bind {front}\n  unique-id-format %ci-%cp\n  server sheave {sheave} {option}"
                ));
                assert_named(&proxy, front);
            }
        }
    });
}

fn headers_of_nginx_are_read(driver: Driver) {
    in_namespace(move || {
        let endpoint = Endpoint::echo();
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let proxy = behind_a_proxy(driver, listen, &endpoint);
            let (front, sheave) = (loopback(listen, FRONT), proxy.address);
            let _nginx = Program::nginx(&format!(
                "stream {{ server {{ listen {front}; proxy_pass {sheave}; proxy_protocol on; }} }}"
            ));
            assert_named(&proxy, front);
        }
    });
}

/// What the program behind Sheave says of the connection in its answer.
fn told(proxy: &Proxy, client: &mut TcpStream) -> String {
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap_or_else(|error| panic!("{error}: {:#?}", proxy.lines.all()));
    answer.trim_end().rsplit("\r\n").next().unwrap().to_owned()
}

fn sends(driver: Driver, listen: &str, version: &str) -> Proxy {
    let mut settings =
        Settings::new(driver, &[loopback(listen, BEHIND)]).upstream(&format!("proxyProtocol: {{{version}}}"));
    settings.listen = listen.to_owned();
    Proxy::start(&settings)
}

fn haproxy_reads_what_is_sent(driver: Driver) {
    in_namespace(move || {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let _haproxy = Program::haproxy(&format!(
                "frontend behind\n  mode http\n  bind {} accept-proxy\n  http-request return status 200 content-type \
                 text/plain lf-string \"%[src] %[src_port] %[dst] %[dst_port] %[fc_pp_unique_id]\"",
                loopback(listen, BEHIND)
            ));
            drop(reach(loopback(listen, BEHIND)));
            for version in ["version: V1", "version: V2", "version: V2, tlvs: [unique-id, traceparent]"] {
                let proxy = sends(driver, listen, version);
                let mut client = reach(proxy.address);
                let (own, sheave) = (client.local_addr().unwrap(), proxy.address);
                let told = told(&proxy, &mut client);
                drop(client);
                let record = proxy.record();
                let id =
                    if version.contains("unique-id") { record["trace_id"].as_str().unwrap() } else { "" };
                let expected = format!("{} {} {} {} {id}", own.ip(), own.port(), sheave.ip(), sheave.port());
                assert_eq!(told.trim_end(), expected.trim_end(), "{version}");
            }
        }
    });
}

fn nginx_reads_what_is_sent(driver: Driver) {
    in_namespace(move || {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let _nginx = Program::nginx(&format!(
                "http {{ access_log off; server {{ listen {} proxy_protocol; return 200 \"$proxy_protocol_addr \
                 $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port\"; }} }}",
                loopback(listen, BEHIND)
            ));
            drop(reach(loopback(listen, BEHIND)));
            for version in
                ["version: V1", "version: V2, tlvs: [authority, alpn, unique-id, traceparent, tls]"]
            {
                let proxy = sends(driver, listen, version);
                let mut client = reach(proxy.address);
                let (own, sheave) = (client.local_addr().unwrap(), proxy.address);
                let expected = format!("{} {} {} {}", own.ip(), own.port(), sheave.ip(), sheave.port());
                assert_eq!(told(&proxy, &mut client), expected, "{version}");
            }
        }
    });
}

fn a_chain_names_the_client_to_its_end(driver: Driver) {
    in_namespace(move || {
        let (front, behind) = (loopback("", FRONT), loopback("", BEHIND));
        let settings = Settings::new(driver, &[behind])
            .listener("proxyProtocol: {mode: Require, trusted: [127.0.0.1/32]}")
            .upstream("proxyProtocol: {version: V2}");
        let proxy = Proxy::start(&settings);
        let _programs = Program::haproxy(&format!(
            "listen front\n  bind {front}\n  server sheave {} send-proxy\nfrontend behind\n  mode http\n  bind {behind} \
             accept-proxy\n  http-request return status 200 content-type text/plain lf-string \"%[src] %[src_port] %[dst] \
             %[dst_port]\"",
            proxy.address
        ));
        let mut client = reach(front);
        let own = client.local_addr().unwrap();
        let expected = format!("{} {} {} {}", own.ip(), own.port(), front.ip(), front.port());
        assert_eq!(told(&proxy, &mut client), expected);
    });
}
