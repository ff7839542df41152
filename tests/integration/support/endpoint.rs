//! Endpoints: real listeners on threads of their own, each connection handed to a function.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::DEADLINE;

/// Stops accepting with its value.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl Endpoint {
    /// Each connection runs `serve` on a thread of its own.
    pub(crate) fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), serve)
    }

    pub(crate) fn start_on(address: SocketAddr, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::start_with(TcpListener::bind(address).unwrap(), serve)
    }

    pub(crate) fn start_with(
        listener: TcpListener,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let (accepted, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, over, serve) = (Arc::clone(&accepted), Arc::clone(&stopped), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                counter.fetch_add(1, Ordering::Relaxed);
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                stream.set_nodelay(true).unwrap();
                let serve = Arc::clone(&serve);
                thread::Builder::new().stack_size(128 * 1024).spawn(move || serve(stream)).unwrap();
            }
        });
        Self { address, accepted, stopped }
    }

    /// Sends back what it gets, and FIN after the client's.
    pub(crate) fn echo() -> Self {
        Self::start(echo)
    }

    pub(crate) fn echo_on(listener: TcpListener) -> Self {
        Self::start_with(listener, echo)
    }

    /// As [`Self::echo`], but it ends the connection itself once that has sent `bye`. Whoever ends a connection keeps its
    /// port for a minute: this way it is one port of ours, and not one of the host's for each of many connections.
    pub(crate) fn polite() -> Self {
        Self::start(|mut stream| {
            let mut buffer = [0; 1024];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() || buffer[..length].ends_with(b"bye") {
                    return;
                }
            }
        })
    }

    /// How many connections it has had.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the accept.
        TcpStream::connect(self.address).ok();
    }
}

pub(super) fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) if stream.write_all(&buffer[..length]).is_ok() => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// An address that nobody listens on: connecting to it is refused.
pub(crate) fn closed_port() -> SocketAddr {
    // Bound and never listening, for as long as the process lives: nobody else gets the port meanwhile.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}

/// An address that refuses, until it listens.
pub(crate) struct Bound {
    pub(crate) address: SocketAddr,
    socket: socket2::Socket,
}

impl Bound {
    pub(crate) fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        Self { address: socket.local_addr().unwrap().as_socket().unwrap(), socket }
    }

    pub(crate) fn listen(self) -> Endpoint {
        self.socket.listen(64).unwrap();
        Endpoint::echo_on(TcpListener::from(self.socket))
    }
}
