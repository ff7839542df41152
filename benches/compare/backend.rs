//! The server behind every proxy: echoes messages, swallows and produces bulk data. One thread, one epoll.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::machine;
use crate::poller::{EventFlags, Poller};
use crate::process;
use crate::wire::{self, CHUNK, DOWNLOAD, ECHO, HEADER, UPLOAD};

/// Enough endpoints that a proxy never runs short of source ports towards one of them, few enough that
/// all the ports together stay below the kernel's limit of sockets in TIME_WAIT.
const ENDPOINTS: usize = 4;
const BACKLOG: i32 = 4096;
/// The first byte of a TLS record with a ClientHello, and the length of what comes before its content.
const HANDSHAKE: u8 = 22;
const RECORD_HEADER: usize = 5;
/// How often the thread looks whether it is to end.
const TURN: Duration = Duration::from_millis(100);

/// What the backend saw; the client's counts must agree.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) accepted: AtomicU64,
    pub(super) closed: AtomicU64,
    /// Connections that the proxy ended with a reset instead of a FIN.
    pub(super) reset: AtomicU64,
    pub(super) uploaded: AtomicU64,
    failure: Mutex<Option<String>>,
}

pub(super) struct Backend {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    pub(super) fn start(cpu: usize) -> Result<Self> {
        let mut listeners = Vec::new();
        for _ in 0..ENDPOINTS {
            listeners.push(listen()?);
        }
        let mut addresses = Vec::new();
        for listener in &listeners {
            let port = listener.local_addr().context("backend")?.port();
            addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        }
        let seen = Arc::new(Seen::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (seeing, until) = (Arc::clone(&seen), Arc::clone(&stop));
        let run = move || {
            let outcome = process::pin_this_thread(cpu)
                .and_then(|()| Server::new(listeners, Arc::clone(&seeing)).context("backend"))
                .and_then(|mut server| server.run(&until).context("backend"));
            if let Err(error) = outcome {
                seeing.fail(error.to_string());
            }
        };
        let thread = thread::Builder::new().name("backend".into()).spawn(run).context("backend")?;
        Ok(Self { addresses, seen, stop, thread: Some(thread) })
    }

    /// Waits until every connection has been closed, so that one peer's end is not another's beginning.
    pub(super) fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            self.check()?;
            let closed = self.seen.closed.load(Ordering::Acquire);
            let accepted = self.seen.accepted.load(Ordering::Acquire);
            if accepted == closed {
                return Ok(());
            }
            if Instant::now() > deadline {
                let open = accepted - closed;
                return Err(Error::new(format!(
                    "{open} connections are still open at the backend 5 s after the client closed them"
                )));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let failure = self.seen.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map_or(Ok(()), |message| Err(Error::new(message.clone())))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has been printed by the thread.
            thread.join().ok();
        }
    }
}

impl Seen {
    fn fail(&self, message: String) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(message);
    }
}

fn listen() -> Result<TcpListener> {
    let address = machine::free_address()?;
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .context("backend's socket")?;
    // On all addresses of loopback, and of nothing else: many endpoints are many addresses.
    socket.bind_device(Some(b"lo")).context("keep the backend on loopback")?;
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    socket.bind(&everywhere.into()).context(format_args!("bind the backend to {everywhere}"))?;
    socket.listen(BACKLOG).context("backend")?;
    socket.set_nonblocking(true).context("backend")?;
    Ok(socket.into())
}

struct Server {
    poller: Poller,
    listeners: Vec<TcpListener>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
    seen: Arc<Seen>,
}

struct Connection {
    stream: TcpStream,
    state: State,
}

enum State {
    /// A command is awaited: `filled` bytes of it are here.
    Command {
        header: [u8; HEADER],
        filled: usize,
    },
    /// The rest of a TLS record that a proxy passed on: so many bytes, once its length is known.
    Record {
        header: [u8; RECORD_HEADER],
        filled: usize,
        left: usize,
    },
    Echo,
    Upload {
        total: u64,
        received: u64,
    },
    Download {
        total: u64,
        sent: u64,
    },
}

const COMMAND: State = State::Command { header: [0; HEADER], filled: 0 };

impl Server {
    fn new(listeners: Vec<TcpListener>, seen: Arc<Seen>) -> io::Result<Self> {
        Ok(Self {
            poller: Poller::new()?,
            listeners,
            connections: Vec::new(),
            free: Vec::new(),
            buffer: vec![0; CHUNK],
            seen,
        })
    }

    fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        for (key, listener) in self.listeners.iter().enumerate() {
            self.poller.add(listener, key, EventFlags::IN)?;
        }
        while !stop.load(Ordering::Acquire) {
            let ready: Vec<_> = self.poller.wait(TURN)?.collect();
            for (key, flags) in ready {
                match key.checked_sub(ENDPOINTS) {
                    None => self.accept(key)?,
                    Some(slot) => self.serve(slot, flags)?,
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, listener: usize) -> io::Result<()> {
        loop {
            let stream = match self.listeners[listener].accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            let slot = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poller.add(&stream, ENDPOINTS + slot, EventFlags::IN)?;
            self.connections[slot] = Some(Connection { stream, state: COMMAND });
            self.seen.accepted.fetch_add(1, Ordering::Release);
        }
    }

    fn serve(&mut self, slot: usize, flags: EventFlags) -> io::Result<()> {
        let Some(connection) = &mut self.connections[slot] else {
            return Ok(());
        };
        let writable = flags.contains(EventFlags::OUT);
        let was_sending = connection.is_sending();
        let outcome = if writable && was_sending {
            connection.send_bulk().map(|()| true)
        } else {
            connection.receive(&mut self.buffer, &self.seen)
        };
        let open = match outcome {
            Ok(open) => open,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                self.seen.reset.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(error) => {
                self.seen.fail(format!("the backend's connection failed: {error}"));
                false
            }
        };
        if !open {
            self.connections[slot] = None;
            self.free.push(slot);
            self.seen.closed.fetch_add(1, Ordering::Release);
        } else if connection.is_sending() != was_sending {
            let sending = connection.is_sending();
            let interest = if sending { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            self.poller.modify(&connection.stream, ENDPOINTS + slot, interest)?;
        }
        Ok(())
    }
}

impl Connection {
    fn is_sending(&self) -> bool {
        matches!(self.state, State::Download { .. })
    }

    /// Whether the connection stays open.
    fn receive(&mut self, buffer: &mut [u8], seen: &Seen) -> io::Result<bool> {
        let length = self.stream.read(buffer)?;
        if length == 0 {
            return Ok(false);
        }
        self.take(&buffer[..length], seen)?;
        Ok(true)
    }

    fn take(&mut self, mut data: &[u8], seen: &Seen) -> io::Result<()> {
        while !data.is_empty() {
            match &mut self.state {
                State::Command { filled: 0, .. } if data[0] == ECHO => self.state = State::Echo,
                State::Command { filled: 0, .. } if data[0] == HANDSHAKE => {
                    self.state = State::Record { header: [0; RECORD_HEADER], filled: 0, left: 0 };
                }
                State::Record { header, filled, left } => {
                    let (part, is_over) = swallow_record(header, filled, left, data);
                    data = &data[part..];
                    if is_over {
                        self.state = COMMAND;
                    }
                }
                State::Command { header, filled } => {
                    let part = data.len().min(HEADER - *filled);
                    header[*filled..*filled + part].copy_from_slice(&data[..part]);
                    *filled += part;
                    data = &data[part..];
                    if *filled == HEADER {
                        let header = *header;
                        self.obey(header)?;
                    }
                }
                State::Echo => return send_all(&mut self.stream, data),
                State::Upload { total, received } => {
                    let part = data.len().min((*total - *received) as usize);
                    if !wire::is_bulk_at(*received, &data[..part]) {
                        return Err(io::Error::other("the uploaded bytes differ from those sent"));
                    }
                    *received += part as u64;
                    data = &data[part..];
                    if received == total {
                        seen.uploaded.fetch_add(*total, Ordering::Release);
                        let answer = wire::header(UPLOAD, *total);
                        self.state = COMMAND;
                        send_all(&mut self.stream, &answer)?;
                    }
                }
                State::Download { .. } => return Err(io::Error::other("data during a download")),
            }
        }
        Ok(())
    }

    fn obey(&mut self, header: [u8; HEADER]) -> io::Result<()> {
        let total = wire::length_of(&header);
        self.state = match header[0] {
            UPLOAD => State::Upload { total, received: 0 },
            DOWNLOAD => State::Download { total, sent: 0 },
            _ => return Err(io::Error::other("a command that no client sent")),
        };
        Ok(())
    }

    fn send_bulk(&mut self) -> io::Result<()> {
        if let State::Download { total, sent } = &mut self.state {
            *sent += self.stream.write(wire::bulk_from(*sent, *total - *sent))? as u64;
            if sent == total {
                self.state = COMMAND;
            }
        }
        Ok(())
    }
}

/// How much of `data` belongs to the record, and whether it ends there.
fn swallow_record(
    header: &mut [u8; RECORD_HEADER],
    filled: &mut usize,
    left: &mut usize,
    data: &[u8],
) -> (usize, bool) {
    if *filled < RECORD_HEADER {
        let part = data.len().min(RECORD_HEADER - *filled);
        header[*filled..*filled + part].copy_from_slice(&data[..part]);
        *filled += part;
        *left = usize::from(u16::from_be_bytes([header[3], header[4]]));
        return (part, false);
    }
    let part = data.len().min(*left);
    *left -= part;
    (part, *left == 0)
}

/// For messages so small that the socket's buffer always has room.
fn send_all(stream: &mut TcpStream, data: &[u8]) -> io::Result<()> {
    match stream.write(data)? {
        length if length == data.len() => Ok(()),
        length => Err(io::Error::other(format!("sent {length} bytes of {}", data.len()))),
    }
}
