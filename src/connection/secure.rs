//! A side that speaks TLS: its engine, and what the engine wants to say and the socket has not taken yet.
//!
//! All that goes out goes through one queue, in the order in which it was encrypted. Who reads never waits for it: what little
//! a reader makes an engine say goes out with what is written next, or when the writer's wait is over.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use crate::telemetry::Negotiated;
use crate::tls::{CIPHERTEXT_MAX, Engine, PLAINTEXT_MAX};
use crate::worker::runtime::{SocketHandle, Stream};

use super::relay::would_block;

pub(super) struct Secure {
    engine: RefCell<Engine>,
    /// Encrypted, and not taken by the socket.
    queue: RefCell<Queue>,
    /// Plaintext that came with the end of the handshake.
    early: RefCell<Vec<u8>>,
}

/// What waits to go out. It owns memory only while something does.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    /// So many of them have gone.
    gone: usize,
}

/// Memory that a worker's connections use in turn, each within one turn of the loop. It is as long as it has to be once it
/// was needed.
#[derive(Default)]
pub(super) struct Scratch {
    /// What was decrypted.
    pub(super) plaintext: Vec<u8>,
    /// What was encrypted.
    pub(super) ciphertext: Vec<u8>,
    /// What was read from a socket.
    pub(super) wire: Vec<u8>,
    /// What an engine says of its own.
    output: Vec<u8>,
}

/// Why nothing more can be done with a side.
#[derive(Debug)]
pub(super) enum Broken {
    Socket,
    Tls(rustls::Error),
}

impl Secure {
    /// Shared with whoever ends the connection from outside, who has to say so.
    pub(super) fn new(engine: Engine) -> Rc<Self> {
        let (queue, early) = (RefCell::default(), RefCell::default());
        Rc::new(Self { engine: RefCell::new(engine), queue, early })
    }

    /// Takes what came from the wire and may change it; the plaintext is in the scratch memory then. What has to be said is said
    /// as far as the socket takes it.
    pub(super) fn receive(
        &self,
        stream: &Stream,
        bytes: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<(), rustls::Error> {
        scratch.plaintext.clear();
        scratch.output.clear();
        let result = self.engine.borrow_mut().receive(bytes, &mut scratch.plaintext, &mut scratch.output);
        self.answer(stream, &scratch.output);
        result
    }

    /// As [`Self::receive`], of what the socket has, up to `length` bytes. How many they were, and how that went.
    pub(super) fn read(
        &self,
        stream: &Stream,
        length: usize,
        scratch: &mut Scratch,
    ) -> io::Result<(usize, Result<(), rustls::Error>)> {
        let Scratch { plaintext, output, wire, .. } = scratch;
        plaintext.clear();
        output.clear();
        let read = |room: &mut [u8]| stream.try_read(room);
        let received = self.engine.borrow_mut().receive_from(read, length, wire, plaintext, output)?;
        self.answer(stream, output);
        Ok(received)
    }

    fn answer(&self, stream: &Stream, output: &[u8]) {
        if !output.is_empty() {
            // A socket that failed is the writer's to find out, or the next read's.
            let _found_later = self.push(stream, output);
        }
    }

    /// Encrypts, and writes what the socket takes at once. The rest is queued: see [`Self::is_clear`].
    pub(super) fn send(
        &self,
        stream: &Stream,
        plaintext: &[u8],
        ciphertext: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        ciphertext.resize(CIPHERTEXT_MAX, 0);
        for part in plaintext.chunks(PLAINTEXT_MAX) {
            let length = self.engine.borrow_mut().send(part, ciphertext).map_err(Broken::Tls)?;
            self.push(stream, ciphertext.get(..length).unwrap_or_default()).map_err(|_| Broken::Socket)?;
        }
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub(super) fn finish(&self, stream: &Stream) -> Result<(), Broken> {
        let mut ciphertext = [0; 1024];
        let length = self.engine.borrow_mut().finish(&mut ciphertext).map_err(Broken::Tls)?;
        self.push(stream, ciphertext.get(..length).unwrap_or_default()).map_err(|_| Broken::Socket)
    }

    /// Says on its way out that nothing more will be sent, if the socket is at the end of a record and takes it at once.
    pub(super) fn say_goodbye(&self, socket: &SocketHandle) {
        let mut ciphertext = [0; 1024];
        if !self.is_established() || !self.is_clear() {
            return;
        }
        if let Ok(length) = self.engine.borrow_mut().finish(&mut ciphertext) {
            socket.try_write(ciphertext.get(..length).unwrap_or_default());
        }
    }

    fn push(&self, stream: &Stream, bytes: &[u8]) -> io::Result<()> {
        let mut queue = self.queue.borrow_mut();
        let written = if queue.bytes.is_empty() { write_all_now(stream, bytes)? } else { 0 };
        queue.bytes.extend_from_slice(bytes.get(written..).unwrap_or_default());
        Ok(())
    }

    /// Whether the socket has taken everything.
    pub(super) fn is_clear(&self) -> bool {
        self.queue.borrow().bytes.is_empty()
    }

    /// Writes what is queued as far as the socket takes it now; whether it took anything.
    pub(super) fn flush(&self, stream: &Stream) -> io::Result<bool> {
        let mut queue = self.queue.borrow_mut();
        let written = write_all_now(stream, queue.bytes.get(queue.gone..).unwrap_or_default())?;
        queue.gone += written;
        if queue.gone == queue.bytes.len() {
            *queue = Queue::default();
        }
        Ok(written > 0)
    }

    /// Waits until the socket has taken everything.
    pub(super) async fn cleared(&self, stream: &Stream) -> io::Result<()> {
        while !self.is_clear() {
            stream.write_ready().await?;
            self.flush(stream)?;
        }
        Ok(())
    }

    /// Bytes from the wire that it holds because they are not understood yet.
    pub(super) fn held(&self) -> usize {
        self.engine.borrow().held()
    }

    pub(super) fn is_established(&self) -> bool {
        self.engine.borrow().is_established()
    }

    /// Whether the other has said that it will send no more.
    pub(super) fn has_ended(&self) -> bool {
        self.engine.borrow().has_ended()
    }

    /// Whether what came from the other was no TLS at some point.
    pub(super) fn has_failed(&self) -> bool {
        self.engine.borrow().has_failed()
    }

    /// Keeps plaintext for whoever relays it.
    pub(super) fn keep_early(&self, plaintext: &[u8]) {
        self.early.borrow_mut().extend_from_slice(plaintext);
    }

    pub(super) fn has_early(&self) -> bool {
        !self.early.borrow().is_empty()
    }

    pub(super) fn take_early(&self) -> Vec<u8> {
        self.early.take()
    }

    /// What the handshake came to.
    pub(super) fn negotiated(&self) -> Option<Negotiated> {
        let engine = self.engine.borrow();
        Some(Negotiated {
            version: engine.version()?,
            cipher: engine.cipher()?,
            alpn: engine.alpn().map(|alpn| String::from_utf8_lossy(alpn).into()),
            resumed: engine.is_resumed(),
        })
    }

    pub(super) fn with_engine<T>(&self, look: impl FnOnce(&Engine) -> T) -> T {
        look(&self.engine.borrow())
    }
}

/// Writes as much as the socket takes now; how much that was.
fn write_all_now(stream: &Stream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match stream.try_write(rest) {
            Ok(more) => written += more,
            Err(error) if would_block(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
