//! Routes by what clients offer to speak (ALPN).

use rustls::ClientConfig;

use crate::support::{
    Authority, Driver, Endpoint, Proxy, SecureClient, Settings, ask_securely, echo_securely, on_both_drivers,
    secure_endpoint, shake_hands,
};

on_both_drivers!(what_a_client_offers_decides, only_what_the_route_takes_is_agreed_on);

fn offering(authority: &Authority, protocols: &[&str]) -> ClientConfig {
    let mut config = authority.client();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

/// Settings with another route, for these protocols, to another endpoint.
fn with_route_for(protocols: &str, other: &Endpoint, mut settings: Settings) -> Settings {
    settings.more_routes = vec![format!(
        "{{name: other, listener: main, alpnProtocols: [{protocols}], backendRefs: [{{upstream: other}}]}}"
    )];
    settings.more_upstreams =
        vec![format!("{{name: other, endpoints: [{{address: \"{}\"}}]}}", other.address)];
    settings
}

fn agreed(client: &SecureClient) -> Option<&str> {
    client.conn.alpn_protocol().map(|protocol| std::str::from_utf8(protocol).unwrap())
}

fn what_a_client_offers_decides(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let mut config = certificate.server();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let acme = secure_endpoint(config, echo_securely);
    let web = secure_endpoint(certificate.server(), echo_securely);
    let settings = Settings::new(driver, &[web.address]).listener("protocol: TLS, tls: {mode: Passthrough}");
    let proxy = Proxy::start(&with_route_for("acme-tls/1", &acme, settings.clone()));
    for protocols in [&[][..], &["h2"], &["ACME-TLS/1"]] {
        let mut client = shake_hands(proxy.address, "a.test", offering(&authority, protocols)).unwrap();
        assert_eq!(ask_securely(&mut client, "hello").unwrap(), "hello", "{protocols:?}");
    }
    assert_eq!((web.accepted(), acme.accepted()), (3, 0));
    let client = shake_hands(proxy.address, "a.test", offering(&authority, &["h2", "acme-tls/1"])).unwrap();
    assert_eq!(agreed(&client), Some("acme-tls/1"));
    assert_eq!((web.accepted(), acme.accepted()), (3, 1));

    // A table whose route for it leads elsewhere.
    proxy.reload(&with_route_for("imap", &acme, settings)).unwrap();
    assert_eq!(proxy.records(4)[3]["outcome"], "policy");
    drop(client);
}

fn only_what_the_route_takes_is_agreed_on(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let (echo, other) = (Endpoint::echo(), Endpoint::echo());
    let settings = Settings::new(driver, &[echo.address]).listener(&format!(
        "protocol: TLS, tls: {{certificateRefs: [{}], alpnProtocols: [http/1.1, h2, imap]}}",
        certificate.reference()
    ));
    let proxy = Proxy::start(&with_route_for("imap, h2", &other, settings));
    for (protocols, expected, route) in [
        (&["http/1.1", "h2"][..], Some("h2"), "other"),
        (&["imap", "h2"], Some("h2"), "other"),
        (&["http/1.1"], Some("http/1.1"), "main"),
        (&[], None, "main"),
    ] {
        let before = proxy.lines.all().len();
        let mut client = shake_hands(proxy.address, "a.test", offering(&authority, protocols)).unwrap();
        assert_eq!(agreed(&client), expected, "{protocols:?}");
        assert_eq!(ask_securely(&mut client, "hello").unwrap(), "hello");
        drop(client);
        let record = &proxy.records(before + 1)[before];
        assert_eq!(record["route"], route, "{record}");
        assert_eq!(record["tls"]["downstream"]["alpn"].as_str(), expected, "{record}");
    }
}
