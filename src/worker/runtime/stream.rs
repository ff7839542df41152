//! A connected TCP socket on this worker's runtime.
//!
//! Reads come in two kinds. [`Stream::read_managed`] is a completion: nothing is held while it waits, and a buffer of
//! the worker's pool comes with the bytes; it must run to its end or the connection with it, because a
//! dropped read loses bytes. The `try_` functions are plain non-blocking calls, to be paired with readiness, which is
//! safe to drop.

use std::cell::{Cell, OnceCell};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use compio::BufResult;
use compio::buf::IntoInner;
use compio::driver::op::{Connect, Send, SendFlags as OpFlags};
use compio::driver::{BufferRef, SharedFd};
use futures_util::FutureExt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::{SpliceFlags, splice};
use socket2::{SockRef, Socket};

use super::arrivals::Arrivals;
use super::reactor::{Registration, on_ring};
use super::readiness::Readiness;
use super::receive::receive;

pub(crate) struct Stream {
    socket: SharedFd<Socket>,
    /// The last completed read left nothing.
    was_emptied: Cell<bool>,
    /// Made at the first wait for readiness; a connection that only ever completes reads has none.
    readiness: OnceCell<Box<Readiness>>,
}

/// A second hold on a socket, for ending it from outside its task.
#[derive(Clone)]
pub(crate) struct SocketHandle(SharedFd<Socket>);

impl Stream {
    /// Takes over a non-blocking socket.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        let socket = SharedFd::new(Socket::from(socket));
        Self { socket, was_emptied: Cell::new(false), readiness: OnceCell::new() }
    }

    pub(crate) fn handle(&self) -> SocketHandle {
        SocketHandle(self.socket.clone())
    }

    /// Safe to drop: a connection attempt that is dropped is cancelled.
    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<()> {
        if on_ring() {
            let connect = Connect::new(self.socket.clone(), address.into());
            let BufResult(result, _) = compio::runtime::submit(connect).await;
            return result.map(|_| ());
        }
        match self.socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            result => return result,
        }
        self.readiness()?.writable().await?;
        self.socket.take_error()?.map_or(Ok(()), Err)
    }

    /// `None` at the end of the stream. `ResourceBusy`: the worker's pool is empty for the moment.
    pub(crate) fn read_managed(&self) -> impl Future<Output = io::Result<Option<BufferRef>>> {
        receive(&self.socket, &self.was_emptied)
    }

    /// Writes of `buffer` what the socket takes at once, or else what it takes once it takes any: how much that was.
    pub(crate) fn write_managed(
        &self,
        buffer: BufferRef,
    ) -> impl Future<Output = io::Result<(usize, BufferRef)>> + use<> {
        let flags = OpFlags::from_bits_retain(SendFlags::NOSIGNAL.bits());
        let sending = compio::runtime::submit(Send::new(self.socket.clone(), buffer, flags));
        sending.map(|BufResult(result, send)| match result {
            // It was not the socket's doing: nothing is written yet.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok((0, send.into_inner())),
            result => Ok((result?, send.into_inner())),
        })
    }

    pub(crate) async fn read_ready(&self) -> io::Result<()> {
        self.readiness()?.readable().await
    }

    /// For waiting until more arrives than is there.
    pub(crate) fn arrivals(&self) -> io::Result<Arrivals<'_>> {
        Arrivals::new(self)
    }

    /// Its place with the reactor; none on io_uring.
    pub(super) fn registration(&self) -> io::Result<Option<&Registration>> {
        if on_ring() { Ok(None) } else { Ok(self.readiness()?.registration()) }
    }

    pub(crate) async fn write_ready(&self) -> io::Result<()> {
        self.readiness()?.writable().await
    }

    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT);
        let result = result.map(|(length, _)| length).map_err(io::Error::from);
        self.note_read(&result, buffer.len());
        result
    }

    /// As [`Self::try_read`], and the bytes stay.
    pub(crate) fn try_peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT | RecvFlags::PEEK);
        let result = result.map(|(length, _)| length).map_err(io::Error::from);
        // However few there were, the socket is as readable as before.
        self.note_read(&result, 0);
        result
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let result = rustix::net::send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        let result = result.map_err(io::Error::from);
        self.note_write(&result, bytes.len());
        result
    }

    /// Moves up to `length` bytes into a pipe, without copying. 0 at the end of the stream.
    pub(crate) fn try_splice_into(&self, pipe: &OwnedFd, length: usize) -> io::Result<usize> {
        let result = splice_some(&self.socket, pipe, length);
        if let Some(readiness) = self.readiness.get() {
            readiness.note_splice(&result);
        }
        result
    }

    /// Moves up to `length` bytes out of a pipe, without copying.
    pub(crate) fn try_splice_from(&self, pipe: &OwnedFd, length: usize) -> io::Result<usize> {
        let result = splice_some(pipe, &self.socket, length);
        self.note_write(&result, 0);
        result
    }

    /// Sends FIN: this side will write no more. A peer that is gone already is not an error.
    pub(crate) fn finish_writing(&self) {
        let _peer_is_gone = self.socket.shutdown(Shutdown::Write);
    }

    pub(crate) fn abort(&self) {
        abort(&self.socket);
    }

    /// Whether all that was written has been sent, so that a reset comes after it; or nothing more can be sent. For a stream
    /// that is not written to any more.
    pub(crate) fn has_sent_all(&self) -> bool {
        // From now on it is writable only when nothing is left to send.
        let _peer_is_gone = self.socket.set_tcp_notsent_lowat(1);
        let mut polled = [PollFd::new(&self.socket, PollFlags::OUT)];
        poll(&mut polled, Some(&Timespec::default())).is_err() || !polled[0].revents().is_empty()
    }

    fn readiness(&self) -> io::Result<&Readiness> {
        if self.readiness.get().is_none() {
            let _only_this_thread = self.readiness.set(Box::new(Readiness::new(self.socket.clone())?));
        }
        self.readiness.get().map(Box::as_ref).ok_or_else(|| io::Error::other("readiness was not kept"))
    }

    fn note_read(&self, result: &io::Result<usize>, wanted: usize) {
        if let Some(readiness) = self.readiness.get() {
            readiness.note_read(result, wanted);
        }
    }

    fn note_write(&self, result: &io::Result<usize>, wanted: usize) {
        if let Some(readiness) = self.readiness.get() {
            readiness.note_write(result, wanted);
        }
    }
}

fn splice_some(from: impl AsFd, to: impl AsFd, length: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        match splice(&from, None, &to, None, length, flags) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl SocketHandle {
    pub(crate) fn abort(&self) {
        abort(&self.0);
    }

    /// `None`: it has been reset.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        SockRef::from(&self.0).local_addr().ok()?.as_socket()
    }

    /// Writes what the socket takes at once, if it takes anything.
    pub(crate) fn try_write(&self, bytes: &[u8]) {
        let _full_or_gone = rustix::net::send(&self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Ends both directions. Reads and writes that wait return at once.
    pub(crate) fn shutdown(&self) {
        let _peer_is_gone = SockRef::from(&self.0).shutdown(Shutdown::Both);
    }
}

impl AsFd for SocketHandle {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Ends the connection with RST, now. Reads and writes that wait on the socket return at once.
///
/// connect(2) to AF_UNSPEC dissolves an association at once, whoever else holds the socket; SO_LINGER 0 would only act
/// when the last hold is closed, after waiting reads have been cancelled.
fn abort(socket: impl AsFd) {
    let _never_connected = rustix::net::connect_unspec(socket);
}
