use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::*;
use crate::config::{AccessLog, Drain, Limits, ListenerTimeouts, Metrics, Retry, UpstreamTimeouts, Workers};
use crate::config::{
    Admin, BackendRef, Driver, Keepalive, Kubernetes, LoadBalancer, Log, LogFormat, LogLevel, Overload,
};
use crate::config::{PortRef, ServicePort, UpstreamDrain};

mod memory;
mod model;
mod tls;

fn none() -> Findings {
    Findings::default()
}

const KEEPALIVE: Keepalive =
    Keepalive { idle_time: Duration::from_secs(120), interval: Duration::from_secs(15), probes: 4 };

const BREAKER: config::Breaker = config::Breaker {
    consecutive_failures: NonZeroU32::new(5).unwrap(),
    base_interval: Duration::from_secs(1),
    max_interval: Duration::from_secs(30),
};

fn config() -> Config {
    Config {
        workers: Workers { count: None, pin: true, driver: Driver::Auto, busy_poll: None },
        admin: Admin { address: "127.0.0.1:9901".parse().unwrap(), allow_changes: false },
        drain: Drain { delay: Duration::ZERO, timeout: Duration::from_secs(60) },
        limits: Limits { max_connections: None, overload: Overload { memory_percent: None, loop_lag: None } },
        log: Log { level: LogLevel::Info, format: LogFormat::Json },
        access_log: AccessLog { enabled: true, sample: 1.0, format: LogFormat::Json },
        metrics: Metrics { per_endpoint: true, otlp: config::MetricsOtlp::off() },
        tracing: config::Tracing::off(),
        kubernetes: Kubernetes { kubeconfig: None },
        listeners: vec![listener("a", "127.0.0.1:80")],
        routes: vec![route("everyone", "a", &[], "u")],
        upstreams: vec![upstream("u", &["127.0.0.1:1", "127.0.0.1:2"])],
    }
}

fn listener(name: &str, address: &str) -> config::Listener {
    config::Listener {
        name: name.into(),
        address: address.parse().unwrap(),
        protocol: config::Protocol::Tcp,
        proxy: None,
        tls: None,
        allow: Vec::new(),
        deny: Vec::new(),
        limit: None,
        sources: None,
        timeouts: ListenerTimeouts {
            idle: None,
            max_duration: None,
            half_close: None,
            tls_handshake: Duration::from_secs(10),
        },
        keepalive: KEEPALIVE,
    }
}

fn route(name: &str, listener: &str, sources: &[&str], upstream: &str) -> config::Route {
    config::Route {
        name: name.into(),
        listener: listener.into(),
        hostnames: Vec::new(),
        sources: sources.iter().map(|source| source.parse().unwrap()).collect(),
        alpn: Vec::new(),
        tls_mode: None,
        backends: vec![BackendRef { upstream: upstream.into(), weight: 1 }],
    }
}

fn upstream(name: &str, endpoints: &[&str]) -> config::Upstream {
    config::Upstream {
        name: name.into(),
        members: Members::Listed(
            endpoints
                .iter()
                .map(|address| config::Endpoint {
                    address: address.parse().unwrap(),
                    weight: 1,
                    zone: None,
                    priority: 0,
                })
                .collect(),
        ),
        load_balancer: LoadBalancer::RoundRobin,
        zone_aware: None,
        slow_start: None,
        timeouts: UpstreamTimeouts { connect: Duration::from_secs(5), idle: None, max_duration: None },
        keepalive: KEEPALIVE,
        retry: Retry {
            num_retries: 2,
            triggers: config::RetryTriggers { connect_failure: true, tls_failure: true },
            hedge_after: None,
            per_retry_timeout: None,
            base_interval: Duration::from_millis(25),
            max_interval: Duration::from_secs(1),
            budget_percent: 20,
            budget_floor: 10,
        },
        rebalance: None,
        limits: config::UpstreamLimits::default(),
        breaker: Some(BREAKER),
        health: config::HealthCheck { panic_threshold: 50, active: None, passive: None },
        proxy: None,
        tls: None,
        drain: UpstreamDrain { timeout: Duration::from_secs(300), close_per_second: None },
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What a client of plain TCP asks for.
fn from(client: &str) -> crate::routing::Asked<'static> {
    crate::routing::Asked { server_name: None, alpn: &[], client: ip(client) }
}

#[test]
fn endpoint_state_survives_by_identity_and_not_by_position() {
    let first = compile(&config(), &none(), &RouteTable::empty(), Instant::now());
    let held = first.upstreams["u"].endpoints[1].state.reserve();
    let mut changed = config();
    changed.upstreams = vec![upstream("u", &["127.0.0.1:3", "127.0.0.1:2"])];
    let second = compile(&changed, &none(), &first, Instant::now());
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
    let table = compile(&config, &none(), &RouteTable::empty(), Instant::now());
    let listener = &table.listeners[0];
    let routed = |client: &str| listener.route_for(from(client)).unwrap().name.to_string();
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
    let table = compile(&config, &none(), &RouteTable::empty(), Instant::now());
    let admits = |client: &str| table.listeners[0].admits(ip(client));
    assert_eq!([admits("10.1.1.1"), admits("10.9.1.1"), admits("192.0.2.1")], [true, false, false]);
}

#[test]
fn what_leaves_the_table_knows_how_long_it_may_stay() {
    let first = compile(&config(), &none(), &RouteTable::empty(), Instant::now());
    let mut changed = config();
    changed.listeners[0].name = "b".into();
    changed.routes[0].listener = "b".into();
    changed.upstreams[0] = upstream("u", &["127.0.0.1:2"]);
    changed.upstreams[0].drain.timeout = Duration::from_secs(7);
    let mut second = compile(&changed, &none(), &first, Instant::now());
    let now = Instant::now();
    second.succeed(&first, now);
    assert_eq!((first.departures, second.departures), (0, 1));
    let endpoints: Vec<_> = first.upstreams["u"].endpoints.iter().map(|e| e.state.leave_by()).collect();
    assert_eq!(endpoints, [Some(now + Duration::from_secs(7)), None]);
    let state = &first.listeners[0].state;
    assert_eq!((state.left_at(), state.leave_by()), (Some(now), Some(now + Duration::from_secs(60))));
    assert_eq!(second.listeners[0].state.leave_by(), None);
    let mut third = compile(&changed, &none(), &second, Instant::now());
    third.succeed(&second, now);
    assert_eq!(third.departures, 1, "nothing more left");
}

#[test]
fn an_endpoint_that_comes_back_while_it_leaves_is_the_same() {
    let mut without = config();
    without.upstreams = vec![upstream("u", &["127.0.0.1:2"])];
    let now = Instant::now();
    let next_at = |config: &Config, previous: &RouteTable, now: Instant| {
        let mut table = compile(config, &none(), previous, now);
        table.succeed(previous, now);
        table
    };
    let next = |config: &Config, previous: &RouteTable| next_at(config, previous, now);
    let first = compile(&config(), &none(), &RouteTable::empty(), now);
    let held = first.upstreams["u"].endpoints[0].state.reserve();
    // Twice, so that it is not just the table before that remembers it.
    let second = next(&without, &next(&without, &first));
    assert_eq!(second.upstreams["u"].leaving[0].address, first.upstreams["u"].endpoints[0].address);
    assert!(first.upstreams["u"].endpoints[0].state.leave_by().is_some());
    let third = next(&config(), &second);
    let back = &third.upstreams["u"].endpoints[0].state;
    assert_eq!((back.active(), back.leave_by()), (1, None), "its connections count, and live on");
    drop(held);
    let fourth = next(&without, &third);
    let fifth = next_at(&without, &fourth, now + Duration::from_secs(9));
    assert_eq!(fifth.upstreams["u"].leaving.len(), 1, "a worker with an older table may yet connect to it");
    let sixth = next_at(&without, &fifth, now + Duration::from_secs(10));
    assert!(sixth.upstreams["u"].leaving.is_empty(), "without connections it is gone then");
}

#[test]
fn a_listener_that_comes_back_is_another() {
    let first = compile(&config(), &none(), &RouteTable::empty(), Instant::now());
    let mut without = config();
    (without.listeners, without.routes) = (Vec::new(), Vec::new());
    let mut second = compile(&without, &none(), &first, Instant::now());
    second.succeed(&first, Instant::now());
    let mut third = compile(&config(), &none(), &second, Instant::now());
    third.succeed(&second, Instant::now());
    assert!(first.listeners[0].state.leave_by().is_some());
    assert!(third.listeners[0].state.leave_by().is_none());
}

fn followed(name: &str) -> config::Upstream {
    let port = ServicePort { namespace: "shop".into(), name: name.into(), port: PortRef::Number(80) };
    config::Upstream { members: Members::Followed(port), ..upstream(name, &[]) }
}

fn found(addresses: &[&str]) -> Found {
    let member = |address: &&str| Member {
        address: address.parse().unwrap(),
        pod: None,
        weight: 1,
        topology: Arc::default(),
        priority: 0,
    };
    Found { members: addresses.iter().map(member).collect(), problem: None }
}

#[test]
fn a_change_recompiles_its_upstream_and_what_leads_there() {
    let mut config = config();
    config.upstreams = vec![followed("u"), followed("v")];
    config.listeners.push(listener("b", "127.0.0.1:81"));
    config.routes.push(route("to-v", "b", &[], "v"));
    config.routes.push(route("ten", "a", &["10.0.0.0/8"], "v"));
    let first = compile(&config, &none(), &RouteTable::empty(), Instant::now());
    assert_eq!(first.upstreams["u"].problem.as_ref().unwrap().reason, "waiting");
    let members = found(&["10.0.0.1:80", "10.0.0.2:80"]);
    let second = refresh([(&config.upstreams[0], Some(&members))], &first, Instant::now());
    assert_eq!((second.generation, second.upstreams["u"].endpoints.len()), (2, 2));
    assert!(second.upstreams["u"].problem.is_none());
    assert!(Arc::ptr_eq(&first.upstreams["v"], &second.upstreams["v"]));
    assert!(Arc::ptr_eq(&first.listeners[1], &second.listeners[1]));
    assert!(!Arc::ptr_eq(&first.listeners[0], &second.listeners[0]));
    let [everyone, ten] = &*second.listeners[0].routes else { panic!("two routes") };
    assert!(Arc::ptr_eq(&first.listeners[0].routes[1], ten));
    assert!(Arc::ptr_eq(everyone.upstream().unwrap(), &second.upstreams["u"]));
    assert_eq!(second.listener_at("127.0.0.1:80".parse().unwrap()).unwrap().name, first.listeners[0].name);
}

#[test]
fn clients_of_a_hash_stay_at_their_endpoint() {
    let mut config = config();
    config.upstreams[0].load_balancer = LoadBalancer::ConsistentHash { table_size: 101 };
    let table = compile(&config, &none(), &RouteTable::empty(), Instant::now());
    let picked = |table: &RouteTable, client: &str| {
        let mut tried = crate::balance::Tried::none(ip(client));
        let mut random = fastrand::Rng::with_seed(1);
        crate::balance::pick(&table.upstreams["u"], &mut tried, &mut random, Instant::now()).unwrap()
    };
    let first = picked(&table, "10.0.0.1");
    assert_eq!(picked(&table, "::ffff:10.0.0.1").index, first.index);
    config.upstreams = vec![config::Upstream {
        load_balancer: config.upstreams[0].load_balancer,
        ..upstream("u", &["127.0.0.1:2", "127.0.0.1:1"])
    }];
    let next = compile(&config, &none(), &table, Instant::now());
    assert_eq!(picked(&next, "10.0.0.1").index, 1 - first.index, "the same endpoint at another place");
}

#[test]
fn who_comes_later_or_is_well_again_starts_slowly() {
    let mut config = config();
    config.upstreams = vec![followed("u")];
    let now = Instant::now();
    let next = |addresses: &[&str], previous: &RouteTable| {
        let members = found(addresses);
        let mut table = refresh([(&config.upstreams[0], Some(&members))], previous, now);
        table.succeed(previous, now);
        table
    };
    let starts = |table: &RouteTable| -> Vec<Start> {
        table.upstreams["u"].endpoints.iter().map(|endpoint| endpoint.start).collect()
    };
    let waiting = compile(&config, &none(), &RouteTable::empty(), now);
    let first = next(&["10.0.0.1:80", "10.0.0.2:80"], &waiting);
    assert_eq!(starts(&first), [Start::Original; 2], "at the start of the process nobody is new");
    let second = next(&["10.0.0.1:80", "10.0.0.3:80"], &first);
    assert_eq!(starts(&second), [Start::Original, Start::At(now)]);
    let third = next(&["10.0.0.1:80", "10.0.0.2:80"], &second);
    assert_eq!(starts(&third), [Start::Original, Start::At(now)], "who left and is back is new");
    third.upstreams["u"].endpoints[0].state.health.set(false);
    let fourth = next(&["10.0.0.1:80", "10.0.0.2:80"], &third);
    assert_eq!(starts(&fourth)[0], Start::Unhealthy { slowly: true });
    fourth.upstreams["u"].endpoints[0].state.health.set(true);
    assert_eq!(starts(&next(&["10.0.0.1:80", "10.0.0.2:80"], &fourth))[0], Start::At(now));
}

#[test]
fn a_reload_keeps_the_members_of_what_is_not_known_anew_yet() {
    let mut config = config();
    config.upstreams = vec![followed("u")];
    let upstreams = [("u".into(), found(&["10.0.0.1:80"]))].into();
    let findings = Findings { upstreams, ..none() };
    let first = compile(&config, &findings, &RouteTable::empty(), Instant::now());
    let second = compile(&config, &none(), &first, Instant::now());
    let kept = &second.upstreams["u"];
    assert_eq!((kept.endpoints.len(), kept.problem.as_ref().unwrap().reason), (1, "waiting"));
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
    let table = compile(&config, &none(), &RouteTable::empty(), Instant::now());
    let route = &table.listeners[0].routes[0];
    let canary = (0..100).filter(|_| &*route.upstream().unwrap().name == "canary").count();
    assert_eq!(canary, 10);
}

/// All workers would write it at each connection.
#[test]
fn the_turn_of_a_route_to_one_upstream_stays() {
    let table = compile(&config(), &none(), &RouteTable::empty(), Instant::now());
    let route = &table.listeners[0].routes[0];
    assert_eq!(route.backends.len(), 1);
    assert!((0..9).all(|_| &*route.upstream().unwrap().name == "u"));
    assert_eq!(route.cursor.load(std::sync::atomic::Ordering::Relaxed), 0);
}

/// It has the most connections, so that nobody chooses it for the probe that would close its breaker.
#[test]
fn an_open_breaker_whose_time_is_over_does_not_keep_its_excess() {
    let table = compile(&config(), &none(), &RouteTable::empty(), Instant::now());
    let upstream = &table.upstreams["u"];
    let held: Vec<_> = (0..100).map(|_| upstream.endpoints[0].reserve()).collect();
    let breaker = upstream.endpoints[0].breaker.as_ref().unwrap();
    let opened = Instant::now();
    while breaker.permit().is_some_and(|permit| !permit.failed(opened)) {}
    assert_eq!(breaker.state(), crate::resilience::BreakerState::Open);
    let excess = |now| upstream.excess(now).map(|(_, excess)| excess).sum::<usize>();
    assert_eq!(excess(opened), 0, "those of the other are no more than its share of what it alone can take");
    assert_eq!(excess(opened + Duration::from_secs(2)), 48);
    drop(held);
}

#[test]
fn a_table_that_permits_others_says_so() {
    let mut config = config();
    config.upstreams.push(upstream("v", &["127.0.0.1:3"]));
    let mut table = compile(&config, &none(), &RouteTable::empty(), Instant::now());
    let mut restrictions = |config: &Config| {
        let mut next = compile(config, &none(), &table, Instant::now());
        next.succeed(&table, Instant::now());
        table = next;
        table.restrictions
    };
    assert_eq!(restrictions(&config), 0, "the same");
    config.listeners[0].timeouts.idle = Some(Duration::from_secs(7));
    config.upstreams[0] = upstream("u", &["127.0.0.1:2"]);
    config.routes[0].backends[0].weight = 5;
    assert_eq!(restrictions(&config), 0, "nothing of this is about who may go where");
    config.listeners[0].deny = vec!["10.9.0.0/16".parse().unwrap()];
    assert_eq!(restrictions(&config), 1);
    config.listeners[0].allow = vec!["10.0.0.0/8".parse().unwrap()];
    assert_eq!(restrictions(&config), 2);
    config.routes.push(route("near", "a", &["10.1.0.0/16"], "v"));
    assert_eq!(restrictions(&config), 3);
    config.routes[0].backends[0].upstream = "v".into();
    assert_eq!(restrictions(&config), 4);
    assert_eq!(restrictions(&config), 4);
    let listener = &table.listeners[0];
    let permits = |client: &str, upstream: &str| listener.permits(from(client), &upstream.into());
    assert!(permits("10.1.0.1", "v") && !permits("10.1.0.1", "u"));
    assert!(!permits("10.9.0.1", "v") && !permits("192.0.2.1", "v"));
}

/// Those that are back are the ones that are well then.
#[test]
fn in_a_panic_nobody_starts_slowly() {
    let mut config = config();
    config.upstreams = vec![upstream("u", &["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"])];
    config.upstreams[0].slow_start = Some(Duration::from_secs(60));
    let table = compile(&config, &none(), &RouteTable::empty(), Instant::now());
    assert_eq!(table.upstreams["u"].slow_start_now(), Some(Duration::from_secs(60)));
    for endpoint in &table.upstreams["u"].endpoints[..2] {
        endpoint.state.health.set(false);
    }
    let next = compile(&config, &none(), &table, Instant::now());
    assert_eq!(next.upstreams["u"].slow_start_now(), None);
}
