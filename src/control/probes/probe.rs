//! One probe: does the endpoint take a connection, and answer as it should?

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::{Either, select};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::config::{ActiveCheck, ProbeKind, ProxyVersion};
use crate::proxy_protocol;
use crate::tls::ClientSide;

use super::polite::Polite;
use super::{grpc, tls};

/// Of the head of an answer, in bytes.
pub(super) const HEAD_MAX: u32 = 8 * 1024;
/// How long a probe that has its answer waits for the endpoint to end the connection too.
const LINGER: Duration = Duration::from_millis(200);
/// How probes call themselves.
pub(super) const AGENT: &str = concat!("sheave-probe/", env!("CARGO_PKG_VERSION"));

/// The error says what was wrong, for people.
pub(super) async fn probe(
    check: &ActiveCheck,
    proxy: Option<ProxyVersion>,
    tls: Option<&ClientSide>,
    endpoint: SocketAddr,
) -> Result<(), String> {
    let address = SocketAddr::new(endpoint.ip(), check.port.unwrap_or_else(|| endpoint.port()));
    let by = Instant::now() + check.timeout;
    let outcome = async {
        let mut stream = TcpStream::connect(address).await.map_err(|error| format!("connecting: {error}"))?;
        // Who expects a header, or TLS, expects it of probes too; a port for probes alone is another service.
        let is_its_own = check.port.is_none();
        let tls = tls.filter(|_| is_its_own);
        if let Some(version) = proxy.filter(|_| is_its_own) {
            let header = stream.write_all(proxy_protocol::local(version)).await;
            header.map_err(|error| format!("sending the PROXY protocol header: {error}"))?;
        }
        match &check.kind {
            // Who speaks first may have spoken, and finds a reset if that is not read.
            ProbeKind::Tcp => {
                say_goodbye(by, Polite::new(stream).shutdown()).await;
                Ok(())
            }
            ProbeKind::Tls => tls::shake_hands(stream, address, tls, by).await,
            ProbeKind::Grpc { service } => match tls {
                None => grpc::ask(stream, "http", address, service, by).await,
                Some(tls) => {
                    let stream = tls::connect(stream, tls, &[b"h2"]).await?;
                    grpc::ask(stream, "https", address, service, by).await
                }
            },
            ProbeKind::Http { path, host, statuses } => {
                let name = || tls.and_then(tls::hostname).unwrap_or_else(|| address.to_string());
                let host = host.clone().unwrap_or_else(name);
                let status = match tls {
                    None => ask(stream, path, &host, by).await,
                    Some(tls) => ask(tls::connect(stream, tls, &[b"http/1.1"]).await?, path, &host, by).await,
                };
                let status = status.map_err(|error| format!("asking: {error}"))?;
                if statuses.contains(&status) { Ok(()) } else { Err(unexpected(status, statuses)) }
            }
        }
    };
    let outcome = tokio::time::timeout_at(by, outcome).await;
    outcome.unwrap_or_else(|_| Err(format!("no answer within {}", humantime::format_duration(check.timeout))))
}

/// Ends the connection of a probe that has its answer. An endpoint that is rude is as well as any, so nobody waits for long, and
/// the time of the probe is not over meanwhile.
pub(super) async fn say_goodbye(by: Instant, goodbye: impl Future) {
    let _rude = tokio::time::timeout_at(by.min(Instant::now() + LINGER), goodbye).await;
}

/// The status of the answer to a GET.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    host: &str,
    by: Instant,
) -> Result<u16, Box<dyn std::error::Error>> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_MAX as usize);
    let (mut sender, connection) = builder.handshake(TokioIo::new(Polite::new(stream))).await?;
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "close")
        .body(String::new())?;
    let answer = Box::pin(sender.send_request(request));
    match select(answer, connection).await {
        Either::Left((answer, connection)) => {
            // Nobody asks for the rest, so the connection ends.
            let status = answer?.status().as_u16();
            say_goodbye(by, connection).await;
            Ok(status)
        }
        Either::Right((ended, answer)) => {
            ended?;
            // The answer may have come with the end.
            Ok(answer.await?.status().as_u16())
        }
    }
}

fn unexpected(status: u16, expected: &[u16]) -> String {
    let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
    format!("status {status}, expected {}", expected.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn is_accepted(path: &str) -> bool {
        let path = serde_json::to_string(path).unwrap();
        let text = format!(
            "listeners: [{{name: a, address: \"127.0.0.1:1\"}}]\n\
             routes: [{{name: a, listener: a, backendRefs: [{{upstream: a}}]}}]\n\
             upstreams: [{{name: a, endpoints: [{{address: \"127.0.0.1:2\"}}], \
             healthCheck: {{active: {{type: HTTP, http: {{path: {path}}}}}}}}}]\n"
        );
        Config::parse(&text, "test").is_ok()
    }

    /// What passes for a path can be asked for, and what cannot does not pass.
    #[test]
    fn every_path_of_a_configuration_makes_a_request() {
        for character in (0..0x80).map(char::from) {
            for path in [format!("/a{character}b"), format!("/a?b{character}c")] {
                // The client would leave a fragment out.
                let can_be_asked_for = Request::get(&path).body(()).is_ok() && character != '#';
                assert_eq!(is_accepted(&path), can_be_asked_for, "{path:?}");
            }
        }
    }
}
