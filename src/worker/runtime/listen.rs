//! A listening socket on this worker's runtime: readiness and a plain accept.
//!
//! Not an accept operation of the ring: one that is dropped while it completes would lose a connection that the client
//! believes in, and this way the loop takes a connection only when it has a place for it.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use compio::driver::SharedFd;
use rustix::net::SocketFlags;
use socket2::{SockFilter, SockRef, Socket};

use super::readiness::Readiness;

pub(crate) struct ListenSocket {
    socket: SharedFd<Socket>,
    readiness: Readiness,
}

impl ListenSocket {
    pub(crate) fn new(socket: TcpListener) -> io::Result<Self> {
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        let socket = SharedFd::new(socket);
        Ok(Self { readiness: Readiness::new(socket.clone())?, socket })
    }

    /// Waits until a connection is waiting.
    pub(crate) async fn ready(&self) -> io::Result<()> {
        self.readiness.readable().await
    }

    /// Takes a waiting connection; its socket is non-blocking. `WouldBlock`: there is none.
    pub(crate) fn try_accept(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accepted = rustix::net::acceptfrom_with(&*self.socket, flags).map_err(io::Error::from);
        self.readiness.note_accept(&accepted);
        let (socket, client) = accepted?;
        let client = client.and_then(|client| SocketAddr::try_from(client).ok());
        // A client that is gone between its handshake and now may have no address any more.
        let client = client.ok_or(io::ErrorKind::ConnectionAborted)?;
        Ok((socket, unmapped(client)))
    }

    pub(crate) fn set_keepalive(&self, keepalive: &socket2::TcpKeepalive) -> io::Result<()> {
        // Accepted sockets inherit it, which saves four system calls for each.
        SockRef::from(&*self.socket).set_tcp_keepalive(keepalive)
    }

    /// From now on new connections are ignored (the client tries again, and is refused once this socket is closed),
    /// while handshakes under way still finish: closing at once would reset those that clients believe in.
    pub(crate) fn refuse_new(&self) -> io::Result<()> {
        const DROP: u32 = 0;
        const PASS: u32 = u32::MAX;
        // The filter sees the segment from its TCP header on. Byte 13 has the flags: SYN is 2, ACK is 16.
        let syn_without_ack = [
            SockFilter::new(0x30, 0, 0, 13),   // ldb [13]
            SockFilter::new(0x54, 0, 0, 0x12), // and #0x12
            SockFilter::new(0x15, 0, 1, 0x02), // jeq #0x02, drop, pass
            SockFilter::new(0x06, 0, 0, DROP),
            SockFilter::new(0x06, 0, 0, PASS),
        ];
        SockRef::from(&*self.socket).attach_filter(&syn_without_ack)
    }

    /// Ends a wait in [`Self::ready`]; later accepts fail.
    pub(crate) fn close(&self) {
        let _already_closed = SockRef::from(&*self.socket).shutdown(Shutdown::Both);
    }
}

impl AsFd for ListenSocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An IPv4 client as it knows itself: a dual-stack socket reports it as `::ffff:192.0.2.1`.
fn unmapped(client: SocketAddr) -> SocketAddr {
    match client.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, client.port()),
        IpAddr::V6(_) => client,
    }
}
