//! Probes that ask for more than a connection: TLS handshakes and gRPC.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, Stream, SupportedProtocolVersion, version};

use crate::support::{
    Authority, Bound, DEADLINE, Driver, Endpoint, Proxy, Settings, eventually, on_both_drivers,
    secure_endpoint,
};

use super::{await_health, check, upstream};

on_both_drivers!(
    who_speaks_first_finds_no_reset,
    a_handshake_is_made_and_ended,
    who_does_not_end_is_as_well_as_any,
    who_speaks_no_tls_is_unhealthy,
    a_health_service_decides,
    who_speaks_no_grpc_is_unhealthy,
);

/// Signed by itself, which is nobody's business here.
const CERTIFICATE: &[u8] = include_bytes!("tls/certificate.der");
const KEY: &[u8] = include_bytes!("tls/key.der");

/// A probe that only connects, of who says something at once and something when it is over.
fn who_speaks_first_finds_no_reset(driver: Driver) {
    let served = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&served);
    let greets = Endpoint::start(move |mut stream| {
        let is_greeted = stream.write_all(b"220 hello\r\n").is_ok();
        let has_ended = matches!(stream.read(&mut [0; 64]), Ok(0));
        if is_greeted && has_ended && stream.write_all(b"221 bye\r\n").is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let settings = Settings::new(driver, &[greets.address])
        .upstream(&format!("healthCheck: {{{}}}", check("type: TCP, initialState: Unhealthy")));
    let proxy = Proxy::start(&settings);
    await_health(&proxy, &["healthy"]);
    eventually("probes that hear it out", || served.load(Ordering::Relaxed), |served| *served >= 3);
}

fn a_handshake_is_made_and_ended(driver: Driver) {
    for version in [&version::TLS12, &version::TLS13] {
        let (goodbyes, heard) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tls = speaks_tls(version, Arc::clone(&goodbyes), Arc::clone(&heard));
        let absent = Bound::new();
        let settings = Settings::new(driver, &[tls.address, absent.address])
            .upstream(&format!("healthCheck: {{{}}}", check("type: TLS, initialState: Unhealthy")));
        let proxy = Proxy::start(&settings);
        await_health(&proxy, &["healthy", "unhealthy"]);
        eventually("goodbyes", || goodbyes.load(Ordering::Relaxed), |goodbyes| *goodbyes >= 3);
        assert_eq!(heard.load(Ordering::Relaxed), 0, "no byte, no reset");
    }
}

/// Waiting for its end is politeness, and no part of the probe's time.
fn who_does_not_end_is_as_well_as_any(driver: Driver) {
    let (_hold, held) = flume::bounded::<()>(0);
    let rude = secure_endpoint(Authority::new().certify(&["a.test"]).server(), move |_stream| {
        held.recv_timeout(DEADLINE).unwrap_err();
    });
    let check = check("type: TLS, initialState: Unhealthy").replace("timeout: 10s", "timeout: 150ms");
    let settings = Settings::new(driver, &[rude.address]).upstream(&format!("healthCheck: {{{check}}}"));
    let proxy = Proxy::start(&settings);
    await_health(&proxy, &["healthy"]);
}

fn who_speaks_no_tls_is_unhealthy(driver: Driver) {
    let (echo, greets) =
        (Endpoint::echo(), Endpoint::start(|mut stream| stream.write_all(b"220 hi\r\n").unwrap()));
    let settings = Settings::new(driver, &[echo.address, greets.address])
        .upstream(&format!("healthCheck: {{{}}}", check("type: TLS")));
    let proxy = Proxy::start(&settings);
    await_health(&proxy, &["unhealthy", "unhealthy"]);
    for endpoint in upstream(&proxy)["endpoints"].as_array().unwrap() {
        let failure = endpoint["probeFailure"].as_str().unwrap();
        assert!(failure.starts_with("shaking hands: "), "{endpoint:#}");
    }
}

fn a_health_service_decides(driver: Driver) {
    let status = Arc::new(AtomicI32::new(1));
    let grpc = speaks_grpc(Arc::clone(&status));
    let settings = Settings::new(driver, &[grpc.address])
        .upstream(&format!("healthCheck: {{{}}}", check("type: GRPC, grpc: {service: shop.v1.Cart}")));
    let proxy = Proxy::start(&settings);
    let probed =
        |result: &str| proxy.metric("sheave_upstream_probes_total", &[&format!("result=\"{result}\"")]);
    eventually("probes that succeed", || probed("success"), |count| *count >= 3.0);
    assert_eq!(probed("failure"), 0.0);
    for (now, failure) in [
        (2, "status NOT_SERVING, expected SERVING"),
        (-5, "grpc-status 5: unknown service"),
        (-1000, "HTTP status 404, expected 200"),
    ] {
        status.store(now, Ordering::Relaxed);
        let shown = || upstream(&proxy)["endpoints"][0]["probeFailure"].clone();
        eventually("why", shown, |shown| *shown == failure);
        await_health(&proxy, &["unhealthy"]);
        status.store(1, Ordering::Relaxed);
        await_health(&proxy, &["healthy"]);
    }
}

fn who_speaks_no_grpc_is_unhealthy(driver: Driver) {
    let (echo, silent) = (
        Endpoint::start(|mut stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap()),
        Endpoint::start(|mut stream| while stream.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}),
    );
    let check = check("type: GRPC").replace("timeout: 10s", "timeout: 100ms");
    let settings =
        Settings::new(driver, &[echo.address, silent.address]).upstream(&format!("healthCheck: {{{check}}}"));
    let proxy = Proxy::start(&settings);
    await_health(&proxy, &["unhealthy", "unhealthy"]);
    assert_eq!(upstream(&proxy)["endpoints"][1]["probeFailure"], "no answer within 100ms");
}

/// Counts connections that end with a close_notify, and bytes and errors that come before it.
pub(super) fn speaks_tls(
    version: &'static SupportedProtocolVersion,
    goodbyes: Arc<AtomicUsize>,
    heard: Arc<AtomicUsize>,
) -> Endpoint {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(CERTIFICATE)], PrivatePkcs8KeyDer::from(KEY).into())
        .unwrap();
    let config = Arc::new(config);
    Endpoint::start(move |mut socket| {
        let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        // A FIN alone is an error here.
        match Stream::new(&mut connection, &mut socket).read(&mut [0; 64]) {
            Ok(0) => goodbyes.fetch_add(1, Ordering::Relaxed),
            _ => heard.fetch_add(1, Ordering::Relaxed),
        };
    })
}

/// Answers with this serving status; a negative one is that of gRPC, and -1000 is for no gRPC at all.
fn speaks_grpc(status: Arc<AtomicI32>) -> Endpoint {
    Endpoint::start(move |stream| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let status = status.load(Ordering::Relaxed);
        // Who has gone already hears nothing.
        let answer = async {
            stream.set_nonblocking(true).unwrap();
            answer_grpc(tokio::net::TcpStream::from_std(stream).unwrap(), status).await
        };
        runtime.block_on(answer).ok();
    })
}

pub(super) async fn answer_grpc(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    status: i32,
) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    let Some(request) = connection.accept().await else { return Ok(()) };
    let (request, mut respond) = request?;
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let mut body = request.into_body();
    let exchange = async move {
        let mut message = Vec::new();
        while let Some(chunk) = body.data().await {
            message.extend_from_slice(&chunk?);
        }
        assert_eq!(message, b"\0\0\0\0\x0e\x0a\x0cshop.v1.Cart");
        let head = hyper::Response::builder().header("content-type", "application/grpc");
        match status {
            -1000 => {
                respond.send_response(head.status(404).body(()).unwrap(), true)?;
            }
            ..0 => {
                let head = head.header("grpc-status", -status).header("grpc-message", "unknown service");
                respond.send_response(head.body(()).unwrap(), true)?;
            }
            _ => {
                let mut sending = respond.send_response(head.body(()).unwrap(), false)?;
                let message = [0, 0, 0, 0, 2, 8, u8::try_from(status).unwrap()];
                sending.send_data(message.to_vec().into(), false)?;
                let trailers = [("grpc-status", "0")].map(|(name, value)| {
                    (
                        hyper::header::HeaderName::from_static(name),
                        hyper::header::HeaderValue::from_static(value),
                    )
                });
                sending.send_trailers(trailers.into_iter().collect())?;
            }
        }
        Ok::<_, h2::Error>(())
    };
    let (answered, ended) =
        futures_util::future::join(exchange, poll_fn(|context| connection.poll_closed(context))).await;
    answered.and(ended)
}
