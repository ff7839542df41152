//! What the behaviour tests share: a proxy in this process or in one of its own, endpoints, and patience.
//!
//! Everything listens on port 0 of 127.0.0.1 and ends with its value. Waiting is polling with a deadline.

mod api_server;
mod certificates;
mod client;
pub(crate) mod collector;
mod endpoint;
mod eventually;
mod faulty;
mod full;
mod load;
mod namespace;
mod pattern;
mod process;
mod program;
mod proxy;
mod secure;
mod settings;
mod terminal;

pub(crate) use api_server::{ApiServer, Gone, Reply, Request, Verb};
pub(crate) use certificates::{Authority, Certificate};
pub(crate) use client::{ask, ask_from, round_trip, stays_silent};
pub(crate) use collector::{Collector, Speech, Trace};
pub(crate) use endpoint::{Bound, Endpoint, closed_port};
pub(crate) use eventually::{DEADLINE, eventually, eventually_some};
pub(crate) use faulty::{Fault, FaultyEndpoint};
pub(crate) use full::FullEndpoint;
pub(crate) use load::{Load, echoed, exchange, say_bye};
pub(crate) use namespace::{command, in_namespace};
pub(crate) use pattern::Pattern;
pub(crate) use process::Process;
pub(crate) use program::Program;
pub(crate) use proxy::{Proxy, admin_get, admin_request, admin_request_with, live, metric};
pub(crate) use secure::{SecureClient, ask_securely, echo_securely, end, secure_endpoint, shake_hands};
pub(crate) use settings::{Driver, Settings};
pub(crate) use terminal::Terminal;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

/// Runs each test on io_uring and on epoll.
macro_rules! on_both_drivers {
    ($($test:ident),* $(,)?) => {
        mod io_uring {
            $(#[test] fn $test() { super::$test(crate::support::Driver::IoUring); })*
        }
        mod epoll {
            $(#[test] fn $test() { super::$test(crate::support::Driver::Epoll); })*
        }
    };
}
pub(crate) use on_both_drivers;

/// A client's connection, which never waits for ever.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, DEADLINE)
        .unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The same, from this address of the machine.
pub(crate) fn connect_from(source: std::net::IpAddr, address: SocketAddr) -> TcpStream {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM.cloexec(), None).unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    socket.connect_timeout(&address.into(), DEADLINE).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket.into()
}

/// Makes the next close of this socket a reset.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

/// Writes from `offset` of the pattern on until nobody takes any more; the offset that it came to.
pub(crate) fn write_until_stuck(pattern: &Pattern, mut offset: usize, mut stream: &TcpStream) -> usize {
    stream.set_nonblocking(true).unwrap();
    until_still("bytes taken from the writer", || {
        while let Ok(length) = stream.write(pattern.at(offset)) {
            offset += length;
        }
        offset
    });
    stream.set_nonblocking(false).unwrap();
    offset
}

/// Waits until a count has stopped changing, which is as near as one comes to seeing that nothing moves any more.
pub(crate) fn until_still(what: &str, mut count: impl FnMut() -> usize) -> usize {
    // A fifth of a second: on one machine, full buffers are still much sooner.
    const LOOKS: usize = 40;
    let (mut last, mut looks) = (0, 0);
    let look = || {
        let count = count();
        looks = if count == last { looks + 1 } else { 0 };
        last = count;
        (looks, count)
    };
    eventually(&format!("an end of change in {what}"), look, |(looks, _)| *looks >= LOOKS).1
}
