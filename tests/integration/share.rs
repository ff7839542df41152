//! Long connections are spread evenly over the workers, however the kernel deals them out.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

use crate::support::{
    Driver, Endpoint, Process, Proxy, Settings, connect, eventually, live, metric, on_both_drivers,
    reset_on_close, round_trip,
};

on_both_drivers!(a_thousand_connections_are_spread_evenly, one_worker_has_nobody_to_give_to);

const THOUSAND: usize = 1_000;
/// Both ends of a thousand connections on each driver, and what all the other tests have open.
const DESCRIPTORS: u64 = 4 * THOUSAND as u64 + 2_000;

fn hold(address: SocketAddr, count: usize) -> impl Iterator<Item = TcpStream> {
    (0..count).map(move |_| {
        let mut stream = connect(address);
        // Ended by resets, so many connections leave no ports behind that are waited out.
        reset_on_close(&stream);
        round_trip(&mut stream);
        stream
    })
}

/// As an echo, but without a thread for each: it answers one byte, and holds the connection.
fn holding() -> Endpoint {
    let held = Mutex::new(Vec::new());
    Endpoint::start(move |mut stream| {
        let mut byte = [0];
        if stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_ok() {
            held.lock().unwrap().push(stream);
        }
    })
}

fn raise_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let possible = maximum.unwrap_or(DESCRIPTORS);
    assert!(
        possible >= DESCRIPTORS,
        "{DESCRIPTORS} file descriptors are needed, and the hard limit is {possible}; raise it (ulimit -Hn)"
    );
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

fn given_away(admin: SocketAddr) -> f64 {
    metric(admin, "sheave_worker_given_away_connections_total", &[])
}

/// What each of two workers says, once they have so many between them.
fn active(admin: SocketAddr, count: usize) -> [usize; 2] {
    let of = |worker| metric(admin, "sheave_worker_active_connections", &[worker]) as usize;
    let look = || ["worker=\"0\"", "worker=\"1\""].map(of);
    eventually(&format!("{count} live connections"), look, |[one, other]| one + other == count)
}

fn assert_even(workers: [usize; 2]) {
    let [one, other] = workers.map(|count| count as f64);
    let ratio = one.max(other) / one.min(other);
    assert!(ratio <= 1.1, "{workers:?} connections: {ratio:.3}");
}

fn a_thousand_connections_are_spread_evenly(driver: Driver) {
    raise_descriptors();
    let endpoint = holding();
    let proxy = Process::start(&Settings::new(driver, &[endpoint.address]), |_| {});
    let (listener, admin) = (proxy.listener("main"), proxy.admin());
    let mut held: Vec<TcpStream> = hold(listener, THOUSAND).collect();
    assert_even(active(admin, THOUSAND));
    // One worker loses all that it has, as when its clients are those that leave.
    let live = live(admin);
    let leaves = |connection: &&Value| connection["worker"] == 0;
    let of_one: HashSet<&str> =
        live.iter().filter(leaves).filter_map(|connection| connection["client"].as_str()).collect();
    held.retain(|stream| !of_one.contains(stream.local_addr().unwrap().to_string().as_str()));
    let [none, all] = active(admin, held.len());
    assert_eq!((none, all), (0, held.len()));
    let before = given_away(admin);
    // By chance alone, half of these would go to the worker that has many: it would have three times as many.
    held.extend(hold(listener, THOUSAND - held.len()));
    let workers = active(admin, THOUSAND);
    assert_even(workers);
    assert!(given_away(admin) > before, "nothing was given away, and yet {workers:?}");
    assert_eq!(endpoint.accepted(), 2 * THOUSAND - all, "each connection reached the endpoint");
}

fn one_worker_has_nobody_to_give_to(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings { workers: 1, ..Settings::new(driver, &[echo.address]) });
    let held: Vec<TcpStream> = hold(proxy.address, 20).collect();
    let live = proxy.wait_for_live(held.len());
    assert!(live.iter().all(|connection| connection["worker"] == 0), "{live:#?}");
    assert_eq!(given_away(proxy.admin), 0.0);
}
