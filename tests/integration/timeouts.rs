//! Idle timeout, maximum duration, half-close timeout, keepalive.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use serde_json::Value;
use socket2::Socket;

use crate::support::{
    DEADLINE, Driver, Endpoint, FullEndpoint, Proxy, Settings, connect, eventually_some, on_both_drivers,
    stays_silent,
};

on_both_drivers!(
    the_smaller_idle_timeout_ends_a_silent_connection,
    what_the_client_sends_keeps_it_alive,
    what_the_endpoint_sends_keeps_it_alive,
    a_reader_that_stalls_is_idle,
    the_maximum_duration_ends_a_busy_connection,
    connections_made_together_end_apart,
    the_upstreams_maximum_duration_begins_with_the_connection,
    the_half_close_timeout_ends_what_is_left,
    the_half_close_timeout_is_one_of_silence,
    keepalive_is_set_on_both_sides,
);

/// An idle timeout for connections that are kept busy: long enough for a busy machine to send something in time.
const IDLE: Duration = Duration::from_millis(700);
const BETWEEN_BYTES: Duration = Duration::from_millis(70);
/// Bytes at this distance for more than twice the idle timeout.
const BYTES: usize = 22;

fn the_smaller_idle_timeout_ends_a_silent_connection(driver: Driver) {
    let (short, long) = ("timeout: {tcp: {idleTimeout: 400ms}}", "timeout: {tcp: {idleTimeout: 1h}}");
    for (listener, upstream) in [(short, long), (long, short), ("", short)] {
        let (ended, end) = flume::bounded(1);
        let endpoint = Endpoint::start(move |mut stream| {
            stream.read_exact(&mut [0]).unwrap();
            stream.write_all(b"b").unwrap();
            ended.send(stream.read(&mut [0]).map_err(|error| error.kind())).unwrap();
        });
        let settings = Settings::new(driver, &[endpoint.address]).listener(listener).upstream(upstream);
        let proxy = Proxy::start(&settings);
        let mut client = connect(proxy.address);
        client.write_all(b"a").unwrap();
        client.read_exact(&mut [0]).unwrap();
        let started = Instant::now();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "the client sees an end");
        assert_eq!(end.recv_timeout(DEADLINE), Ok(Ok(0)), "the endpoint sees an end");
        let record = proxy.record();
        // The clock of timeouts is a few milliseconds coarse.
        assert!(started.elapsed() >= Duration::from_millis(380), "{:?}: {record}", started.elapsed());
        ended_by_sheave(&record, "idle_timeout");
    }
}

fn what_the_client_sends_keeps_it_alive(driver: Driver) {
    let endpoint = Endpoint::start(|mut stream| {
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    });
    let proxy = Proxy::start(&idle_settings(driver, &endpoint));
    let mut client = connect(proxy.address);
    for _ in 0..BYTES {
        client.write_all(b"a").unwrap();
        stays_silent(&client, BETWEEN_BYTES);
    }
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    idle_at_last(&proxy.record(), BYTES, 0);
}

fn what_the_endpoint_sends_keeps_it_alive(driver: Driver) {
    let endpoint = Endpoint::start(|mut stream| {
        for _ in 0..BYTES {
            stream.write_all(b"a").unwrap();
            stays_silent(&stream, BETWEEN_BYTES);
        }
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
    let proxy = Proxy::start(&idle_settings(driver, &endpoint));
    let mut got = Vec::new();
    connect(proxy.address).read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), BYTES);
    idle_at_last(&proxy.record(), 0, BYTES);
}

fn idle_settings(driver: Driver, endpoint: &Endpoint) -> Settings {
    Settings::new(driver, &[endpoint.address])
        .listener(&format!("timeout: {{tcp: {{idleTimeout: {}ms}}}}", IDLE.as_millis()))
}

/// It lived while there were bytes, and ended when there were none.
fn idle_at_last(record: &Value, received: usize, sent: usize) {
    ended_by_sheave(record, "idle_timeout");
    assert_eq!((&record["bytes_received"], &record["bytes_sent"]), (&received.into(), &sent.into()));
    let at_least = BETWEEN_BYTES * u32::try_from(BYTES - 1).unwrap() + IDLE - Duration::from_millis(20);
    assert!(duration(record) >= at_least && at_least > IDLE * 2, "{record}");
}

fn a_reader_that_stalls_is_idle(driver: Driver) {
    let (ended, end) = flume::bounded(1);
    let endpoint = Endpoint::start(move |mut stream| {
        let error = std::io::copy(&mut std::io::repeat(b'x'), &mut stream).unwrap_err();
        ended.send(error.kind()).unwrap();
    });
    let settings = Settings::new(driver, &[endpoint.address]);
    let proxy = Proxy::start(&settings.upstream("timeout: {tcp: {idleTimeout: 200ms}}"));
    let mut client = connect(proxy.address);
    let record = proxy.record();
    ended_by_sheave(&record, "idle_timeout");
    assert!(duration(&record) >= Duration::from_millis(180), "{record}");
    let error = end.recv_timeout(DEADLINE).unwrap();
    assert!(matches!(error, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error:?}");
    // What is on its way may still come, then the end.
    match std::io::copy(&mut client, &mut std::io::sink()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

fn the_maximum_duration_ends_a_busy_connection(driver: Driver) {
    let (short, long) =
        ("timeout: {tcp: {maxConnectionDuration: 300ms}}", "timeout: {tcp: {maxConnectionDuration: 1h}}");
    for (listener, upstream) in [(short, long), (long, short)] {
        let echo = Endpoint::echo();
        let settings = Settings::new(driver, &[echo.address]).listener(listener).upstream(upstream);
        let proxy = Proxy::start(&settings);
        let mut client = connect(proxy.address);
        let error = loop {
            let round = client.write_all(b"a").and_then(|()| client.read_exact(&mut [0]));
            if let Err(error) = round {
                break error;
            }
        };
        let ends = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(ends.contains(&error.kind()), "{error:?}");
        let record = proxy.record();
        ended_by_sheave(&record, "max_duration");
        // Up to a tenth sooner, and the coarse clock's resolution.
        assert!(duration(&record) >= Duration::from_millis(250), "{record}");
        assert!(record["bytes_sent"].as_u64() > Some(1), "there was traffic: {record}");
    }
}

/// Between nine and ten tenths of the maximum, whichever side has it.
fn connections_made_together_end_apart(driver: Driver) {
    const TOGETHER: usize = 40;
    const MAX: Duration = Duration::from_secs(4);
    // A clock that ticks every few milliseconds, twice.
    const TICKS: Duration = Duration::from_millis(30);
    let maximum = "timeout: {tcp: {maxConnectionDuration: 4s}}";
    let echo = Endpoint::echo();
    let settings = Settings::new(driver, &[echo.address]);
    let proxies = [settings.clone().listener(maximum), settings.upstream(maximum)].map(|s| Proxy::start(&s));
    let clients =
        proxies.each_ref().map(|proxy| (0..TOGETHER).map(|_| connect(proxy.address)).collect::<Vec<_>>());
    for (proxy, clients) in proxies.iter().zip(clients) {
        for mut client in clients {
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "an end, and no reset");
        }
        let records = proxy.records(TOGETHER);
        records.iter().for_each(|record| ended_by_sheave(record, "max_duration"));
        let ages: Vec<Duration> = records.iter().map(duration).collect();
        let (least, most) = (*ages.iter().min().unwrap(), *ages.iter().max().unwrap());
        assert!(least + TICKS >= MAX * 9 / 10, "too early: {ages:?}");
        assert!(most <= MAX * 11 / 10, "too late: {ages:?}");
        assert!(most - least >= MAX / 20, "all at once: {ages:?}");
        let ended = proxy.metric("sheave_listener_connections_total", &["outcome=\"max_duration\""]);
        assert_eq!(ended, TOGETHER as f64);
    }
}

/// Connecting takes a second here (the SYN is sent again), longer than the upstream's maximum.
fn the_upstreams_maximum_duration_begins_with_the_connection(driver: Driver) {
    let endpoint = FullEndpoint::start();
    let upstream = "timeout: {tcp: {connectTimeout: 25s, maxConnectionDuration: 600ms}}, \
                    retry: {perRetry: {timeout: 25s}}";
    let proxy = Proxy::start(&Settings::new(driver, &[endpoint.address]).upstream(upstream));
    let mut client = connect(proxy.address);
    eventually_some("a client that has waited for longer", || {
        proxy.live().first().filter(|live| live["ageSeconds"].as_f64() > Some(0.7)).map(|_| ())
    });
    let mut endpoint_side = endpoint.accept();
    client.write_all(b"question").unwrap();
    endpoint_side.read_exact(&mut [0; 8]).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the end comes from Sheave");
    let record = proxy.record();
    ended_by_sheave(&record, "max_duration");
    let connected = record["connect_end_ms"].as_f64().unwrap();
    let lived = record["duration_ms"].as_f64().unwrap() - connected;
    assert!(connected > 600.0 && lived >= 520.0, "{record}");
}

fn the_half_close_timeout_ends_what_is_left(driver: Driver) {
    // An endpoint that has seen the client's FIN sees no second one: it notices when it writes.
    let (at_end, end) = flume::bounded::<()>(0);
    let (ended, error) = flume::bounded(1);
    let endpoint = Endpoint::start(move |mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the client's FIN");
        end.recv_timeout(DEADLINE).unwrap();
        let error = eventually_some("an error of writing", || stream.write_all(b"late").err());
        ended.send(error.kind()).unwrap();
    });
    let settings = Settings::new(driver, &[endpoint.address]);
    let proxy = Proxy::start(&settings.listener("timeout: {tcp: {halfCloseTimeout: 150ms}}"));
    let mut client = connect(proxy.address);
    let started = Instant::now();
    client.write_all(b"a").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the client sees an end");
    assert!(started.elapsed() >= Duration::from_millis(130), "{:?}", started.elapsed());
    ended_by_sheave(&proxy.record(), "half_close_timeout");
    at_end.send(()).unwrap();
    let error = error.recv_timeout(DEADLINE).unwrap();
    assert!(matches!(error, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error:?}");
}

/// A long answer to a client that has sent its FIN is not cut while it flows.
fn the_half_close_timeout_is_one_of_silence(driver: Driver) {
    let endpoint = Endpoint::start(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the client's FIN");
        let ended = Instant::now();
        let (_tick, silence) = flume::bounded::<()>(0);
        while ended.elapsed() < IDLE * 2 {
            stream.write_all(b"a").unwrap();
            silence.recv_timeout(BETWEEN_BYTES).unwrap_err();
        }
        stream.write_all(b"z").unwrap();
    });
    let settings = Settings::new(driver, &[endpoint.address]);
    let half_close = format!("timeout: {{tcp: {{halfCloseTimeout: {}ms}}}}", IDLE.as_millis());
    let proxy = Proxy::start(&settings.listener(&half_close));
    let mut client = connect(proxy.address);
    client.write_all(b"a").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with('z'), "{answer}");
    assert_eq!(proxy.record()["outcome"], "downstream_closed");
}

fn keepalive_is_set_on_both_sides(driver: Driver) {
    let keepalive = |idle: u32, interval: u32, probes: u32| {
        format!("tcpKeepalive: {{idleTime: {idle}s, interval: {interval}s, probes: {probes}}}")
    };
    let (connected, connections) = flume::bounded(2);
    let endpoint = Endpoint::start(move |mut stream| {
        connected.send(stream.peer_addr().unwrap()).unwrap();
        stream.read_exact(&mut [0]).ok();
    });
    let settings = Settings::new(driver, &[endpoint.address]);
    let settings = settings.listener(&keepalive(77, 7, 3)).upstream(&keepalive(66, 6, 5));
    let proxy = Proxy::start(&settings);
    let check = |listener: (u64, u64, u32), upstream: (u64, u64, u32)| {
        let client = connect(proxy.address);
        let upstream_address = connections.recv_timeout(DEADLINE).unwrap();
        assert_eq!(keepalive_of(&own_socket(proxy.address, client.local_addr().unwrap())), listener);
        assert_eq!(keepalive_of(&own_socket(upstream_address, endpoint.address)), upstream);
    };
    check((77, 7, 3), (66, 6, 5));
    // New connections have what a reload says.
    proxy.reload(&settings.listener(&keepalive(88, 8, 2)).upstream(&keepalive(99, 9, 4))).unwrap();
    check((88, 8, 2), (99, 9, 4));
}

/// A duplicate of the connected socket of this process, and so of the proxy, with these addresses.
fn own_socket(local: SocketAddr, peer: SocketAddr) -> Socket {
    let process = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let connects_them = |socket: &Socket| {
        let address = |address: std::io::Result<socket2::SockAddr>| address.ok()?.as_socket();
        address(socket.local_addr()) == Some(local) && address(socket.peer_addr()) == Some(peer)
    };
    let look = || {
        let sockets = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| {
            let link = fs::read_link(entry.path()).ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            let is_socket = link.to_string_lossy().starts_with("socket:");
            is_socket.then(|| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()).flatten()
        });
        sockets.map(Socket::from).find(connects_them)
    };
    eventually_some(&format!("a socket of this process from {local} to {peer}"), look)
}

/// Seconds until the first probe, seconds between probes, probes; that it is on goes without saying in the result.
fn keepalive_of(socket: &Socket) -> (u64, u64, u32) {
    assert!(socket.keepalive().unwrap(), "keepalive is off");
    let (time, interval) = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
    (time.as_secs(), interval.as_secs(), socket.tcp_keepalive_retries().unwrap())
}

fn ended_by_sheave(record: &Value, outcome: &str) {
    assert_eq!((&record["outcome"], &record["side"]), (&outcome.into(), &"sheave".into()), "{record}");
}

fn duration(record: &Value) -> Duration {
    Duration::from_secs_f64(record["duration_ms"].as_f64().unwrap() / 1_000.0)
}
