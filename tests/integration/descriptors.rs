//! Few file descriptors and many clients: nobody is dropped.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::RwLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::support::{
    Driver, Endpoint, Process, Proxy, Settings, connect, eventually, metric, on_both_drivers, reset_on_close,
};

on_both_drivers!(
    three_hundred_clients_and_96_descriptors,
    clients_of_the_admin_port_take_nothing_from_others,
    no_more_than_max_connections_are_accepted
);

const CLIENTS: u32 = 300;

fn three_hundred_clients_and_96_descriptors(driver: Driver) {
    let echo = Endpoint::echo();
    let mut process =
        Process::start(&Settings::new(driver, &[echo.address]), |command| limit_descriptors(command, 96));
    let (listener, admin) = (process.listener("main"), process.admin());
    all_are_served_in_turn(listener, admin, |places| (8..=40).contains(&places));
    assert!(process.is_running(), "{}", process.log.get());
    let complaints: Vec<_> = process.log.json().into_iter().filter(|line| line["level"] == "ERROR").collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let outcomes = || {
        let lines = process.output.json();
        lines.iter().map(|line| line["outcome"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let outcomes = eventually("a line for each", outcomes, |outcomes| outcomes.len() == CLIENTS as usize);
    assert!(outcomes.iter().all(|outcome| outcome == "downstream_reset"), "{outcomes:?}");
}

/// Who holds connections to the admin port open must not use up what accepted connections need.
fn clients_of_the_admin_port_take_nothing_from_others(driver: Driver) {
    let echo = Endpoint::echo();
    let process =
        Process::start(&Settings::new(driver, &[echo.address]), |command| limit_descriptors(command, 96));
    let (listener, admin) = (process.listener("main"), process.admin());
    let silent: Vec<_> = (0..100).map(|_| connect(admin)).collect();
    all_are_served_in_turn(listener, admin, |places| (8..=40).contains(&places));
    drop(silent);
    assert!(!process.log.get().contains("Too many open files"), "{}", process.log.get());
}

fn no_more_than_max_connections_are_accepted(driver: Driver) {
    let echo = Endpoint::echo();
    let settings = Settings::new(driver, &[echo.address]).top("limits: {maxConnections: 7}");
    let proxy = Proxy::start(&settings);
    all_are_served_in_turn(proxy.address, proxy.admin, |places| places == 7);
    let records = proxy.records(CLIENTS as usize);
    assert!(records.iter().all(|record| record["outcome"] == "downstream_reset"), "{records:#?}");
}

const PROCESS_LIMIT: &str = "reason=\"process_limit\"";

/// Clients come all at once and each keeps its place until told. Those for whom there is no place wait, and are served
/// later; none sees an end before its answer.
fn all_are_served_in_turn(listener: SocketAddr, admin: SocketAddr, is_expected: impl Fn(u32) -> bool) {
    let number = |name: &str| metric(admin, name, &[]) as u32;
    let paused = || metric(admin, "sheave_accept_paused", &[PROCESS_LIMIT]) as u32;
    let places = number("sheave_connection_places_max");
    assert!(is_expected(places), "{places} places");
    let (gate, answered) = (RwLock::new(()), AtomicU32::new(0));
    thread::scope(|scope| {
        let closed = gate.write().unwrap();
        for client in 0..CLIENTS {
            let (gate, answered) = (&gate, &answered);
            let run = move || {
                let request = format!("{client:08}");
                let mut stream = connect(listener);
                stream.write_all(request.as_bytes()).unwrap();
                let mut answer = [0; 8];
                stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("client {client}: {error}"));
                assert_eq!(answer, request.as_bytes());
                answered.fetch_add(1, Ordering::Relaxed);
                // Ended by resets, the connections leave no ports behind that are waited out.
                reset_on_close(&stream);
                drop(gate.read());
            };
            thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, run).unwrap();
        }
        eventually("an answer for each place", || answered.load(Ordering::Relaxed), |count| *count == places);
        eventually("accepting is paused", paused, |paused| *paused >= 1);
        assert_eq!(number("sheave_connection_places_taken"), places);
        assert_eq!(number("sheave_accepted_connections_total"), places, "what has no place is not accepted");
        assert_eq!(answered.load(Ordering::Relaxed), places);
        drop(closed);
    });
    eventually("no place is taken", || number("sheave_connection_places_taken"), |taken| *taken == 0);
    eventually("accepting goes on", paused, |paused| *paused == 0);
    let process_limit = metric(admin, "sheave_accept_pauses_total", &[PROCESS_LIMIT]);
    assert!(process_limit >= 1.0 && process_limit == metric(admin, "sheave_accept_pauses_total", &[]));
    assert_eq!(number("sheave_accepted_connections_total"), CLIENTS);
    assert_eq!(number("sheave_accept_errors_total"), 0);
}

/// The same command as another process that has no more than this.
fn limit_descriptors(command: &mut Command, limit: u32) {
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(format!("ulimit -n {limit} && exec \"$@\"")).arg("sh");
    limited.arg(command.get_program()).args(command.get_args());
    limited.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    *command = limited;
}

#[test]
fn too_few_descriptors_are_refused_at_the_start() {
    let echo = Endpoint::echo();
    let mut process = Process::start(&Settings::new(Driver::Epoll, &[echo.address]), |command| {
        limit_descriptors(command, 20)
    });
    let status = process.wait();
    let said = process.log.get();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("RLIMIT_NOFILE is 20, and at least"), "{said}");
}
