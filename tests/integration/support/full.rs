//! An endpoint whose backlog is full: connecting to it neither succeeds nor fails until it accepts.

use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use super::{DEADLINE, eventually};

pub(crate) struct FullEndpoint {
    pub(crate) address: SocketAddr,
    listener: std::net::TcpListener,
    /// Holds the one place.
    filler: TcpStream,
}

impl FullEndpoint {
    pub(crate) fn start() -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap())
    }

    /// On 0.0.0.0 it is at every address of the machine.
    pub(crate) fn start_on(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&address.into()).unwrap();
        // A backlog of 0 has one place; whoever comes after that gets no answer to its SYN.
        socket.listen(0).unwrap();
        let listener = std::net::TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        Self { address, listener, filler: fill(address) }
    }

    /// Makes room, and takes the first connection that comes then. Its SYN is sent again a second after the first.
    pub(crate) fn accept(&self) -> TcpStream {
        let filler = self.filler.local_addr().unwrap();
        loop {
            let (stream, client) = self.listener.accept().unwrap();
            if client != filler {
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                return stream;
            }
        }
    }
}

/// Takes the one place of a backlog of 0.
pub(super) fn fill(address: SocketAddr) -> TcpStream {
    let filler = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
    eventually("a connection in the backlog", || waiting(address), |waiting| *waiting == Some(1));
    filler
}

/// How many connections the kernel has for this listener; it says so where other sockets have their unread bytes.
fn waiting(address: SocketAddr) -> Option<u32> {
    let SocketAddr::V4(address) = address else { return None };
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening =
        lines.find(|line| line.get(1).is_some_and(|local| local.ends_with(&port)) && line[3] == "0A")?;
    u32::from_str_radix(listening[4].split_once(':')?.1, 16).ok()
}
