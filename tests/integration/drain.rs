//! The end of the process: who may still come, who goes first, who is cut.

mod blocked;
mod pace;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    DEADLINE, Driver, Endpoint, Load, Process, Settings, admin_request, connect, echoed, eventually,
    exchange, on_both_drivers, say_bye,
};

on_both_drivers!(
    from_leaving_to_the_exit,
    whoever_connected_before_the_close_is_served,
    what_waits_in_the_accept_queues_is_served,
    active_ones_are_cut_at_the_deadline,
    a_second_signal_ends_it_now,
    who_waits_for_an_answer_is_not_idle,
);

/// Far less than any `drain.timeout` that should not be waited out, and ample on a busy machine.
const PROMPTLY: Duration = Duration::from_secs(15);

fn start(driver: Driver, endpoint: &Endpoint, drain: &str, more: &str) -> Process {
    let settings = Settings::new(driver, &[endpoint.address]).top(&format!("drain: {{{drain}}}\n{more}"));
    Process::start(&settings, |_| {})
}

fn wait_for_log(process: &Process, text: &str) {
    eventually(&format!("{text:?} in the log"), || process.log.get(), |log| log.contains(text));
}

/// Exit code 0.
fn assert_done(process: &mut Process) {
    let status = process.wait();
    assert_eq!(status.code(), Some(0), "{status}; the log: {}", process.log.get());
}

fn probe(admin: SocketAddr, path: &str) -> u16 {
    admin_request(admin, "GET", path).0
}

fn outcomes(process: &Process, count: usize) -> Vec<String> {
    let records = eventually("records", || process.output.json(), |records| records.len() >= count);
    records.iter().map(|record| record["outcome"].as_str().unwrap().to_owned()).collect()
}

fn from_leaving_to_the_exit(driver: Driver) {
    let echo = Endpoint::polite();
    let mut process = start(driver, &echo, "delay: 1s, timeout: 60s", "");
    let (address, admin) = (process.listener("main"), process.admin());
    let long = Load::long(connect(address));
    let probes = |admin| ["/livez", "/readyz", "/healthz/lb"].map(|path| probe(admin, path));
    assert_eq!(probes(admin), [200, 200, 200]);
    process.signal(Signal::TERM);
    wait_for_log(&process, "leaving");
    assert_eq!(probes(admin), [200, 200, 503]);
    exchange(address).unwrap();
    wait_for_log(&process, "draining");
    eventually("draining probes", || probes(admin), |statuses| *statuses == [200, 503, 503]);
    let refused = TcpStream::connect_timeout(&address, DEADLINE).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    process.signal(Signal::HUP);
    wait_for_log(&process, "not reloaded: the process is draining");
    let before = long.exchanges();
    eventually("the active one goes on", || long.exchanges(), |now| *now > before + 100);
    let ended = Instant::now();
    long.stop().unwrap();
    assert_done(&mut process);
    assert!(ended.elapsed() < PROMPTLY, "{:?}", ended.elapsed());
    assert_eq!(outcomes(&process, 2), ["upstream_closed", "downstream_closed"]);
}

/// Connects and exchanges until connecting is refused; how often that went well.
fn until_refused(address: SocketAddr) -> JoinHandle<usize> {
    thread::spawn(move || {
        for served in 0.. {
            let mut stream = match TcpStream::connect_timeout(&address, DEADLINE) {
                Ok(stream) => stream,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return served,
                Err(error) => panic!("connecting after {served} served: {error}"),
            };
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            say_bye(&mut stream).unwrap_or_else(|error| panic!("cut after {served} served: {error}"));
        }
        unreachable!("the loop has no other end")
    })
}

fn whoever_connected_before_the_close_is_served(driver: Driver) {
    let echo = Endpoint::polite();
    let mut process = start(driver, &echo, "delay: 200ms, timeout: 60s", "");
    let address = process.listener("main");
    let clients: Vec<_> = (0..24).map(|_| until_refused(address)).collect();
    eventually("traffic", || echo.accepted(), |accepted| *accepted > 50);
    process.signal(Signal::TERM);
    let served: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert_done(&mut process);
    assert_eq!(outcomes(&process, served), vec!["upstream_closed"; served]);
}

/// Two connections take all places there are, so that the next ones are still waiting when the listeners close.
fn what_waits_in_the_accept_queues_is_served(driver: Driver) {
    let echo = Endpoint::polite();
    let mut process = start(driver, &echo, "delay: 0s, timeout: 60s", "limits: {maxConnections: 2}");
    let address = process.listener("main");
    let mut holders = [connect(address), connect(address)];
    for holder in &mut holders {
        echoed(holder, b"hold").unwrap();
    }
    let holders = holders.map(Load::long);
    let mut waiting: Vec<TcpStream> = (0..20).map(|_| connect(address)).collect();
    process.signal(Signal::TERM);
    wait_for_log(&process, "draining");
    // A SYN gets no answer while the queues are emptied. Whoever came before that waits like the others, and leaves.
    let mut early = 0;
    while TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok() {
        early += 1;
    }
    for holder in holders {
        holder.stop().unwrap();
    }
    let clients = waiting.drain(..).map(|mut client| thread::spawn(move || echoed(&mut client, b"waited")));
    let clients: Vec<_> = clients.collect();
    for client in clients {
        client.join().unwrap().unwrap();
    }
    assert_done(&mut process);
    let all = 22 + early;
    assert_eq!(outcomes(&process, all), vec!["downstream_closed"; all]);
}

fn active_ones_are_cut_at_the_deadline(driver: Driver) {
    let echo = Endpoint::polite();
    let mut process = start(driver, &echo, "delay: 0s, timeout: 3s", "");
    let address = process.listener("main");
    let loads: Vec<Load> = (0..4).map(|_| Load::long(connect(address))).collect();
    eventually("traffic", || echo.accepted(), |accepted| *accepted == 4);
    let asked = Instant::now();
    process.signal(Signal::TERM);
    assert_done(&mut process);
    let after = asked.elapsed();
    assert!(after >= Duration::from_millis(2_980) && after < PROMPTLY, "{after:?}");
    for load in loads {
        load.stop().unwrap_err();
    }
    assert_eq!(outcomes(&process, 4), ["drain"; 4]);
}

fn a_second_signal_ends_it_now(driver: Driver) {
    for (signal, delay, phase) in [(Signal::TERM, "0s", "draining"), (Signal::INT, "60s", "leaving")] {
        let echo = Endpoint::polite();
        let mut process = start(driver, &echo, &format!("delay: {delay}, timeout: 60s"), "");
        let load = Load::long(connect(process.listener("main")));
        eventually("traffic", || load.exchanges(), |exchanges| *exchanges > 0);
        process.signal(signal);
        wait_for_log(&process, phase);
        let before = load.exchanges();
        eventually("it goes on", || load.exchanges(), |now| *now > before + 50);
        if phase == "draining" {
            // The other worker has nothing to wait for.
            eventually("one worker left", || workers(&process), |workers| *workers == 1);
        }
        let asked = Instant::now();
        process.signal(signal);
        assert_done(&mut process);
        assert!(asked.elapsed() < PROMPTLY, "{phase}: {:?}", asked.elapsed());
        load.stop().unwrap_err();
        assert_eq!(outcomes(&process, 1), ["drain"], "{phase}");
    }
}

/// Threads of workers.
fn workers(process: &Process) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let names =
        threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with("sheave-worker")).count()
}

#[test]
fn a_posted_drain_is_the_same_end_and_asking_again_is_no_second_signal() {
    let echo = Endpoint::polite();
    let mut process = start(Driver::Epoll, &echo, "delay: 200ms, timeout: 60s", "");
    let (address, admin) = (process.listener("main"), process.admin());
    let long = Load::long(connect(address));
    eventually("traffic", || long.exchanges(), |exchanges| *exchanges > 0);
    let (status, body) = admin_request(admin, "POST", "/drain");
    assert_eq!(status, 202, "{body}");
    wait_for_log(&process, "draining");
    let (status, body) = admin_request(admin, "POST", "/drain");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["phase"]), (202, &Value::from("draining")));
    let before = long.exchanges();
    eventually("the active one goes on", || long.exchanges(), |now| *now > before + 100);
    assert!(process.is_running());
    // As the kubelet does after a preStop hook: this is the first signal.
    process.signal(Signal::TERM);
    let before = long.exchanges();
    eventually("the active one still goes on", || long.exchanges(), |now| *now > before + 100);
    assert!(process.is_running());
    long.stop().unwrap();
    assert_done(&mut process);
}

#[test]
fn a_web_page_cannot_ask_for_a_drain() {
    let echo = Endpoint::polite();
    let mut process = start(Driver::Epoll, &echo, "delay: 0s, timeout: 1s", "");
    let mut page = connect(process.admin());
    let request = "POST /drain HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    page.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    page.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert_eq!(probe(process.admin(), "/healthz/lb"), 200);
    process.signal(Signal::TERM);
    assert_done(&mut process);
}

/// A request whose answer takes longer than anything counts as idle for.
fn who_waits_for_an_answer_is_not_idle(driver: Driver) {
    let (let_go, held) = std::sync::mpsc::sync_channel::<()>(1);
    let held = std::sync::Mutex::new(held);
    let endpoint = Endpoint::start(move |mut stream| {
        let mut question = [0; 8];
        stream.read_exact(&mut question).unwrap();
        held.lock().unwrap().recv().ok();
        stream.write_all(b"answer").unwrap();
    });
    let mut process = start(driver, &endpoint, "delay: 0s, timeout: 20s", "");
    let mut client = connect(process.listener("main"));
    client.write_all(b"question").unwrap();
    let mut other = connect(process.listener("main"));
    process.signal(Signal::TERM);
    // One that says nothing is idle, and closed within the first half.
    assert_eq!(other.read(&mut [0]).unwrap(), 0);
    let_go.send(()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
    drop(client);
    assert_done(&mut process);
}

/// Nothing is live, so nothing is waited for.
#[test]
fn an_interrupt_ends_an_unused_process_promptly() {
    let echo = Endpoint::polite();
    let mut process = start(Driver::Epoll, &echo, "delay: 0s, timeout: 60s", "");
    process.listener("main");
    process.admin();
    let asked = Instant::now();
    process.signal(Signal::INT);
    assert_done(&mut process);
    assert!(asked.elapsed() < PROMPTLY, "{:?}", asked.elapsed());
    let log = process.log.get();
    assert!(log.contains("drained"), "{log}");
}
