//! Urgent data (TCP's out-of-band byte) in a stream: the byte itself is dropped, as every relay of streams does, and nothing
//! else is lost, stuck or spun on.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;

use socket2::SockRef;

use crate::support::{DEADLINE, Driver, Endpoint, Proxy, Settings, connect, on_both_drivers};

on_both_drivers!(a_small_message_around_it_is_answered, bulk_around_it_arrives_whole);

const BULK: usize = 8 * 1024 * 1024;

/// One urgent byte at a time: one that nobody has read when the next comes becomes an ordinary byte.
fn send_around_urgent(client: &mut TcpStream) {
    client.write_all(b"before").unwrap();
    assert_eq!(SockRef::from(&*client).send_out_of_band(b"X").unwrap(), 1);
    client.write_all(b"behind").unwrap();
}

fn a_small_message_around_it_is_answered(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(driver, &[echo.address]));
    let mut client = connect(proxy.address);
    for round in 0..20 {
        send_around_urgent(&mut client);
        let mut answer = [0; 12];
        client.read_exact(&mut answer).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(&answer, b"beforebehind");
    }
}

fn bulk_around_it_arrives_whole(driver: Driver) {
    let (arrived, all) = mpsc::sync_channel(1);
    let endpoint = Endpoint::start(move |mut stream| {
        let mut bytes = Vec::new();
        let result = stream.read_to_end(&mut bytes);
        arrived.send((bytes, result.is_ok())).ok();
    });
    let proxy = Proxy::start(&Settings::new(driver, &[endpoint.address]));
    let mut client = connect(proxy.address);
    client.write_all(&vec![b'a'; BULK]).unwrap();
    send_around_urgent(&mut client);
    client.write_all(&vec![b'b'; BULK]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (bytes, whole) = all.recv_timeout(DEADLINE).unwrap();
    assert!(whole, "the endpoint's read failed");
    assert_eq!(bytes.len(), 2 * BULK + 12);
    assert_eq!(&bytes[BULK..BULK + 12], b"beforebehind");
    assert!(bytes[BULK + 12..].iter().all(|byte| *byte == b'b'));
    assert_eq!(proxy.record()["bytes_received"], bytes.len());
}
