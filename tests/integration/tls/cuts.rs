//! TLS that stops in the middle: what was said before arrives.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use flume::Receiver;
use rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
use rustls::{ConnectionTrafficSecrets, ContentType, ProtocolVersion, StreamOwned};
use serde_json::Value;

use crate::support::{
    Authority, Driver, Endpoint, Pattern, Proxy, connect, eventually, on_both_drivers, secure_endpoint,
    shake_hands,
};

use super::{assert_ended, encrypting, terminating};

on_both_drivers!(
    what_a_client_sent_before_it_was_cut_arrives,
    what_a_client_sent_before_it_was_cut_arrives_in_tls,
    what_a_client_sent_before_it_failed_arrives,
    what_an_endpoint_sent_before_it_was_cut_arrives,
    a_client_may_just_leave_after_the_endpoints_end,
    an_answer_may_be_cut_after_the_clients_end,
    an_endpoint_may_just_leave_after_the_clients_end,
    who_leaves_without_an_answer_has_cut_it,
    nobody_makes_it_hold_a_message_without_an_end,
);

/// More than sockets hold: some of it waits in this process when the end comes.
const LONG: usize = 12 * 1024 * 1024;

type Heard = (usize, Result<(), ErrorKind>);

fn listen(stream: impl Read) -> Heard {
    let (length, end) = Pattern::new(1).read_until_it_ends(stream);
    (length, end.map_err(|error| error.kind()))
}

/// An endpoint that reports what it got, and how that ended.
fn listener() -> (Endpoint, Receiver<Heard>) {
    let (report, reported) = flume::bounded(1);
    (Endpoint::start(move |stream| report.send(listen(stream)).unwrap()), reported)
}

fn what_a_client_sent_before_it_was_cut_arrives(driver: Driver) {
    let authority = Authority::new();
    let (endpoint, heard) = listener();
    let proxy = Proxy::start(&terminating(driver, &authority.certify(&["a.test"]), &endpoint));
    let mut client = shake_hands(proxy.address, "a.test", authority.client()).unwrap();
    Pattern::new(1).write(0..LONG, &mut client);
    client.sock.shutdown(Shutdown::Write).unwrap();
    assert_eq!(heard.recv(), Ok((LONG, Err(ErrorKind::ConnectionReset))));
    assert_ended(&proxy, "downstream_truncated", LONG as u64, 0);
}

fn what_a_client_sent_before_it_was_cut_arrives_in_tls(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let (report, heard) = flume::bounded(1);
    let endpoint = secure_endpoint(certificate.server(), move |stream| report.send(listen(stream)).unwrap());
    let mut settings = terminating(driver, &certificate, &endpoint);
    settings.upstream = encrypting(driver, &authority, "a.test", &[&endpoint]).upstream;
    let proxy = Proxy::start(&settings);
    let mut client = shake_hands(proxy.address, "a.test", authority.client()).unwrap();
    Pattern::new(1).write(0..LONG, &mut client);
    client.sock.shutdown(Shutdown::Write).unwrap();
    assert_eq!(heard.recv(), Ok((LONG, Err(ErrorKind::UnexpectedEof))));
    assert_ended(&proxy, "downstream_truncated", LONG as u64, 0);
}

fn what_a_client_sent_before_it_failed_arrives(driver: Driver) {
    let authority = Authority::new();
    let (endpoint, heard) = listener();
    let proxy = Proxy::start(&terminating(driver, &authority.certify(&["a.test"]), &endpoint));
    let mut client = shake_hands(proxy.address, "a.test", authority.client()).unwrap();
    Pattern::new(1).write(0..LONG, &mut client);
    client.sock.write_all(b"and now for something completely different").unwrap();
    assert_eq!(heard.recv(), Ok((LONG, Err(ErrorKind::ConnectionReset))));
    assert_ended(&proxy, "downstream_tls_error", LONG as u64, 0);
}

fn what_an_endpoint_sent_before_it_was_cut_arrives(driver: Driver) {
    let authority = Authority::new();
    let endpoint = secure_endpoint(authority.certify(&["a.test"]).server(), |mut stream| {
        Pattern::new(1).write(0..LONG, &mut stream);
    });
    let proxy = Proxy::start(&encrypting(driver, &authority, "a.test", &[&endpoint]));
    assert_eq!(listen(connect(proxy.address)), (LONG, Err(ErrorKind::ConnectionReset)));
    assert_ended(&proxy, "upstream_truncated", 0, LONG as u64);
}

/// Who has been told goodbye need not say it too.
fn a_client_may_just_leave_after_the_endpoints_end(driver: Driver) {
    let authority = Authority::new();
    let (report, heard) = flume::bounded(1);
    let endpoint = Endpoint::start(move |mut stream| {
        stream.write_all(b"that is all").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        report.send(listen(stream)).unwrap();
    });
    let proxy = Proxy::start(&terminating(driver, &authority.certify(&["a.test"]), &endpoint));
    let mut client = shake_hands(proxy.address, "a.test", authority.client()).unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "that is all");
    drop(client);
    assert_eq!(heard.recv(), Ok((0, Ok(()))));
    assert_ended(&proxy, "upstream_closed", 0, 11);
}

fn an_answer_may_be_cut_after_the_clients_end(driver: Driver) {
    let authority = Authority::new();
    let endpoint = secure_endpoint(authority.certify(&["a.test"]).server(), |mut stream| {
        stream.read_to_string(&mut String::new()).unwrap();
        Pattern::new(1).write(0..1_000, &mut stream);
    });
    let proxy = Proxy::start(&encrypting(driver, &authority, "a.test", &[&endpoint]));
    let mut client = connect(proxy.address);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(listen(client), (1_000, Err(ErrorKind::ConnectionReset)));
    assert_ended(&proxy, "upstream_truncated", 8, 1_000);
}

/// As nginx does: it answers, and when the client has said goodbye it closes.
fn an_endpoint_may_just_leave_after_the_clients_end(driver: Driver) {
    let authority = Authority::new();
    let endpoint = secure_endpoint(authority.certify(&["a.test"]).server(), |mut stream| {
        // A probe says nothing.
        if stream.read_exact(&mut [0; 8]).is_ok() {
            Pattern::new(1).write(0..1_000, &mut stream);
            stream.read_to_string(&mut String::new()).unwrap();
        }
    });
    let proxy = Proxy::start(&encrypting(driver, &authority, "a.test", &[&endpoint]));
    let mut client = connect(proxy.address);
    client.write_all(b"question").unwrap();
    client.read_exact(&mut [0; 1_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(listen(client), (0, Ok(())));
    let record = assert_ended(&proxy, "downstream_closed", 8, 1_000);
    assert_eq!(record["tls"]["failure"], "the endpoint ended its stream without close_notify");
}

fn who_leaves_without_an_answer_has_cut_it(driver: Driver) {
    let authority = Authority::new();
    let endpoint = secure_endpoint(authority.certify(&["a.test"]).server(), |mut stream| {
        stream.read_to_string(&mut String::new()).ok();
    });
    let proxy = Proxy::start(&encrypting(driver, &authority, "a.test", &[&endpoint]));
    let mut client = connect(proxy.address);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(listen(client), (0, Err(ErrorKind::ConnectionReset)));
    let record = assert_ended(&proxy, "upstream_truncated", 8, 0);
    assert_eq!(record["tls"]["failure"], "the endpoint ended its stream without close_notify");
}

/// It announces 64 KiB less a few bytes, which is as long as any may be, and comes in more records than one.
fn nobody_makes_it_hold_a_message_without_an_end(driver: Driver) {
    let authority = Authority::new();
    let (endpoint, heard) = listener();
    let proxy = Proxy::start(&terminating(driver, &authority.certify(&["a.test"]), &endpoint));
    let mut config = authority.client();
    config.enable_secret_extraction = true;
    let StreamOwned { conn, sock: mut socket } = shake_hands(proxy.address, "a.test", config).unwrap();
    // What comes with the end of the handshake would be its failure.
    let has_endpoint = |live: &Vec<Value>| live.len() == 1 && !live[0]["endpoint"].is_null();
    eventually("it has its endpoint", || proxy.live(), has_endpoint);
    let suite = conn.negotiated_cipher_suite().unwrap().tls13().unwrap();
    let (mut number, secrets) = conn.dangerous_extract_secrets().unwrap().tx;
    let mut encrypter = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => suite.aead_alg.encrypter(key, iv),
        _ => panic!("another cipher"),
    };
    let begin = [&[4, 0, 0xff, 0xf0], &[0; 16_000][..]].concat();
    for part in [&begin[..], &[0; 16_000]] {
        let message = OutboundPlainMessage {
            typ: ContentType::Handshake,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(part),
        };
        socket.write_all(&encrypter.encrypt(message, number).unwrap().encode()).unwrap();
        number += 1;
    }
    assert_eq!(heard.recv(), Ok((0, Err(ErrorKind::ConnectionReset))));
    let record = assert_ended(&proxy, "downstream_tls_error", 0, 0);
    let failure = "it sent a handshake message that is longer than any has to be";
    assert_eq!(record["tls"]["failure"], failure);
}
