//! What a new table no longer permits is closed, and nothing else.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use super::departures::ended;
use super::*;
use crate::support::{FullEndpoint, ask_from, connect_from};

on_both_drivers!(
    a_new_deny_list_closes_just_those,
    a_route_that_leads_elsewhere_closes_just_those,
    who_is_on_the_way_in_is_closed_too,
    who_has_yet_to_say_where_to_is_closed_in_time,
    who_has_yet_to_say_who_it_is_gets_no_endpoint,
    what_a_second_change_forbids_is_paced_too,
);

const UNWANTED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const THIRD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 4));

fn held(proxy: &Proxy, source: IpAddr, count: usize) -> Vec<TcpStream> {
    let held = || {
        let mut stream = connect_from(source, proxy.address);
        echoed(&mut stream, b"before").unwrap();
        stream
    };
    (0..count).map(|_| held()).collect()
}

/// All of them end, in time.
fn all_end(streams: &mut [TcpStream], since: Instant) {
    for stream in streams {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

fn all_live(streams: &mut [TcpStream]) {
    streams.iter_mut().for_each(|stream| echoed(stream, b"after").unwrap());
}

fn cut(proxy: &Proxy, source: IpAddr, count: usize) {
    let records = proxy.records(count);
    let cut: Vec<&Value> = records.iter().filter(|record| record["outcome"] == "policy").collect();
    assert_eq!(cut.len(), count, "{records:#?}");
    for record in cut {
        assert!(record["client"].as_str().unwrap().starts_with(&format!("{source}:")), "{record}");
        assert_eq!(record["side"], "sheave", "{record}");
    }
    let counted = proxy.metric("sheave_listener_connections_total", &["outcome=\"policy\""]);
    assert_eq!(counted, count as f64);
}

fn a_new_deny_list_closes_just_those(driver: Driver) {
    let echo = Endpoint::polite();
    let settings = Settings::new(driver, &[echo.address]);
    let proxy = Proxy::start(&settings);
    let (mut unwanted, mut others) = (held(&proxy, UNWANTED, 20), held(&proxy, OTHER, 4));
    let changed = Instant::now();
    proxy.reload(&settings.clone().listener("deny: [127.0.0.2/32]")).unwrap();
    all_end(&mut unwanted, changed);
    cut(&proxy, UNWANTED, 20);
    all_live(&mut others);
    let refused = ask_from(UNWANTED, proxy.address, "hello");
    assert_eq!(refused, Err(std::io::ErrorKind::ConnectionReset));
    // An allow list says it the other way round; and what permits more closes nothing.
    proxy.reload(&settings.clone().listener("allow: [127.0.0.0/24]")).unwrap();
    let mut again = held(&proxy, UNWANTED, 1);
    proxy.reload(&settings.clone().listener("allow: [127.0.0.3/32]")).unwrap();
    all_end(&mut again, Instant::now());
    proxy.reload(&settings).unwrap();
    all_live(&mut others);
}

fn a_route_that_leads_elsewhere_closes_just_those(driver: Driver) {
    let (echo, elsewhere) = (Endpoint::polite(), Endpoint::polite());
    let settings = Settings::new(driver, &[echo.address]);
    let proxy = Proxy::start(&settings);
    let (mut moved, mut others) = (held(&proxy, UNWANTED, 3), held(&proxy, OTHER, 3));
    let mut changed = settings;
    changed
        .more_upstreams
        .push(format!("{{name: new, endpoints: [{{address: \"{}\"}}]}}", elsewhere.address));
    let near = "{name: near, listener: main, sources: [127.0.0.2/32], backendRefs: [{upstream: new}]}";
    changed.more_routes.push(near.to_owned());
    let at = Instant::now();
    proxy.reload(&changed).unwrap();
    all_end(&mut moved, at);
    cut(&proxy, UNWANTED, 3);
    let mut moved = held(&proxy, UNWANTED, 1);
    assert_eq!(elsewhere.accepted(), 1);
    // No new ones, and the old ones stay: so is traffic moved by weight.
    proxy
        .reload(
            &changed.clone().route("backendRefs: [{upstream: main, weight: 0}, {upstream: new, weight: 1}]"),
        )
        .unwrap();
    let mut newcomer = held(&proxy, OTHER, 1);
    assert_eq!(elsewhere.accepted(), 2);
    all_live(&mut others);
    let at = Instant::now();
    proxy.reload(&changed.route("backendRefs: [{upstream: new}]")).unwrap();
    all_end(&mut others, at);
    all_live(&mut moved);
    all_live(&mut newcomer);
}

fn who_is_on_the_way_in_is_closed_too(driver: Driver) {
    let full = FullEndpoint::start();
    let upstream = "timeout: {tcp: {connectTimeout: 60s}}, retry: {perRetry: {timeout: 0s}}";
    let settings = Settings::new(driver, &[full.address]).upstream(upstream);
    let proxy = Proxy::start(&settings);
    let mut client = connect_from(UNWANTED, proxy.address);
    eventually("an attempt", || table(proxy.admin), |table| active(table, "main", full.address) == 1);
    proxy.reload(&settings.listener("deny: [127.0.0.2/32]")).unwrap();
    let end = client.read(&mut [0]).map_err(|error| error.kind());
    assert!(matches!(end, Ok(0) | Err(std::io::ErrorKind::ConnectionReset)), "{end:?}");
    cut(&proxy, UNWANTED, 1);
}

/// Nobody waits until they have said it.
fn who_has_yet_to_say_where_to_is_closed_in_time(driver: Driver) {
    const COUNT: usize = 60;
    let endpoint = Endpoint::polite();
    let settings = Settings::new(driver, &[endpoint.address]);
    let listener = "protocol: TLS, tls: {mode: Passthrough}, timeout: {tcp: {tlsHandshakeTimeout: 60s}}";
    let proxy = Proxy::start(&settings.clone().listener(listener));
    let begin = |source| {
        let mut stream = connect_from(source, proxy.address);
        stream.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
        stream
    };
    let unwanted: Vec<_> = (0..COUNT).map(|_| begin(UNWANTED)).collect();
    let _other = begin(OTHER);
    proxy.wait_for_live(COUNT + 1);
    let changed = Instant::now();
    proxy.reload(&settings.listener(&format!("{listener}, deny: [127.0.0.2/32]"))).unwrap();
    for mut stream in unwanted {
        let end = stream.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    }
    assert!(changed.elapsed() < Duration::from_secs(5), "{:?}", changed.elapsed());
    cut(&proxy, UNWANTED, COUNT);
    assert_eq!((proxy.wait_for_live(1).len(), endpoint.accepted()), (1, 0));
}

fn who_has_yet_to_say_who_it_is_gets_no_endpoint(driver: Driver) {
    let endpoint = Endpoint::polite();
    let settings = Settings::new(driver, &[endpoint.address]);
    let listener = "proxyProtocol: {mode: Require, trusted: [127.0.0.0/8]}";
    let proxy = Proxy::start(&settings.clone().listener(listener));
    let mut streams = ["127.0.0.2", "127.0.0.3"].map(|client| {
        let mut stream = connect(proxy.address);
        stream.write_all(format!("PROXY TCP4 {client} 127.0.0.1 1 ").as_bytes()).unwrap();
        stream
    });
    proxy.wait_for_live(streams.len());
    proxy.reload(&settings.listener(&format!("{listener}, deny: [127.0.0.2/32]"))).unwrap();
    streams.iter_mut().for_each(|stream| stream.write_all(b"2\r\n").unwrap());
    let [mut unwanted, mut other] = streams;
    let end = unwanted.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    cut(&proxy, UNWANTED, 1);
    echoed(&mut other, b"after").unwrap();
    assert_eq!(endpoint.accepted(), 1);
}

/// When the time of those that the first change forbids is nearly over.
fn what_a_second_change_forbids_is_paced_too(driver: Driver) {
    const FIRST: usize = 400;
    const SECOND: usize = 120;
    const WINDOW: Duration = Duration::from_secs(5);
    // The kernel takes connections for it, which is all that is needed.
    let endpoint = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    endpoint.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    endpoint.listen(1_024).unwrap();
    let address = endpoint.local_addr().unwrap().as_socket().unwrap();
    let settings = Settings { workers: 1, ..Settings::new(driver, &[address]) };
    let proxy = Proxy::start(&settings);
    let open = |source, count| (0..count).map(|_| connect_from(source, proxy.address)).collect::<Vec<_>>();
    let (first, second, others) = (open(UNWANTED, FIRST), open(OTHER, SECOND), open(THIRD, 4));
    let all = first.len() + second.len() + others.len();
    eventually("all of them", || table(proxy.admin), |table| active(table, "main", address) == all);
    let of = |source: IpAddr| {
        let from = format!("{source}:");
        let records = proxy.lines.all().into_iter();
        records.filter(|record| record["client"].as_str().unwrap().starts_with(&from)).collect::<Vec<_>>()
    };
    let first_change = SystemTime::now();
    proxy.reload(&settings.clone().listener("deny: [127.0.0.2/32]")).unwrap();
    eventually("most of the first", || of(UNWANTED).len(), |count| *count >= FIRST * 9 / 10);
    assert_eq!(of(OTHER).len(), 0);
    let second_change = SystemTime::now();
    proxy.reload(&settings.listener("deny: [127.0.0.2/32, 127.0.0.3/32]")).unwrap();
    let ends = [(UNWANTED, FIRST), (OTHER, SECOND)].map(|(source, count)| {
        let records = eventually("all that are forbidden", || of(source), |records| records.len() == count);
        assert!(records.iter().all(|record| record["outcome"] == "policy"), "{records:?}");
        let ends = records.iter().map(ended);
        (ends.clone().min().unwrap(), ends.max().unwrap())
    });
    for (change, (_, last)) in [first_change, second_change].into_iter().zip(ends) {
        assert!(last <= change + WINDOW, "not within {WINDOW:?}");
    }
    let spread = ends[1].1.duration_since(ends[1].0).unwrap();
    // 8 in a tenth of a second are no crowd; by the time of the first ones all of them would have gone within four of these.
    assert!(spread >= Duration::from_secs(1), "{SECOND} were closed within {spread:?}");
    assert_eq!(proxy.wait_for_live(others.len()).len(), others.len());
    let counted = proxy.metric("sheave_listener_connections_total", &["outcome=\"policy\""]);
    assert_eq!(counted, (FIRST + SECOND) as f64);
}
