//! Clients and endpoints that speak TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use super::{Endpoint, connect};

/// A client's side.
pub(crate) type SecureClient = StreamOwned<ClientConnection, TcpStream>;
/// An endpoint's side.
pub(crate) type SecureServer = StreamOwned<ServerConnection, TcpStream>;

/// Shakes hands with whoever answers for `name` at this address.
pub(crate) fn shake_hands(address: SocketAddr, name: &str, config: ClientConfig) -> io::Result<SecureClient> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = connect(address);
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

/// Sends this and no more, and reads the answer to its end. An end that TLS does not tell of is an error.
pub(crate) fn ask_securely(client: &mut SecureClient, request: &str) -> io::Result<String> {
    client.write_all(request.as_bytes())?;
    end(client)?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Says that no more will be sent, and nothing about the other direction.
pub(crate) fn end(client: &mut SecureClient) -> io::Result<()> {
    client.conn.send_close_notify();
    while client.conn.wants_write() {
        client.conn.write_tls(&mut client.sock)?;
    }
    client.sock.shutdown(std::net::Shutdown::Write)
}

/// Each connection runs `serve`, unless its handshake fails.
pub(crate) fn secure_endpoint(
    config: ServerConfig,
    serve: impl Fn(SecureServer) + Send + Sync + 'static,
) -> Endpoint {
    let config = Arc::new(config);
    Endpoint::start(move |stream| greet_securely(stream, &config, &serve))
}

/// Shakes hands as an endpoint, and runs `serve` unless that fails.
pub(super) fn greet_securely(
    mut stream: TcpStream,
    config: &Arc<ServerConfig>,
    serve: impl Fn(SecureServer),
) {
    let mut connection = ServerConnection::new(Arc::clone(config)).unwrap();
    while connection.is_handshaking() {
        if connection.complete_io(&mut stream).is_err() {
            return;
        }
    }
    serve(StreamOwned::new(connection, stream));
}

/// Sends back what it gets, and ends after the client.
pub(crate) fn echo_securely(mut stream: SecureServer) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => stream.write_all(&buffer[..length]).unwrap(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
    stream.conn.send_close_notify();
    stream.flush().ok();
}
