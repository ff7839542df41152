//! PROXY protocol headers that clients' proxies send: who is believed, and what follows from what they say.

mod programs;
mod secured;
mod sent;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::{
    Driver, Endpoint, Pattern, Proxy, Settings, ask, ask_from, connect, connect_from, on_both_drivers,
    round_trip, stays_silent,
};

on_both_drivers!(
    the_named_client_is_the_client,
    pieces_of_a_header_make_a_header,
    not_a_byte_behind_the_header_is_lost,
    who_speaks_for_itself_keeps_its_address,
    without_its_header_a_connection_is_reset,
    nobody_else_is_believed,
    where_it_is_optional_clients_come_as_they_are,
    a_client_that_waits_to_be_spoken_to,
    a_header_that_does_not_come_has_its_time,
    who_leaves_before_its_header_is_no_failure,
    rules_see_the_named_client,
    a_hash_is_of_the_named_client,
    a_network_of_ipv6_is_one_client,
    who_names_nobody_is_judged_before_it_speaks,
    a_limit_that_is_new_counts_who_is_silent,
    the_place_of_a_listener_is_taken_before_the_header,
);

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\0\x02\x07\xc0\0\x02\x01\x0f\xa0\x01\xbb\x04\0\0";
const V1_IPV6: &[u8] = b"PROXY TCP6 2001:db8::7 2001:db8::1 4000 443\r\n";
const RESET: Result<String, ErrorKind> = Err(ErrorKind::ConnectionReset);
const NAMED: &str = "192.0.2.7:4000";

fn require(driver: Driver, endpoint: &Endpoint) -> Settings {
    Settings::new(driver, &[endpoint.address])
        .listener("proxyProtocol: {mode: Require, trusted: [127.0.0.1/32]}")
}

fn optional(driver: Driver, endpoint: &Endpoint) -> Settings {
    Settings::new(driver, &[endpoint.address])
        .listener("proxyProtocol: {mode: Optional, trusted: [127.0.0.1/32]}")
}

/// A connection that has sent this.
fn connect_with(address: SocketAddr, first: &[u8]) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(first).unwrap();
    stream
}

/// Waits for the connection to be ended from the other side.
fn is_reset(mut stream: &TcpStream) {
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

fn the_named_client_is_the_client(driver: Driver) {
    let endpoint = Endpoint::echo();
    let proxy = Proxy::start(&require(driver, &endpoint));
    for (header, named) in [(V1, NAMED), (V2, NAMED), (V1_IPV6, "[2001:db8::7]:4000")] {
        let before = proxy.lines.all().len();
        let mut client = connect_with(proxy.address, header);
        let own = client.local_addr().unwrap().to_string();
        round_trip(&mut client);
        let live = proxy.wait_for_live(1);
        assert_eq!(live[0]["client"], named, "{live:?}");
        drop(client);
        let record = &proxy.records(before + 1)[before];
        assert_eq!((&record["client"], &record["via"]), (&named.into(), &own.into()), "{record}");
        assert_eq!((&record["outcome"], &record["bytes_received"]), (&"downstream_closed".into(), &1.into()));
    }
}

fn pieces_of_a_header_make_a_header(driver: Driver) {
    let endpoint = Endpoint::echo();
    for settings in [require(driver, &endpoint), optional(driver, &endpoint)] {
        let proxy = Proxy::start(&settings);
        for (count, header) in [V1, V2].into_iter().enumerate() {
            let mut client = connect(proxy.address);
            for byte in header {
                client.write_all(&[*byte]).unwrap();
                // Time for a look at what there is so far.
                proxy.wait_for_live(1);
            }
            round_trip(&mut client);
            drop(client);
            let record = &proxy.records(count + 1)[count];
            assert_eq!((&record["client"], &record["outcome"]), (&NAMED.into(), &"downstream_closed".into()));
        }
    }
}

fn not_a_byte_behind_the_header_is_lost(driver: Driver) {
    const LONG: usize = 4 * 1024 * 1024;
    let (report, reported) = flume::bounded(1);
    let endpoint = Endpoint::start(move |stream| report.send(Pattern::new(1).read_to_end(&stream)).unwrap());
    let proxy = Proxy::start(&require(driver, &endpoint));
    for header in [V1, V2] {
        for length in [0, 1, 5_000, LONG] {
            let mut bytes = header.to_vec();
            Pattern::new(1).write(0..length, &mut bytes);
            let mut client = connect_with(proxy.address, &bytes);
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(reported.recv(), Ok(length));
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
    }
}

fn who_speaks_for_itself_keeps_its_address(driver: Driver) {
    let endpoint = Endpoint::echo();
    let proxy = Proxy::start(&require(driver, &endpoint));
    let unix = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8"[..], &[b'/'; 216]].concat();
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for (count, header) in [&b"PROXY UNKNOWN\r\n"[..], local, &unix].into_iter().enumerate() {
        let mut client = connect_with(proxy.address, header);
        let own = client.local_addr().unwrap().to_string();
        round_trip(&mut client);
        drop(client);
        let record = &proxy.records(count + 1)[count];
        assert_eq!((&record["client"], record["via"].is_null()), (&own.into(), true), "{record}");
    }
}

fn without_its_header_a_connection_is_reset(driver: Driver) {
    let endpoint = Endpoint::echo();
    let proxy = Proxy::start(&require(driver, &endpoint));
    let too_long = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff";
    let checksum =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\xc0\0\x02\x07\xc0\0\x02\x01\x0f\xa0\x01\xbb\x03\0\x04\0\0\0\0";
    let firsts: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 1.2.3.4\r\n", too_long, checksum];
    for (count, first) in firsts.into_iter().enumerate() {
        is_reset(&connect_with(proxy.address, first));
        assert_eq!(
            proxy.records(count + 1)[count]["outcome"],
            "proxy_header_invalid",
            "{}",
            first.escape_ascii()
        );
    }
    let cut = connect_with(proxy.address, &V2[..20]);
    cut.shutdown(Shutdown::Write).unwrap();
    is_reset(&cut);
    assert_eq!(proxy.records(5)[4]["outcome"], "proxy_header_invalid");
    assert_eq!(endpoint.accepted(), 0, "nothing reaches an endpoint");
}

fn nobody_else_is_believed(driver: Driver) {
    let endpoint = Endpoint::echo();
    let stranger: IpAddr = "127.0.0.2".parse().unwrap();
    let proxy = Proxy::start(&require(driver, &endpoint));
    // At once, whatever it would have sent.
    assert_eq!(ask_from(stranger, proxy.address, "PROXY UNKNOWN\r\n"), RESET);
    assert_eq!(proxy.record()["outcome"], "proxy_header_untrusted");

    let proxy = Proxy::start(&optional(driver, &endpoint));
    let mut client = connect_from(stranger, proxy.address);
    client.write_all(V1).unwrap();
    is_reset(&client);
    let mut client = connect_from(stranger, proxy.address);
    round_trip(&mut client);
    let own = client.local_addr().unwrap().to_string();
    drop(client);
    let records = proxy.records(2);
    assert_eq!(records[0]["outcome"], "proxy_header_untrusted");
    assert_eq!((&records[1]["outcome"], &records[1]["client"]), (&"downstream_closed".into(), &own.into()));
    assert_eq!(endpoint.accepted(), 1);
}

fn where_it_is_optional_clients_come_as_they_are(driver: Driver) {
    let endpoint = Endpoint::echo();
    let proxy = Proxy::start(&optional(driver, &endpoint));
    // With a first byte like a header's, too, however the rest comes.
    for (count, message) in ["hello", "PROXYING", "P", "\r\n"].into_iter().enumerate() {
        let mut client = connect(proxy.address);
        let (first, rest) = message.as_bytes().split_at(1);
        client.write_all(first).unwrap();
        // Time for a look at it.
        proxy.wait_for_live(1);
        client.write_all(rest).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, message);
        let record = &proxy.records(count + 1)[count];
        assert_eq!((&record["outcome"], record["via"].is_null()), (&"downstream_closed".into(), true));
    }
    let mut client = connect_with(proxy.address, V2);
    round_trip(&mut client);
    drop(client);
    assert_eq!(proxy.records(5)[4]["client"], NAMED);
}

fn a_client_that_waits_to_be_spoken_to(driver: Driver) {
    let endpoint = Endpoint::start(|mut stream| stream.write_all(b"220 ready").unwrap());
    let proxy = Proxy::start(&optional(driver, &endpoint));
    let mut greeting = String::new();
    let started = Instant::now();
    connect(proxy.address).read_to_string(&mut greeting).unwrap();
    assert_eq!(greeting, "220 ready");
    assert!(started.elapsed() >= Duration::from_millis(900), "a header had {:?} to come", started.elapsed());
}

fn a_header_that_does_not_come_has_its_time(driver: Driver) {
    let endpoint = Endpoint::echo();
    let (required, optional) =
        (Proxy::start(&require(driver, &endpoint)), Proxy::start(&optional(driver, &endpoint)));
    let started = Instant::now();
    let clients = [
        connect(required.address),
        connect_with(required.address, &V1[..V1.len() - 1]),
        connect_with(optional.address, &V2[..V2.len() - 1]),
    ];
    clients.iter().for_each(is_reset);
    assert!(started.elapsed() >= Duration::from_millis(4_900), "it had {:?}", started.elapsed());
    for record in required.records(2).iter().chain(&optional.records(1)) {
        assert_eq!(record["outcome"], "proxy_header_timeout", "{record}");
    }
    assert_eq!(endpoint.accepted(), 0);
}

/// As load balancers do to see whether the port is open.
fn who_leaves_before_its_header_is_no_failure(driver: Driver) {
    let endpoint = Endpoint::echo();
    for settings in [require(driver, &endpoint), optional(driver, &endpoint)] {
        let proxy = Proxy::start(&settings);
        drop(connect(proxy.address));
        assert_eq!(proxy.record()["outcome"], "downstream_closed");
    }
    assert_eq!(endpoint.accepted(), 0);
}

fn rules_see_the_named_client(driver: Driver) {
    let (endpoint, other) =
        (Endpoint::echo(), Endpoint::start(|mut stream| stream.write_all(b"other").unwrap()));
    let mut settings = Settings::new(driver, &[endpoint.address]).listener(
        "proxyProtocol: {mode: Require, trusted: [127.0.0.1/32]}, deny: [127.0.0.1/32, 203.0.113.0/24], \
         connection: {limitPerSource: 1}",
    );
    settings.more_routes.push(
        "{name: other, listener: main, sources: [198.51.100.0/24], backendRefs: [{upstream: other}]}"
            .to_owned(),
    );
    settings.more_upstreams.push(format!("{{name: other, endpoints: [{{address: \"{}\"}}]}}", other.address));
    let proxy = Proxy::start(&settings);
    let named = |client: &str| format!("PROXY TCP4 {client} 192.0.2.1 4000 443\r\n").into_bytes();
    let mut first = connect_with(proxy.address, &named("192.0.2.7"));
    round_trip(&mut first);
    is_reset(&connect_with(proxy.address, &named("192.0.2.7")));
    let mut second = connect_with(proxy.address, &named("192.0.2.8"));
    round_trip(&mut second);
    is_reset(&connect_with(proxy.address, &named("203.0.113.1")));
    let mut answer = String::new();
    connect_with(proxy.address, &named("198.51.100.1")).read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "other");
    let outcomes: Vec<String> =
        proxy.records(3).iter().map(|record| record["outcome"].as_str().unwrap().to_owned()).collect();
    assert_eq!(outcomes, ["source_limit", "denied", "upstream_closed"]);

    // A table that no longer permits one of them.
    settings.listener = settings.listener.replace("203.0.113.0/24", "192.0.2.8/32");
    proxy.reload(&settings).unwrap();
    is_reset_or_closed(&second);
    round_trip(&mut first);
    assert_eq!(proxy.records(4)[3]["outcome"], "policy");
}

fn is_reset_or_closed(mut stream: &TcpStream) {
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)), "it is to end");
}

fn the_place_of_a_listener_is_taken_before_the_header(driver: Driver) {
    let endpoint = Endpoint::echo();
    let settings = Settings::new(driver, &[endpoint.address])
        .listener("proxyProtocol: {mode: Require, trusted: [127.0.0.1/32]}, connection: {limit: 1}");
    let proxy = Proxy::start(&settings);
    let mut first = connect(proxy.address);
    proxy.wait_for_live(1);
    assert_eq!(ask(proxy.address, "PROXY UNKNOWN\r\n"), RESET);
    assert_eq!(proxy.record()["outcome"], "limit");
    stays_silent(&first, Duration::from_millis(50));
    first.write_all(V1).unwrap();
    round_trip(&mut first);
}

/// Whoever may not speak for others cannot become another by staying silent.
/// All of them come from one address here.
fn a_hash_is_of_the_named_client(driver: Driver) {
    const CLIENTS: usize = 16;
    let endpoints: Vec<Endpoint> = (0..4).map(|_| Endpoint::echo()).collect();
    let settings = Settings {
        endpoints: endpoints.iter().map(|endpoint| endpoint.address).collect(),
        ..require(driver, &endpoints[0])
    };
    let proxy = Proxy::start(&settings.upstream("loadBalancer: {type: ConsistentHash}"));
    for number in (0..CLIENTS).chain(0..CLIENTS) {
        let header = format!("PROXY TCP4 10.0.0.{number} 192.0.2.1 4000 443\r\n");
        round_trip(&mut connect_with(proxy.address, header.as_bytes()));
    }
    let mut homes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for record in proxy.records(2 * CLIENTS) {
        homes.entry(record["client"].to_string()).or_default().insert(record["endpoint"].to_string());
    }
    assert_eq!(homes.len(), CLIENTS, "{homes:?}");
    assert!(homes.values().all(|endpoints| endpoints.len() == 1), "{homes:?}");
    assert!(homes.values().flatten().collect::<BTreeSet<_>>().len() > 1, "{homes:?}");
}

fn a_network_of_ipv6_is_one_client(driver: Driver) {
    let echo = Endpoint::echo();
    let listener = "proxyProtocol: {mode: Require, trusted: [127.0.0.1/32]}, connection: {limitPerSource: 1}";
    let proxy = Proxy::start(&Settings::new(driver, &[echo.address]).listener(listener));
    let named = |source: &str| {
        connect_with(proxy.address, format!("PROXY TCP6 {source} 2001:db8::1 4000 443\r\n").as_bytes())
    };
    let mut first = named("2001:db8:0:1::7");
    round_trip(&mut first);
    is_reset(&named("2001:db8:0:1:ffff::9"));
    round_trip(&mut named("2001:db8:0:2::7"));
    round_trip(&mut first);
}

fn who_names_nobody_is_judged_before_it_speaks(driver: Driver) {
    let endpoint = Endpoint::echo();
    let denied: IpAddr = "127.0.0.2".parse().unwrap();
    for speaks in ["protocol: TLS, tls: {mode: Passthrough}", "protocol: TCP"] {
        let settings = Settings::new(driver, &[endpoint.address]).listener(&format!(
            "proxyProtocol: {{mode: Optional, trusted: [10.0.0.0/8]}}, deny: [127.0.0.2/32], \
             connection: {{limitPerSource: 2}}, {speaks}"
        ));
        let proxy = Proxy::start(&settings);
        let silent = [connect(proxy.address), connect_with(proxy.address, &V1[..1])];
        proxy.wait_for_live(2);
        assert_eq!(ask(proxy.address, ""), RESET);
        assert_eq!(proxy.record()["outcome"], "source_limit", "{speaks}");
        assert_eq!(ask_from(denied, proxy.address, ""), RESET);
        assert_eq!(proxy.records(2)[1]["outcome"], "denied", "{speaks}");
        drop(silent);
    }
}

fn a_limit_that_is_new_counts_who_is_silent(driver: Driver) {
    let endpoint = Endpoint::echo();
    let listener =
        "proxyProtocol: {mode: Optional, trusted: [10.0.0.0/8]}, protocol: TLS, tls: {mode: Passthrough}";
    let settings = Settings::new(driver, &[endpoint.address]).listener(listener);
    let proxy = Proxy::start(&settings);
    let _silent = [connect(proxy.address), connect(proxy.address)];
    proxy.wait_for_live(2);
    proxy.reload(&settings.listener(&format!("{listener}, connection: {{limitPerSource: 2}}"))).unwrap();
    assert_eq!(ask(proxy.address, ""), RESET);
    assert_eq!(proxy.record()["outcome"], "source_limit");
}
