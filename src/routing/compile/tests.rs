use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::config::{AccessLog, Drain, Limits, ListenerTimeouts, Metrics, Retry, UpstreamTimeouts, Workers};
use crate::config::{Admin, BackendRef, Driver, Keepalive, LoadBalancer, Log, LogFormat, LogLevel};

const KEEPALIVE: Keepalive =
    Keepalive { idle_time: Duration::from_secs(120), interval: Duration::from_secs(15), probes: 4 };

fn config() -> Config {
    Config {
        workers: Workers { count: None, pin: true, driver: Driver::Auto },
        admin: Admin { address: "127.0.0.1:9901".parse().unwrap(), allow_changes: false },
        drain: Drain { delay: Duration::ZERO, timeout: Duration::from_secs(60) },
        limits: Limits { max_connections: None },
        log: Log { level: LogLevel::Info, format: LogFormat::Json },
        access_log: AccessLog { enabled: true, sample: 1.0 },
        metrics: Metrics { per_endpoint: true },
        listeners: vec![listener("a", "127.0.0.1:80")],
        routes: vec![route("everyone", "a", &[], "u")],
        upstreams: vec![upstream("u", &["127.0.0.1:1", "127.0.0.1:2"])],
    }
}

fn listener(name: &str, address: &str) -> config::Listener {
    config::Listener {
        name: name.into(),
        address: address.parse().unwrap(),
        allow: Vec::new(),
        deny: Vec::new(),
        limit: None,
        timeouts: ListenerTimeouts { idle: None, max_duration: None, half_close: None },
        keepalive: KEEPALIVE,
    }
}

fn route(name: &str, listener: &str, sources: &[&str], upstream: &str) -> config::Route {
    config::Route {
        name: name.into(),
        listener: listener.into(),
        sources: sources.iter().map(|source| source.parse().unwrap()).collect(),
        backends: vec![BackendRef { upstream: upstream.into(), weight: 1 }],
    }
}

fn upstream(name: &str, endpoints: &[&str]) -> config::Upstream {
    config::Upstream {
        name: name.into(),
        endpoints: endpoints
            .iter()
            .map(|address| config::Endpoint { address: address.parse().unwrap(), weight: 1 })
            .collect(),
        load_balancer: LoadBalancer::RoundRobin,
        timeouts: UpstreamTimeouts { connect: Duration::from_secs(5), idle: None, max_duration: None },
        keepalive: KEEPALIVE,
        retry: Retry {
            num_retries: 2,
            per_retry_timeout: None,
            base_interval: Duration::from_millis(25),
            max_interval: Duration::from_secs(1),
        },
        drain_timeout: Duration::from_secs(300),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn endpoint_state_survives_by_identity_and_not_by_position() {
    let first = compile(&config(), &RouteTable::empty());
    let held = first.upstreams["u"].endpoints[1].state.reserve();
    let mut changed = config();
    changed.upstreams = vec![upstream("u", &["127.0.0.1:3", "127.0.0.1:2"])];
    let second = compile(&changed, &first);
    let active: Vec<usize> = second.upstreams["u"].endpoints.iter().map(|e| e.state.active()).collect();
    assert_eq!((second.generation, active), (2, vec![0, 1]));
    drop(held);
    assert_eq!(second.upstreams["u"].endpoints[1].state.active(), 0);
}

#[test]
fn the_most_specific_source_wins_also_for_mapped_addresses() {
    let mut config = config();
    config.routes.push(route("ten", "a", &["10.0.0.0/8"], "u"));
    config.routes.push(route("ten-one", "a", &["10.1.0.0/16", "fd00::/8"], "u"));
    let table = compile(&config, &RouteTable::empty());
    let listener = &table.listeners[0];
    let routed = |client: &str| listener.route(ip(client)).unwrap().name.to_string();
    assert_eq!(routed("10.1.2.3"), "ten-one");
    assert_eq!(routed("::ffff:10.1.2.3"), "ten-one");
    assert_eq!(routed("10.2.2.3"), "ten");
    assert_eq!(routed("fd00::1"), "ten-one");
    assert_eq!(routed("192.0.2.1"), "everyone");
}

#[test]
fn deny_is_stronger_than_allow() {
    let mut config = config();
    config.listeners[0].allow = vec!["10.0.0.0/8".parse().unwrap()];
    config.listeners[0].deny = vec!["10.9.0.0/16".parse().unwrap()];
    let table = compile(&config, &RouteTable::empty());
    let admits = |client: &str| table.listeners[0].admits(ip(client));
    assert_eq!([admits("10.1.1.1"), admits("10.9.1.1"), admits("192.0.2.1")], [true, false, false]);
}

#[test]
fn what_leaves_the_table_knows_how_long_it_may_stay() {
    let first = compile(&config(), &RouteTable::empty());
    let mut changed = config();
    changed.listeners[0].name = "b".into();
    changed.routes[0].listener = "b".into();
    changed.upstreams[0] = upstream("u", &["127.0.0.1:2"]);
    changed.upstreams[0].drain_timeout = Duration::from_secs(7);
    let second = compile(&changed, &first);
    let now = Instant::now();
    assert!(!first.depart(&first, now), "nothing left");
    assert!(first.depart(&second, now));
    assert!(first.depart(&second, now + Duration::from_secs(1)), "the other worker, later");
    let endpoints: Vec<_> = first.upstreams["u"].endpoints.iter().map(|e| e.state.leave_by.get()).collect();
    assert_eq!(endpoints, [Some(&(now + Duration::from_secs(7))), None]);
    assert_eq!(first.listeners[0].state.leave_by.get(), Some(&(now + Duration::from_secs(60))));
    assert_eq!(second.listeners[0].state.leave_by.get(), None);
}

#[test]
fn what_comes_back_is_another() {
    let first = compile(&config(), &RouteTable::empty());
    let mut without = config();
    (without.listeners, without.routes) = (Vec::new(), Vec::new());
    without.upstreams = vec![upstream("u", &["127.0.0.1:2"])];
    let third = compile(&config(), &compile(&without, &first));
    assert!(first.depart(&third, Instant::now()), "also for a worker that skipped the table between");
    assert!(first.listeners[0].state.leave_by.get().is_some());
    assert!(third.listeners[0].state.leave_by.get().is_none());
}

#[test]
fn weights_split_connections_over_the_backends() {
    let mut config = config();
    config.upstreams.push(upstream("canary", &["127.0.0.1:9"]));
    config.routes[0].backends = vec![
        BackendRef { upstream: "u".into(), weight: 9 },
        BackendRef { upstream: "canary".into(), weight: 1 },
        BackendRef { upstream: "u".into(), weight: 0 },
    ];
    let table = compile(&config, &RouteTable::empty());
    let route = &table.listeners[0].routes[0];
    let canary = (0..100).filter(|_| &*route.upstream().unwrap().name == "canary").count();
    assert_eq!(canary, 10);
}
