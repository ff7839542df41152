use std::time::Instant;

use super::*;
use crate::config::Config;
use crate::routing::{Asked, Findings, RouteTable, compile, refresh};

const TEXT: &str = r#"
listeners:
  - {name: a, address: "[::]:443", protocol: TLS, tls: {mode: Passthrough}}
  - {name: alone, address: "[::]:444", protocol: TLS, tls: {mode: Passthrough}}
  - {name: b, address: "[::]:443", protocol: TLS, tls: {mode: Passthrough}}
routes:
  - {name: below, listener: a, hostnames: ["*.example"], backendRefs: [{upstream: u}]}
  - {name: alone, listener: alone, backendRefs: [{upstream: u}]}
  - {name: exact, listener: b, hostnames: [b.example], sources: [10.0.0.0/8], backendRefs: [{upstream: v}]}
  - {name: rest, listener: b, backendRefs: [{upstream: v}]}
upstreams:
  - {name: u, endpoints: [{address: "127.0.0.1:1"}]}
  - {name: v, endpoints: [{address: "127.0.0.1:2"}]}
"#;

fn asked<'a>(server_name: Option<&'a str>, client: &str) -> Asked<'a> {
    Asked { server_name, alpn: &[], client: client.parse().unwrap() }
}

fn found(table: &RouteTable, server_name: Option<&str>, client: &str) -> Option<(String, String)> {
    let first = table.listener_at("[::]:443".parse().unwrap()).unwrap();
    let (listener, route) = first.find(asked(server_name, client))?;
    Some((listener.name.to_string(), route.name.to_string()))
}

fn both(listener: &str, route: &str) -> Option<(String, String)> {
    Some((listener.to_owned(), route.to_owned()))
}

#[test]
fn the_name_says_which_listener_is_meant() {
    let config = Config::parse(TEXT, "test").unwrap();
    let table = compile(&config, &Findings::default(), &RouteTable::empty(), Instant::now());
    assert_eq!(found(&table, Some("B.example"), "10.0.0.1"), both("b", "exact"));
    assert_eq!(found(&table, Some("b.example"), "192.0.2.1"), both("a", "below"));
    assert_eq!(found(&table, Some("c.example"), "10.0.0.1"), both("a", "below"));
    assert_eq!(found(&table, Some("example"), "10.0.0.1"), both("b", "rest"));
    assert_eq!(found(&table, None, "10.0.0.1"), both("b", "rest"));
    let alone = table.listener_at("[::]:444".parse().unwrap()).unwrap();
    assert_eq!(alone.find(asked(None, "10.0.0.1")).unwrap().0.name, alone.name);
}

#[test]
fn a_change_of_endpoints_reaches_the_others() {
    let config = Config::parse(TEXT, "test").unwrap();
    let mut table = compile(&config, &Findings::default(), &RouteTable::empty(), Instant::now());
    for upstream in [&config.upstreams[1], &config.upstreams[0], &config.upstreams[1]] {
        table = refresh([(upstream, None)], &table, Instant::now());
        assert_eq!(found(&table, Some("b.example"), "10.0.0.1"), both("b", "exact"));
        let first = table.listener_at("[::]:443".parse().unwrap()).unwrap();
        let (listener, route) = first.find(asked(Some("b.example"), "10.0.0.1")).unwrap();
        assert!(Arc::ptr_eq(listener, &table.listeners[2]), "it is the table's own");
        assert!(Arc::ptr_eq(route.upstream().unwrap(), &table.upstreams["v"]));
    }
}
