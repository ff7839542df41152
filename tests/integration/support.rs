//! What the behaviour tests share: a proxy in this process or in one of its own, endpoints, and patience.
//!
//! Everything listens on port 0 of 127.0.0.1 and ends with its value. Waiting is polling with a deadline.

mod endpoint;
mod eventually;
mod load;
mod process;
mod proxy;
mod settings;

pub(crate) use endpoint::{Endpoint, closed_port};
pub(crate) use eventually::{DEADLINE, eventually, eventually_some};
pub(crate) use load::{Load, connect_from, echoed, exchange};
pub(crate) use process::Process;
pub(crate) use proxy::{Lines, Proxy, admin_get, admin_request};
pub(crate) use settings::{Driver, Settings};

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

/// Makes the next close of this socket a reset.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
}
