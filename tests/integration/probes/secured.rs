//! Probes of endpoints that expect what connections bring them: a PROXY protocol header, and TLS behind it.

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{HandshakeKind, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::support::{
    Authority, Driver, Endpoint, Fault, FaultyEndpoint, Proxy, Settings, eventually, on_both_drivers,
};

use super::kinds::answer_grpc;
use super::{await_health, check, upstream};

on_both_drivers!(
    what_connections_bring_probes_bring_too,
    a_certificate_of_another_host_is_unhealthy,
    only_connecting_says_nothing_in_tls,
    another_port_is_another_service,
);

const V1: &[u8] = b"PROXY UNKNOWN\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const HTTP: &str = "type: HTTP, http: {path: /healthz}";
const GRPC: &str = "type: GRPC, grpc: {service: shop.v1.Cart}";

/// What endpoints saw of the connections that they had.
#[derive(Clone, Default)]
struct Seen {
    /// From the header over a full handshake and an answer to a proper end.
    whole: Arc<AtomicUsize>,
    /// What an endpoint would log.
    noise: Arc<Mutex<Vec<String>>>,
}

impl Seen {
    fn enter(&self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => _ = self.whole.fetch_add(1, Ordering::Relaxed),
            Err(noise) => self.noise.lock().unwrap().push(noise),
        }
    }

    fn noise(&self) -> Vec<String> {
        self.noise.lock().unwrap().clone()
    }

    fn await_whole(&self, what: &str) {
        eventually(what, || (self.whole.load(Ordering::Relaxed), self.noise()), |(whole, _)| *whole >= 3);
        assert_eq!(self.noise(), [""; 0], "{what}");
    }
}

/// Expects this header and TLS, answers what was agreed to speak, and is strict about ends.
fn expects(header: &'static [u8], mut config: ServerConfig, seen: &Seen) -> Endpoint {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (acceptor, seen) = (TlsAcceptor::from(Arc::new(config)), seen.clone());
    Endpoint::start(move |stream| {
        let (acceptor, seen) = (acceptor.clone(), seen.clone());
        // With a larger stack than connections of an endpoint have.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            seen.enter(runtime.block_on(serve(stream, header, &acceptor)));
        });
    })
}

async fn serve(stream: TcpStream, header: &[u8], acceptor: &TlsAcceptor) -> Result<(), String> {
    stream.set_nonblocking(true).unwrap();
    let mut stream = tokio::net::TcpStream::from_std(stream).unwrap();
    let mut read = vec![0; header.len()];
    stream.read_exact(&mut read).await.map_err(|error| format!("its header: {error}"))?;
    if read != header {
        return Err(format!("another header: {}", read.escape_ascii()));
    }
    let mut stream = acceptor.accept(stream).await.map_err(|error| format!("its handshake: {error}"))?;
    let (_, tls) = stream.get_ref();
    if (tls.handshake_kind(), tls.server_name()) != (Some(HandshakeKind::Full), Some("pg.test")) {
        return Err(format!("{:?} with {:?}", tls.handshake_kind(), tls.server_name()));
    }
    match tls.alpn_protocol() {
        Some(b"h2") => return answer_grpc(stream, 1).await.map_err(|error| format!("gRPC: {error}")),
        Some(_) => answer_http(&mut stream).await.map_err(|error| format!("HTTP: {error}"))?,
        None => {}
    }
    // A FIN without a close_notify is an error here.
    match stream.read(&mut [0; 64]).await {
        Ok(0) => Ok(()),
        Ok(read) => Err(format!("{read} bytes more")),
        Err(error) => Err(format!("its end: {error}")),
    }
}

async fn answer_http(stream: &mut TlsStream<tokio::net::TcpStream>) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let request = String::from_utf8(request).unwrap().to_ascii_lowercase();
    assert!(request.starts_with("get /healthz http/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nhost: pg.test\r\n"), "{request}");
    let body = "x".repeat(20_000);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

fn settings(
    driver: Driver,
    authority: &Authority,
    endpoints: &[std::net::SocketAddr],
    more: &str,
) -> Settings {
    Settings::new(driver, endpoints).upstream(&format!(
        "tls: {{validation: {{caCertificateRefs: [{{file: {}}}], hostname: pg.test}}}}, {more}",
        authority.file().display()
    ))
}

fn what_connections_bring_probes_bring_too(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["pg.test"]);
    for kind in ["type: TLS", HTTP, GRPC] {
        for (version, header) in [("", &b""[..]), ("V1", V1), ("V2", V2)] {
            let seen = Seen::default();
            let endpoint = expects(header, certificate.server(), &seen);
            let proxy_protocol = match version {
                "" => String::new(),
                version => format!("proxyProtocol: {{version: {version}}}, "),
            };
            let check = check(&format!("{kind}, initialState: Unhealthy"));
            let more = format!("{proxy_protocol}healthCheck: {{{check}}}");
            let proxy = Proxy::start(&settings(driver, &authority, &[endpoint.address], &more));
            await_health(&proxy, &["healthy"]);
            seen.await_whole(&format!("probes of {kind} {version}"));
            assert_eq!(proxy.metric("sheave_upstream_probes_total", &["result=\"failure\""]), 0.0);
        }
    }
}

/// It is the right one in the end.
fn a_certificate_of_another_host_is_unhealthy(driver: Driver) {
    let authority = Authority::new();
    let [right, wrong] = ["pg.test", "other.test"].map(|name| Arc::new(authority.certify(&[name]).server()));
    for kind in ["type: TLS", HTTP, GRPC] {
        let seen = Seen::default();
        let good = expects(b"", authority.certify(&["pg.test"]).server(), &seen);
        let faulty = FaultyEndpoint::start(Fault::Certificate(Arc::clone(&wrong)));
        let more = format!("healthCheck: {{panicThreshold: 0, {}}}", check(kind));
        let proxy = Proxy::start(&settings(driver, &authority, &[good.address, faulty.address], &more));
        await_health(&proxy, &["healthy", "unhealthy"]);
        seen.await_whole(kind);
        let shown = upstream(&proxy);
        let failure = shown["endpoints"][1]["probeFailure"].as_str().unwrap();
        let expected =
            "shaking hands: its certificate is not good: it is for other.test, and not for pg.test";
        assert!(failure.starts_with(expected), "{failure}");
        assert_eq!(shown["endpoints"][1]["unhealthyBy"], serde_json::json!(["active"]), "{shown:#}");
        assert_eq!(proxy.metric("sheave_endpoint_unhealthy", &[&faulty.address.to_string()]), 1.0);
        if kind == "type: TLS" {
            faulty.set(Fault::Certificate(Arc::clone(&right)));
            await_health(&proxy, &["healthy", "healthy"]);
        }
    }
}

/// As `type: TCP` says.
fn only_connecting_says_nothing_in_tls(driver: Driver) {
    let (found, ends) = flume::bounded(64);
    let endpoint = Endpoint::start(move |mut stream| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut bytes).unwrap();
        found.try_send(bytes).ok();
    });
    let authority = Authority::new();
    let check = check("type: TCP, initialState: Unhealthy");
    let more = format!("proxyProtocol: {{version: V2}}, healthCheck: {{{check}}}");
    let proxy = Proxy::start(&settings(driver, &authority, &[endpoint.address], &more));
    await_health(&proxy, &["healthy"]);
    for _ in 0..3 {
        assert_eq!(ends.recv().unwrap().escape_ascii().to_string(), V2.escape_ascii().to_string());
    }
}

/// The port is for probes alone: neither the header nor the certificate is that of the upstream.
fn another_port_is_another_service(driver: Driver) {
    let authority = Authority::new();
    let (seen, own) = (Seen::default(), Endpoint::echo());
    let goodbyes = super::kinds::speaks_tls(
        &tokio_rustls::rustls::version::TLS13,
        Arc::clone(&seen.whole),
        Arc::default(),
    );
    let kind = format!("type: TLS, initialState: Unhealthy, port: {}", goodbyes.address.port());
    let more = format!("proxyProtocol: {{version: V2}}, healthCheck: {{{}}}", check(&kind));
    let proxy = Proxy::start(&settings(driver, &authority, &[own.address], &more));
    await_health(&proxy, &["healthy"]);
    seen.await_whole("handshakes at the other port");
    assert_eq!(own.accepted(), 0);
}
