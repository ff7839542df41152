//! Clients that begin a handshake of TLS and never go on with it, so many a second.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::error::{Context, Error, Result};

/// Handshakes begun per second.
pub(super) const RATE: u32 = 5_000;
/// So many are left open; the oldest makes room for the next.
const OPEN_MAX: usize = 2_000;

/// What a storm was.
pub(super) struct Storm {
    pub(super) begun: u64,
    pub(super) elapsed: Duration,
}

/// Begins handshakes until it is over.
pub(super) fn rage(address: SocketAddr, hello: &[u8], is_over: &AtomicBool) -> Result<Storm> {
    let started = Instant::now();
    let mut open: VecDeque<TcpStream> = VecDeque::new();
    let mut begun = 0;
    while !is_over.load(Ordering::Relaxed) {
        let due = u64::try_from(started.elapsed().as_nanos() * u128::from(RATE) / 1_000_000_000);
        if begun >= due.context("the time")? {
            thread::sleep(Duration::from_secs(1) / RATE);
            continue;
        }
        begun += 1;
        if open.len() >= OPEN_MAX {
            open.pop_front();
        }
        open.extend(begin(address, hello)?);
    }
    Ok(Storm { begun, elapsed: started.elapsed() })
}

/// `None`: the proxy does not take it, which is its right.
fn begin(address: SocketAddr, hello: &[u8]) -> Result<Option<TcpStream>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket: OwnedFd =
        socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).context("the storm's socket")?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(Errno::CONNREFUSED) => return Ok(None),
        Err(Errno::ADDRNOTAVAIL) => {
            return Err(Error::new("the storm has no free port left: use shorter rounds"));
        }
        Err(error) => return Err(error).context("the storm's connect"),
    }
    let mut stream = TcpStream::from(socket);
    // Over loopback a connection is there at once, unless the backlog is full; and an empty socket takes all of it.
    Ok(stream.write_all(hello).is_ok().then_some(stream))
}
