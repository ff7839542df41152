//! Who may connect to a listener: source networks and limits.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Driver, Endpoint, Proxy, Settings, admin_get, ask, ask_from, connect, eventually, on_both_drivers,
    reset_on_close, round_trip, stays_silent,
};

on_both_drivers!(
    only_allowed_networks_may_connect,
    denied_networks_may_not_connect,
    a_full_listener_resets,
    a_full_listener_lets_wait,
    a_limit_is_of_one_listener,
    clients_up_to_the_limit_are_never_refused,
);

fn only_allowed_networks_may_connect(driver: Driver) {
    admits(driver, "allow: [127.0.0.2/32, 10.0.0.0/8]", &["127.0.0.2"], &["127.0.0.1", "127.0.0.3"]);
}

fn denied_networks_may_not_connect(driver: Driver) {
    admits(driver, "deny: [127.0.0.2/31]", &["127.0.0.1", "127.0.0.4"], &["127.0.0.2", "127.0.0.3"]);
    // Deny stands above allow.
    let both = "allow: [127.0.0.0/8], deny: [127.0.0.2/32]";
    admits(driver, both, &["127.0.0.1", "127.0.0.3"], &["127.0.0.2"]);
}

fn admits(driver: Driver, listener: &str, admitted: &[&str], denied: &[&str]) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(driver, &[echo.address]).listener(listener));
    for client in admitted {
        let answer = ask_from(client.parse().unwrap(), proxy.address, "hello");
        assert_eq!(answer, Ok("hello".to_owned()), "{listener}: {client}");
    }
    proxy.records(admitted.len());
    for client in denied {
        for request in ["", "hello"] {
            let answer = ask_from(client.parse().unwrap(), proxy.address, request);
            assert_eq!(answer, Err(ErrorKind::ConnectionReset), "{listener}: {client}, {request:?}");
        }
    }
    for record in &proxy.records(admitted.len() + 2 * denied.len())[admitted.len()..] {
        refused_by_sheave(record, "denied");
        assert!(
            denied.iter().any(|client| record["client"].as_str().unwrap().starts_with(client)),
            "{record}"
        );
    }
    assert_eq!(echo.accepted(), admitted.len());
}

fn a_full_listener_resets(driver: Driver) {
    let echo = Endpoint::echo();
    let settings = Settings::new(driver, &[echo.address]);
    let proxy = Proxy::start(&settings.listener("connection: {limit: 3, whenFull: Reset}"));
    let mut clients: Vec<_> = (0..3).map(|_| answered(connect(proxy.address))).collect();
    for request in ["", "hello"] {
        assert_eq!(ask(proxy.address, request), Err(ErrorKind::ConnectionReset), "{request:?}");
    }
    for record in proxy.records(2) {
        refused_by_sheave(&record, "limit");
    }
    assert_eq!(proxy.metric("sheave_listener_connections_total", &["outcome=\"limit\""]), 2.0);
    for client in &mut clients {
        round_trip(client);
    }
    drop(clients.pop());
    proxy.wait_for_live(2);
    // Its place is given back right after its record.
    let answer = || ask(proxy.address, "hello");
    eventually("a place again", answer, |answer| *answer == Ok("hello".to_owned())).unwrap();
}

fn a_full_listener_lets_wait(driver: Driver) {
    let echo = Endpoint::echo();
    let settings = Settings::new(driver, &[echo.address]);
    let proxy = Proxy::start(&settings.listener("connection: {limit: 2, whenFull: Wait}"));
    let mut clients: Vec<_> = (0..2).map(|_| answered(connect(proxy.address))).collect();
    let paused = || proxy.metric("sheave_accept_paused", &["reason=\"listener_limit\""]);
    eventually("accepting is paused", paused, |paused| *paused >= 1.0);
    let waiting: Vec<_> = (0..3).map(|_| connect(proxy.address)).collect();
    for mut client in &waiting {
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        stays_silent(client, Duration::from_millis(50));
    }
    assert_eq!((proxy.live().len(), echo.accepted()), (2, 2));
    let pauses = proxy.metric("sheave_accept_pauses_total", &["reason=\"listener_limit\""]);
    assert!((1.0..10.0).contains(&pauses), "a pause is counted once, not at each look: {pauses}");
    clients.pop();
    for mut client in waiting {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
    }
    clients.pop();
    let records = proxy.records(5);
    assert!(records.iter().all(|record| record["outcome"] == "downstream_closed"), "{records:#?}");
    eventually("accepting goes on", paused, |paused| *paused == 0.0);
    for other in ["process_limit", "error"] {
        let reason = format!("reason=\"{other}\"");
        assert_eq!(proxy.metric("sheave_accept_pauses_total", &[&reason]), 0.0, "{other}");
    }
}

fn a_limit_is_of_one_listener(driver: Driver) {
    let echo = Endpoint::echo();
    let mut settings =
        Settings::new(driver, &[echo.address]).listener("connection: {limit: 1, whenFull: Wait}");
    settings.more_listeners.push("{name: other, address: \"127.0.0.2:0\"}".to_owned());
    settings.more_routes.push("{name: other, listener: other, backendRefs: [{upstream: main}]}".to_owned());
    let proxy = Proxy::start(&settings);
    let _held = answered(connect(proxy.address));
    for _ in 0..8 {
        assert_eq!(ask(proxy.listener("other"), "hello"), Ok("hello".to_owned()));
    }
}

/// Also when they all come at the same moment, to all workers.
fn clients_up_to_the_limit_are_never_refused(driver: Driver) {
    const LIMIT: usize = 8;
    const ROUNDS: usize = 60;
    let echo = Endpoint::echo();
    let settings = Settings::new(driver, &[echo.address]);
    let proxy = Proxy::start(&settings.listener(&format!("connection: {{limit: {LIMIT}, whenFull: Reset}}")));
    for round in 0..ROUNDS {
        let clients: Vec<_> = thread::scope(|scope| {
            let clients: Vec<_> =
                (0..LIMIT).map(|_| scope.spawn(|| answered(connect(proxy.address)))).collect();
            clients.into_iter().map(|client| client.join()).collect()
        });
        let refused = clients.iter().filter(|client| client.is_err()).count();
        assert_eq!(refused, 0, "round {round}: {:#?}", proxy.lines.all());
        // Ended by resets, the connections leave no ports behind that are waited out.
        clients.iter().flatten().for_each(reset_on_close);
        drop(clients);
        eventually("no place taken", || listener_active(&proxy), |active| *active == 0);
    }
}

fn listener_active(proxy: &Proxy) -> u64 {
    let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
    table["listeners"][0]["active"].as_u64().unwrap()
}

/// Once it has had an answer it has its place.
fn answered(mut client: TcpStream) -> TcpStream {
    round_trip(&mut client);
    client
}

fn refused_by_sheave(record: &Value, outcome: &str) {
    assert_eq!((&record["outcome"], &record["side"]), (&outcome.into(), &"sheave".into()), "{record}");
    assert!(record["attempts"].as_array().unwrap().is_empty() && record["endpoint"].is_null(), "{record}");
}
