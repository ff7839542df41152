//! Binding: one listening socket per worker on the same address (SO_REUSEPORT), the kernel spreads connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Name;
use crate::routing::publish::BoundListener;
use crate::routing::{Listener, RouteTable};

/// Connections that may wait to be accepted on one socket; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// A listener's address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("listener {name} cannot listen on {address}: {error}; {}", advice(error, *address))]
pub struct BindError {
    pub name: Name,
    pub address: SocketAddr,
    pub error: io::Error,
}

/// Binds what `next` has and `current` lacks: for each of `workers` the sockets it gets.
pub fn bind(
    current: &RouteTable,
    next: &RouteTable,
    workers: usize,
) -> Result<Vec<Vec<BoundListener>>, BindError> {
    let is_new = |listener: &&Arc<Listener>| {
        let binds = |first: &Arc<Listener>| Arc::ptr_eq(first, listener);
        next.listener_at(listener.address).is_some_and(binds)
            && current.listener_at(listener.address).is_none()
    };
    let new: Vec<&Arc<Listener>> = next.listeners.iter().filter(is_new).collect();
    let cannot = |listener: &Listener, error: io::Error| BindError {
        name: listener.name.clone(),
        address: listener.address,
        error,
    };
    let mut bound = Vec::with_capacity(new.len());
    for listener in &new {
        bound.push(bind_all(listener.address, workers).map_err(|error| cannot(listener, error))?);
    }
    // Only now that all are bound: a client of a socket that listens and is then given up would be reset.
    let mut sockets: Vec<Vec<BoundListener>> = (0..workers).map(|_| Vec::new()).collect();
    for (listener, bound) in new.into_iter().zip(bound) {
        for (sockets, socket) in sockets.iter_mut().zip(bound) {
            socket.listen(BACKLOG).map_err(|error| cannot(listener, error))?;
            sockets.push(BoundListener { address: listener.address, socket: socket.into() });
        }
    }
    Ok(sockets)
}

fn bind_all(address: SocketAddr, workers: usize) -> io::Result<Vec<Socket>> {
    let mut bound = Vec::with_capacity(workers);
    let mut address = address;
    for _ in 0..workers {
        let socket = bind_one(address)?;
        // Port 0 picks a free one; the other workers' sockets have to join it there.
        address = socket.local_addr()?.as_socket().unwrap_or(address);
        bound.push(socket);
    }
    Ok(bound)
}

fn bind_one(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if address.ip().is_unspecified() && address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    // Without it a restart would have to wait for the sockets of the process before, which linger after io_uring.
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit it, which saves a system call for each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What an operator can do about it.
fn advice(error: &io::Error, address: SocketAddr) -> String {
    let port = address.port();
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ADDRINUSE) => {
            format!("find who has it with `ss -ltnp 'sport = :{port}'` and stop it, or write another port")
        }
        Some(Errno::ACCESS | Errno::PERM) => format!(
            "grant CAP_NET_BIND_SERVICE, lower net.ipv4.ip_unprivileged_port_start to {port}, or write a port \
             from 1024 up"
        ),
        Some(Errno::ADDRNOTAVAIL) => {
            format!(
                "{} is no address of this host; write one that `ip addr` lists, or [::] for all",
                address.ip()
            )
        }
        Some(Errno::AFNOSUPPORT) => "this host has no IPv6; write 0.0.0.0 instead of [::]".to_owned(),
        Some(Errno::MFILE | Errno::NFILE) => "raise RLIMIT_NOFILE (ulimit -n)".to_owned(),
        _ => "see the error above".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_share_the_port_that_zero_picked() {
        let sockets = bind_all("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let port = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap().port();
        let ports: Vec<u16> = sockets.iter().map(port).collect();
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }

    #[test]
    fn a_port_in_use_is_one_clear_line() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind_all(address, 1).unwrap_err();
        let text = BindError { name: "web".into(), address, error }.to_string();
        let port = address.port();
        assert_eq!(
            text,
            format!(
                "listener web cannot listen on 127.0.0.1:{port}: Address already in use (os error 98); find who \
                 has it with `ss -ltnp 'sport = :{port}'` and stop it, or write another port"
            )
        );
    }

    #[test]
    fn a_foreign_address_is_named() {
        let error = bind_all("192.0.2.1:0".parse().unwrap(), 1).unwrap_err();
        assert!(
            advice(&error, "192.0.2.1:0".parse().unwrap())
                .starts_with("192.0.2.1 is no address of this host")
        );
    }
}
