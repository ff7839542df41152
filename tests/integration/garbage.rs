//! Ten thousand first flights that are no good, at a process of its own: it goes on serving, and holds nothing back.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;

use crate::support::{
    Authority, Driver, Endpoint, Process, Settings, ask_securely, connect, eventually, metric,
    on_both_drivers, shake_hands,
};

on_both_drivers!(ten_thousand_bad_beginnings_leave_nothing_behind);

const FLIGHTS: usize = 10_000;
/// What the allocator may take in the meantime without anything being held, in KiB. A kilobyte held of each is much more.
const GROWTH_MAX: u64 = 4 * 1024;
/// After so many times it has what it will have, also on a busy machine, where more clients linger at once.
const ROUNDS_MAX: usize = 5;

fn ten_thousand_bad_beginnings_leave_nothing_behind(driver: Driver) {
    let (authority, echo) = (Authority::new(), Endpoint::echo());
    let certificate = authority.certify(&["a.test"]);
    let tls = |start: &str| {
        format!(
            "protocol: TLS, tls: {{mode: Terminate, certificateRefs: [{}], startTls: {start}}}, \
             timeout: {{tcp: {{tlsHandshakeTimeout: 2s}}}}",
            certificate.reference()
        )
    };
    let mut settings = Settings::new(driver, &[echo.address]).listener(&tls("none"));
    settings.more_listeners = vec![
        format!("{{name: postgres, address: \"127.0.0.2:0\", {}}}", tls("postgres")),
        "{name: proxied, address: \"127.0.0.3:0\", proxyProtocol: {mode: Require, trusted: [127.0.0.0/8]}}"
            .to_owned(),
    ];
    settings.more_routes = ["postgres", "proxied"]
        .map(|name| format!("{{name: {name}, listener: {name}, backendRefs: [{{upstream: main}}]}}"))
        .to_vec();
    let process = Process::start(&settings, |_| {});
    let listeners = ["main", "postgres", "proxied"].map(|name| process.listener(name));
    let mut random = fastrand::Rng::with_seed(1);
    let seeds = seeds();
    let mut round = || {
        send(&mut random, &seeds, &listeners, FLIGHTS);
        await_none(process.admin());
        memory(process.id())
    };
    let mut memories = vec![round()];
    while memories.len() < 2 || memories[memories.len() - 1] > memories[memories.len() - 2] + GROWTH_MAX {
        assert!(memories.len() <= ROUNDS_MAX, "it grows with each {FLIGHTS} flights: {memories:?} KiB");
        memories.push(round());
    }

    let mut client = shake_hands(listeners[0], "a.test", authority.client()).unwrap();
    assert_eq!(ask_securely(&mut client, "hello").unwrap(), "hello");
    let complaints: Vec<_> = process.log.json().into_iter().filter(|line| line["level"] == "ERROR").collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// What real programs have sent: those of the fuzzing.
fn seeds() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let directories = ["client_hello", "postgres", "proxy_header"].map(|name| directory.join(name));
    let files = directories.iter().flat_map(|directory| fs::read_dir(directory).unwrap());
    files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
}

fn send(random: &mut fastrand::Rng, seeds: &[Vec<u8>], listeners: &[SocketAddr], count: usize) {
    for number in 0..count {
        let mut bytes = if random.u8(..) < 64 {
            (0..random.usize(0..600)).map(|_| random.u8(..)).collect()
        } else {
            seeds[random.usize(0..seeds.len())].clone()
        };
        for _ in 0..random.usize(0..4) {
            if !bytes.is_empty() {
                let at = random.usize(0..bytes.len());
                bytes[at] = random.u8(..);
            }
        }
        bytes.truncate(random.usize(0..=bytes.len()));
        let mut stream = connect(listeners[number % listeners.len()]);
        // It may be refused before all of it is sent.
        let sent = stream.write_all(&bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        if sent.is_ok() {
            let _answer_or_reset = stream.read(&mut [0; 1024]);
        }
    }
}

/// Waits until no connection is left.
fn await_none(admin: SocketAddr) {
    let live = || metric(admin, "sheave_listener_active_connections", &[]);
    eventually("no live connection", live, |live| *live == 0.0);
}

/// Memory of a process that is its own, in KiB: which pages of the program are mapped is the machine's doing.
fn memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
