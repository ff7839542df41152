//! Clients that ask and listen, from an address of choice.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::DEADLINE;

/// What comes to a client that sends `request` and FIN: all of the answer, or how the connection broke. With an empty
/// request it sends nothing, no FIN either, and only listens.
pub(crate) fn ask(address: SocketAddr, request: &str) -> Result<String, io::ErrorKind> {
    let any =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    ask_from(any, address, request)
}

/// As [`ask`], from this address of the machine.
pub(crate) fn ask_from(source: IpAddr, address: SocketAddr, request: &str) -> Result<String, io::ErrorKind> {
    // A reset may be there before connect(2) returns, which then reports it.
    exchange(source, address, request).map_err(|error| error.kind())
}

fn exchange(source: IpAddr, address: SocketAddr, request: &str) -> io::Result<String> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), None)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.set_write_timeout(Some(DEADLINE))?;
    // A bound socket needs a port that is free towards everyone, so only who has to is bound.
    if !source.is_unspecified() {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect(&address.into())?;
    let mut stream = TcpStream::from(socket);
    if !request.is_empty() {
        stream.write_all(request.as_bytes())?;
        match stream.shutdown(Shutdown::Write) {
            // Reset meanwhile: the read says so.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            result => result?,
        }
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Makes sure that nothing comes, no end either, for this long.
pub(crate) fn stays_silent(mut stream: &TcpStream, time: Duration) {
    stream.set_read_timeout(Some(time)).unwrap();
    let read = stream.read(&mut [0]);
    assert!(
        matches!(&read, Err(error) if error.kind() == io::ErrorKind::WouldBlock),
        "nothing was to come for {time:?}: {read:?}"
    );
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
}

/// Sends a byte, and waits for the echo's answer.
pub(crate) fn round_trip(stream: &mut TcpStream) {
    stream.write_all(b"a").unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"a");
}
