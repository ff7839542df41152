//! `sheave top`: what it shows of a running process, as tables and in a terminal.

mod interactive;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Output, Stdio};

use crate::support::{
    Driver, Endpoint, Proxy, Settings, closed_port, connect, eventually, exchange, round_trip,
};

fn top(admin: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sheave"));
    command.args(["top", "--interval", "100ms", "--admin", &admin.to_string()]).args(arguments);
    command.env("CLICOLOR_FORCE", "1").stdin(Stdio::null()).output().unwrap()
}

/// Its tables, each with its title line.
fn tables(admin: SocketAddr, arguments: &[&str]) -> Vec<Vec<Vec<String>>> {
    let output = top(admin, &[&["--once"], arguments].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    let fields = |line: &str| line.split_ascii_whitespace().map(ToOwned::to_owned).collect();
    text.split("\n\n").map(|table| table.lines().map(fields).collect()).collect()
}

/// The fields of the row that begins with `first`, by their titles.
fn row<const COUNT: usize>(table: &[Vec<String>], first: &str, titles: [&str; COUNT]) -> [String; COUNT] {
    let row = table.iter().find(|row| row[0] == first).unwrap_or_else(|| panic!("no {first}: {table:?}"));
    titles.map(|title| {
        let at = table[0].iter().position(|known| known == title);
        row[at.unwrap_or_else(|| panic!("no {title}: {:?}", table[0]))].clone()
    })
}

/// Answers like an admin port, with these bodies for `/metrics`, `/table` and `/connections`.
fn pretend(metrics: &'static str, table: &'static str, connections: &'static str) -> Endpoint {
    Endpoint::start(move |mut stream: TcpStream| {
        let mut request = Vec::new();
        let mut piece = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut piece) {
                Ok(length @ 1..) => request.extend_from_slice(&piece[..length]),
                _ => return,
            }
        }
        let request = String::from_utf8(request).unwrap();
        let body = match request.split([' ', '?']).nth(1) {
            Some("/metrics") => metrics,
            Some("/table") => table,
            _ => connections,
        };
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    })
}

#[test]
fn once_prints_what_there_is() {
    let (echo, refused) = (Endpoint::polite(), closed_port());
    let settings = Settings::new(Driver::Epoll, &[echo.address, refused])
        .upstream("loadBalancer: {type: RoundRobin}, circuitBreaker: {perEndpoint: {consecutiveFailures: 2, openFor: {baseInterval: 10m, maxInterval: 10m}}}");
    let proxy = Proxy::start(&settings);
    let opened = || {
        exchange(proxy.address).unwrap();
        proxy.metric("sheave_endpoint_breaker_state", &["state=\"open\""])
    };
    eventually("an open breaker", opened, |open| *open > 0.0);
    let mut live: Vec<TcpStream> = (0..3).map(|_| connect(proxy.address)).collect();
    live.iter_mut().for_each(round_trip);
    proxy.wait_for_live(3);

    let tables = tables(proxy.admin, &[]);
    let titles: Vec<&str> = tables.iter().map(|table| table[0][0].as_str()).collect();
    assert_eq!(titles, ["SHEAVE", "UPSTREAM", "ENDPOINT", "CONNECTION", "LISTENER", "WORKER"]);
    let process = row(&tables[0], env!("CARGO_PKG_VERSION"), ["PHASE", "GENERATION", "CLUSTER", "LIVE"]);
    assert_eq!(process, ["serving", "1", "-", "3"]);
    let upstream = row(&tables[1], "main", ["STATE", "USABLE", "ENDPOINTS", "LIVE", "BALANCER", "WHY"]);
    assert_eq!(upstream, ["degraded", "1", "2", "3", "RoundRobin", "1"]);
    let states = [echo.address, refused]
        .map(|endpoint| row(&tables[2], &endpoint.to_string(), ["UPSTREAM", "STATE", "LIVE"]));
    assert_eq!(states, [["main", "usable", "3"], ["main", "open", "0"]]);
    assert_eq!(tables[3].len(), 4, "{:?}", tables[3]);
    let client = live[0].local_addr().unwrap().to_string();
    let at = tables[3].iter().position(|row| row[1] == client).expect("the client");
    let shown = row(&tables[3], &tables[3][at][0], ["LISTENER", "UPSTREAM", "RECEIVED_BYTES", "SENT_BYTES"]);
    assert_eq!(shown, ["main", "main", "1", "1"]);
    let listener = row(&tables[4], "main", ["ADDRESS", "PROTOCOL", "LIVE"]);
    assert_eq!(listener[1..], ["TCP", "3"]);
    let workers: u32 =
        ["0", "1"].map(|worker| row(&tables[5], worker, ["LIVE"])[0].parse::<u32>().unwrap()).iter().sum();
    assert_eq!((tables[5].len(), workers), (3, 3));

    for view in ["upstreams", "endpoints", "connections", "listeners", "workers"] {
        let one = self::tables(proxy.admin, &["--view", view]);
        let title = view.trim_end_matches('s').to_uppercase();
        assert!(one.len() == 1 && one[0][0][0] == title, "{one:?}");
    }
}

#[test]
fn rates_are_of_the_interval() {
    let echo = Endpoint::polite();
    let proxy = Proxy::start(&Settings::new(Driver::Epoll, &[echo.address]));
    let load = crate::support::Load::short(proxy.address);
    let rates = || {
        let tables = tables(proxy.admin, &[]);
        let upstream = row(&tables[1], "main", ["CONN_PER_S", "CONNECT_P99_S", "FAILED_PER_S"]);
        let process = row(&tables[0], env!("CARGO_PKG_VERSION"), ["NEW_PER_S", "RECEIVED_BYTES_PER_S"]);
        (upstream.map(|text| text.parse::<f64>().ok()), process.map(|text| text.parse::<f64>().ok()))
    };
    eventually("rates", rates, |(upstream, process)| {
        upstream[0] > Some(0.0)
            && upstream[1] > Some(0.0)
            && upstream[2] == Some(0.0)
            && process.iter().all(|rate| *rate > Some(0.0))
    });
    load.stop().unwrap();
}

#[test]
fn ten_thousand_endpoints_are_printed() {
    let endpoints: Vec<SocketAddr> =
        (0..10_000_u32).map(|number| (Ipv4Addr::from(0x7f01_0000 + number), 9).into()).collect();
    let proxy = Proxy::start(&Settings::new(Driver::Epoll, &endpoints));
    let tables = tables(proxy.admin, &["--view", "endpoints"]);
    assert_eq!(tables[0].len(), 10_001);
    let upstreams = self::tables(proxy.admin, &["--view", "upstreams"]);
    assert_eq!(row(&upstreams[0], "main", ["USABLE", "ENDPOINTS"]), ["10000", "10000"]);
}

#[test]
fn a_port_without_sheave_is_an_error_that_names_it() {
    let nobody = closed_port();
    let (foreign, silent) = (pretend("up 1\n", "{}", "{}"), Endpoint::start(drop));
    for (admin, expected) in [
        (nobody, "no answer from the admin port at"),
        (foreign.address, "is not Sheave's admin port, or one of another version: /metrics"),
        // An answer without a byte, or a reset.
        (silent.address, "admin port"),
    ] {
        let output = top(admin, &["--once"]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{error}");
        assert!(error.starts_with("sheave top: ") && error.contains(expected), "{error}");
        assert!(error.contains(&admin.to_string()) && error.contains("--admin ADDRESS"), "{error}");
    }
}

#[test]
fn without_a_terminal_it_says_how_to_go_on() {
    let output = top(closed_port(), &[]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("standard output is no terminal; --once prints tables"), "{error}");
    for (arguments, expected) in [
        (["--admin", "sheave:9901"], "write an IP address and a port"),
        (["--interval", "5"], "5 has no unit; write 5s"),
        (["--interval", "50ms"], "write a time from 100ms to 1h"),
        (["--view", "routes"], "[possible values: upstreams, endpoints, connections, listeners, workers]"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sheave"));
        let output = command.arg("top").args(arguments).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}
