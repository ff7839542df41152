//! A panic in a connection, a worker that dies, and keys that are worn out.
#![cfg(feature = "faults")]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Authority, Driver, Endpoint, Load, Process, Settings, admin_get, ask_from, connect, eventually, exchange,
    on_both_drivers, shake_hands,
};

on_both_drivers!(
    a_panic_ends_one_connection_and_nothing_else,
    a_dead_worker_ends_the_process,
    worn_out_keys_end_the_connection
);

const UNLUCKY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 9));
const PANICS: usize = 30;

fn start(driver: Driver, endpoint: &Endpoint, fault: &str) -> Process {
    let settings = Settings::new(driver, &[endpoint.address]).listener("connection: {limit: 10}");
    Process::start(&settings, |command| {
        command.env("SHEAVE_FAULT", format!("{fault}={UNLUCKY}"));
    })
}

/// More panics than the listener has places, so that a place that is not given back shows.
fn a_panic_ends_one_connection_and_nothing_else(driver: Driver) {
    let echo = Endpoint::polite();
    let mut process = start(driver, &echo, "connection-panic");
    let (address, admin) = (process.listener("main"), process.admin());
    let long = Load::long(connect(address));
    let short = Load::short(address);
    for _ in 0..PANICS {
        // EOF or RST, and nothing before it.
        let answer = ask_from(UNLUCKY, address, "");
        assert!(matches!(answer.as_deref(), Ok("") | Err(ErrorKind::ConnectionReset)), "{answer:?}");
    }
    let before = (long.exchanges(), short.exchanges());
    eventually(
        "the others go on",
        || (long.exchanges(), short.exchanges()),
        |now| now.0 > before.0 + 20 && now.1 > before.1 + 20,
    );
    let exchanges = short.stop().unwrap();
    long.stop().unwrap();
    let counts = || counts(admin);
    eventually("counts at 0", counts, |counts| *counts == [0, 0, 0]);
    exchange(address).unwrap();
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0), "{}", process.log.get());
    let all = PANICS + exchanges + 2;
    let records = eventually("records", || process.output.json(), |records| records.len() >= all);
    let unlucky = |record: &&Value| record["client"].as_str().unwrap().starts_with("127.0.0.9:");
    let (panicked, others): (Vec<&Value>, Vec<&Value>) = records.iter().partition(unlucky);
    assert_eq!((panicked.len(), others.len()), (PANICS, exchanges + 2));
    assert!(panicked.iter().all(|record| record["outcome"] == "internal"), "{panicked:?}");
    let clean = |record: &&Value| record["outcome"].as_str().unwrap().ends_with("_closed");
    assert!(others.iter().all(clean), "{others:?}");
}

/// Of the listener, of the endpoint, and places taken in the process.
fn counts(admin: SocketAddr) -> [u64; 3] {
    let table: Value = serde_json::from_str(&admin_get(admin, "/table")).unwrap();
    let metrics = admin_get(admin, "/metrics");
    let taken = metrics.lines().find_map(|line| line.strip_prefix("sheave_connection_places_taken "));
    [
        table["listeners"][0]["active"].as_u64().unwrap(),
        table["upstreams"][0]["endpoints"][0]["active"].as_u64().unwrap(),
        taken.unwrap().parse().unwrap(),
    ]
}

fn a_dead_worker_ends_the_process(driver: Driver) {
    let echo = Endpoint::polite();
    let mut process = start(driver, &echo, "worker-panic");
    let address = process.listener("main");
    exchange(address).unwrap();
    let answer = ask_from(UNLUCKY, address, "");
    assert!(matches!(answer.as_deref(), Ok("") | Err(ErrorKind::ConnectionReset)), "{answer:?}");
    assert_eq!(process.wait().code(), Some(1), "{}", process.log.get());
    let said = |log: &String| {
        log.contains("fault injected into a worker")
            && log.contains("the process ends so that it is started anew")
    };
    eventually("the reason in the log", || process.log.get(), said);
}

/// In TLS 1.2 there are no others: both sides hear that it ends.
fn worn_out_keys_end_the_connection(driver: Driver) {
    const RECORDS: usize = 100;
    let authority = Authority::new();
    let echo = Endpoint::echo();
    let settings = Settings::new(driver, &[echo.address]).listener(&format!(
        "protocol: TLS, tls: {{mode: Terminate, certificateRefs: [{}]}}",
        authority.certify(&["a.test"]).reference()
    ));
    let process = Process::start(&settings, |command| {
        command.env("SHEAVE_FAULT", format!("tls-records={RECORDS}"));
    });
    let config = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS12])
        .with_root_certificates(authority.roots())
        .with_no_client_auth();
    let mut client = shake_hands(process.listener("main"), "a.test", config).unwrap();
    let mut answers = 0;
    while answers <= RECORDS {
        client.write_all(b"a").unwrap();
        match client.read(&mut [0]) {
            Ok(0) => break,
            Ok(_) => answers += 1,
            Err(error) => panic!("after {answers} answers: {error}"),
        }
    }
    assert!((RECORDS / 2..RECORDS).contains(&answers), "{answers}");
    let record = &eventually("its record", || process.output.json(), |records| !records.is_empty())[0];
    assert_eq!(record["outcome"], "tls_keys_worn_out", "{record}");
}
