//! How long choosing an endpoint takes, by the number of endpoints.
//!
//! `cargo bench --bench pick`. CPU time of this thread, so that a busy machine does not show, with 1000 connections held
//! and the clock read once for each choice, as a worker does.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::Instant;

use sheave::balance::{Tried, pick};
use sheave::config::Config;
use sheave::routing::{Findings, RouteTable, Upstream, compile};

const HELD: usize = 1_000;
const TYPES: [&str; 5] = ["RoundRobin", "LeastConnections", "Random", "PeakEWMA", "ConsistentHash"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("{:<17} {:>10} {:>12}", "type", "endpoints", "ns/choice");
    for endpoints in [10, 1_000, 10_000] {
        for kind in TYPES {
            let table = table(kind, endpoints)?;
            let upstream = table.upstreams.get("main").ok_or("no upstream")?;
            // Looking at all of them takes its time.
            let picks = if kind == "LeastConnections" { 20_000_000 / endpoints } else { 1_000_000 };
            let nanos = measure(upstream, picks.min(1_000_000))?;
            println!("{kind:<17} {endpoints:>10} {nanos:>12.0}");
        }
    }
    Ok(())
}

fn table(kind: &str, endpoints: usize) -> Result<RouteTable, Box<dyn Error>> {
    let mut text = "listeners: [{name: main, address: \"127.0.0.1:1\"}]\n\
                    routes: [{name: main, listener: main, backendRefs: [{upstream: main}]}]\n"
        .to_owned();
    writeln!(text, "upstreams: [{{name: main, loadBalancer: {{type: {kind}}}, endpoints: [")?;
    for number in 0..u32::try_from(endpoints)? {
        writeln!(text, "  {{address: \"{}:80\"}},", Ipv4Addr::from_bits(0x0a00_0000 + number))?;
    }
    text.push_str("]}]\n");
    let config = Config::parse(&text, "bench").map_err(|errors| errors.to_string())?;
    Ok(compile(&config, &Findings::default(), &RouteTable::empty(), Instant::now()))
}

fn measure(upstream: &Upstream, picks: usize) -> Result<f64, Box<dyn Error>> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut held = VecDeque::with_capacity(HELD + 1);
    let started = cpu_nanos()?;
    for _ in 0..picks {
        let mut tried = Tried::none(Ipv4Addr::from_bits(random.u32(..)).into());
        let place = upstream.state.take_place().ok_or("no place")?;
        let picked = pick(upstream, &mut tried, &mut random, Instant::now()).ok_or("nothing to choose")?;
        held.push_back((picked, place));
        if held.len() > HELD {
            held.pop_front();
        }
    }
    Ok((cpu_nanos()? - started) / picks as f64)
}

/// proc_pid_schedstat(5): the first number is the time on a CPU.
fn cpu_nanos() -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().ok_or("empty")?.parse()?)
}
