//! Addresses to listen on and to connect to: both families, and those that cannot be had.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use crate::support::{
    Driver, Endpoint, Process, Proxy, Settings, ask, ask_from, connect, eventually, in_namespace,
    on_both_drivers, round_trip,
};

on_both_drivers!(
    both_families_on_both_sides,
    one_socket_for_both_families,
    an_ipv6_address_is_for_ipv6_only,
    an_ipv4_client_of_a_dual_stack_listener_is_an_ipv4_client,
    a_port_in_use_ends_the_start,
    a_foreign_address_ends_the_start,
    a_forbidden_port_ends_the_start,
    a_taken_admin_port_ends_the_start,
    a_port_in_use_fails_the_reload,
);

fn both_families_on_both_sides(driver: Driver) {
    let endpoint = |address: &str| {
        Endpoint::start_on(address.parse().unwrap(), |mut stream| {
            std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).ok();
        })
    };
    for (listen, address) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:0", "[::1]:0"),
        ("[::1]:0", "127.0.0.1:0"),
        ("[::1]:0", "[::1]:0"),
    ] {
        let endpoint = endpoint(address);
        let proxy = Proxy::start(&listening(driver, &endpoint, listen));
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()), "{listen} to {address}");
        let record = proxy.record();
        assert_eq!(record["endpoint"], endpoint.address.to_string(), "{record}");
        let client: SocketAddr = record["client"].as_str().unwrap().parse().unwrap();
        assert_eq!(client.ip(), proxy.address.ip(), "{record}");
    }
}

fn one_socket_for_both_families(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&listening(driver, &echo, "[::]:0"));
    for client in ["127.0.0.1", "127.0.0.2", "::1"] {
        let address = SocketAddr::new(client.parse().unwrap(), proxy.address.port());
        assert_eq!(ask(address, "hello"), Ok("hello".to_owned()), "{client}");
    }
}

fn an_ipv6_address_is_for_ipv6_only(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&listening(driver, &echo, "[::1]:0"));
    let ipv4 = SocketAddr::new("127.0.0.1".parse().unwrap(), proxy.address.port());
    assert_eq!(ask(ipv4, "hello"), Err(ErrorKind::ConnectionRefused));
}

/// Though its address arrives as ::ffff:127.0.0.2.
fn an_ipv4_client_of_a_dual_stack_listener_is_an_ipv4_client(driver: Driver) {
    let (echo, routed) = (Endpoint::echo(), Endpoint::echo());
    let mut settings =
        listening(driver, &echo, "[::]:0").listener("deny: [127.0.0.3/32], allow: [127.0.0.0/8]");
    settings.more_routes.push(
        "{name: by-source, listener: main, sources: [127.0.0.2/32], backendRefs: [{upstream: routed}]}"
            .to_owned(),
    );
    settings
        .more_upstreams
        .push(format!("{{name: routed, endpoints: [{{address: \"{}\"}}]}}", routed.address));
    let proxy = Proxy::start(&settings);
    let address = SocketAddr::new("127.0.0.1".parse().unwrap(), proxy.address.port());
    let ask_as = |client: &str| ask_from(client.parse().unwrap(), address, "hello");
    assert_eq!(ask_as("127.0.0.1"), Ok("hello".to_owned()), "allowed");
    assert_eq!(ask_as("127.0.0.2"), Ok("hello".to_owned()), "allowed");
    assert_eq!(ask_as("127.0.0.3"), Err(ErrorKind::ConnectionReset), "denied");
    let ipv6 = SocketAddr::new("::1".parse().unwrap(), address.port());
    assert_eq!(ask(ipv6, "hello"), Err(ErrorKind::ConnectionReset), "not allowed");
    assert_eq!((echo.accepted(), routed.accepted()), (1, 1));
    let mut clients: Vec<String> = proxy
        .records(4)
        .iter()
        .map(|record| record["client"].as_str().unwrap().parse::<SocketAddr>().unwrap().ip().to_string())
        .collect();
    clients.sort();
    assert_eq!(clients, ["127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"], "as the client knows its address");
}

fn a_port_in_use_ends_the_start(driver: Driver) {
    // std's listeners have no SO_REUSEPORT, so that nobody shares their port.
    let (echo, taken) = (Endpoint::echo(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = taken.local_addr().unwrap();
    does_not_start(
        &listening(driver, &echo, &address.to_string()),
        |_| {},
        &[
            &format!("sheave: listener main cannot listen on {address}: Address already in use"),
            &format!("`ss -ltnp 'sport = :{}'`", address.port()),
        ],
    );
}

fn a_foreign_address_ends_the_start(driver: Driver) {
    let echo = Endpoint::echo();
    does_not_start(
        &listening(driver, &echo, "192.0.2.1:8080"),
        |_| {},
        &["sheave: listener main cannot listen on 192.0.2.1:8080: ", "192.0.2.1 is no address of this host"],
    );
}

/// In a namespace of its own, because containers often allow all ports to everyone.
fn a_forbidden_port_ends_the_start(driver: Driver) {
    in_namespace(move || {
        let settings = Settings::new(driver, &["127.0.0.1:9".parse().unwrap()]);
        let settings = Settings { listen: "127.0.0.1:80".to_owned(), ..settings };
        let without_the_right = |command: &mut Command| {
            let mut deprived = Command::new("setpriv");
            deprived.args(["--inh-caps=-net_bind_service", "--bounding-set=-net_bind_service"]);
            deprived.arg(command.get_program()).args(command.get_args());
            deprived.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            *command = deprived;
        };
        does_not_start(
            &settings,
            without_the_right,
            &[
                "sheave: listener main cannot listen on 127.0.0.1:80: Permission denied",
                "grant CAP_NET_BIND_SERVICE",
            ],
        );
    });
}

fn a_taken_admin_port_ends_the_start(driver: Driver) {
    let (echo, taken) = (Endpoint::echo(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = taken.local_addr().unwrap();
    let settings = Settings { admin: address.to_string(), ..Settings::new(driver, &[echo.address]) };
    let line = format!("sheave: admin.address: cannot listen on {address}: Address already in use");
    does_not_start(&settings, |_| {}, &[&line, "write a free address"]);
}

fn listening(driver: Driver, endpoint: &Endpoint, listen: &str) -> Settings {
    Settings { listen: listen.to_owned(), ..Settings::new(driver, &[endpoint.address]) }
}

/// One line on standard error with these parts, and exit code 1.
fn does_not_start(settings: &Settings, prepare: impl FnOnce(&mut Command), parts: &[&str]) {
    let mut process = Process::start(settings, prepare);
    let status = process.wait();
    let log = eventually("what it said", || process.log.get(), |log| log.ends_with('\n'));
    assert_eq!(status.code(), Some(1), "{log}");
    assert_eq!(log.lines().count(), 1, "one line: {log}");
    for part in parts {
        assert!(log.contains(part), "{part:?} is missing in {log:?}");
    }
    assert_eq!(process.output.get(), "");
}

fn a_port_in_use_fails_the_reload(driver: Driver) {
    let (echo, taken) = (Endpoint::echo(), TcpListener::bind("127.0.0.1:0").unwrap());
    let settings = Settings::new(driver, &[echo.address]);
    let proxy = Proxy::start(&settings);
    let mut held = connect(proxy.address);
    round_trip(&mut held);
    let mut next = settings.clone();
    next.more_listeners.push("{name: free, address: \"127.0.0.2:0\"}".to_owned());
    next.more_listeners.push(format!("{{name: taken, address: \"{}\"}}", taken.local_addr().unwrap()));
    for name in ["free", "taken"] {
        let route = format!("{{name: {name}, listener: {name}, backendRefs: [{{upstream: main}}]}}");
        next.more_routes.push(route);
    }
    for _ in 0..2 {
        let error = proxy.reload(&next).unwrap_err();
        let start = format!(
            "listener taken cannot listen on {}: Address already in use",
            taken.local_addr().unwrap()
        );
        assert!(error.starts_with(&start) && error.lines().count() == 1, "{error}");
        assert_eq!(proxy.metric("sheave_config_last_reload_successful", &[]), 0.0);
        assert_eq!(proxy.metric("sheave_table_generation", &[]), 1.0, "the table is kept");
        round_trip(&mut held);
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()), "new connections are fine");
    }
    // Once the address is free, the same file works.
    drop(taken);
    proxy.reload(&next).unwrap();
    assert_eq!(proxy.metric("sheave_config_last_reload_successful", &[]), 1.0);
    round_trip(&mut held);
    assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
}
