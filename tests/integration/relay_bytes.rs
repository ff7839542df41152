//! Bytes arrive as they were sent, both ways, whatever their number and rhythm.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use crate::support::{Driver, Endpoint, Proxy, Settings, connect, on_both_drivers};

on_both_drivers!(
    bulk_is_identical_both_ways,
    one_byte_at_a_time,
    the_server_speaks_first,
    a_thousand_at_once
);

const BULK: usize = 256 * 1024 * 1024;

fn bulk_is_identical_both_ways(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(driver, &[echo.address]));
    let mut sender = connect(proxy.address);
    let mut receiver = sender.try_clone().unwrap();
    let sending = thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(1);
        let mut chunk = vec![0; 128 * 1024];
        for _ in 0..BULK / chunk.len() {
            random.fill(&mut chunk);
            sender.write_all(&chunk).unwrap();
        }
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut random = fastrand::Rng::with_seed(1);
    let (mut wanted, mut got) = (vec![0; 128 * 1024], vec![0; 128 * 1024]);
    for chunk in 0..BULK / wanted.len() {
        random.fill(&mut wanted);
        receiver.read_exact(&mut got).unwrap();
        assert!(wanted == got, "chunk {chunk} differs");
    }
    assert_eq!(receiver.read(&mut got).unwrap(), 0, "nothing follows");
    sending.join().unwrap();
    let record = proxy.record();
    assert_eq!(record["outcome"], "downstream_closed");
    assert_eq!(
        (record["bytes_received"].as_u64(), record["bytes_sent"].as_u64()),
        (Some(BULK as u64), Some(BULK as u64))
    );
    assert!(proxy.metric("sheave_worker_spliced_bytes_total", &[]) > 0.0, "bulk is spliced");
}

fn one_byte_at_a_time(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(driver, &[echo.address]));
    let mut client = connect(proxy.address);
    for byte in 0..=255_u8 {
        client.write_all(&[byte]).unwrap();
        let mut answer = [0];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [byte]);
    }
}

fn the_server_speaks_first(driver: Driver) {
    let endpoint = Endpoint::start(|mut stream| {
        stream.write_all(b"220 ready\r\n").unwrap();
        let mut line = [0; 6];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(b"221 bye\r\n").unwrap();
    });
    let proxy = Proxy::start(&Settings::new(driver, &[endpoint.address]));
    let mut client = connect(proxy.address);
    let mut greeting = [0; 11];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    client.write_all(b"QUIT\r\n").unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "221 bye\r\n");
    drop(client);
    assert_eq!(proxy.record()["outcome"], "upstream_closed");
}

fn a_thousand_at_once(driver: Driver) {
    let echo = Endpoint::echo();
    // More than the endpoint's backlog holds: some SYNs are sent again a second later, which is no failure here.
    let patient = "retry: {perRetry: {timeout: 20s}}, timeout: {tcp: {connectTimeout: 25s}}";
    let proxy = Proxy::start(&Settings::new(driver, &[echo.address]).upstream(patient));
    let mut clients: Vec<_> = (0..1_000).map(|_| connect(proxy.address)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(format!("{number:08}").as_bytes()).unwrap();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let mut answer = [0; 8];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, format!("{number:08}").as_bytes());
    }
    drop(clients);
    assert!(proxy.records(1_000).iter().all(|record| record["outcome"] == "downstream_closed"));
}
