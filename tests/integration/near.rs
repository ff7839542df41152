//! Near endpoints come first, spares last, and each steps in for the others when these cannot.

use std::net::{SocketAddr, TcpStream};

use crate::support::{
    Bound, Driver, Endpoint, Proxy, Settings, admin_get, ask, connect, eventually, on_both_drivers,
    round_trip,
};

on_both_drivers!(
    those_in_the_zone_come_first,
    too_few_in_the_zone_are_helped,
    the_full_are_helped_by_others,
    spares_step_in_for_the_unhealthy,
);

/// Endpoints with what is said of each, such as `zone: a`.
fn settings(driver: Driver, endpoints: &[(SocketAddr, &str)], upstream: &str) -> Settings {
    let list: Vec<String> =
        endpoints.iter().map(|(address, extra)| format!("{{address: \"{address}\", {extra}}}")).collect();
    let settings = Settings::new(driver, &[endpoints[0].0]).top("kubernetes: {zone: a}");
    let all = format!("{{name: all, endpoints: [{}], {upstream}}}", list.join(", "));
    Settings { more_upstreams: vec![all], ..settings.route("backendRefs: [{upstream: all}]") }
}

fn nearness(proxy: &Proxy) -> String {
    let table: serde_json::Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
    table["upstreams"][0]["nearness"].as_str().unwrap_or_default().to_owned()
}

fn preferred(proxy: &Proxy) -> f64 {
    proxy.metric("sheave_upstream_preferred_endpoints", &["upstream=\"all\""])
}

fn echoes(count: usize) -> Vec<Endpoint> {
    (0..count).map(|_| Endpoint::echo()).collect()
}

fn accepted(endpoints: &[Endpoint]) -> Vec<usize> {
    endpoints.iter().map(Endpoint::accepted).collect()
}

fn those_in_the_zone_come_first(driver: Driver) {
    let echoes = echoes(5);
    let zones = ["zone: a", "zone: b", "zone: a", "zone: a", ""];
    let all: Vec<_> = echoes.iter().map(|echo| echo.address).zip(zones).collect();
    for balancer in ["RoundRobin", "LeastConnections", "Random", "PeakEWMA", "ConsistentHash"] {
        let before = accepted(&echoes);
        let proxy = Proxy::start(&settings(
            driver,
            &all,
            &format!("loadBalancer: {{type: {balancer}, zoneAware: {{}}}}"),
        ));
        assert_eq!((nearness(&proxy).as_str(), preferred(&proxy)), ("zone", 3.0), "{balancer}");
        for _ in 0..20 {
            assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()), "{balancer}");
        }
        let taken: Vec<usize> =
            accepted(&echoes).iter().zip(before).map(|(now, before)| now - before).collect();
        assert_eq!((taken[1], taken[4], taken.iter().sum::<usize>()), (0, 0, 20), "{balancer}: {taken:?}");
    }
}

fn too_few_in_the_zone_are_helped(driver: Driver) {
    let echoes = echoes(4);
    let zones = ["zone: a", "zone: b", "zone: a", "zone: b"];
    let all: Vec<_> = echoes.iter().map(|echo| echo.address).zip(zones).collect();
    let proxy = Proxy::start(&settings(driver, &all, "loadBalancer: {type: RoundRobin}"));
    assert_eq!((nearness(&proxy).as_str(), preferred(&proxy)), ("", 4.0), "two are less than three");
    (0..8).for_each(|_| assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned())));
    assert_eq!(accepted(&echoes), [2, 2, 2, 2]);
    let two = "loadBalancer: {type: RoundRobin, zoneAware: {minEndpointsPerZone: 2}}";
    proxy.reload(&settings(driver, &all, two)).unwrap();
    (0..8).for_each(|_| assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned())));
    assert_eq!(accepted(&echoes), [6, 2, 6, 2]);
    let off = "loadBalancer: {type: RoundRobin, zoneAware: {preferLocal: false, minEndpointsPerZone: 2}}";
    proxy.reload(&settings(driver, &all, off)).unwrap();
    (0..8).for_each(|_| assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned())));
    assert_eq!(accepted(&echoes), [8, 4, 8, 4]);
}

fn the_full_are_helped_by_others(driver: Driver) {
    let echoes = echoes(2);
    let all = [(echoes[0].address, "zone: a"), (echoes[1].address, "zone: b")];
    let upstream = "loadBalancer: {zoneAware: {minEndpointsPerZone: 1}}, \
                    circuitBreaker: {perEndpoint: {maxConnections: 2}}";
    let proxy = Proxy::start(&settings(driver, &all, upstream));
    let held: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut stream = connect(proxy.address);
            round_trip(&mut stream);
            stream
        })
        .collect();
    assert_eq!(accepted(&echoes), [2, 1]);
    drop(held);
}

fn spares_step_in_for_the_unhealthy(driver: Driver) {
    let (down, echo, spares) = (Bound::new(), Endpoint::echo(), echoes(2));
    let spare = |index: usize| (spares[index].address, "priority: 1");
    let all = [spare(0), (down.address, ""), (echo.address, ""), spare(1)];
    let upstream = "healthCheck: {panicThreshold: 60, active: {interval: 50ms, jitter: 0s, unhealthyThreshold: 1, \
                    healthyThreshold: 1}}, loadBalancer: {type: RoundRobin}";
    let proxy = Proxy::start(&settings(driver, &all, upstream));
    let of_spares = |records: &[serde_json::Value]| {
        let addresses: Vec<String> = spares.iter().map(|spare| spare.address.to_string()).collect();
        records.iter().filter(|record| addresses.iter().any(|spare| record["endpoint"] == *spare)).count()
    };
    // One of two is less than 60 per cent, so the spares help out.
    eventually("the spares are used", || preferred(&proxy), |preferred| *preferred == 3.0);
    (0..12).for_each(|_| assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned())));
    let records = proxy.records(12);
    assert_eq!(of_spares(&records), 8, "two turns of three: {records:#?}");
    let back = down.listen();
    eventually("the spares rest", || preferred(&proxy), |preferred| *preferred == 2.0);
    (0..10).for_each(|_| assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned())));
    let records = proxy.records(22);
    assert_eq!(of_spares(&records[12..]), 0, "{records:#?}");
    drop(back);
}
