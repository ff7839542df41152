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

    /// The socket's place with the reactor; none on io_uring.
    pub(super) fn registration(&self) -> Option<&Registration> {
        match self {
            Self::Ring(_) => None,
            Self::Epoll(socket) => Some(socket),
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

    /// To be told of every read of up to `wanted` bytes: takes the readiness back if nothing is left.
    pub(super) fn note_read(&self, result: &io::Result<usize>, wanted: usize) {
        match self {
            Self::Epoll(socket) if would_block(result) => socket.is_empty(),
            Self::Epoll(socket) if matches!(result, Ok(length) if *length < wanted) => socket.fell_short(),
            _ => {}
        }
    }

    /// To be told of every splice out of the socket. A short one says nothing, because a pipe is full by its slots and not
    /// by its bytes; none at all may be due to urgent data, which splice(2) never passes.
    pub(super) fn note_splice(&self, result: &io::Result<usize>) {
        if let Self::Epoll(socket) = self
            && would_block(result)
        {
            socket.fell_short();
        }
    }

    /// To be told of every accept.
    pub(super) fn note_accept<T>(&self, result: &io::Result<T>) {
        if let Self::Epoll(socket) = self
            && would_block(result)
        {
            socket.is_empty();
        }
    }

    /// To be told of every write of `wanted` bytes: takes the readiness back if no more would be taken.
    pub(super) fn note_write(&self, result: &io::Result<usize>, wanted: usize) {
        let Self::Epoll(socket) = self else { return };
        if would_block(result) || matches!(result, Ok(length) if *length < wanted) {
            socket.is_full();
        }
    }
}

fn would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
