//! What one client address may have: connections at once, and new ones per second.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::Barrier;
use std::thread;

use serde_json::Value;

use crate::support::{
    Driver, Endpoint, Proxy, Settings, admin_get, ask, ask_from, connect, eventually, on_both_drivers,
    round_trip,
};

on_both_drivers!(
    a_client_has_its_connections_and_others_have_theirs,
    all_workers_count_together,
    a_client_has_its_rate_and_others_have_theirs,
    a_limit_that_is_new_counts_who_is_there,
);

const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

fn limited(driver: Driver, echo: &Endpoint, connection: &str) -> Settings {
    Settings::new(driver, &[echo.address]).listener(&format!("connection: {{{connection}}}"))
}

fn served() -> Result<String, ErrorKind> {
    Ok("hello".to_owned())
}

fn a_client_has_its_connections_and_others_have_theirs(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&limited(driver, &echo, "limitPerSource: 2"));
    let mut clients = [answered(&proxy), answered(&proxy)];
    for request in ["", "hello"] {
        assert_eq!(ask(proxy.address, request), Err(ErrorKind::ConnectionReset), "{request:?}");
    }
    for record in proxy.records(2) {
        refused(&record, "source_limit");
    }
    assert_eq!(ask_from(OTHER, proxy.address, "hello"), served());
    clients.iter_mut().for_each(round_trip);
    assert_eq!(ended(&proxy, "source_limit"), 2.0);
    let [first, _second] = clients;
    drop(first);
    eventually("a place again", || ask(proxy.address, "hello"), |answer| *answer == served()).unwrap();
}

/// They come at the same moment, and each worker gets some.
fn all_workers_count_together(driver: Driver) {
    const CLIENTS: usize = 24;
    const LIMIT: usize = 5;
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&limited(driver, &echo, &format!("limitPerSource: {LIMIT}")));
    let together = Barrier::new(CLIENTS);
    let clients: Vec<Option<TcpStream>> = thread::scope(|scope| {
        let client = || {
            together.wait();
            let mut stream = TcpStream::connect(proxy.address).ok()?;
            is_answered(&mut stream).then_some(stream)
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(clients.iter().flatten().count(), LIMIT);
    let records = proxy.records(CLIENTS - LIMIT);
    records.iter().for_each(|record| refused(record, "source_limit"));
    assert_eq!(table(&proxy)["sources"], 1);
    drop(clients);
    proxy.wait_for_live(0);
    eventually("nobody is counted", || table(&proxy)["sources"].clone(), |sources| *sources == 0);
}

fn a_client_has_its_rate_and_others_have_theirs(driver: Driver) {
    let echo = Endpoint::echo();
    // The next one may come in a hundred seconds.
    let settings = limited(driver, &echo, "ratePerSource: 0.01");
    let proxy = Proxy::start(&settings);
    assert_eq!(ask(proxy.address, "hello"), served());
    for _ in 0..3 {
        assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    }
    assert_eq!(ask_from(OTHER, proxy.address, "hello"), served());
    assert_eq!(ask_from(OTHER, proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    let mut changed = settings.clone();
    changed.upstream = "timeout: {tcp: {idleTimeout: 7s}}".to_owned();
    proxy.reload(&changed).unwrap();
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset), "a reload forgets nothing");
    let records = proxy.records(7);
    let rated = records.iter().filter(|record| record["outcome"] == "source_rate");
    assert_eq!(rated.inspect(|record| refused(record, "source_rate")).count(), 5, "{records:#?}");
    assert_eq!(ended(&proxy, "source_rate"), 5.0);
    proxy.reload(&limited(driver, &echo, "ratePerSource: 1000")).unwrap();
    for _ in 0..20 {
        assert_eq!(ask(proxy.address, "hello"), served());
    }
}

fn a_limit_that_is_new_counts_who_is_there(driver: Driver) {
    let echo = Endpoint::echo();
    let free = Settings::new(driver, &[echo.address]);
    let proxy = Proxy::start(&free);
    let mut clients: Vec<TcpStream> = (0..6).map(|_| answered(&proxy)).collect();
    assert!(table(&proxy).get("sources").is_none(), "nothing is counted without limits");
    proxy.reload(&limited(driver, &echo, "limitPerSource: 6")).unwrap();
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    clients.iter_mut().for_each(round_trip);
    // A lower limit closes nobody.
    proxy.reload(&limited(driver, &echo, "limitPerSource: 3")).unwrap();
    clients.iter_mut().for_each(round_trip);
    clients.truncate(3);
    proxy.wait_for_live(3);
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    clients.truncate(2);
    proxy.wait_for_live(2);
    eventually("a place again", || ask(proxy.address, "hello"), |answer| *answer == served()).unwrap();
    proxy.reload(&free).unwrap();
    let _more: Vec<TcpStream> = (0..6).map(|_| answered(&proxy)).collect();
}

fn answered(proxy: &Proxy) -> TcpStream {
    let mut client = connect(proxy.address);
    round_trip(&mut client);
    client
}

/// Whether the echo answers; else it was reset.
fn is_answered(stream: &mut TcpStream) -> bool {
    use std::io::{Read, Write};
    stream.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
    let mut answer = [0];
    stream.write_all(b"a").and_then(|()| stream.read_exact(&mut answer)).is_ok()
}

fn table(proxy: &Proxy) -> Value {
    let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
    table["listeners"][0].clone()
}

fn ended(proxy: &Proxy, outcome: &str) -> f64 {
    proxy.metric("sheave_listener_connections_total", &[&format!("outcome=\"{outcome}\"")])
}

fn refused(record: &Value, outcome: &str) {
    assert_eq!((&record["outcome"], &record["side"]), (&outcome.into(), &"sheave".into()), "{record}");
    assert!(record["attempts"].as_array().unwrap().is_empty() && record["endpoint"].is_null(), "{record}");
}
