//! The client of rr64 and rr1: each connection has one request under way at any time.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use crate::cases::Target;
use crate::error::{Context, Error, Result};
use crate::link::Link;
use crate::poller::{EventFlags, Poller};
use crate::wire::{self, MESSAGE};

/// Silence after which a peer is taken to have failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What a client did.
pub(super) struct Trips {
    pub(super) count: u64,
    pub(super) elapsed: Duration,
    pub(super) latencies: Vec<Duration>,
}

pub(super) struct RoundTrips {
    poller: Poller,
    connections: Vec<Connection>,
}

struct Connection {
    link: Link,
    sequence: u64,
    expected: [u8; MESSAGE],
    buffer: [u8; MESSAGE],
    received: usize,
    sent_at: Instant,
}

impl RoundTrips {
    pub(super) fn open(target: &Target<'_>, count: usize) -> Result<Self> {
        let poller = Poller::new().context("client")?;
        let mut connections = Vec::new();
        for key in 0..count {
            let link = Link::open(target)?;
            link.socket().set_nonblocking(true).context("client")?;
            poller.add(&link, key, EventFlags::IN).context("client")?;
            connections.push(Connection {
                link,
                sequence: 0,
                expected: [0; MESSAGE],
                buffer: [0; MESSAGE],
                received: 0,
                sent_at: Instant::now(),
            });
        }
        Ok(Self { poller, connections })
    }

    /// Sends requests for `time`, then waits for the answers under way: every request is counted whole.
    pub(super) fn run(&mut self, time: Duration) -> Result<Trips> {
        let started = Instant::now();
        let mut latencies = Vec::new();
        for (key, connection) in self.connections.iter_mut().enumerate() {
            connection.send(key)?;
        }
        let mut waiting = self.connections.len();
        while waiting > 0 {
            let before = latencies.len();
            let mut silent = true;
            for (key, _) in self.poller.wait(PATIENCE).context("client")? {
                silent = false;
                let connection = &mut self.connections[key];
                if !connection.receive()? {
                    continue;
                }
                let now = Instant::now();
                latencies.push(now - connection.sent_at);
                if now - started < time {
                    connection.send(key)?;
                } else {
                    waiting -= 1;
                }
            }
            if silent && latencies.len() == before {
                return Err(Error::new(format!("no answer for {PATIENCE:?} to {waiting} requests")));
            }
        }
        Ok(Trips { count: latencies.len() as u64, elapsed: started.elapsed(), latencies })
    }
}

impl Connection {
    fn send(&mut self, key: usize) -> Result<()> {
        self.sequence += 1;
        self.expected = wire::request(key, self.sequence);
        self.received = 0;
        self.sent_at = Instant::now();
        match self.link.write(&self.expected).context("send a request")? {
            MESSAGE => Ok(()),
            length => Err(Error::new(format!("only {length} bytes of a request could be sent"))),
        }
    }

    /// Whether the answer is complete.
    fn receive(&mut self) -> Result<bool> {
        match self.link.read(&mut self.buffer[self.received..]) {
            Ok(0) => {
                return Err(Error::new(format!("closed instead of answer {}", self.sequence)));
            }
            Ok(length) => self.received += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("receive an answer"),
        }
        if self.received < MESSAGE {
            return Ok(false);
        }
        if self.buffer == self.expected {
            Ok(true)
        } else {
            Err(Error::new(format!("answer {} is not what was sent", self.sequence)))
        }
    }
}
