//! Listeners that share a port: the name that a client asks for says which one it means.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{
    Authority, Certificate, Driver, Endpoint, Proxy, Settings, ask_securely, eventually, on_both_drivers,
    shake_hands,
};

use super::terminating;

on_both_drivers!(
    each_listener_has_its_own_terms,
    a_connection_has_its_place_with_the_listener_it_wants,
    a_change_of_one_listener_spares_the_others,
);

/// Beside `main` one called `partners`, with these fields more.
fn beside(settings: Settings, certificate: &Certificate, tls: &str, more: &str) -> Settings {
    let mut settings = settings;
    settings.more_listeners = vec![format!(
        "{{name: partners, address: \"{}\", protocol: TLS, tls: {{certificateRefs: [{}], {tls}}}, {more}}}",
        settings.listen,
        certificate.reference()
    )];
    settings.more_routes = vec![
        "{name: partners, listener: partners, hostnames: [partners.test], backendRefs: [{upstream: main}]}"
            .to_owned(),
    ];
    settings
}

fn each_listener_has_its_own_terms(driver: Driver) {
    let authority = Authority::new();
    let (own, client) = (authority.certify(&["main.test", "partners.test"]), authority.certify(&["client"]));
    let endpoint = Endpoint::echo();
    let asks = format!("clientValidation: {{caCertificateRefs: [{{file: {}}}]}}", authority.file().display());
    let proxy = Proxy::start(&beside(terminating(driver, &own, &endpoint), &own, &asks, ""));
    assert_eq!(proxy.listener("partners"), proxy.address, "one port");
    let ask = |name: &str, config| {
        shake_hands(proxy.address, name, config).and_then(|mut client| ask_securely(&mut client, "hello"))
    };
    assert_eq!(ask("main.test", authority.client()).unwrap(), "hello");
    assert_eq!(ask("partners.test", authority.client_with(&client)).unwrap(), "hello");
    assert!(ask("partners.test", authority.client()).is_err(), "it shows no certificate");
    let records = proxy.records(3);
    let of = |field: &str| records.iter().map(|r| r[field].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(of("listener"), ["main", "partners", "partners"], "{records:?}");
    assert_eq!(of("outcome"), ["downstream_closed", "downstream_closed", "tls_handshake_failed"]);
    let counted = |name| {
        let name = format!("listener=\"{name}\"");
        let of_all = "sheave_listener_tls_handshakes_total";
        ["full", "resumed"].map(|kind| proxy.metric(of_all, &[&name, &format!("kind=\"{kind}\"")]))
    };
    assert_eq!((counted("main"), counted("partners")), ([1.0, 0.0], [1.0, 0.0]));
}

fn active(proxy: &Proxy, name: &str) -> f64 {
    proxy.metric("sheave_listener_active_connections", &[&format!("listener=\"{name}\"")])
}

fn a_connection_has_its_place_with_the_listener_it_wants(driver: Driver) {
    let authority = Authority::new();
    let own = authority.certify(&["main.test", "partners.test"]);
    let endpoint = Endpoint::echo();
    let mut settings = terminating(driver, &own, &endpoint);
    settings.listener.push_str(", connection: {limit: 1}");
    let proxy = Proxy::start(&beside(settings, &own, "", "connection: {limit: 2}"));
    let mut held = Vec::new();
    for name in ["partners.test", "partners.test", "main.test"] {
        let mut client = shake_hands(proxy.address, name, authority.client()).unwrap();
        client.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        held.push(client);
    }
    assert_eq!((active(&proxy, "main"), active(&proxy, "partners")), (1.0, 2.0));
    // The port is that of `main`, and whoever is not yet known to want another listener needs a place there.
    let answer = TcpStream::connect(proxy.address).and_then(|mut client| client.read(&mut [0]));
    assert!(!matches!(answer, Ok(1)), "{answer:?}");
    drop(held.pop());
    eventually("a place", || active(&proxy, "main"), |active| *active == 0.0);
    assert!(shake_hands(proxy.address, "partners.test", authority.client()).is_err());
    let records = proxy.records(3);
    let refused = records.iter().filter(|record| record["outcome"] == "limit");
    let by: Vec<&str> = refused.map(|record| record["listener"].as_str().unwrap()).collect();
    assert_eq!(by, ["main", "partners"], "{records:?}");
    drop(held);
    eventually("no connection", || active(&proxy, "partners"), |active| *active == 0.0);
}

fn a_change_of_one_listener_spares_the_others(driver: Driver) {
    let authority = Authority::new();
    let own = authority.certify(&["main.test", "partners.test"]);
    let (endpoint, other) = (Endpoint::echo(), Endpoint::echo());
    let mut settings = beside(terminating(driver, &own, &endpoint), &own, "", "");
    settings.more_upstreams.push(format!("{{name: other, endpoints: [{{address: \"{}\"}}]}}", other.address));
    let proxy = Proxy::start(&settings);
    let mut clients = ["main.test", "partners.test"].map(|name| {
        let mut client = shake_hands(proxy.address, name, authority.client()).unwrap();
        client.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        client
    });
    settings.more_routes[0] = settings.more_routes[0].replace("upstream: main", "upstream: other");
    proxy.reload(&settings).unwrap();
    assert_eq!(proxy.record()["outcome"], "policy", "its route leads elsewhere now");
    assert!(!matches!(clients[1].read(&mut [0; 5]), Ok(1..)));
    clients[0].write_all(b"still").unwrap();
    clients[0].read_exact(&mut [0; 5]).unwrap();
    let mut client = shake_hands(proxy.address, "partners.test", authority.client()).unwrap();
    assert_eq!(ask_securely(&mut client, "hello").unwrap(), "hello");
    assert_eq!(other.accepted(), 1);
}
