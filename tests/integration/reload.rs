//! New tables under load: nothing on listeners that stay is cut.

mod departures;
mod file;
mod policy;

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::{
    Driver, Endpoint, Load, Process, Proxy, Settings, admin_get, connect, echoed, eventually,
    eventually_some, exchange, on_both_drivers,
};

on_both_drivers!(
    five_hundred_reloads_under_load,
    a_changed_policy_keeps_the_socket,
    reloads_leave_no_descriptor_behind
);

const RELOADS: usize = 500;
const LONG_LIVED: usize = 8;

/// Endpoints, weights and policies change with every table; `stays` is in all of them.
fn variant(number: usize, driver: Driver, stays: SocketAddr, others: &[SocketAddr]) -> Settings {
    let mut endpoints = vec![stays];
    endpoints
        .extend(others.iter().enumerate().filter(|(index, _)| number >> index & 1 == 1).map(|(_, o)| *o));
    let balancer = ["RoundRobin", "LeastConnections", "Random"][number % 3];
    let mut settings = Settings::new(driver, &endpoints)
        .upstream(&format!(
            "loadBalancer: {{type: {balancer}}}, retry: {{numRetries: {}}}, drain: {{timeout: 5m}}",
            number % 4
        ))
        .listener(&format!("timeout: {{tcp: {{idleTimeout: {}s}}}}", 60 + number % 7));
    let (weight, other) = (1 + number % 5, others[number % others.len()]);
    settings.more_upstreams.push(format!(
        "{{name: weighted, endpoints: [{{address: \"{stays}\", weight: 2}}, {{address: \"{other}\", weight: \
         {weight}}}]}}"
    ));
    settings.more_routes.push(format!(
        "{{name: near, listener: main, sources: [127.0.0.0/8], backendRefs: [{{upstream: main, weight: 3}}, \
         {{upstream: weighted, weight: {weight}}}]}}"
    ));
    if number % 2 == 1 {
        settings.more_listeners.push("{name: guest, address: \"127.0.0.2:0\"}".to_owned());
        settings
            .more_routes
            .push("{name: guest, listener: guest, backendRefs: [{upstream: main}]}".to_owned());
    }
    settings
}

fn five_hundred_reloads_under_load(driver: Driver) {
    let (stays, others) = (Endpoint::polite(), [Endpoint::polite(), Endpoint::polite()]);
    let addresses = others.each_ref().map(|endpoint| endpoint.address);
    let proxy = Proxy::start(&Settings::new(driver, &[stays.address]));
    let long: Vec<Load> = (0..LONG_LIVED).map(|_| Load::long(connect(proxy.address))).collect();
    proxy.wait_for_live(LONG_LIVED);
    let short: Vec<Load> = (0..3).map(|_| Load::short(proxy.address)).collect();
    for number in 1..=RELOADS {
        proxy.reload(&variant(number, driver, stays.address, &addresses)).unwrap();
        if number % 50 == 0 {
            let table = table(proxy.admin);
            let generation = 1 + number as u64;
            assert_eq!(table["generation"], generation);
            assert_eq!(table["acknowledgedGenerations"], serde_json::json!([generation, generation]));
            let active = active(&table, "main", stays.address);
            // A short connection that has ended for its client may still be on its way out.
            assert!((LONG_LIVED..LONG_LIVED + 30).contains(&active), "{number}: {table:#}");
        }
    }
    let exchanges: usize = short.into_iter().map(|load| load.stop().unwrap()).sum();
    assert!(exchanges > RELOADS / 5, "the load was hardly one: {exchanges}");
    let settled = |table: &Value| active(table, "main", stays.address) == LONG_LIVED;
    eventually("only long-lived ones", || table(proxy.admin), settled);
    for load in long {
        assert!(load.stop().unwrap() > 0);
    }
    let none =
        |table: &Value| table["listeners"][0]["active"] == 0 && active(table, "main", stays.address) == 0;
    eventually("no active connections", || table(proxy.admin), none);
    let records = proxy.records(exchanges + LONG_LIVED);
    assert_eq!(records.len(), exchanges + LONG_LIVED);
    let ended = |outcome: &str| records.iter().filter(|record| record["outcome"] == outcome).count();
    assert_eq!(ended("upstream_closed"), exchanges, "{records:?}");
    assert_eq!(ended("downstream_closed"), LONG_LIVED, "{records:?}");
}

fn a_changed_policy_keeps_the_socket(driver: Driver) {
    let echo = Endpoint::polite();
    let settings = Settings::new(driver, &[echo.address]).top("limits: {maxConnections: 2}");
    let proxy = Proxy::start(&settings);
    let mut holders = [connect(proxy.address), connect(proxy.address)];
    for holder in &mut holders {
        echoed(holder, b"hold").unwrap();
    }
    let waiting: Vec<Load> = (0..6).map(|_| Load::short(proxy.address)).collect();
    let policy = "timeout: {tcp: {idleTimeout: 20s}}, tcpKeepalive: {idleTime: 9s}, connection: {limit: 100}";
    proxy.reload(&settings.clone().listener(policy)).unwrap();
    assert_eq!(proxy.metric("sheave_accepted_connections_total", &[]), 2.0, "the others wait");
    drop(holders);
    eventually(
        "all that waited are served",
        || waiting.iter().map(Load::exchanges).collect::<Vec<_>>(),
        |exchanges| exchanges.iter().all(|count| *count > 0),
    );
    for load in waiting {
        load.stop().unwrap();
    }
}

fn reloads_leave_no_descriptor_behind(driver: Driver) {
    let (stays, other) = (Endpoint::polite(), Endpoint::polite());
    let process = Process::start(&variant(0, driver, stays.address, &[other.address]), |_| {});
    let (address, admin) = (process.listener("main"), process.admin());
    exchange(address).unwrap();
    let before = eventually("descriptors", || descriptors(&process), |count| *count > 0);
    for number in 1..=60 {
        let settings = variant(number, driver, stays.address, &[other.address]);
        replace(&process, &settings.yaml());
        let generation = generation(&table(admin));
        process.signal(rustix::process::Signal::HUP);
        eventually("the next table", || self::generation(&table(admin)), |now| *now > generation);
        exchange(address).unwrap();
    }
    // A few for admin connections; a leak of one for each of the reloads would be 30 and more.
    eventually("as many descriptors as before", || descriptors(&process), |now| *now <= before + 2);
    assert!(threads(&process) <= 12, "threads: {}", threads(&process));
}

fn descriptors(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count()
}

fn threads(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap().count()
}

/// Puts another file in the configuration's place, as editors do.
fn replace(process: &Process, yaml: &str) {
    let next = process.config.with_extension("next");
    std::fs::write(&next, yaml).unwrap();
    std::fs::rename(next, &process.config).unwrap();
}

fn table(admin: SocketAddr) -> Value {
    serde_json::from_str(&admin_get(admin, "/table")).unwrap()
}

fn generation(table: &Value) -> u64 {
    table["generation"].as_u64().unwrap()
}

/// The count of an endpoint that is in the table.
fn active(table: &Value, upstream: &str, endpoint: SocketAddr) -> usize {
    let upstreams = table["upstreams"].as_array().unwrap();
    let upstream = upstreams.iter().find(|found| found["name"] == upstream).unwrap();
    let endpoints = upstream["endpoints"].as_array().unwrap();
    let found = endpoints.iter().find(|found| found["address"] == endpoint.to_string()).unwrap();
    usize::try_from(found["active"].as_u64().unwrap()).unwrap()
}
