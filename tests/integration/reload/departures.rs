//! What leaves the table: it takes nothing new, and what it has gets its time to end.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::support::{DEADLINE, FullEndpoint};

on_both_drivers!(
    a_removed_listener_drains,
    without_privileges_a_removed_listener_stops_at_once,
    what_waits_at_a_removed_listener_is_served,
    a_removed_endpoint_drains,
    a_removed_endpoint_lets_go_at_its_pace,
    a_connection_on_its_way_to_a_removed_endpoint_drains,
    a_retry_passes_over_who_has_left,
);

/// `drain.timeout` of a second, as measured with clocks that tick every few milliseconds.
const TIME: Duration = Duration::from_millis(980);

fn with_guest(driver: Driver, endpoint: SocketAddr, top: &str) -> Settings {
    let mut settings =
        Settings::new(driver, &[endpoint]).top(&format!("drain: {{delay: 0s, timeout: 1s}}\n{top}"));
    settings.more_listeners.push("{name: guest, address: \"127.0.0.2:0\"}".to_owned());
    settings.more_routes.push("{name: guest, listener: guest, backendRefs: [{upstream: main}]}".to_owned());
    settings
}

fn without_guest(settings: &Settings) -> Settings {
    Settings { more_listeners: Vec::new(), more_routes: Vec::new(), ..settings.clone() }
}

/// The end of the stream, and when it came.
fn end_of(stream: &mut TcpStream) -> Instant {
    let mut rest = [0; 64];
    assert_eq!(stream.read(&mut rest).unwrap(), 0);
    Instant::now()
}

fn a_removed_listener_drains(driver: Driver) {
    let echo = Endpoint::polite();
    let settings = with_guest(driver, echo.address, "");
    let proxy = Proxy::start(&settings);
    let (mut guest, mut main) = (connect(proxy.listener("guest")), connect(proxy.address));
    echoed(&mut guest, b"before").unwrap();
    echoed(&mut main, b"before").unwrap();
    let removed = Instant::now();
    proxy.reload(&without_guest(&settings)).unwrap();
    let late = std::thread::spawn({
        let address = proxy.listener("guest");
        move || TcpStream::connect_timeout(&address, DEADLINE).map(|_| ())
    });
    echoed(&mut guest, b"after").unwrap();
    let end = end_of(&mut guest);
    assert!(end - removed >= TIME, "ended after {:?}", end - removed);
    let record = proxy.record();
    assert_eq!((&record["outcome"], &record["listener"]), (&"table_removed".into(), &"guest".into()));
    let refused = late.join().unwrap().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    echoed(&mut main, b"after").unwrap();
    assert_eq!(
        proxy.metric("sheave_listener_connections_total", &["listener=\"guest\""]),
        0.0,
        "its series left"
    );
}

/// Two connections take all places there are, so that the next ones wait in the accept queues.
fn what_waits_at_a_removed_listener_is_served(driver: Driver) {
    let echo = Endpoint::polite();
    let settings = with_guest(driver, echo.address, "limits: {maxConnections: 2}");
    let proxy = Proxy::start(&settings);
    let mut holders = [connect(proxy.address), connect(proxy.address)];
    for holder in &mut holders {
        echoed(holder, b"hold").unwrap();
    }
    let mut stays = connect(proxy.listener("guest"));
    let waiting: Vec<TcpStream> = (0..5).map(|_| connect(proxy.listener("guest"))).collect();
    proxy.reload(&without_guest(&settings)).unwrap();
    drop(holders);
    // Each makes room for the next.
    let clients =
        waiting.into_iter().map(|mut client| std::thread::spawn(move || echoed(&mut client, b"waited")));
    let clients: Vec<_> = clients.collect();
    echoed(&mut stays, b"waited too").unwrap();
    for client in clients {
        client.join().unwrap().unwrap();
    }
    end_of(&mut stays);
    let records = proxy.records(8);
    let cut: Vec<&Value> = records.iter().filter(|record| record["outcome"] == "table_removed").collect();
    assert_eq!(cut.len(), 1, "{records:?}");
    assert_eq!(cut[0]["listener"], "guest");
}

fn a_removed_endpoint_drains(driver: Driver) {
    let (leaves, stays) = (Endpoint::polite(), Endpoint::polite());
    let upstream = "drain: {timeout: 1s}";
    let proxy = Proxy::start(&Settings::new(driver, &[leaves.address]).upstream(upstream));
    let mut live = connect(proxy.address);
    echoed(&mut live, b"before").unwrap();
    let removed = Instant::now();
    proxy.reload(&Settings::new(driver, &[stays.address]).upstream(upstream)).unwrap();
    for _ in 0..10 {
        exchange(proxy.address).unwrap();
    }
    assert_eq!((leaves.accepted(), stays.accepted()), (1, 10));
    echoed(&mut live, b"after").unwrap();
    let end = end_of(&mut live);
    assert!(end - removed >= TIME, "ended after {:?}", end - removed);
    let records = proxy.records(11);
    let cut: Vec<&Value> = records.iter().filter(|record| record["outcome"] == "table_removed").collect();
    assert_eq!(cut.len(), 1, "{records:?}");
    assert_eq!(cut[0]["endpoint"], leaves.address.to_string());
}

/// Of all workers together, and the busy ones last.
fn a_removed_endpoint_lets_go_at_its_pace(driver: Driver) {
    const IDLE: usize = 16;
    const PER_SECOND: f64 = 8.0;
    const TICKS: Duration = Duration::from_millis(20);
    let (leaves, stays) = (Endpoint::polite(), Endpoint::polite());
    let upstream = format!("drain: {{timeout: 60s, closePerSecond: {PER_SECOND}}}");
    let both = Settings::new(driver, &[leaves.address, stays.address]).upstream(&upstream);
    let proxy = Proxy::start(&Settings { endpoints: vec![leaves.address], ..both.clone() });
    let mut idle: Vec<TcpStream> = (0..IDLE).map(|_| connect(proxy.address)).collect();
    idle.iter_mut().for_each(|stream| echoed(stream, b"before").unwrap());
    let busy = [Load::long(connect(proxy.address)), Load::long(connect(proxy.address))];
    proxy.wait_for_live(IDLE + busy.len());
    proxy.reload(&both).unwrap();
    let mut elsewhere = connect(proxy.address);
    echoed(&mut elsewhere, b"before").unwrap();
    assert_eq!(stays.accepted(), 1, "it has fewer connections");

    let removed = SystemTime::now();
    proxy.reload(&Settings { endpoints: vec![stays.address], ..both }).unwrap();
    let records = proxy.records(IDLE);
    assert!(busy.iter().all(|load| load.exchanges() > 0 && !load.is_over()), "idle ones first");
    let mut ends: Vec<SystemTime> = records.iter().map(ended).collect();
    ends.sort();
    for (number, end) in (1..).zip(&ends) {
        let due = removed + Duration::from_secs_f64(f64::from(number) / PER_SECOND);
        assert!(*end + TICKS >= due, "number {number} too early: {records:?}");
        // What a worker on a busy machine does late is not made up for.
        assert!(*end <= due + Duration::from_secs(5), "number {number} too late: {records:?}");
    }
    idle.iter_mut().for_each(|stream| _ = end_of(stream));
    eventually("the end of busy ones", || busy.iter().all(Load::is_over), |over| *over);
    for record in proxy.records(IDLE + busy.len()) {
        assert_eq!(
            (&record["outcome"], &record["side"]),
            (&"table_removed".into(), &"sheave".into()),
            "{record}"
        );
        assert_eq!(record["endpoint"], leaves.address.to_string(), "{record}");
    }
    let counted = proxy.metric("sheave_listener_connections_total", &["outcome=\"table_removed\""]);
    assert_eq!(counted, (IDLE + busy.len()) as f64);
    echoed(&mut elsewhere, b"after").unwrap();
}

pub(super) fn ended(record: &Value) -> SystemTime {
    let accepted = humantime::parse_rfc3339(record["time"].as_str().unwrap()).unwrap();
    accepted + Duration::from_secs_f64(record["duration_ms"].as_f64().unwrap() / 1_000.0)
}

/// The endpoint leaves while the connection to it is being made.
fn a_connection_on_its_way_to_a_removed_endpoint_drains(driver: Driver) {
    let (leaves, stays) = (FullEndpoint::start(), Endpoint::polite());
    let address = leaves.address;
    let upstream =
        "timeout: {tcp: {connectTimeout: 30s}}, retry: {perRetry: {timeout: 0s}}, drain: {timeout: 1s}";
    let proxy = Proxy::start(&Settings::new(driver, &[address]).upstream(upstream));
    let mut client = connect(proxy.address);
    eventually("an attempt under way", || table(proxy.admin), |table| active(table, "main", address) == 1);
    proxy.reload(&Settings::new(driver, &[stays.address]).upstream(upstream)).unwrap();
    let _established = leaves.accept();
    end_of(&mut client);
    let record = proxy.record();
    assert_eq!(record["outcome"], "table_removed", "{record}");
    assert_eq!(record["endpoint"], address.to_string());
}

/// While there is another: the connection keeps the table that it came with.
fn a_retry_passes_over_who_has_left(driver: Driver) {
    let silent = FullEndpoint::start();
    let [one, other, stays] = [(); 3].map(|()| Endpoint::polite());
    let upstream = "loadBalancer: {type: RoundRobin}, retry: {perRetry: {timeout: 2s}}";
    let settings = |endpoints: &[SocketAddr]| {
        Settings { workers: 1, ..Settings::new(driver, endpoints) }.upstream(upstream)
    };
    let all = [silent.address, one.address, other.address, stays.address];
    let proxy = Proxy::start(&settings(&all));
    // Each endpoint has one of four.
    let mut clients = [(); 4].map(|()| connect(proxy.address));
    let under_way = |table: &Value| active(table, "main", silent.address) == 1;
    eventually("an attempt at who is silent", || table(proxy.admin), under_way);
    let others = [&one, &other, &stays];
    let accepted = || others.map(Endpoint::accepted);
    eventually("the other three", accepted, |accepted| *accepted == [1; 3]);
    proxy.reload(&settings(&[silent.address, stays.address])).unwrap();
    clients.iter_mut().for_each(|client| echoed(client, b"hello").unwrap());
    assert_eq!(accepted(), [1, 1, 2], "of two that left and one that stayed");
}

/// Some kernels let only privileged processes hold off new connections; the listener must close all the same.
fn without_privileges_a_removed_listener_stops_at_once(driver: Driver) {
    let echo = Endpoint::polite();
    let settings = Settings { listen: "127.0.0.1:0".to_owned(), ..with_guest(driver, echo.address, "") };
    let process = Process::start(&settings, without_capabilities);
    let guest = process.listener("guest");
    echoed(&mut connect(guest), b"before").unwrap();
    std::fs::write(&process.config, without_guest(&settings).yaml()).unwrap();
    process.signal(rustix::process::Signal::HUP);
    let is_refused = || {
        let result = TcpStream::connect_timeout(&guest, Duration::from_millis(200));
        result.err().map(|error| error.kind())
    };
    eventually("a refusal", is_refused, |kind| *kind == Some(std::io::ErrorKind::ConnectionRefused));
    echoed(&mut connect(process.listener("main")), b"after").unwrap();
}

/// Puts `setpriv` in front of the command.
fn without_capabilities(command: &mut Command) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--bounding-set=-all", "--inh-caps=-all", "--"]);
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    *command = wrapped;
}
