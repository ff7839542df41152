//! TLS to the endpoint.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use crate::support::{
    Authority, Driver, Endpoint, Pattern, Proxy, ask, ask_securely, connect, echo_securely, on_both_drivers,
    secure_endpoint, shake_hands,
};

use super::{assert_ended, encrypting, terminating};

on_both_drivers!(
    plain_clients_reach_endpoints_that_speak_tls,
    opened_and_closed_again,
    bulk_is_encrypted_and_decrypted,
    the_second_connection_remembers_the_first,
    a_certificate_for_another_name_is_not_accepted,
    an_endpoint_without_tls_is_given_up_for_another,
    an_endpoint_that_says_nothing_takes_only_its_time,
    an_endpoint_that_just_leaves_has_not_ended,
    endpoints_are_shown_a_certificate,
    what_a_client_chose_to_speak_is_not_the_endpoints_failure,
);

fn plain_clients_reach_endpoints_that_speak_tls(driver: Driver) {
    let authority = Authority::new();
    let endpoint = secure_endpoint(authority.certify(&["pg.test"]).server(), echo_securely);
    let proxy = Proxy::start(&encrypting(driver, &authority, "pg.test", &[&endpoint]));
    assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
    let record = assert_ended(&proxy, "downstream_closed", 5, 5);
    assert_eq!(record["tls"]["upstream"]["version"], "TLSv1.3", "{record}");
    assert!(record["tls"]["downstream"].is_null(), "{record}");
}

fn opened_and_closed_again(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let mut config = authority.certify(&["pg.test"]).server();
    config.alpn_protocols = vec![b"one".to_vec(), b"two".to_vec()];
    let endpoint = secure_endpoint(config, |mut stream| {
        let spoken = stream.conn.alpn_protocol().unwrap().to_vec();
        stream.write_all(&spoken).unwrap();
        echo_securely(stream);
    });
    let mut settings = terminating(driver, &certificate, &endpoint);
    settings.listener = settings.listener.replace("mode:", "alpnProtocols: [one, two], mode:");
    settings.upstream = encrypting(driver, &authority, "pg.test", &[&endpoint]).upstream;
    let proxy = Proxy::start(&settings);
    let mut client = authority.client();
    client.alpn_protocols = vec![b"two".to_vec()];
    let mut client = shake_hands(proxy.address, "a.test", client).unwrap();
    assert_eq!(ask_securely(&mut client, "hello").unwrap(), "twohello");
    let record = assert_ended(&proxy, "downstream_closed", 5, 8);
    assert_eq!(record["tls"]["downstream"]["alpn"], "two", "{record}");
    assert_eq!(record["tls"]["upstream"]["alpn"], "two", "{record}");
}

fn bulk_is_encrypted_and_decrypted(driver: Driver) {
    const LONG: usize = 8 * 1024 * 1024;
    let authority = Authority::new();
    let endpoint = secure_endpoint(authority.certify(&["pg.test"]).server(), |mut stream| {
        assert_eq!(Pattern::new(1).read_to_end(&mut stream), LONG);
        Pattern::new(2).write(0..LONG, &mut stream);
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    });
    let proxy = Proxy::start(&encrypting(driver, &authority, "pg.test", &[&endpoint]));
    let mut client = connect(proxy.address);
    Pattern::new(1).write(0..LONG, &mut client);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(Pattern::new(2).read_to_end(&client), LONG);
    assert_ended(&proxy, "downstream_closed", LONG as u64, LONG as u64);
}

fn the_second_connection_remembers_the_first(driver: Driver) {
    let authority = Authority::new();
    let endpoint = secure_endpoint(authority.certify(&["pg.test"]).server(), echo_securely);
    let proxy = Proxy::start(&encrypting(driver, &authority, "pg.test", &[&endpoint]));
    for expected in [false, true] {
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
        let records = proxy.records(1 + usize::from(expected));
        let resumed = &records.last().unwrap()["tls"]["upstream"]["resumed"];
        assert_eq!(*resumed, expected, "{records:?}");
    }
}

fn a_certificate_for_another_name_is_not_accepted(driver: Driver) {
    let authority = Authority::new();
    let endpoint = secure_endpoint(authority.certify(&["other.test"]).server(), echo_securely);
    let proxy = Proxy::start(&encrypting(driver, &authority, "pg.test", &[&endpoint]));
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    let record = proxy.record();
    assert_eq!((&record["outcome"], &record["side"]), (&"tls_upstream_failed".into(), &"upstream".into()));
    let attempts = record["attempts"].as_array().unwrap();
    let reason = attempts[0]["reason"].as_str().unwrap();
    let expected = "its certificate is not good: it is for other.test, and not for pg.test; the endpoint was asked for as pg.test";
    assert_eq!(reason, expected, "{record}");
}

fn an_endpoint_without_tls_is_given_up_for_another(driver: Driver) {
    let authority = Authority::new();
    let plain = Endpoint::start(|mut stream| {
        stream.write_all(b"220 hello, and no TLS here\r\n").unwrap();
        while stream.read(&mut [0; 1024]).is_ok_and(|length| length > 0) {}
    });
    let good = secure_endpoint(authority.certify(&["pg.test"]).server(), echo_securely);
    let mut settings = encrypting(driver, &authority, "pg.test", &[&plain, &good]);
    settings.upstream.push_str(", loadBalancer: {type: RoundRobin}");
    let proxy = Proxy::start(&settings);
    for _ in 0..4 {
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
    }
    let failed =
        proxy.records(4).iter().flat_map(|r| r["attempts"].as_array().unwrap().clone()).collect::<Vec<_>>();
    assert!(failed.iter().any(|attempt| attempt["result"] == "tls_upstream_failed"), "{failed:?}");
    let labels = [&*format!("endpoint=\"{}\"", plain.address)];
    assert!(proxy.metric("sheave_endpoint_failures_total", &labels) >= 1.0);

    let reasons =
        proxy.records(4).into_iter().flat_map(|record| record["attempts"].as_array().unwrap().clone());
    let reasons: Vec<_> = reasons.filter(|attempt| attempt["result"] != "connected").collect();
    assert!(
        !reasons.is_empty() && reasons.iter().all(|of| of["reason"] == "what it sent is no TLS"),
        "{reasons:?}"
    );
    // The same without leave to try another.
    settings.upstream.push_str(", retry: {triggers: [connect-failure]}");
    proxy.reload(&settings).unwrap();
    let answers: Vec<_> = (0..4).map(|_| ask(proxy.address, "hello").is_ok()).collect();
    assert!(answers.contains(&false), "{answers:?}");
}

fn an_endpoint_that_says_nothing_takes_only_its_time(driver: Driver) {
    let authority = Authority::new();
    let silent =
        Endpoint::start(|mut stream| while stream.read(&mut [0; 1024]).is_ok_and(|length| length > 0) {});
    let mut settings = encrypting(driver, &authority, "pg.test", &[&silent]);
    settings.upstream.push_str(", timeout: {tcp: {connectTimeout: 200ms}}");
    let proxy = Proxy::start(&settings);
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset));
    assert_eq!(proxy.record()["outcome"], "tls_upstream_timeout");
}

fn an_endpoint_that_just_leaves_has_not_ended(driver: Driver) {
    let authority = Authority::new();
    let endpoint = secure_endpoint(authority.certify(&["pg.test"]).server(), |mut stream| {
        stream.read_exact(&mut [0; 5]).unwrap();
        stream.write_all(b"half a sen").unwrap();
    });
    let proxy = Proxy::start(&encrypting(driver, &authority, "pg.test", &[&endpoint]));
    let mut client = connect(proxy.address);
    client.write_all(b"hello").unwrap();
    let mut answer = String::new();
    let error = client.read_to_string(&mut answer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.record()["outcome"], "upstream_truncated");
}

fn endpoints_are_shown_a_certificate(driver: Driver) {
    let authority = Authority::new();
    let config = authority.server_that_asks(&authority.certify(&["pg.test"]));
    let endpoint = secure_endpoint(config, echo_securely);
    let mut settings = encrypting(driver, &authority, "pg.test", &[&endpoint]);
    let mine = authority.certify(&["sheave.test"]).reference();
    settings.upstream =
        settings.upstream.replace("tls: {", &format!("tls: {{clientCertificateRef: {mine}, "));
    let proxy = Proxy::start(&settings);
    assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
}

/// Clients could open every breaker else.
fn what_a_client_chose_to_speak_is_not_the_endpoints_failure(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let mut config = authority.certify(&["pg.test"]).server();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let endpoints = [(); 2].map(|()| secure_endpoint(config.clone(), echo_securely));
    let mut settings = terminating(driver, &certificate, &endpoints[0]);
    settings.listener = settings.listener.replace("mode:", "alpnProtocols: [h2, http/1.1], mode:");
    settings.endpoints = endpoints.each_ref().map(|endpoint| endpoint.address).to_vec();
    settings.upstream = format!(
        "{}, circuitBreaker: {{perEndpoint: {{consecutiveFailures: 1}}}}, healthCheck: {{panicThreshold: 0, passive: \
         {{consecutiveFailures: 1, maxEjectionPercent: 100, baseEjectionTime: 1h}}}}",
        encrypting(driver, &authority, "pg.test", &[&endpoints[0]]).upstream
    );
    let proxy = Proxy::start(&settings);
    let ask = |protocol: &str| {
        let mut client = authority.client();
        client.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let mut client = shake_hands(proxy.address, "a.test", client).unwrap();
        ask_securely(&mut client, "hello")
    };
    for count in 1..=4 {
        ask("h2").unwrap_err();
        let record = &proxy.records(count)[count - 1];
        assert_eq!(record["outcome"], "tls_upstream_failed", "{record:#}");
        let attempts = record["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 1, "{record:#}");
        let reason = attempts[0]["reason"].as_str().unwrap();
        assert!(reason.ends_with("the alert no_application_protocol"), "{record:#}");
    }
    for _ in 0..4 {
        assert_eq!(ask("http/1.1").unwrap(), "hello");
    }
    proxy.records(8);
    assert_eq!(proxy.metric("sheave_endpoint_breaker_openings_total", &[]), 0.0);
    assert_eq!(proxy.metric("sheave_endpoint_ejections_total", &[]), 0.0);
}
