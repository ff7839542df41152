//! The client of bulk1 and bulk16: the same number of bytes up, then down, every one checked.

use std::io::{self, Read, Write};

use crate::cases::Target;
use crate::error::{Context, Error, Result};
use crate::link::Link;
use crate::poller::{EventFlags, Poller};
use crate::round_trips::PATIENCE;
use crate::wire::{self, CHUNK, DOWNLOAD, HEADER, UPLOAD};

/// What one pass carries in each direction, over all connections together.
pub(super) const VOLUME: u64 = 64 * 1024 * 1024;

pub(super) struct Bulk {
    poller: Poller,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
}

struct Connection {
    link: Link,
    total: u64,
    moved: u64,
    /// The last byte of an upload has left the client.
    is_sent: bool,
    answer: Vec<u8>,
}

impl Bulk {
    pub(super) fn open(target: &Target<'_>, count: usize) -> Result<Self> {
        let poller = Poller::new().context("client")?;
        let mut connections = Vec::new();
        for key in 0..count {
            let link = Link::open(target)?;
            link.socket().set_nonblocking(true).context("client")?;
            poller.add(&link, key, EventFlags::empty()).context("client")?;
            let total = VOLUME / count as u64;
            connections.push(Connection { link, total, moved: 0, is_sent: false, answer: Vec::new() });
        }
        Ok(Self { poller, connections, buffer: vec![0; CHUNK] })
    }

    /// `VOLUME` bytes to the backend, then as many back.
    pub(super) fn pass(&mut self) -> Result<()> {
        self.transfer(UPLOAD)?;
        self.transfer(DOWNLOAD)
    }

    fn transfer(&mut self, direction: u8) -> Result<()> {
        let interest = if direction == UPLOAD { EventFlags::OUT } else { EventFlags::IN };
        for (key, connection) in self.connections.iter_mut().enumerate() {
            connection.command(direction)?;
            self.poller.modify(&connection.link, key, interest).context("client")?;
        }
        let mut unfinished = self.connections.len();
        while unfinished > 0 {
            let ready: Vec<_> = self.poller.wait(PATIENCE).context("client")?.collect();
            if ready.is_empty() {
                return Err(Error::new(format!("no progress for {PATIENCE:?} in a bulk transfer")));
            }
            for (key, _) in ready {
                let connection = &mut self.connections[key];
                let done = if direction == UPLOAD {
                    if connection.send()? {
                        self.poller.modify(&connection.link, key, EventFlags::IN).context("client")?;
                    }
                    connection.is_sent && connection.acknowledged()?
                } else {
                    connection.receive(&mut self.buffer)?
                };
                if done {
                    unfinished -= 1;
                    // Level-triggered: a finished connection must not wake the loop.
                    self.poller.modify(&connection.link, key, EventFlags::empty()).context("client")?;
                }
            }
        }
        Ok(())
    }
}

impl Connection {
    fn command(&mut self, direction: u8) -> Result<()> {
        self.moved = 0;
        self.is_sent = false;
        self.answer.clear();
        let header = wire::header(direction, self.total);
        match self.link.write(&header).context("send a command")? {
            HEADER => Ok(()),
            length => Err(Error::new(format!("only {length} bytes of a command could be sent"))),
        }
    }

    /// Whether this call sent the last byte.
    fn send(&mut self) -> Result<bool> {
        if self.is_sent {
            return Ok(false);
        }
        let data = wire::bulk_from(self.moved, self.total - self.moved);
        let written = match data {
            // What TLS has encrypted may still be on this side.
            [] => self.link.flush().map(|()| self.is_sent = true),
            data => self.link.write(data).map(|length| self.moved += length as u64),
        };
        match written {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error).context("upload"),
            _ => Ok(self.is_sent),
        }
    }

    /// Whether the backend has confirmed that it received everything.
    fn acknowledged(&mut self) -> Result<bool> {
        let mut part = [0; HEADER];
        match self.link.read(&mut part) {
            Ok(0) => return Err(Error::new("closed before the upload was confirmed")),
            Ok(length) => self.answer.extend_from_slice(&part[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("upload"),
        }
        if self.answer.len() < HEADER {
            return Ok(false);
        }
        if self.answer == wire::header(UPLOAD, self.total) {
            Ok(true)
        } else {
            Err(Error::new("the confirmation of an upload is not what the backend sent"))
        }
    }

    /// Whether the download is complete.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<bool> {
        while self.moved < self.total {
            let length = match self.link.read(buffer) {
                Ok(0) => return Err(Error::new("closed in the middle of a download")),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).context("download"),
            };
            if self.moved + length as u64 > self.total || !wire::is_bulk_at(self.moved, &buffer[..length]) {
                return Err(Error::new("the downloaded bytes differ from those sent"));
            }
            self.moved += length as u64;
            if !self.link.keeps_some() {
                break;
            }
        }
        Ok(self.moved == self.total)
    }
}
