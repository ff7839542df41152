//! How long finding a route takes, by the number of routes, and choosing an endpoint, by the number of endpoints.
//!
//! `cargo bench --bench pick`. CPU time of this thread, so that a busy machine does not show; choices with 1 000 to 2 000
//! connections held.

use std::error::Error;
use std::fmt::Write;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use sheave::balance::{Tried, pick};
use sheave::config::Config;
use sheave::routing::{Asked, Findings, RouteTable, Upstream, compile};

const HELD: usize = 1_000;
const TYPES: [&str; 5] = ["RoundRobin", "LeastConnections", "Random", "PeakEWMA", "ConsistentHash"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("{:<17} {:>10} {:>12}", "matched by", "routes", "ns/route");
    for routes in [1, 100, 5_000] {
        for by in ["hostname", "wildcard", "source", "protocol"] {
            println!("{by:<17} {routes:>10} {:>12.0}", find_routes(by, routes)?);
        }
    }
    println!("{:<17} {:>10} {:>12}", "type", "endpoints", "ns/choice");
    for endpoints in [10, 1_000, 10_000] {
        for kind in TYPES {
            let table = table(kind, endpoints)?;
            let upstream = table.upstreams.get("main").ok_or("no upstream")?;
            let nanos = measure(upstream, 1_000_000)?;
            println!("{kind:<17} {endpoints:>10} {nanos:>12.0}");
        }
    }
    Ok(())
}

/// Each route is asked for as often as every other, and one time in ten nothing is there.
fn find_routes(by: &str, routes: usize) -> Result<f64, Box<dyn Error>> {
    const FINDS: usize = 1_000_000;
    let mut text =
        "listeners: [{name: main, address: \"127.0.0.1:1\", protocol: TLS, tls: {mode: Passthrough}}]\n\
                    upstreams: [{name: main, endpoints: [{address: \"127.0.0.1:2\"}]}]\nroutes:\n"
            .to_owned();
    let network =
        |number: usize| Ipv4Addr::from_bits(0x0a00_0000 + (u32::try_from(number).unwrap_or(0) << 4));
    for number in 0..routes {
        let matched = match by {
            "hostname" => format!("hostnames: [tenant-{number}.db.example.com]"),
            "wildcard" => format!("hostnames: [\"*.tenant-{number}.db.example.com\"]"),
            "protocol" => {
                format!("hostnames: [\"*.tenant-{number}.db.example.com\"], alpnProtocols: [h2, imap]")
            }
            _ => format!("sources: [{}/28]", network(number)),
        };
        writeln!(
            text,
            "  - {{name: r{number}, listener: main, {matched}, backendRefs: [{{upstream: main}}]}}"
        )?;
    }
    let config = Config::parse(&text, "bench").map_err(|errors| errors.to_string())?;
    let table = compile(&config, &Findings::default(), &RouteTable::empty(), Instant::now());
    let listener = table.listeners.first().ok_or("no listener")?;
    let asked: Vec<(String, IpAddr)> = (0..routes + routes.div_ceil(9))
        .map(|number| (format!("a.tenant-{number}.db.example.com"), network(number).into()))
        .map(|(name, client)| (name.replacen("a.", if by == "hostname" { "" } else { "a." }, 1), client))
        .collect();
    let offered: [Box<[u8]>; 2] = [b"h2".as_slice().into(), b"http/1.1".as_slice().into()];
    let started = cpu_nanos()?;
    let mut found = 0;
    for (name, client) in asked.iter().cycle().take(FINDS) {
        let asked = Asked { server_name: Some(black_box(name)), alpn: &offered, client: black_box(*client) };
        found += usize::from(listener.route_for(asked).is_some());
    }
    let nanos = (cpu_nanos()? - started) / FINDS as f64;
    if found == 0 || found == FINDS {
        return Err("it finds all, or nothing".into());
    }
    Ok(nanos)
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
    let before = RouteTable::empty();
    let mut table = compile(&config, &Findings::default(), &before, Instant::now());
    table.succeed(&before, Instant::now());
    Ok(table)
}

/// In batches, each held until the next is chosen. What a connection does besides is not part of it: taking its place, reading the
/// clock, and giving the endpoint back.
fn measure(upstream: &Upstream, picks: usize) -> Result<f64, Box<dyn Error>> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut held = Vec::new();
    let mut spent = 0.0;
    for _ in 0..picks / HELD {
        let mut batch = Vec::with_capacity(HELD);
        let places: Option<Vec<_>> = (0..HELD).map(|_| upstream.state.take_place()).collect();
        let now = Instant::now();
        let started = cpu_nanos()?;
        for place in places.ok_or("no place")? {
            let mut tried = Tried::none(Ipv4Addr::from_bits(random.u32(..)).into());
            let picked = pick(upstream, &mut tried, &mut random, now).ok_or("nothing to choose")?;
            batch.push((picked, place));
        }
        spent += cpu_nanos()? - started;
        held = batch;
    }
    drop(held);
    Ok(spent / picks as f64)
}

/// CPU time of this thread.
fn cpu_nanos() -> Result<f64, Box<dyn Error>> {
    let spent: Duration = clock_gettime(ClockId::ThreadCPUTime).try_into()?;
    Ok(spent.as_secs_f64() * 1e9)
}
