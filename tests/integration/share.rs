//! Long connections are spread evenly over the workers, however the kernel deals them out.

use std::collections::HashSet;
use std::net::TcpStream;

use serde_json::Value;

use crate::support::{Driver, Endpoint, Proxy, Settings, connect, on_both_drivers, round_trip};

on_both_drivers!(a_worker_that_has_fewer_gets_more, one_worker_has_nobody_to_give_to);

fn hold(proxy: &Proxy, count: usize) -> impl Iterator<Item = TcpStream> {
    (0..count).map(|_| {
        let mut stream = connect(proxy.address);
        round_trip(&mut stream);
        stream
    })
}

fn count(live: &[Value], worker: u64) -> usize {
    live.iter().filter(|connection| connection["worker"] == worker).count()
}

fn given_away(proxy: &Proxy) -> f64 {
    proxy.metric("sheave_worker_given_away_connections_total", &[])
}

fn a_worker_that_has_fewer_gets_more(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(driver, &[echo.address]));
    let mut held: Vec<TcpStream> = hold(&proxy, 120).collect();
    let live = proxy.wait_for_live(held.len());
    let leaves = |connection: &&Value| connection["worker"] == 0;
    let of_one: HashSet<&str> =
        live.iter().filter(leaves).filter_map(|connection| connection["client"].as_str()).collect();
    held.retain(|stream| !of_one.contains(stream.local_addr().unwrap().to_string().as_str()));
    proxy.wait_for_live(held.len());
    let before = given_away(&proxy);
    // By chance alone, half of these would go to the worker that has many.
    held.extend(hold(&proxy, 120));
    let live = proxy.wait_for_live(held.len());
    let (one, other) = (count(&live, 0), count(&live, 1));
    assert!(one.abs_diff(other) <= 12, "{one} and {other} connections");
    assert!(given_away(&proxy) > before, "nothing was given away, and yet {one} and {other}");
    held.iter_mut().for_each(round_trip);
}

fn one_worker_has_nobody_to_give_to(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings { workers: 1, ..Settings::new(driver, &[echo.address]) });
    let held: Vec<TcpStream> = hold(&proxy, 20).collect();
    assert_eq!(count(&proxy.wait_for_live(held.len()), 0), held.len());
    assert_eq!(given_away(&proxy), 0.0);
}
