//! A Sheave whose every connection becomes a trace, with an endpoint for each way that a connection can go.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::support::{Beside, Jaeger};

/// That routes are for.
pub(super) const NAME: &str = "a.example.com";
const SOON: Duration = Duration::from_secs(30);

pub(super) struct Scene {
    sheave: Beside,
    /// What it shows to clients.
    _files: tempfile::TempDir,
    /// One connection fills the place of the endpoint that takes none.
    _full: (TcpListener, TcpStream),
}

impl Scene {
    pub(super) fn set(jaeger: &Jaeger, protocol: &str) -> Self {
        let (echo, reset, closed) = (endpoint(echo), endpoint(reset), closed());
        let (full_at, full) = full();
        let names =
            ["clean", "retried", "blackholed", "no-tls", "untrusted", "named", "reset", "proxied", "drained"];
        let files = tempfile::tempdir().unwrap();
        let certificate = certificate(&files);
        let listener = |(number, name): (usize, &&str)| {
            let mut listener = json!({"name": name, "address": format!("127.0.0.{}:0", number + 1)});
            match *name {
                "proxied" => {
                    listener["proxyProtocol"] = json!({"mode": "Require", "trusted": ["127.0.0.0/8"]})
                }
                "untrusted" => {
                    listener["protocol"] = json!("TLS");
                    listener["tls"] = json!({"mode": "Terminate", "certificateRefs": [certificate]});
                }
                "no-tls" | "named" => {
                    listener["protocol"] = json!("TLS");
                    listener["tls"] = json!({"mode": "Passthrough"});
                }
                _ => {}
            }
            listener
        };
        let route = |name: &&str| {
            let upstream = if ["retried", "blackholed", "reset"].contains(name) { name } else { &"clean" };
            let has_names = ["no-tls", "untrusted", "named"].contains(name);
            let hostnames = if has_names { vec![NAME] } else { vec![] };
            json!({"name": name, "listener": name, "hostnames": hostnames, "backendRefs": [{"upstream": upstream}]})
        };
        let upstream = |name: &str, endpoints: &[SocketAddr]| {
            let endpoints: Vec<Value> = endpoints.iter().map(|address| json!({"address": address})).collect();
            json!({
                "name": name, "endpoints": endpoints, "loadBalancer": {"type": "RoundRobin"},
                "timeout": {"tcp": {"connectTimeout": "300ms"}}, "retry": {"numRetries": endpoints.len() - 1},
            })
        };
        let config = json!({
            "admin": {"address": "127.0.0.1:0"},
            "drain": {"delay": "0s", "timeout": "1s"},
            "tracing": {
                "enabled": true, "protocol": protocol, "sample": 1,
                "endpoint": format!("http://{}", jaeger.endpoint(protocol)),
            },
            "listeners": names.iter().enumerate().map(listener).collect::<Vec<_>>(),
            "routes": names.iter().map(route).collect::<Vec<_>>(),
            "upstreams": [
                upstream("clean", &[echo]), upstream("retried", &[closed, echo]),
                upstream("blackholed", &[full_at]), upstream("reset", &[reset]),
            ],
        });
        Self { sheave: Beside::start(&config), _files: files, _full: full }
    }

    /// Where it is bound, once it is.
    pub(super) fn listener(&self, name: &str) -> SocketAddr {
        self.sheave.listener(name)
    }

    /// Asks it to end, and waits for that; all lines of its access log.
    pub(super) fn end(self) -> Vec<Value> {
        self.sheave.end(|line| line["listener"] == "drained")
    }
}

pub(super) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Reads to the end, or to the reset.
pub(super) fn is_over(client: &mut TcpStream) {
    let error = client.read_to_end(&mut Vec::new()).err();
    let is_late = error.is_some_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!is_late, "it should have ended");
}

/// What a client says first that asks for this name.
pub(super) fn client_hello(name: &'static str) -> Vec<u8> {
    let mut bytes = Vec::new();
    tls_client(name).write_tls(&mut bytes).unwrap();
    bytes
}

/// A client's TLS that trusts nobody.
pub(super) fn tls_client(name: &'static str) -> ClientConnection {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap()
}

/// A reference to one for the name that there is.
fn certificate(files: &tempfile::TempDir) -> Value {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| files.path().join(name));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    json!({"file": {"certificate": certificate, "key": key}})
}

fn endpoint(serve: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn echo(mut stream: TcpStream) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
}

fn reset(mut stream: TcpStream) {
    stream.read_exact(&mut [0]).ok();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Where nobody listens.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// An endpoint whose one place in the backlog is taken: who comes gets no answer.
fn full() -> (SocketAddr, (TcpListener, TcpStream)) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let filler = TcpStream::connect(address).unwrap();
    (address, (listener, filler))
}
