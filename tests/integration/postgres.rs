//! PostgreSQL on a TLS listener: what clients and endpoints say to each other before TLS (`startTls: postgres`).

mod server;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use crate::support::{
    Authority, Certificate, Driver, Endpoint, Proxy, SecureClient, Settings, ask_securely, connect,
    echo_securely, on_both_drivers, shake_hands,
};

on_both_drivers!(
    who_asks_is_answered,
    who_begins_with_tls_needs_no_answer,
    who_begins_with_tls_has_to_mean_postgres,
    endpoints_are_asked_as_the_client_asked,
    endpoints_are_asked_before_tls_of_ones_own,
    an_endpoint_without_tls_is_a_failed_attempt,
    without_tls_clients_are_told_and_turned_away,
    what_is_no_postgres_is_refused,
    who_only_asks_has_its_time,
);

const SSL_REQUEST: &[u8; 8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSS_REQUEST: &[u8; 8] = b"\0\0\0\x08\x04\xd2\x16\x30";
const CANCEL: &[u8] = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02";
const STARTUP: &[u8] = b"\0\0\0\x13\0\x03\0\0user\0postgres\0\0";

/// Settings of a listener that ends TLS, or passes it through.
fn listener(certificate: Option<&Certificate>) -> String {
    let tls = match certificate {
        Some(certificate) => format!("mode: Terminate, certificateRefs: [{}]", certificate.reference()),
        None => "mode: Passthrough".to_owned(),
    };
    format!(
        "protocol: TLS, tls: {{{tls}, startTls: postgres}}, timeout: {{tcp: {{tlsHandshakeTimeout: 2s}}}}"
    )
}

fn tell(stream: &mut TcpStream, request: &[u8]) -> u8 {
    stream.write_all(request).unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    answer[0]
}

fn secure(mut stream: TcpStream, config: ClientConfig) -> SecureClient {
    let name = ServerName::try_from("pg.test").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).unwrap();
    }
    StreamOwned::new(connection, stream)
}

/// An echo in TLS, for those who ask for it in plain text first.
fn asked_for_tls(config: ServerConfig) -> Endpoint {
    let config = Arc::new(config);
    Endpoint::start(move |mut stream| {
        let mut request = [0; 8];
        // A probe, or whatever wakes the accept.
        if stream.read_exact(&mut request).is_err() {
            return;
        }
        assert_eq!(&request, SSL_REQUEST);
        stream.write_all(b"S").unwrap();
        let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        while connection.is_handshaking() {
            if connection.complete_io(&mut stream).is_err() {
                return;
            }
        }
        echo_securely(StreamOwned::new(connection, stream));
    })
}

fn who_asks_is_answered(driver: Driver) {
    let (authority, endpoint) = (Authority::new(), Endpoint::echo());
    let certificate = authority.certify(&["pg.test"]);
    let proxy =
        Proxy::start(&Settings::new(driver, &[endpoint.address]).listener(&listener(Some(&certificate))));
    for (count, ways) in [&[&SSL_REQUEST[..]][..], &[GSS_REQUEST, SSL_REQUEST]].into_iter().enumerate() {
        let mut stream = connect(proxy.address);
        let answers: Vec<u8> = ways.iter().map(|request| tell(&mut stream, request)).collect();
        assert_eq!(answers, if ways.len() == 1 { &b"S"[..] } else { b"NS" });
        let mut client = secure(stream, authority.client());
        assert_eq!(ask_securely(&mut client, "select 1").unwrap(), "select 1");
        let record = &proxy.records(count + 1)[count];
        assert_eq!((&record["outcome"], &record["bytes_received"]), (&"downstream_closed".into(), &8.into()));
        assert_eq!(record["tls"]["server_name"], "pg.test", "{record}");
    }
    // A request in pieces.
    let mut stream = connect(proxy.address);
    for byte in &SSL_REQUEST[..7] {
        stream.write_all(&[*byte]).unwrap();
        proxy.wait_for_live(1);
    }
    assert_eq!(tell(&mut stream, &SSL_REQUEST[7..]), b'S');
    assert_eq!(ask_securely(&mut secure(stream, authority.client()), "a").unwrap(), "a");
}

fn who_begins_with_tls_needs_no_answer(driver: Driver) {
    let (authority, endpoint) = (Authority::new(), Endpoint::echo());
    let certificate = authority.certify(&["pg.test"]);
    let proxy =
        Proxy::start(&Settings::new(driver, &[endpoint.address]).listener(&listener(Some(&certificate))));
    let mut config = authority.client();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let mut client = secure(connect(proxy.address), config);
    assert_eq!(client.conn.alpn_protocol(), Some(&b"postgresql"[..]));
    assert_eq!(ask_securely(&mut client, "select 1").unwrap(), "select 1");
}

/// Or else a browser could be led here, and take what a database says for what a web server says.
fn who_begins_with_tls_has_to_mean_postgres(driver: Driver) {
    let (authority, endpoint) = (Authority::new(), Endpoint::echo());
    let certificate = authority.certify(&["pg.test"]);
    let with_another = listener(Some(&certificate)).replace("startTls", "alpnProtocols: [h2], startTls");
    let proxy = Proxy::start(&Settings::new(driver, &[endpoint.address]).listener(&with_another));
    for (count, offered) in [&[][..], &[&b"h2"[..]]].into_iter().enumerate() {
        let mut config = authority.client();
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let error = shake_hands(proxy.address, "pg.test", config).unwrap_err();
        assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
        let record = &proxy.records(count + 1)[count];
        assert_eq!(record["outcome"], "tls_handshake_failed", "{record}");
        let failure = record["tls"]["failure"].as_str().unwrap();
        assert!(failure.contains("has to offer the ALPN protocol postgresql"), "{failure}");
    }
    let mut config = authority.client();
    config.alpn_protocols = vec![b"h2".to_vec(), b"postgresql".to_vec()];
    let mut client = secure(connect(proxy.address), config);
    assert_eq!(client.conn.alpn_protocol(), Some(&b"postgresql"[..]));
    assert_eq!(ask_securely(&mut client, "select 1").unwrap(), "select 1");
    assert_eq!(endpoint.accepted(), 1);
}

fn endpoints_are_asked_as_the_client_asked(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["pg.test"]);
    let asked = asked_for_tls(certificate.server());
    let proxy = Proxy::start(&Settings::new(driver, &[asked.address]).listener(&listener(None)));
    let mut stream = connect(proxy.address);
    assert_eq!(tell(&mut stream, SSL_REQUEST), b'S');
    let mut client = secure(stream, authority.client());
    assert_eq!(ask_securely(&mut client, "select 1").unwrap(), "select 1");
    drop(client);
    let record = proxy.record();
    // The endpoint understands the client's goodbye before its FIN comes, and may be first with its own.
    assert!(record["outcome"].as_str().unwrap().ends_with("stream_closed"), "{record}");
    assert_eq!(record["tls"]["server_name"], "pg.test");

    // And not where it has not.
    let direct = crate::support::secure_endpoint(certificate.server(), echo_securely);
    let proxy = Proxy::start(&Settings::new(driver, &[direct.address]).listener(&listener(None)));
    let mut client = secure(connect(proxy.address), authority.client());
    assert_eq!(ask_securely(&mut client, "select 1").unwrap(), "select 1");
}

fn endpoints_are_asked_before_tls_of_ones_own(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["pg.test"]);
    let asked = asked_for_tls(certificate.server());
    let settings =
        Settings::new(driver, &[asked.address]).listener(&listener(Some(&certificate))).upstream(&format!(
            "tls: {{validation: {{caCertificateRefs: [{{file: {}}}], hostname: pg.test}}}}",
            authority.file().display()
        ));
    let proxy = Proxy::start(&settings);
    for asks in [true, false] {
        let mut stream = connect(proxy.address);
        if asks {
            assert_eq!(tell(&mut stream, SSL_REQUEST), b'S');
        }
        let mut config = authority.client();
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        let mut client = secure(stream, config);
        assert_eq!(ask_securely(&mut client, "select 1").unwrap(), "select 1", "asks: {asks}");
    }
}

fn an_endpoint_without_tls_is_a_failed_attempt(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["pg.test"]);
    for (answer, reason) in [
        (&b"N"[..], "the endpoint speaks no TLS: turn on `ssl` there"),
        (b"E...", "the endpoint answered an SSLRequest with something else: is it PostgreSQL?"),
        (b"", "the endpoint ended the connection when it was asked for TLS"),
    ] {
        let without = Endpoint::start(move |mut stream| {
            stream.read_exact(&mut [0; 8]).ok();
            stream.write_all(answer).ok();
        });
        let asked = asked_for_tls(certificate.server());
        let settings = Settings::new(driver, &[without.address, asked.address])
            .listener(&listener(None))
            .upstream("loadBalancer: {type: RoundRobin}, retry: {numRetries: 1}");
        let proxy = Proxy::start(&settings);
        for _ in 0..2 {
            let mut stream = connect(proxy.address);
            assert_eq!(tell(&mut stream, SSL_REQUEST), b'S');
            let mut client = secure(stream, authority.client());
            assert_eq!(ask_securely(&mut client, "select 1").unwrap(), "select 1");
        }
        let records = proxy.records(2);
        let attempts = records.iter().flat_map(|record| record["attempts"].as_array().unwrap());
        let failed: Vec<_> = attempts.filter(|attempt| attempt["result"] != "connected").collect();
        assert_eq!(failed.len(), 1, "{records:#?}");
        assert_eq!(
            (&failed[0]["result"], &failed[0]["reason"]),
            (&"tls_upstream_failed".into(), &reason.into())
        );
    }
}

fn without_tls_clients_are_told_and_turned_away(driver: Driver) {
    let (authority, endpoint) = (Authority::new(), Endpoint::echo());
    let certificate = authority.certify(&["pg.test"]);
    let proxy =
        Proxy::start(&Settings::new(driver, &[endpoint.address]).listener(&listener(Some(&certificate))));
    for before in [&[][..], GSS_REQUEST] {
        let mut stream = connect(proxy.address);
        if !before.is_empty() {
            assert_eq!(tell(&mut stream, before), b'N');
        }
        stream.write_all(STARTUP).unwrap();
        let mut told = Vec::new();
        stream.read_to_end(&mut told).unwrap();
        assert!(told.starts_with(b"E\0\0\0"), "{}", told.escape_ascii());
        assert!(String::from_utf8_lossy(&told).contains("MTLS is required here"), "{}", told.escape_ascii());
    }
    let mut stream = connect(proxy.address);
    stream.write_all(CANCEL).unwrap();
    assert!(stream.read(&mut [0]).is_err());
    let outcomes: Vec<_> = proxy.records(3).iter().map(|record| record["outcome"].clone()).collect();
    assert_eq!(outcomes, ["plaintext_refused"; 3]);
    assert_eq!(endpoint.accepted(), 0);
}

fn what_is_no_postgres_is_refused(driver: Driver) {
    let (authority, endpoint) = (Authority::new(), Endpoint::echo());
    let certificate = authority.certify(&["pg.test"]);
    let proxy =
        Proxy::start(&Settings::new(driver, &[endpoint.address]).listener(&listener(Some(&certificate))));
    let firsts: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x08\0\x02\0\0", &[*GSS_REQUEST; 3].concat(), b"\0\0"];
    for (count, first) in firsts.into_iter().enumerate() {
        let mut stream = connect(proxy.address);
        stream.write_all(first).unwrap();
        stream.shutdown(std::net::Shutdown::Write).ok();
        // Answers to its requests may come before the reset.
        let end = stream.read_to_end(&mut Vec::new());
        assert!(end.is_err(), "{}: {end:?}", first.escape_ascii());
        let record = &proxy.records(count + 1)[count];
        assert_eq!(record["outcome"], "not_tls", "{}", first.escape_ascii());
    }
}

fn who_only_asks_has_its_time(driver: Driver) {
    let (authority, endpoint) = (Authority::new(), Endpoint::echo());
    let certificate = authority.certify(&["pg.test"]);
    let proxy =
        Proxy::start(&Settings::new(driver, &[endpoint.address]).listener(&listener(Some(&certificate))));
    let mut clients = [connect(proxy.address), connect(proxy.address), connect(proxy.address)];
    clients[1].write_all(&SSL_REQUEST[..5]).unwrap();
    assert_eq!(tell(&mut clients[2], SSL_REQUEST), b'S');
    for mut client in clients {
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)), "its time is over");
    }
    let outcomes: Vec<_> = proxy.records(3).iter().map(|record| record["outcome"].clone()).collect();
    assert_eq!(outcomes, ["tls_handshake_timeout"; 3]);
}
