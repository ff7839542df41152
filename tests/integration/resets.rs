//! A reset of one side arrives as a reset on the other, and is recorded.

mod connecting;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::{
    DEADLINE, Driver, Endpoint, Pattern, Proxy, Settings, connect, eventually, on_both_drivers,
    reset_on_close, until_still, write_until_stuck,
};

on_both_drivers!(
    the_client_resets_an_idle_connection,
    the_client_resets_while_the_server_streams,
    the_client_resets_while_its_bytes_are_stuck,
    the_client_resets_while_bytes_are_stuck_both_ways,
    the_client_resets_after_its_fin,
    the_server_resets_an_idle_connection,
    the_server_resets_while_the_client_streams,
    the_server_resets_while_its_bytes_are_stuck,
    the_server_resets_after_its_answer,
);

/// Enough for the relay to splice.
const BULK: usize = 4 * 1024 * 1024;

fn the_client_resets_an_idle_connection(driver: Driver) {
    let test = Test::start(driver, |mut stream| {
        echo_a_byte(&mut stream);
        Seen::by_reading(&stream)
    });
    let mut client = connect(test.proxy.address);
    ask_for_a_byte(&mut client);
    reset(client);
    test.assert_server_saw_a_reset();
    test.assert_ended("downstream_reset", "downstream");
}

fn the_client_resets_while_the_server_streams(driver: Driver) {
    let test = Test::start(driver, |stream| Seen::by_writing(&stream));
    let mut client = connect(test.proxy.address);
    client.read_exact(&mut vec![0; BULK]).unwrap();
    test.assert_spliced();
    reset(client);
    test.assert_server_saw_a_reset();
    test.assert_ended("downstream_reset", "downstream");
}

fn the_client_resets_while_its_bytes_are_stuck(driver: Driver) {
    let test = Test::start(driver, |stream| {
        wait_for_an_error(&stream);
        Seen::by_reading(&stream)
    });
    let client = connect(test.proxy.address);
    write_until_stuck(&Pattern::new(1), 0, &client);
    reset(client);
    test.assert_server_saw_a_reset();
    test.assert_ended("downstream_reset", "downstream");
}

fn the_client_resets_while_bytes_are_stuck_both_ways(driver: Driver) {
    let test = Test::start(driver, |stream| Seen::by_writing(&stream));
    let client = connect(test.proxy.address);
    write_until_stuck(&Pattern::new(1), 0, &client);
    test.wait_until_stuck_sending();
    reset(client);
    test.assert_server_saw_a_reset();
    test.assert_ended("downstream_reset", "downstream");
}

/// The client does not wait for the answer to the end: it is noticed when bytes for it come.
fn the_client_resets_after_its_fin(driver: Driver) {
    let test = Test::start(driver, |stream| {
        assert_eq!((&stream).read(&mut [0]).unwrap(), 0);
        Seen::by_writing(&stream)
    });
    let mut client = connect(test.proxy.address);
    client.shutdown(Shutdown::Write).unwrap();
    client.read_exact(&mut [0]).unwrap();
    reset(client);
    // After a FIN the kernel calls the reset a broken pipe.
    let seen = test.seen.recv_timeout(DEADLINE).unwrap();
    assert_eq!(seen.error, Some(ErrorKind::BrokenPipe), "the server saw {seen:?}");
    test.assert_ended("downstream_reset", "downstream");
}

fn the_server_resets_an_idle_connection(driver: Driver) {
    let test = Test::start(driver, |mut stream| {
        echo_a_byte(&mut stream);
        reset(stream);
        Seen::default()
    });
    let mut client = connect(test.proxy.address);
    ask_for_a_byte(&mut client);
    Seen::by_reading(&client).assert_reset("the client");
    test.assert_ended("upstream_reset", "upstream");
}

fn the_server_resets_while_the_client_streams(driver: Driver) {
    let test = Test::start(driver, |mut stream| {
        stream.read_exact(&mut vec![0; BULK]).unwrap();
        reset(stream);
        Seen::default()
    });
    let client = connect(test.proxy.address);
    Seen::by_writing(&client).assert_reset("the client");
    test.assert_spliced();
    test.assert_ended("upstream_reset", "upstream");
}

/// The bytes that were on their way still arrive: a slow reader of an answer is not cut off by the server's end.
fn the_server_resets_while_its_bytes_are_stuck(driver: Driver) {
    let test = Test::start(driver, |stream| {
        let length = write_until_stuck(&Pattern::new(1), 0, &stream);
        reset(stream);
        Seen { length, error: None }
    });
    let client = connect(test.proxy.address);
    let sent = test.seen.recv_timeout(DEADLINE).unwrap();
    let seen = Seen::by_reading(&client);
    seen.assert_reset("the client");
    assert!(0 < seen.length && seen.length <= sent.length, "{seen:?} of {sent:?}");
    test.assert_ended("upstream_reset", "upstream");
}

fn the_server_resets_after_its_answer(driver: Driver) {
    let (arrived, is_there) = flume::bounded(1);
    let test = Test::start(driver, move |mut stream| {
        Pattern::new(1).write(0..BULK / 64, &mut stream);
        is_there.recv_timeout(DEADLINE).unwrap();
        reset(stream);
        Seen::default()
    });
    let client = connect(test.proxy.address);
    let unread = || usize::try_from(rustix::io::ioctl_fionread(&client).unwrap()).unwrap();
    eventually("the answer at the client", unread, |unread| *unread == BULK / 64);
    arrived.send(()).unwrap();
    test.assert_ended("upstream_reset", "upstream");
    let seen = Seen::by_reading(&client);
    seen.assert_reset("the client");
    assert_eq!(seen.length, BULK / 64);
}

/// A proxy, an endpoint, and what that saw.
struct Test {
    proxy: Proxy,
    seen: flume::Receiver<Seen>,
    _endpoint: Endpoint,
}

impl Test {
    fn start(driver: Driver, serve: impl Fn(TcpStream) -> Seen + Send + Sync + 'static) -> Self {
        let (report, seen) = flume::bounded(1);
        let endpoint = Endpoint::start(move |stream| {
            stream.set_write_timeout(Some(DEADLINE)).unwrap();
            report.send(serve(stream)).ok();
        });
        Self { proxy: Proxy::start(&Settings::new(driver, &[endpoint.address])), seen, _endpoint: endpoint }
    }

    fn assert_server_saw_a_reset(&self) {
        self.seen.recv_timeout(DEADLINE).unwrap().assert_reset("the server");
    }

    fn assert_ended(&self, outcome: &str, side: &str) {
        let record = self.proxy.record();
        assert_eq!(
            (record["outcome"].as_str(), record["side"].as_str()),
            (Some(outcome), Some(side)),
            "{record}"
        );
    }

    fn assert_spliced(&self) {
        assert!(self.proxy.metric("sheave_worker_spliced_bytes_total", &[]) > 0.0, "bulk is spliced");
    }

    fn wait_until_stuck_sending(&self) {
        let sent = || self.proxy.live()[0]["bytesSent"].as_u64().unwrap();
        until_still("the answer", || usize::try_from(sent()).unwrap());
    }
}

/// What one end saw of its connection: bytes, and the error that ended it; none: the end of the stream.
#[derive(Debug, Default)]
struct Seen {
    length: usize,
    error: Option<ErrorKind>,
}

impl Seen {
    /// Reads bytes of the first pattern.
    fn by_reading(stream: &TcpStream) -> Self {
        let (length, end) = Pattern::new(1).read_until_it_ends(stream);
        Self { length, error: end.err().map(|error| error.kind()) }
    }

    /// Writes bytes of the first pattern, without reading.
    fn by_writing(mut stream: &TcpStream) -> Self {
        let pattern = Pattern::new(1);
        let mut length = 0;
        loop {
            match stream.write(pattern.at(length)) {
                Ok(written) => length += written,
                Err(error) => return Self { length, error: Some(error.kind()) },
            }
        }
    }

    fn assert_reset(&self, who: &str) {
        assert_eq!(self.error, Some(ErrorKind::ConnectionReset), "{who} saw {self:?}");
    }
}

fn reset(stream: TcpStream) {
    reset_on_close(&stream);
}

/// Without reading, so that nothing makes room for more bytes.
fn wait_for_an_error(stream: &TcpStream) {
    let mut polled = [PollFd::new(stream, PollFlags::empty())];
    let deadline = Timespec { tv_sec: DEADLINE.as_secs().cast_signed(), tv_nsec: 0 };
    poll(&mut polled, Some(&deadline)).unwrap();
    assert!(polled[0].revents().contains(PollFlags::ERR), "{:?} instead of an error", polled[0].revents());
}

fn ask_for_a_byte(client: &mut TcpStream) {
    client.write_all(b"?").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

fn echo_a_byte(stream: &mut TcpStream) {
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    stream.write_all(&byte).unwrap();
}
