//! After a scale-out, connections of endpoints above their fair share end little by little, and nothing else does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    Driver, Endpoint, Proxy, Settings, connect, eventually, on_both_drivers, round_trip, stays_silent,
    until_still,
};

on_both_drivers!(
    the_spread_becomes_even,
    after_a_pause_it_goes_on,
    a_budget_bounds_it,
    it_becomes_even_within_the_budget,
    a_dry_run_only_counts,
    the_young_and_the_busy_stay,
);

const UNANSWERED: &[u8] = b"anybody there?";
const QUICK: &str = "rebalance: {percentPerMinute: 6000, minAge: 0s}";

fn held(proxy: &Proxy, count: usize) -> Vec<TcpStream> {
    let connections = (0..count).map(|_| {
        let mut stream = connect(proxy.address);
        round_trip(&mut stream);
        stream
    });
    connections.collect()
}

fn active(proxy: &Proxy) -> Vec<f64> {
    let table: serde_json::Value =
        serde_json::from_str(&crate::support::admin_get(proxy.admin, "/table")).unwrap();
    let endpoints = table["upstreams"][0]["endpoints"].as_array().unwrap();
    endpoints.iter().map(|endpoint| endpoint["active"].as_f64().unwrap()).collect()
}

fn rebalanced(proxy: &Proxy) -> f64 {
    proxy.metric("sheave_upstream_rebalanced_connections_total", &[])
}

/// Those that Sheave has closed.
fn take_ended(connections: &mut Vec<TcpStream>) -> usize {
    let before = connections.len();
    connections.retain(|stream| {
        stream.set_nonblocking(true).unwrap();
        let is_open =
            stream.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).unwrap();
        is_open
    });
    before - connections.len()
}

fn the_spread_becomes_even(driver: Driver) {
    let endpoints: Vec<Endpoint> = (0..4).map(|_| Endpoint::echo()).collect();
    let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
    let settings = |count: usize| Settings::new(driver, &addresses[..count]).upstream(QUICK);
    let proxy = Proxy::start(&settings(2));
    let mut connections = held(&proxy, 80);
    assert_eq!(active(&proxy), [40.0, 40.0]);
    proxy.reload(&settings(4)).unwrap();
    // Clients come back, as they do.
    let spread = || {
        let ended = take_ended(&mut connections);
        connections.extend(held(&proxy, ended));
        active(&proxy)
    };
    let is_even =
        |active: &Vec<f64>| active.iter().sum::<f64>() == 80.0 && active.iter().all(|one| *one <= 21.0);
    let active = eventually("an even spread", spread, is_even);
    assert!(active.iter().all(|one| *one >= 17.0), "{active:?}");
    let closed = rebalanced(&proxy);
    // On a busy machine what was closed is still there at the next look, and others are closed for it.
    assert!((30.0..=80.0).contains(&closed), "{closed} closed; 36 were too many, and as many had to move");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    for record in proxy.records(closed as usize) {
        assert_eq!(
            (&record["outcome"], &record["side"]),
            (&"rebalance".into(), &"sheave".into()),
            "{record}"
        );
    }
    assert_eq!(proxy.metric("sheave_upstream_excess_connections", &[]), 0.0);
    until_still("closings", || rebalanced(&proxy) as usize);
    assert_eq!(rebalanced(&proxy), closed, "an even spread is left alone");
}

fn after_a_pause_it_goes_on(driver: Driver) {
    let endpoints: Vec<Endpoint> = (0..3).map(|_| Endpoint::echo()).collect();
    let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
    let settings = |count: usize| Settings::new(driver, &addresses[..count]).upstream(QUICK);
    let proxy = Proxy::start(&settings(1));
    let mut connections = held(&proxy, 30);
    let mut closed = 0.0;
    for count in [2, 3] {
        proxy.reload(&settings(count)).unwrap();
        let look = || {
            let ended = take_ended(&mut connections);
            connections.extend(held(&proxy, ended));
            proxy.metric("sheave_upstream_excess_connections", &[])
        };
        eventually("no excess", look, |excess| *excess == 0.0);
        assert!(rebalanced(&proxy) > closed, "none was closed for {count} endpoints");
        closed = rebalanced(&proxy);
        // Longer than a closing may lag behind its moment.
        let calm = Instant::now();
        eventually("a pause", || calm.elapsed(), |pause| *pause > Duration::from_millis(1_500));
    }
}

fn a_budget_bounds_it(driver: Driver) {
    let (one, other) = (Endpoint::echo(), Endpoint::echo());
    // 60 connections, 200 a minute: one in 0.3 seconds.
    let rebalance = "rebalance: {percentPerMinute: 333.3, minAge: 0s}";
    let settings = |addresses: &[_]| Settings::new(driver, addresses).upstream(rebalance);
    let proxy = Proxy::start(&settings(&[one.address]));
    let connections = held(&proxy, 60);
    let started = Instant::now();
    proxy.reload(&settings(&[one.address, other.address])).unwrap();
    eventually("some closings", || rebalanced(&proxy), |closed| *closed >= 5.0);
    let closed = rebalanced(&proxy);
    let most = started.elapsed().as_secs_f64() * 200.0 / 60.0 + 2.0;
    assert!(closed <= most, "{closed} closed, {most} are due");
    drop(connections);
}

/// As on the cluster with 2 000 (tests/e2e/rebalance.rs): from two endpoints to four, and clients that come back.
fn it_becomes_even_within_the_budget(driver: Driver) {
    const HELD: usize = 240;
    // 500 % of 240 in a minute.
    const PER_SECOND: f64 = 20.0;
    // What a closing may lag behind its moment.
    const LAG: f64 = 1.5;
    let endpoints: Vec<Endpoint> = (0..4).map(|_| Endpoint::echo()).collect();
    let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
    let rebalance = "rebalance: {percentPerMinute: 500, minAge: 0s}";
    let settings = |count: usize| Settings::new(driver, &addresses[..count]).upstream(rebalance);
    let proxy = Proxy::start(&settings(2));
    let mut connections = held(&proxy, HELD);
    let started = Instant::now();
    proxy.reload(&settings(4)).unwrap();
    let look = || {
        let closed = rebalanced(&proxy);
        let most = (started.elapsed().as_secs_f64() + LAG) * PER_SECOND;
        assert!(closed <= most, "{closed} closed, {most} are due");
        let ended = take_ended(&mut connections);
        connections.extend(held(&proxy, ended));
        active(&proxy)
    };
    let is_even = |active: &Vec<f64>| {
        let (least, most) =
            (active.iter().copied().fold(f64::MAX, f64::min), active.iter().copied().fold(0.0, f64::max));
        active.iter().sum::<f64>() == HELD as f64 && most <= least * 1.2
    };
    eventually("max/min of 1.2", look, is_even);
    // Half of them have to move.
    let closed = rebalanced(&proxy);
    assert!(closed >= 100.0, "{closed} closed");
    let outcome = ["outcome=\"rebalance\""];
    eventually(
        "their outcome",
        || proxy.metric("sheave_listener_connections_total", &outcome),
        |ended| *ended >= closed,
    );
}

fn a_dry_run_only_counts(driver: Driver) {
    let (one, other) = (Endpoint::echo(), Endpoint::echo());
    let settings = |addresses: &[_]| {
        Settings::new(driver, addresses)
            .upstream("rebalance: {percentPerMinute: 6000, minAge: 0s, dryRun: true}")
    };
    let proxy = Proxy::start(&settings(&[one.address]));
    let mut connections = held(&proxy, 20);
    proxy.reload(&settings(&[one.address, other.address])).unwrap();
    eventually("a count", || rebalanced(&proxy), |count| *count >= 5.0);
    assert_eq!(
        proxy.metric("sheave_upstream_excess_connections", &[]),
        9.0,
        "20 less 10, and one is tolerated"
    );
    assert_eq!(take_ended(&mut connections), 0);
}

fn the_young_and_the_busy_stay(driver: Driver) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let one = Endpoint::start(move |mut stream| {
        let mut buffer = [0; 64];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if &buffer[..length] == UNANSWERED {
                counted.fetch_add(1, Ordering::Relaxed);
            } else if stream.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    });
    let other = Endpoint::echo();
    // On one worker, which chooses among all.
    let settings = |addresses: &[_], age: &str| {
        let rebalance = format!("rebalance: {{percentPerMinute: 6000, minAge: {age}}}");
        Settings { workers: 1, ..Settings::new(driver, addresses) }.upstream(&rebalance)
    };
    let proxy = Proxy::start(&settings(&[one.address], "1h"));
    let mut connections = held(&proxy, 20);
    proxy.reload(&settings(&[one.address, other.address], "1h")).unwrap();
    stays_silent(&connections[0], Duration::from_millis(2_500));
    assert_eq!((take_ended(&mut connections), rebalanced(&proxy)), (0, 0.0));
    // Whoever waits for an answer goes last: with 9 too many of 20, these eleven stay.
    let mut waiting = connections.split_off(9);
    waiting.iter_mut().for_each(|stream| stream.write_all(UNANSWERED).unwrap());
    eventually("questions at the endpoint", || asked.load(Ordering::Relaxed), |asked| *asked == 11);
    proxy.reload(&settings(&[one.address, other.address], "0s")).unwrap();
    eventually("nine closings", || rebalanced(&proxy), |closed| *closed == 9.0);
    let left = || {
        take_ended(&mut connections);
        connections.len()
    };
    eventually("the ends of those that wait for nothing", left, |left| *left == 0);
    assert_eq!(take_ended(&mut waiting), 0);
}
