//! The client of bulk1 and bulk16: the same number of bytes up, then down, every one checked.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::error::{Context, Error, Result};
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
    stream: TcpStream,
    total: u64,
    moved: u64,
    answer: Vec<u8>,
}

impl Bulk {
    pub(super) fn open(address: SocketAddr, count: usize) -> Result<Self> {
        let poller = Poller::new().context("client")?;
        let mut connections = Vec::new();
        for key in 0..count {
            let stream = TcpStream::connect(address).context("connect")?;
            stream.set_nonblocking(true).context("client")?;
            poller.add(&stream, key, EventFlags::empty()).context("client")?;
            let total = VOLUME / count as u64;
            connections.push(Connection { stream, total, moved: 0, answer: Vec::new() });
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
            self.poller.modify(&connection.stream, key, interest).context("client")?;
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
                        self.poller.modify(&connection.stream, key, EventFlags::IN).context("client")?;
                    }
                    connection.moved == connection.total && connection.acknowledged()?
                } else {
                    connection.receive(&mut self.buffer)?
                };
                if done {
                    unfinished -= 1;
                    // Level-triggered: a finished connection must not wake the loop.
                    self.poller.modify(&connection.stream, key, EventFlags::empty()).context("client")?;
                }
            }
        }
        Ok(())
    }
}

impl Connection {
    fn command(&mut self, direction: u8) -> Result<()> {
        self.moved = 0;
        self.answer.clear();
        let header = wire::header(direction, self.total);
        match self.stream.write(&header).context("send a command")? {
            HEADER => Ok(()),
            length => Err(Error::new(format!("only {length} bytes of a command could be sent"))),
        }
    }

    /// Whether this call sent the last byte.
    fn send(&mut self) -> Result<bool> {
        if self.moved == self.total {
            return Ok(false);
        }
        let data = wire::bulk_from(self.moved, self.total - self.moved);
        match self.stream.write(data) {
            Ok(length) => self.moved += length as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("upload"),
        }
        Ok(self.moved == self.total)
    }

    /// Whether the backend has confirmed that it received everything.
    fn acknowledged(&mut self) -> Result<bool> {
        let mut part = [0; HEADER];
        match self.stream.read(&mut part) {
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
        let length = match self.stream.read(buffer) {
            Ok(0) => return Err(Error::new("closed in the middle of a download")),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("download"),
        };
        if self.moved + length as u64 > self.total || !wire::is_bulk_at(self.moved, &buffer[..length]) {
            return Err(Error::new("the downloaded bytes differ from those sent"));
        }
        self.moved += length as u64;
        Ok(self.moved == self.total)
    }
}
