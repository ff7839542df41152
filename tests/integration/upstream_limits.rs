//! An upstream and its endpoints take as many connections as they may, and who waits for a place gets it in turn.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::support::{
    Bound, Driver, Endpoint, FullEndpoint, Proxy, Settings, admin_get, ask, closed_port, connect, eventually,
    on_both_drivers, reset_on_close, round_trip,
};

on_both_drivers!(
    an_upstream_takes_no_more_than_it_may,
    a_full_endpoint_is_passed_over,
    the_wait_is_in_turn,
    the_queue_is_bounded_and_the_wait_too,
    who_leaves_gives_up_its_turn,
    who_waits_in_vain_is_reset,
    a_failed_attempt_gives_its_place_back,
    who_waits_sees_a_limit_that_is_lifted,
    who_waits_gets_an_endpoint_that_joins,
    who_waits_gets_no_endpoint_that_has_left,
    a_breaker_whose_time_is_over_lets_who_waits_in,
    a_probe_whose_client_leaves_is_the_next_ones,
    retries_at_once_are_bounded,
);

fn held(proxy: &Proxy) -> TcpStream {
    let mut stream = connect(proxy.address);
    round_trip(&mut stream);
    stream
}

fn table(proxy: &Proxy) -> Value {
    let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
    table["upstreams"][0].clone()
}

fn wait_for_pending(proxy: &Proxy, count: u64) {
    eventually("pending connections", || table(proxy)["pending"].clone(), |pending| *pending == count);
}

fn rejections(proxy: &Proxy, reason: &str) -> f64 {
    proxy.metric("sheave_upstream_rejections_total", &[&format!("reason=\"{reason}\"")])
}

fn an_upstream_takes_no_more_than_it_may(driver: Driver) {
    let (one, other) = (Endpoint::echo(), Endpoint::echo());
    let settings = Settings::new(driver, &[one.address, other.address]);
    let proxy = Proxy::start(&settings.clone().upstream("circuitBreaker: {maxConnections: 3}"));
    let mut connections: Vec<TcpStream> = (0..3).map(|_| held(&proxy)).collect();
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    let record = proxy.record();
    assert_eq!(
        (&record["outcome"], &record["side"]),
        (&"upstream_limit".into(), &"sheave".into()),
        "{record}"
    );
    assert_eq!(rejections(&proxy, "full"), 1.0);
    assert_eq!(proxy.metric("sheave_upstream_connection_limit", &[]), 3.0);
    assert_eq!(table(&proxy)["limit"], 3);
    connections.pop();
    eventually("a place", || ask(proxy.address, "hello"), |answer| *answer == Ok("hello".to_owned()))
        .unwrap();
    // Connections from before the limit count too.
    proxy.reload(&settings.upstream("circuitBreaker: {maxConnections: 2}")).unwrap();
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    drop(connections);
    proxy.wait_for_live(0);
    assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
}

fn a_full_endpoint_is_passed_over(driver: Driver) {
    for balancer in ["RoundRobin", "LeastConnections", "Random"] {
        let (small, large) = (Endpoint::echo(), Endpoint::echo());
        let settings = Settings::new(driver, &[small.address, large.address]).upstream(&format!(
            "loadBalancer: {{type: {balancer}}}, circuitBreaker: {{perEndpoint: {{maxConnections: 2}}}}"
        ));
        let proxy = Proxy::start(&settings);
        let connections: Vec<TcpStream> = (0..4).map(|_| held(&proxy)).collect();
        assert_eq!((small.accepted(), large.accepted()), (2, 2), "{balancer}");
        assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset), "{balancer}");
        assert_eq!(proxy.record()["outcome"], "upstream_limit", "{balancer}");
        assert_eq!(table(&proxy)["endpoints"][0]["limit"], 2);
        drop(connections);
    }
}

const QUEUE: &str = "circuitBreaker: {maxConnections: 1, maxPendingConnections: 2, pendingTimeout: 20s}";

fn the_wait_is_in_turn(driver: Driver) {
    let echo = Endpoint::echo();
    for limits in [QUEUE, &QUEUE.replace("{maxConnections: 1,", "{perEndpoint: {maxConnections: 1},")] {
        let proxy = Proxy::start(&Settings::new(driver, &[echo.address]).upstream(limits));
        let first = held(&proxy);
        let mut second = connect(proxy.address);
        wait_for_pending(&proxy, 1);
        let mut third = connect(proxy.address);
        wait_for_pending(&proxy, 2);
        assert_eq!(proxy.metric("sheave_upstream_pending_connections", &[]), 2.0);
        drop(first);
        round_trip(&mut second);
        wait_for_pending(&proxy, 1);
        drop(second);
        round_trip(&mut third);
        wait_for_pending(&proxy, 0);
        drop(third);
        for record in proxy.records(3) {
            assert_eq!(record["outcome"], "downstream_closed", "{record}");
        }
    }
}

/// A FIN would look like an answer. Also where the place that it waits for becomes free at the same time, and another worker has it.
fn who_waits_in_vain_is_reset(driver: Driver) {
    let echo = Endpoint::echo();
    let settings = Settings::new(driver, &[echo.address]).upstream(QUEUE);
    let proxy = Proxy::start(&settings);
    let _first = held(&proxy);
    let mut second = connect(proxy.address);
    wait_for_pending(&proxy, 1);
    proxy.reload(&settings.clone().listener("deny: [127.0.0.0/8]")).unwrap();
    assert_eq!(second.read(&mut [0; 1]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    let records = proxy.records(2);
    assert!(records.iter().all(|record| record["outcome"] == "policy"), "{records:#?}");
    assert_eq!(echo.accepted(), 1, "who waited never got there");
}

fn the_queue_is_bounded_and_the_wait_too(driver: Driver) {
    let echo = Endpoint::echo();
    let limits = QUEUE.replace("pendingTimeout: 20s", "pendingTimeout: 300ms");
    let proxy = Proxy::start(&Settings::new(driver, &[echo.address]).upstream(&limits));
    let first = held(&proxy);
    let waiting = [connect(proxy.address), connect(proxy.address)];
    wait_for_pending(&proxy, 2);
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset), "the queue is full");
    assert_eq!(rejections(&proxy, "queue_full"), 1.0);
    let records = proxy.records(3);
    assert!(records.iter().all(|record| record["outcome"] == "upstream_limit"), "{records:#?}");
    assert_eq!(rejections(&proxy, "queue_timeout"), 2.0);
    wait_for_pending(&proxy, 0);
    drop((first, waiting));
}

fn who_leaves_gives_up_its_turn(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(driver, &[echo.address]).upstream(QUEUE));
    let first = held(&proxy);
    let second = connect(proxy.address);
    wait_for_pending(&proxy, 1);
    let mut third = connect(proxy.address);
    wait_for_pending(&proxy, 2);
    reset_on_close(&second);
    drop(second);
    wait_for_pending(&proxy, 1);
    assert_eq!(proxy.record()["outcome"], "downstream_reset");
    drop(first);
    round_trip(&mut third);
}

fn who_waits_sees_a_limit_that_is_lifted(driver: Driver) {
    let echo = Endpoint::echo();
    let settings = Settings::new(driver, &[echo.address]);
    let proxy = Proxy::start(&settings.clone().upstream(QUEUE));
    let first = held(&proxy);
    let (mut second, mut third) = (connect(proxy.address), connect(proxy.address));
    wait_for_pending(&proxy, 2);
    proxy
        .reload(&settings.clone().upstream(&QUEUE.replace("maxConnections: 1", "maxConnections: 2")))
        .unwrap();
    wait_for_pending(&proxy, 1);
    proxy.reload(&settings).unwrap();
    let fourth = held(&proxy);
    round_trip(&mut second);
    round_trip(&mut third);
    wait_for_pending(&proxy, 0);
    drop((first, second, third, fourth));
    assert!(proxy.records(4).iter().all(|record| record["outcome"] == "downstream_closed"));
}

const ONE_EACH: &str = "loadBalancer: {type: RoundRobin}, circuitBreaker: {maxPendingConnections: 5, pendingTimeout: 20s, \
                        perEndpoint: {maxConnections: 1}}";

/// Nothing becomes free: the new endpoint has room, and then the old one takes more.
fn who_waits_gets_an_endpoint_that_joins(driver: Driver) {
    let (one, other) = (Endpoint::echo(), Endpoint::echo());
    let proxy = Proxy::start(&Settings::new(driver, &[one.address]).upstream(ONE_EACH));
    let first = held(&proxy);
    let (mut second, mut third) = (connect(proxy.address), connect(proxy.address));
    wait_for_pending(&proxy, 2);
    let both = Settings::new(driver, &[one.address, other.address]);
    proxy.reload(&both.clone().upstream(ONE_EACH)).unwrap();
    wait_for_pending(&proxy, 1);
    assert_eq!(other.accepted(), 1);
    proxy.reload(&both.upstream(&ONE_EACH.replace("maxConnections: 1", "maxConnections: 2"))).unwrap();
    wait_for_pending(&proxy, 0);
    round_trip(&mut second);
    round_trip(&mut third);
    drop((first, second, third));
    assert!(proxy.records(3).iter().all(|record| record["outcome"] == "downstream_closed"));
}

fn who_waits_gets_no_endpoint_that_has_left(driver: Driver) {
    let (leaves, stays) = (Endpoint::echo(), Endpoint::echo());
    let proxy = Proxy::start(&Settings::new(driver, &[leaves.address, stays.address]).upstream(ONE_EACH));
    let one = held(&proxy);
    let is_at_leaving = leaves.accepted() == 1;
    let other = held(&proxy);
    let (at_leaving, at_staying) = if is_at_leaving { (one, other) } else { (other, one) };
    let mut waits = connect(proxy.address);
    wait_for_pending(&proxy, 1);
    proxy.reload(&Settings::new(driver, &[stays.address]).upstream(ONE_EACH)).unwrap();
    drop(at_leaving);
    let record = proxy.record();
    assert_eq!(record["endpoint"], leaves.address.to_string(), "{record}");
    wait_for_pending(&proxy, 1);
    drop(at_staying);
    round_trip(&mut waits);
    assert_eq!((leaves.accepted(), stays.accepted()), (1, 2));
}

/// Nothing becomes free meanwhile that would call who waits.
fn a_breaker_whose_time_is_over_lets_who_waits_in(driver: Driver) {
    let (echo, silent) = (Endpoint::echo(), Bound::new());
    let upstream = "loadBalancer: {type: RoundRobin}, circuitBreaker: {maxPendingConnections: 5, pendingTimeout: 20s, \
                    perEndpoint: {maxConnections: 1, consecutiveFailures: 1, openFor: {baseInterval: 300ms}}}";
    let proxy = Proxy::start(&Settings::new(driver, &[silent.address, echo.address]).upstream(upstream));
    // Refused by the one, served by the other, which is full then.
    let first = held(&proxy);
    let second = connect(proxy.address);
    let back = silent.listen();
    let mut second = second;
    round_trip(&mut second);
    drop((first, second));
    let records = proxy.records(2);
    assert!(records.iter().all(|record| record["outcome"] == "downstream_closed"), "{records:#?}");
    assert_eq!(back.accepted(), 1);
}

/// Of two endpoints one is full, and the other, which never answers, is being probed.
fn a_probe_whose_client_leaves_is_the_next_ones(driver: Driver) {
    let (echo, silent) = (Endpoint::echo(), FullEndpoint::start());
    let upstream = |timeout: &str| {
        format!(
            "loadBalancer: {{type: RoundRobin}}, retry: {{numRetries: 1, perRetry: {{timeout: {timeout}}}}}, timeout: {{tcp: \
             {{connectTimeout: 20s}}}}, circuitBreaker: {{maxPendingConnections: 5, pendingTimeout: 20s, perEndpoint: \
             {{maxConnections: 1, consecutiveFailures: 1, openFor: {{baseInterval: 50ms, maxInterval: 50ms}}}}}}"
        )
    };
    let settings = Settings::new(driver, &[silent.address, echo.address]);
    let proxy = Proxy::start(&settings.clone().upstream(&upstream("100ms")));
    let first = held(&proxy);
    proxy.reload(&settings.upstream(&upstream("20s"))).unwrap();
    let probing = connect(proxy.address);
    let of_silent = |key: &str| table(&proxy)["endpoints"][0][key].clone();
    eventually("a probe under way", || of_silent("breaker"), |breaker| *breaker == "half_open");
    let waiting = connect(proxy.address);
    wait_for_pending(&proxy, 1);
    reset_on_close(&probing);
    drop(probing);
    wait_for_pending(&proxy, 0);
    assert_eq!((of_silent("active"), of_silent("breaker")), (1.into(), "half_open".into()));
    let _accepted = silent.accept();
    eventually("the breaker is closed", || of_silent("breaker"), |breaker| *breaker == "closed");
    drop((first, waiting));
}

/// Places of attempts that failed are called for like those of connections that ended.
fn a_failed_attempt_gives_its_place_back(driver: Driver) {
    let echo = Endpoint::echo();
    let upstream = "loadBalancer: {type: RoundRobin}, retry: {numRetries: 1}, circuitBreaker: {maxConnections: 1, \
                    maxPendingConnections: 50, pendingTimeout: 20s, perEndpoint: {maxConnections: 1, consecutiveFailures: 0}}";
    let proxy = Proxy::start(&Settings::new(driver, &[closed_port(), echo.address]).upstream(upstream));
    let answers: Vec<Result<String, ErrorKind>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..20).map(|_| scope.spawn(|| ask(proxy.address, "hello"))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == Ok("hello".to_owned())), "{answers:?}");
    proxy.records(20);
    assert_eq!(table(&proxy)["pending"], 0);
}

fn retries_at_once_are_bounded(driver: Driver) {
    let full = FullEndpoint::start();
    // The first attempt is refused; the retry waits at the other endpoint, which never answers.
    let upstream = "loadBalancer: {type: RoundRobin}, retry: {numRetries: 1, perRetry: {timeout: 20s}}, timeout: {tcp: \
                    {connectTimeout: 20s}}, circuitBreaker: {maxParallelRetries: 1, perEndpoint: {consecutiveFailures: 0}}";
    let proxy = Proxy::start(&Settings::new(driver, &[closed_port(), full.address]).upstream(upstream));
    let mut first = connect(proxy.address);
    first.write_all(b"hello").unwrap();
    let active = || table(&proxy)["endpoints"][1]["active"].clone();
    eventually("a retry under way", active, |active| *active == 1);
    // Its turn is the silent endpoint's; the one after that begins with the refusal again.
    let second = connect(proxy.address);
    eventually("an attempt under way", active, |active| *active == 2);
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    let record = proxy.record();
    assert_eq!(record["outcome"], "connect_refused", "{record}");
    assert_eq!(proxy.metric("sheave_upstream_retries_refused_total", &[]), 1.0);
    drop((first, second));
}
