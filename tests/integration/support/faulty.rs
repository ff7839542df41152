//! An endpoint that fails in a way of choice, and in another one when it is told so: a new connection finds what it is then.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};

use super::endpoint::echo;
use super::full::fill;
use super::secure::{echo_securely, greet_securely};
use super::{DEADLINE, command, reset_on_close};

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Sends back what it gets.
    None,
    /// Nobody listens.
    Refuse,
    /// Nobody answers a SYN.
    Blackhole,
    /// Accepts, and resets at once.
    ResetOnAccept,
    /// Sends back so many bytes, and resets.
    ResetAfter(usize),
    /// The kernel accepts at once, and the endpoint only after so long.
    SlowAccept(Duration),
    /// Reads, and sends nothing back for so long.
    SlowFirstByte(Duration),
    /// Sends back so many bytes, and is silent ever after.
    StallAfter(usize),
    /// Sends back so many bytes, and is gone from the network without a word. Only in a namespace, and until that ends.
    VanishAfter(usize),
    /// Speaks TLS, with this.
    Certificate(Arc<ServerConfig>),
}

/// Ends with its value.
pub(crate) struct FaultyEndpoint {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    socket: Socket,
    port: u16,
    accepted: AtomicUsize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    fault: Fault,
    stage: Stage,
    /// Whether the thread keeps its hands off the socket.
    is_parked: bool,
    /// What takes the places of a black hole.
    filler: Option<TcpStream>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Accepting,
    Parked,
    Over,
}

impl FaultyEndpoint {
    pub(crate) fn start(fault: Fault) -> Self {
        let (socket, address) = bound();
        let state = State { fault: Fault::Refuse, stage: Stage::Parked, is_parked: false, filler: None };
        let shared = Arc::new(Shared {
            socket,
            port: address.port(),
            accepted: AtomicUsize::new(0),
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept_until_over());
        let endpoint = Self { address, shared };
        endpoint.set(fault);
        endpoint
    }

    /// From now on. Connections that it has go on as they began.
    pub(crate) fn set(&self, fault: Fault) {
        self.shared.park(Stage::Parked);
        let socket = &self.shared.socket;
        let (stage, filler) = match fault {
            Fault::Refuse => (Stage::Parked, None),
            Fault::Blackhole => {
                // A backlog of 0 has one place; whoever comes after that gets no answer to its SYN.
                socket.listen(0).unwrap();
                (Stage::Parked, Some(fill(self.address)))
            }
            _ => {
                socket.listen(64).unwrap();
                (Stage::Accepting, None)
            }
        };
        let mut state = self.shared.state.lock().unwrap();
        (state.fault, state.stage, state.filler) = (fault, stage, filler);
        self.shared.changed.notify_all();
    }

    /// How many connections it has had.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for FaultyEndpoint {
    fn drop(&mut self) {
        self.shared.park(Stage::Over);
    }
}

impl Shared {
    /// Stops listening, which resets who is in the queue, and waits until the thread has noticed.
    fn park(&self, stage: Stage) {
        let mut state = self.state.lock().unwrap();
        state.stage = stage;
        state.filler = None;
        // The address stays ours. (One that does not listen would remember it, and pass it on to those it accepts later.)
        if self.socket.is_listener().unwrap() {
            self.socket.shutdown(std::net::Shutdown::Read).unwrap();
        }
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.is_parked).unwrap());
    }

    fn accept_until_over(self: Arc<Self>) {
        while self.may_accept() {
            // It returns too when there is no more listening.
            poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], None).ok();
            if let Fault::SlowAccept(time) = self.fault() {
                wait(time);
            }
            let Ok((stream, _)) = self.socket.accept() else { continue };
            self.accepted.fetch_add(1, Ordering::Relaxed);
            let (stream, shared) = (TcpStream::from(stream), Arc::clone(&self));
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.set_nodelay(true).unwrap();
            let fault = self.fault();
            thread::spawn(move || serve(stream, fault, shared.port));
        }
    }

    /// Once it may; `false` when it is over.
    fn may_accept(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.is_parked = state.stage != Stage::Accepting;
        self.changed.notify_all();
        state = self.changed.wait_while(state, |state| state.stage == Stage::Parked).unwrap();
        state.is_parked = state.stage == Stage::Over;
        state.stage == Stage::Accepting
    }

    fn fault(&self) -> Fault {
        self.state.lock().unwrap().fault.clone()
    }
}

fn serve(mut stream: TcpStream, fault: Fault, port: u16) {
    match fault {
        Fault::ResetOnAccept => reset_on_close(&stream),
        Fault::ResetAfter(length) => {
            send_back(&mut stream, length);
            reset_on_close(&stream);
        }
        Fault::SlowFirstByte(time) => {
            wait(time);
            echo(stream);
        }
        Fault::StallAfter(length) => {
            send_back(&mut stream, length);
            swallow(&mut stream);
        }
        Fault::VanishAfter(length) => {
            send_back(&mut stream, length);
            vanish(port);
            swallow(&mut stream);
        }
        Fault::Certificate(config) => greet_securely(stream, &config, echo_securely),
        // Whoever was accepted just before it was told to refuse is served.
        Fault::None | Fault::SlowAccept(_) | Fault::Refuse | Fault::Blackhole => echo(stream),
    }
}

/// Who has left already gets nothing.
fn send_back(stream: &mut TcpStream, length: usize) {
    let mut bytes = vec![0; length];
    if stream.read_exact(&mut bytes).is_ok() {
        stream.write_all(&bytes).ok();
    }
}

/// Until the other side ends it.
fn swallow(stream: &mut TcpStream) {
    while stream.read(&mut [0; 1024]).is_ok_and(|length| length > 0) {}
}

fn vanish(port: u16) {
    command("nft", &["add table inet faulty"]);
    command("nft", &["add chain inet faulty input { type filter hook input priority 0; }"]);
    for direction in ["dport", "sport"] {
        command("nft", &[&format!("add rule inet faulty input tcp {direction} {port} drop")]);
    }
}

/// A slow endpoint is slow in time.
fn wait(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}

/// A socket that keeps its port while it does not listen, which it does only when it was asked for by number.
fn bound() -> (Socket, SocketAddr) {
    let bind = |address: SocketAddr| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None).unwrap();
        // Connections that it had do not keep it from listening again.
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).map(|()| socket)
    };
    loop {
        let free = bind("127.0.0.1:0".parse().unwrap()).unwrap().local_addr().unwrap().as_socket().unwrap();
        // Somebody else may have been given it meanwhile.
        if let Ok(socket) = bind(free) {
            return (socket, free);
        }
    }
}
