//! Clients that carry on in the background while a test does something to the proxy.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use super::DEADLINE;

/// A background client; stopped by [`Load::stop`] or with its value.
pub(crate) struct Load {
    stopped: Arc<AtomicBool>,
    exchanges: Arc<AtomicUsize>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Load {
    /// One connection after the other, an exchange each.
    pub(crate) fn short(address: SocketAddr) -> Self {
        Self::start(move || exchange(address))
    }

    /// One connection that never stops talking.
    pub(crate) fn long(mut stream: TcpStream) -> Self {
        Self::start(move || echoed(&mut stream, b"still here"))
    }

    pub(crate) fn start(mut step: impl FnMut() -> io::Result<()> + Send + 'static) -> Self {
        let (stopped, exchanges): (Arc<AtomicBool>, Arc<AtomicUsize>) = Default::default();
        let (over, counter) = (Arc::clone(&stopped), Arc::clone(&exchanges));
        let thread = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                step()?;
                counter.fetch_add(1, Ordering::Relaxed);
                // Talkative, but not the only one on this machine.
                thread::park_timeout(std::time::Duration::from_millis(1));
            }
            Ok(())
        });
        Self { stopped, exchanges, thread: Some(thread) }
    }

    pub(crate) fn exchanges(&self) -> usize {
        self.exchanges.load(Ordering::Relaxed)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The first failure, if there was one; a client that failed has stopped by itself.
    pub(crate) fn stop(mut self) -> io::Result<usize> {
        self.end().map(|()| self.exchanges())
    }

    fn end(&mut self) -> io::Result<()> {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end().ok();
    }
}

/// A connection to a polite endpoint, from the first byte to FIN.
pub(crate) fn exchange(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    say_bye(&mut stream)
}

/// The last words of a connection to a polite endpoint, which then ends it.
pub(crate) fn say_bye(stream: &mut TcpStream) -> io::Result<()> {
    echoed(stream, b"bye")?;
    if stream.read(&mut [0])? == 0 { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Sends `bytes`, and has them back.
pub(crate) fn echoed(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer)?;
    if answer == bytes { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
