//! Which upstream and which endpoint a connection goes to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Driver, Endpoint, Fault, FaultyEndpoint, Proxy, Settings, admin_get, ask, ask_from, closed_port, connect,
    eventually, on_both_drivers, reset_on_close, round_trip,
};

on_both_drivers!(
    least_connections_is_exact_across_workers,
    least_connections_fills_up_what_is_short,
    round_robin_is_exact_across_workers,
    round_robin_follows_the_weights,
    random_spreads_nearly_evenly,
    who_comes_later_starts_slowly,
    who_fails_is_slow_to_peak_ewma,
    who_answers_late_is_slow_to_peak_ewma,
    a_client_keeps_to_its_endpoint,
    a_client_is_who_the_header_names,
    a_hash_has_its_bound,
    backend_refs_follow_the_weights,
    the_most_specific_source_wins,
    without_a_route_the_client_is_reset,
);

fn least_connections_is_exact_across_workers(driver: Driver) {
    let endpoints = echoes(4);
    let proxy = Proxy::start(&Settings::new(driver, &addresses(&endpoints)));
    let held = hold(proxy.address, 400);
    assert_eq!(accepted(&endpoints), [100; 4]);
    assert_eq!(active(&proxy), [100; 4]);
    assert_eq!(live_per_endpoint(&proxy, &endpoints), [100; 4]);
    for worker in ["worker=\"0\"", "worker=\"1\""] {
        let accepted = proxy.metric("sheave_accepted_connections_total", &[worker]);
        assert!(accepted > 0.0, "both workers have some, or this proves little: {worker}");
    }
    drop(held);
    nothing_is_held(&proxy);
}

fn least_connections_fills_up_what_is_short(driver: Driver) {
    let endpoints = echoes(2);
    let mut settings = Settings::new(driver, &addresses(&endpoints));
    settings.weights = vec![3, 1];
    let proxy = Proxy::start(&settings);
    let held = hold(proxy.address, 80);
    assert_eq!(active(&proxy), [60, 20]);
    drop(held);
    nothing_is_held(&proxy);
    assert_eq!(accepted(&endpoints), [60, 20]);
    // One that is left at an endpoint is made up for.
    let one = hold(proxy.address, 1);
    let others = hold(proxy.address, 39);
    assert_eq!(active(&proxy), [30, 10]);
    drop((one, others));
    nothing_is_held(&proxy);
}

fn round_robin_is_exact_across_workers(driver: Driver) {
    let endpoints = echoes(4);
    let settings = Settings::new(driver, &addresses(&endpoints));
    let proxy = Proxy::start(&settings.upstream("loadBalancer: {type: RoundRobin}"));
    let held = hold(proxy.address, 100);
    assert_eq!(active(&proxy), [25; 4]);
    drop(held);
    nothing_is_held(&proxy);
    assert_eq!(accepted(&endpoints), [25; 4]);
}

fn round_robin_follows_the_weights(driver: Driver) {
    let endpoints = echoes(3);
    let mut settings = Settings::new(driver, &addresses(&endpoints));
    settings.weights = vec![3, 1, 0];
    let proxy = Proxy::start(&settings.upstream("loadBalancer: {type: RoundRobin}"));
    let held = hold(proxy.address, 80);
    assert_eq!(active(&proxy), [60, 20, 0]);
    drop(held);
    nothing_is_held(&proxy);
}

/// The better one of two each time: one random choice alone would spread 400 over 4 with a standard deviation of 9.
fn random_spreads_nearly_evenly(driver: Driver) {
    let endpoints = echoes(4);
    let settings = Settings::new(driver, &addresses(&endpoints));
    let proxy = Proxy::start(&settings.upstream("loadBalancer: {type: Random}"));
    let held = hold(proxy.address, 400);
    let counts = active(&proxy);
    assert!(counts.iter().all(|count| (90..=110).contains(count)), "{counts:?}");
    drop(held);
    nothing_is_held(&proxy);
}

/// Those that are there at first do not. Within an hour the share is what it is at first.
fn who_comes_later_starts_slowly(driver: Driver) {
    let endpoints = echoes(3);
    let addresses = addresses(&endpoints);
    let upstream = |kind: &str| format!("loadBalancer: {{type: {kind}, slowStart: {{window: 1h}}}}");
    let two = Settings::new(driver, &addresses[..2]).upstream(&upstream("LeastConnections"));
    let proxy = Proxy::start(&two);
    let held = hold(proxy.address, 20);
    assert_eq!(active(&proxy), [10, 10]);
    drop(held);
    nothing_is_held(&proxy);

    let three = Settings { endpoints: addresses.clone(), ..two };
    proxy.reload(&three).unwrap();
    let held = hold(proxy.address, 105);
    assert_eq!(active(&proxy), [50, 50, 5], "a tenth of its share");
    assert_eq!(slow_start(&proxy), [None, None, Some(10)]);
    drop(held);
    nothing_is_held(&proxy);

    for kind in ["RoundRobin", "Random"] {
        proxy.reload(&three.clone().upstream(&upstream(kind))).unwrap();
        let before = accepted(&endpoints)[2];
        drop(hold(proxy.address, 300));
        let got = accepted(&endpoints)[2] - before;
        assert!((1..=60).contains(&got), "{kind}: {got} of 300, and 100 would be its whole share");
        nothing_is_held(&proxy);
    }

    proxy.reload(&three.upstream("loadBalancer: {type: RoundRobin}")).unwrap();
    assert_eq!(slow_start(&proxy), [None; 3]);
    let held = hold(proxy.address, 30);
    assert_eq!(active(&proxy), [10; 3]);
    drop(held);
    nothing_is_held(&proxy);
}

/// Of the endpoints of the upstream `main`, in per cent.
fn slow_start(proxy: &Proxy) -> Vec<Option<u64>> {
    let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
    let endpoints = table["upstreams"][0]["endpoints"].as_array().unwrap();
    endpoints.iter().map(|endpoint| endpoint["slowStartPercent"].as_u64()).collect()
}

/// No breaker keeps connections from who refuses them; any other way of choosing would try it every other time.
fn who_fails_is_slow_to_peak_ewma(driver: Driver) {
    let echo = Endpoint::echo();
    let settings = Settings::new(driver, &[echo.address, closed_port()])
        .upstream("loadBalancer: {type: PeakEWMA}, circuitBreaker: {perEndpoint: {consecutiveFailures: 0}}");
    let proxy = Proxy::start(&settings);
    for _ in 0..60 {
        assert_eq!(ask_from(ip("127.0.0.1"), proxy.address, "hello"), Ok("hello".to_owned()));
    }
    let refused = proxy.metric("sheave_endpoint_failures_total", &[]);
    // One is how it learns; each further one means that the other took longer than was thought, on a busy machine.
    assert!(refused <= 15.0, "{refused} of 60 attempts went to who refuses");
    let millis = millis(&proxy, "connectMillis");
    assert!(millis[0].is_some(), "{millis:?}");
}

/// Its kernel accepts as fast as any other's.
fn who_answers_late_is_slow_to_peak_ewma(driver: Driver) {
    let (echo, late) =
        (Endpoint::echo(), FaultyEndpoint::start(Fault::SlowFirstByte(Duration::from_millis(200))));
    let settings =
        Settings::new(driver, &[echo.address, late.address]).upstream("loadBalancer: {type: PeakEWMA}");
    let proxy = Proxy::start(&settings);
    for _ in 0..60 {
        assert_eq!(ask_from(ip("127.0.0.1"), proxy.address, "hello"), Ok("hello".to_owned()));
    }
    // One is how it learns.
    assert!((1..=15).contains(&late.accepted()), "{} of 60 went to who answers late", late.accepted());
    let millis = millis(&proxy, "firstByteMillis");
    assert!(millis[1] > Some(50.0) && millis[0] < millis[1], "{millis:?}");
}

/// Of the endpoints of the upstream `main`.
fn millis(proxy: &Proxy, of: &str) -> Vec<Option<f64>> {
    let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
    let endpoints = table["upstreams"][0]["endpoints"].as_array().unwrap();
    endpoints.iter().map(|endpoint| endpoint[of].as_f64()).collect()
}

/// Also of another proxy, when its endpoint is down, and when another one leaves.
fn a_client_keeps_to_its_endpoint(driver: Driver) {
    let endpoints = echoes(4);
    let mut addresses = addresses(&endpoints);
    addresses.push(closed_port());
    let settings = Settings::new(driver, &addresses).upstream(
        "loadBalancer: {type: ConsistentHash}, circuitBreaker: {perEndpoint: {consecutiveFailures: 0}}",
    );
    let proxy = Proxy::start(&settings);
    let homes = homes(&proxy);
    assert_eq!(homes, self::homes(&proxy));
    let used: BTreeSet<&String> = homes.values().collect();
    assert!(used.len() > 1, "32 clients at one of four: {homes:?}");
    addresses.reverse();
    let other = Proxy::start(&Settings { endpoints: addresses.clone(), ..settings.clone() });
    assert_eq!(homes, self::homes(&other), "replicas agree");

    let left = addresses.remove(1).to_string();
    proxy.reload(&Settings { endpoints: addresses, ..settings }).unwrap();
    let after = self::homes(&proxy);
    let stays = |client: &&IpAddr| homes[*client] != left;
    let moved = homes.keys().filter(stays).filter(|client| homes[*client] != after[*client]).count();
    // A few in a hundred, and those whose first endpoint is the closed port and whose second left.
    assert!(moved <= 10, "{moved} of the others moved: {homes:?} {after:?}");
}

/// All of them come from one address, as they do behind another load balancer.
fn a_client_is_who_the_header_names(driver: Driver) {
    let endpoints = echoes(4);
    let settings =
        Settings::new(driver, &addresses(&endpoints)).upstream("loadBalancer: {type: ConsistentHash}");
    let proxy = Proxy::start(&settings);
    let behind = Proxy::start(&settings.listener("proxyProtocol: {mode: Require, trusted: [127.0.0.0/8]}"));
    let named =
        |client: IpAddr, address| ask(address, &format!("PROXY TCP4 {client} 192.0.2.1 4000 443\r\nhello"));
    assert_eq!(homes_of(&behind, named), homes(&proxy));
}

fn homes(proxy: &Proxy) -> BTreeMap<IpAddr, String> {
    homes_of(proxy, |client, address| ask_from(client, address, "hello"))
}

/// Where each of 32 clients ends up, by two connections that must agree.
fn homes_of(
    proxy: &Proxy,
    ask: impl Fn(IpAddr, SocketAddr) -> Result<String, ErrorKind>,
) -> BTreeMap<IpAddr, String> {
    let clients = || (1..=32).map(|number| IpAddr::from([127, 0, 1, number]));
    let before = proxy.lines.all().len();
    for client in clients().chain(clients()) {
        assert_eq!(ask(client, proxy.address), Ok("hello".to_owned()));
    }
    let mut homes = BTreeMap::new();
    for record in &proxy.records(before + 64)[before..] {
        let client: SocketAddr = record["client"].as_str().unwrap().parse().unwrap();
        let endpoint = record["endpoint"].as_str().unwrap();
        let home = homes.entry(client.ip()).or_insert_with(|| endpoint.to_owned());
        assert_eq!(home, endpoint, "{record}");
    }
    assert_eq!(homes.len(), 32);
    homes
}

/// All are one client's: without a bound one endpoint would have them all.
fn a_hash_has_its_bound(driver: Driver) {
    let endpoints = echoes(4);
    let settings = Settings::new(driver, &addresses(&endpoints));
    let proxy = Proxy::start(&settings.upstream("loadBalancer: {type: ConsistentHash}"));
    let few = hold(proxy.address, 10);
    let mut counts = active(&proxy);
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 0, 10]);
    let more = hold(proxy.address, 190);
    let counts = active(&proxy);
    // 200 over 4, a quarter more, and some that were chosen at the same moment.
    assert!(counts.iter().all(|count| *count <= 63 + 4), "{counts:?}");
    drop((few, more));
    nothing_is_held(&proxy);
}

fn backend_refs_follow_the_weights(driver: Driver) {
    let endpoints = echoes(3);
    let mut settings = Settings::new(driver, &addresses(&endpoints)[..1]);
    settings.route = "backendRefs: [{upstream: main, weight: 9}, {upstream: canary, weight: 1}, \
                      {upstream: off, weight: 0}]"
        .to_owned();
    settings.more_upstreams = vec![upstream("canary", &endpoints[1]), upstream("off", &endpoints[2])];
    let proxy = Proxy::start(&settings);
    let held = hold(proxy.address, 100);
    assert_eq!(accepted(&endpoints), [90, 10, 0]);
    drop(held);
    let records = proxy.records(100);
    for (upstream, count) in [("main", 90), ("canary", 10)] {
        assert_eq!(records.iter().filter(|record| record["upstream"] == upstream).count(), count);
    }
    nothing_is_held(&proxy);
}

fn the_most_specific_source_wins(driver: Driver) {
    let endpoints = echoes(3);
    let mut settings = Settings::new(driver, &addresses(&endpoints)[..1]);
    settings.more_routes = vec![
        "{name: wide, listener: main, sources: [127.0.0.0/29, 10.0.0.0/8], backendRefs: [{upstream: wide}]}"
            .to_owned(),
        "{name: narrow, listener: main, sources: [127.0.0.3/32], backendRefs: [{upstream: narrow}]}"
            .to_owned(),
    ];
    settings.more_upstreams = vec![upstream("wide", &endpoints[1]), upstream("narrow", &endpoints[2])];
    let proxy = Proxy::start(&settings);
    for (client, route) in
        [("127.0.0.2", "wide"), ("127.0.0.3", "narrow"), ("127.0.0.9", "main"), ("127.0.0.7", "wide")]
    {
        let before = proxy.lines.all().len();
        assert_eq!(ask_from(ip(client), proxy.address, "hello"), Ok("hello".to_owned()), "{client}");
        let record = proxy.records(before + 1)[before].clone();
        let way = (&record["route"], &record["upstream"], &record["outcome"]);
        assert_eq!(way, (&route.into(), &route.into(), &"downstream_closed".into()), "{client}: {record}");
    }
    assert_eq!(accepted(&endpoints), [1, 2, 1]);
}

fn without_a_route_the_client_is_reset(driver: Driver) {
    let echo = Endpoint::echo();
    let settings = Settings::new(driver, &[echo.address]);
    let proxy = Proxy::start(&settings.route("sources: [127.0.0.2/32], backendRefs: [{upstream: main}]"));
    assert_eq!(ask_from(ip("127.0.0.2"), proxy.address, "hello"), Ok("hello".to_owned()));
    proxy.records(1);
    for request in ["", "hello"] {
        assert_eq!(ask_from(ip("127.0.0.3"), proxy.address, request), Err(ErrorKind::ConnectionReset));
    }
    for record in &proxy.records(3)[1..] {
        assert_eq!((&record["outcome"], &record["side"]), (&"no_route".into(), &"sheave".into()), "{record}");
        assert!(record["route"].is_null() && record["upstream"].is_null(), "{record}");
    }
    assert_eq!(echo.accepted(), 1);
}

/// Connections made by several threads at once, each once it has had an answer.
fn hold(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    const THREADS: usize = 4;
    let open = |thread: usize| -> Vec<TcpStream> {
        let open_one = |_| {
            let mut stream = connect(address);
            round_trip(&mut stream);
            // Ended by resets, the connections leave no ports behind that are waited out.
            reset_on_close(&stream);
            stream
        };
        (thread..count).step_by(THREADS).map(open_one).collect()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || open(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn echoes(count: usize) -> Vec<Endpoint> {
    (0..count).map(|_| Endpoint::echo()).collect()
}

fn addresses(endpoints: &[Endpoint]) -> Vec<SocketAddr> {
    endpoints.iter().map(|endpoint| endpoint.address).collect()
}

fn accepted(endpoints: &[Endpoint]) -> Vec<usize> {
    endpoints.iter().map(Endpoint::accepted).collect()
}

fn upstream(name: &str, endpoint: &Endpoint) -> String {
    format!("{{name: {name}, endpoints: [{{address: \"{}\"}}]}}", endpoint.address)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Of all endpoints, upstream by upstream.
fn active(proxy: &Proxy) -> Vec<u64> {
    let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
    let endpoints =
        table["upstreams"].as_array().unwrap().iter().flat_map(|upstream| upstream["endpoints"].as_array());
    endpoints.flatten().map(|endpoint| endpoint["active"].as_u64().unwrap()).collect()
}

fn live_per_endpoint(proxy: &Proxy, endpoints: &[Endpoint]) -> Vec<usize> {
    let live = proxy.live();
    let of = |endpoint: &Endpoint| {
        live.iter().filter(|connection| connection["endpoint"] == endpoint.address.to_string()).count()
    };
    endpoints.iter().map(of).collect()
}

fn nothing_is_held(proxy: &Proxy) {
    eventually(
        "no connection on any endpoint",
        || active(proxy),
        |active| active.iter().all(|count| *count == 0),
    );
}
