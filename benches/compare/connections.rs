//! The client of conn: loops that connect, do one round trip and close, with a FIN and never a reset.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::{Errno, read};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, connect, send, socket_with, sockopt};

use crate::error::{Context, Error, Result};
use crate::poller::{EventFlags, Poller};
use crate::round_trips::{PATIENCE, Trips};
use crate::wire::{self, MESSAGE};

struct Connection {
    socket: OwnedFd,
    request: [u8; MESSAGE],
    buffer: [u8; MESSAGE],
    received: usize,
    sent: bool,
    started: Instant,
}

/// Starts connections for `time`, `loops` at once, and finishes those under way.
pub(super) fn run(address: SocketAddr, loops: usize, time: Duration) -> Result<Trips> {
    let mut poller = Poller::new().context("client")?;
    let started = Instant::now();
    let mut latencies = Vec::new();
    let mut slots = Vec::new();
    for key in 0..loops {
        slots.push(Some(Connection::start(&poller, address, key, 0)?));
    }
    let mut waiting = loops;
    let mut sequence = 0;
    while waiting > 0 {
        let ready: Vec<_> = poller.wait(PATIENCE).context("client")?.collect();
        if ready.is_empty() {
            return Err(Error::new(format!("no answer for {PATIENCE:?} on {waiting} connections")));
        }
        for (key, _) in ready {
            let Some(connection) = &mut slots[key] else {
                continue;
            };
            if !connection.advance()? {
                continue;
            }
            let now = Instant::now();
            latencies.push(now - connection.started);
            // Dropping closes: the client is the one who closes first.
            slots[key] = None;
            if now - started < time {
                sequence += 1;
                slots[key] = Some(Connection::start(&poller, address, key, sequence)?);
            } else {
                waiting -= 1;
            }
        }
    }
    Ok(Trips { count: latencies.len() as u64, elapsed: started.elapsed(), latencies })
}

impl Connection {
    fn start(poller: &Poller, address: SocketAddr, key: usize, sequence: u64) -> Result<Self> {
        let started = Instant::now();
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).context("client's socket")?;
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(Errno::ADDRNOTAVAIL) => {
                return Err(Error::new("the client has no free port left: use shorter rounds"));
            }
            Err(error) => return Err(error).context("connect"),
        }
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        poller.add(&socket, key, interest).context("client")?;
        let request = wire::request(key, sequence);
        Ok(Self { socket, request, buffer: [0; MESSAGE], received: 0, sent: false, started })
    }

    /// The next step that the socket allows; whether the answer is complete.
    fn advance(&mut self) -> Result<bool> {
        if !self.sent {
            sockopt::socket_error(&self.socket).context("connect")?.context("connect")?;
            let length = send(&self.socket, &self.request, SendFlags::NOSIGNAL).context("send a request")?;
            if length != MESSAGE {
                return Err(Error::new(format!("only {length} bytes of a request could be sent")));
            }
            self.sent = true;
            return Ok(false);
        }
        while self.received < MESSAGE {
            match read(&self.socket, &mut self.buffer[self.received..]) {
                Ok(0) => return Err(Error::new("closed instead of answering")),
                Ok(length) => self.received += length,
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error).context("receive an answer"),
            }
        }
        if self.buffer == self.request {
            Ok(true)
        } else {
            Err(Error::new("the answer is not what was sent"))
        }
    }
}
