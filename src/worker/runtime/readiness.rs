//! Waiting until a socket can be read or written, on either driver.

use std::io;

use compio::driver::SharedFd;
use compio::runtime::fd::PollFd;
use socket2::Socket;

use super::reactor::Registration;

/// Safe to drop while waiting: readiness takes nothing from the socket.
pub(super) enum Readiness {
    /// io_uring: each wait is an operation of the ring.
    Ring(PollFd<Socket>),
    Epoll(Registration),
}

impl Readiness {
    /// For a non-blocking socket.
    pub(super) fn new(socket: SharedFd<Socket>) -> io::Result<Self> {
        Ok(match Registration::new(&*socket)? {
            Some(registration) => Self::Epoll(registration),
            None => Self::Ring(PollFd::from_shared_fd(socket)?),
        })
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Ring(socket) => socket.read_ready().await,
            Self::Epoll(socket) => {
                socket.read_ready().await;
                Ok(())
            }
        }
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Ring(socket) => socket.write_ready().await,
            Self::Epoll(socket) => {
                socket.write_ready().await;
                Ok(())
            }
        }
    }

    /// To be told of every read: takes the readiness back if the result shows that nothing is left. `wanted` is 0 for
    /// reads whose length says nothing about that.
    pub(super) fn note_read(&self, result: &io::Result<usize>, wanted: usize) {
        if let Self::Epoll(socket) = self
            && falls_short(result, wanted)
        {
            socket.is_empty();
        }
    }

    /// To be told of every write: takes the readiness back if the result shows that no more would be taken.
    pub(super) fn note_write(&self, result: &io::Result<usize>, wanted: usize) {
        if let Self::Epoll(socket) = self
            && falls_short(result, wanted)
        {
            socket.is_full();
        }
    }
}

fn falls_short(result: &io::Result<usize>, wanted: usize) -> bool {
    match result {
        Ok(length) => *length < wanted,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}
