//! Bulk data that goes through a pipe: a reader that stops, and what is left in the pipe when a connection breaks.

use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};

use super::{MORE, assert_echoes, settings, wait_for};
use crate::support::{
    DEADLINE, Driver, Endpoint, Pattern, Proxy, connect, on_both_drivers, reset_on_close, write_until_stuck,
};

on_both_drivers!(a_reader_that_stops_holds_up_the_writer, what_is_left_in_a_pipe_reaches_nobody);

/// So much is read without a stop, for the relay to splice.
const FIRST: usize = 16 * 1024 * 1024;

/// Stops after the first bytes until the other end of the channel is dropped.
struct Stopping {
    stream: TcpStream,
    left: usize,
    may_go: flume::Receiver<()>,
}

impl Read for Stopping {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            wait_for(&self.may_go);
            self.left = usize::MAX;
        }
        let most = buffer.len().min(self.left);
        let length = self.stream.read(&mut buffer[..most])?;
        self.left -= length;
        Ok(length)
    }
}

fn stopping(may_go: flume::Receiver<()>, report: flume::Sender<usize>) -> Endpoint {
    Endpoint::start(move |stream| {
        let stream = Stopping { stream, left: FIRST, may_go: may_go.clone() };
        let (length, _end) = Pattern::new(1).read_until_it_ends(stream);
        report.send(length).unwrap();
    })
}

fn spliced(proxy: &Proxy) -> f64 {
    proxy.metric("sheave_worker_spliced_bytes_total", &[])
}

/// Until nothing more is taken; how many bytes were.
fn fill(client: &TcpStream) -> usize {
    Pattern::new(1).write(0..FIRST, client);
    write_until_stuck(&Pattern::new(1), FIRST, client)
}

fn a_reader_that_stops_holds_up_the_writer(driver: Driver) {
    let (go, may_go) = flume::bounded::<()>(0);
    let (report, read) = flume::bounded(1);
    let (slow, echo) = (stopping(may_go, report), Endpoint::echo());
    let proxy = Proxy::start(&settings(driver, &slow, &echo));
    let client = connect(proxy.address);
    let sent = fill(&client);
    assert!(spliced(&proxy) > 0.0, "bulk is spliced");
    drop(go);
    Pattern::new(1).write(sent..sent + MORE, &client);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read.recv_timeout(DEADLINE), Ok(sent + MORE));
    let record = proxy.record();
    assert_eq!(record["bytes_received"].as_u64(), Some((sent + MORE) as u64), "{record}");
}

fn what_is_left_in_a_pipe_reaches_nobody(driver: Driver) {
    let (go, may_go) = flume::bounded::<()>(0);
    let (report, read) = flume::bounded(8);
    let (slow, echo) = (stopping(may_go, report), Endpoint::echo());
    let proxy = Proxy::start(&settings(driver, &slow, &echo));
    for round in 1..=3 {
        let client = connect(proxy.address);
        fill(&client);
        let before = spliced(&proxy);
        assert!(before > 0.0, "bulk is spliced");
        // The client is not read from now, so its end is seen when the endpoint's is, or by who looks after stuck connections.
        reset_on_close(&client);
        drop(client);
        let record = proxy.records(round * 2 - 1).pop().unwrap();
        assert_eq!(record["outcome"], "downstream_reset", "{record}");
        assert_echoes(proxy.listener("echo"));
        assert!(spliced(&proxy) > before, "bulk is spliced again");
        proxy.records(round * 2);
    }
    drop(go);
    // What had come before the reset, all of it right.
    (0..3).for_each(|_| assert!(read.recv_timeout(DEADLINE).unwrap() >= FIRST));
}
