//! The client of conn: loops that connect, do one round trip and close, with a FIN and never a reset.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use crate::cases::Target;
use crate::error::{Context, Error, Result};
use crate::link::Link;
use crate::poller::{EventFlags, Poller};
use crate::round_trips::{PATIENCE, Trips};
use crate::secure::Speech;
use crate::wire::{self, MESSAGE};

struct Connection {
    link: Link,
    request: [u8; MESSAGE],
    /// What is sent first: the request, after whatever comes before it.
    first: Vec<u8>,
    buffer: [u8; MESSAGE],
    received: usize,
    connected: bool,
    sent: bool,
    started: Instant,
}

/// Starts connections for `time`, `loops` at once, and finishes those under way.
pub(super) fn run(target: &Target<'_>, loops: usize, time: Duration) -> Result<Trips> {
    let mut poller = Poller::new().context("client")?;
    let started = Instant::now();
    let mut latencies = Vec::new();
    let mut slots = Vec::new();
    for key in 0..loops {
        slots.push(Some(Connection::start(&poller, target, key, 0)?));
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
            connection.link.close();
            // Dropping closes: the client is the one who closes first.
            slots[key] = None;
            if now - started < time {
                sequence += 1;
                slots[key] = Some(Connection::start(&poller, target, key, sequence)?);
            } else {
                waiting -= 1;
            }
        }
    }
    Ok(Trips { count: latencies.len() as u64, elapsed: started.elapsed(), latencies })
}

impl Connection {
    fn start(poller: &Poller, target: &Target<'_>, key: usize, sequence: u64) -> Result<Self> {
        let started = Instant::now();
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).context("client's socket")?;
        match connect(&socket, &target.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(Errno::ADDRNOTAVAIL) => {
                return Err(Error::new("the client has no free port left: use shorter rounds"));
            }
            Err(error) => return Err(error).context("connect"),
        }
        let link = Link::over(TcpStream::from(socket), target.speech)?;
        link.socket().set_nodelay(true).context("client's socket")?;
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        poller.add(&link, key, interest).context("client")?;
        let request = wire::request(key, sequence);
        let mut first = match target.speech {
            Speech::Hello(hello) => hello.to_vec(),
            Speech::Plain | Speech::Tls(_) => Vec::new(),
        };
        first.extend_from_slice(&request);
        let (buffer, received) = ([0; MESSAGE], 0);
        Ok(Self { link, request, first, buffer, received, connected: false, sent: false, started })
    }

    /// The next steps that the socket allows; whether the answer is complete.
    fn advance(&mut self) -> Result<bool> {
        if !self.connected {
            sockopt::socket_error(self.link.socket()).context("connect")?.context("connect")?;
            self.connected = true;
        }
        if !self.sent {
            match self.link.write(&self.first) {
                Ok(length) if length == self.first.len() => self.sent = true,
                Ok(length) => {
                    return Err(Error::new(format!("only {length} bytes of a request could be sent")));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).context("send a request"),
            }
        }
        while self.received < MESSAGE {
            match self.link.read(&mut self.buffer[self.received..]) {
                Ok(0) => return Err(Error::new("closed instead of answering")),
                Ok(length) => self.received += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
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
