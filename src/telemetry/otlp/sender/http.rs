//! OTLP over HTTP.

use std::io::{self, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, Request, Response};
use tokio::time::error::Elapsed;

use crate::telemetry::otlp::environment::Receiver;

use super::{AGENT, Again, Answer, Refusal, tls, with_causes};

#[derive(Debug)]
pub(super) struct HttpSender {
    client: HyperClient<HttpsConnector<HttpConnector>>,
    url: String,
    /// The URL, for the log.
    shown: String,
    headers: HeaderMap,
    is_compressed: bool,
    timeout: Duration,
}

impl HttpSender {
    pub(super) fn new(receiver: &Receiver) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if receiver.is_compressed {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers.extend(receiver.headers.clone());
        Ok(Self {
            client: HyperClient::new(tls::connector(receiver)?, receiver.timeout, None),
            url: receiver.url.clone(),
            shown: receiver.shown(),
            headers,
            is_compressed: receiver.is_compressed,
            timeout: receiver.timeout,
        })
    }

    pub(super) async fn send<A: Answer>(&self, request: Bytes) -> Result<A, Refusal> {
        let never = |why| Refusal { why, again: Again::Never };
        let body = match self.is_compressed {
            true => compressed(&request).map_err(|error| never(error.to_string()))?,
            false => request,
        };
        let message = Request::post(&self.url).body(body);
        let mut message = message.map_err(|error| never(format!("{}: {error}", self.shown)))?;
        *message.headers_mut() = self.headers.clone();
        match self.client.send_bytes(message).await {
            // What is no such message says of no part that it was rejected.
            Ok(answer) if answer.status().is_success() => {
                Ok(A::decode(answer.into_body()).unwrap_or_default())
            }
            Ok(answer) => Err(self.refused(&answer)),
            Err(error) if error.is::<Elapsed>() => Err(Refusal::late(&self.shown, self.timeout)),
            Err(error) => {
                let why = format!("{}: {}", self.shown, with_causes(&*error));
                Err(Refusal { why, again: Again::Soon })
            }
        }
    }

    fn refused(&self, answer: &Response<Bytes>) -> Refusal {
        let after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let again = match (answer.status().as_u16(), after) {
            (429 | 503, Some(seconds)) => Again::After(Duration::from_secs(seconds)),
            (429 | 502 | 503 | 504, _) => Again::Soon,
            _ => Again::Never,
        };
        // Not the body: some receivers repeat secrets in it.
        Refusal { why: format!("{} answers {}", self.shown, answer.status()), again }
    }
}

fn compressed(bytes: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.into())
}
