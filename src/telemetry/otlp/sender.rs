//! Requests that are encoded already, and how they get to their receiver: by gRPC or HTTP, with TLS where its URL says so.

mod grpc;
mod http;
mod tls;

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use opentelemetry_http::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::time::timeout;

use crate::config::OtlpProtocol;

use super::environment::Receiver;
use grpc::GrpcSender;
use http::HttpSender;

const AGENT: &str = concat!("sheave/", env!("CARGO_PKG_VERSION"));
/// Of what a receiver says to what it rejects.
const MESSAGE_MAX: usize = 200;

/// What sends one kind of requests.
#[derive(Debug)]
pub(super) struct Sender {
    receiver: Receiver,
    way: Way,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each kind of telemetry")]
enum Way {
    Grpc(GrpcSender),
    Http(HttpSender),
}

/// What a receiver answers to requests of one kind.
pub(super) trait Answer: Message + Default + 'static {
    /// Of the method that gives it.
    const PATH: &'static str;

    /// How many of what was sent it does not want, and what it says about them ([`Sender::redacted`]).
    fn rejected(self) -> Option<(u64, String)>;
}

impl Answer for ExportMetricsServiceResponse {
    const PATH: &'static str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

    fn rejected(self) -> Option<(u64, String)> {
        self.partial_success.and_then(|part| rejected(part.rejected_data_points, &part.error_message))
    }
}

impl Answer for ExportTraceServiceResponse {
    const PATH: &'static str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

    fn rejected(self) -> Option<(u64, String)> {
        self.partial_success.and_then(|part| rejected(part.rejected_spans, &part.error_message))
    }
}

fn rejected(count: i64, message: &str) -> Option<(u64, String)> {
    let count = u64::try_from(count).ok().filter(|count| *count > 0)?;
    Some((count, message.to_owned()))
}

/// A request that was not taken.
#[derive(Debug)]
pub(super) struct Refusal {
    /// For the log.
    pub(super) why: String,
    pub(super) again: Again,
}

/// Whether it may be taken later, as OTLP has it (<https://opentelemetry.io/docs/specs/otlp/#failures>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    Soon,
    /// The receiver says when.
    After(Duration),
}

impl Refusal {
    fn late(receiver: &str, limit: Duration) -> Self {
        Self { why: format!("{receiver}: no answer after {limit:?}"), again: Again::Soon }
    }
}

impl Sender {
    /// To be called where tokio runs.
    pub(super) fn new(receiver: Receiver) -> Result<Self, String> {
        let way = match receiver.protocol {
            OtlpProtocol::Grpc => Way::Grpc(GrpcSender::new(&receiver)?),
            OtlpProtocol::HttpProtobuf => Way::Http(HttpSender::new(&receiver)?),
        };
        Ok(Self { receiver, way })
    }

    /// For the log.
    pub(super) fn receiver(&self) -> String {
        self.receiver.shown()
    }

    pub(super) async fn send<A: Answer>(&mut self, request: Bytes) -> Result<A, Refusal> {
        let limit = self.receiver.timeout;
        let sent = match &mut self.way {
            Way::Grpc(sender) => timeout(limit, sender.send(request)).await,
            Way::Http(sender) => timeout(limit, sender.send(request)).await,
        };
        sent.unwrap_or_else(|_| {
            if let Way::Grpc(sender) = &mut self.way {
                sender.reconnect();
            }
            Err(Refusal::late(&self.receiver.shown(), limit))
        })
    }

    /// What the receiver says to what it rejects, for the log: some repeat what they were sent, secrets too.
    pub(super) fn redacted(&self, message: &str) -> String {
        let mut message = message.to_owned();
        for value in self.receiver.headers.values().filter_map(|value| value.to_str().ok()) {
            // Also the token alone of `Bearer token`.
            for secret in std::iter::once(value).chain(value.split_ascii_whitespace().skip(1)) {
                if !secret.is_empty() {
                    message = message.replace(secret, "[secret]");
                }
            }
        }
        // The last, or a secret would be cut into what is none.
        message.chars().take(MESSAGE_MAX).collect()
    }
}

/// The error and what caused it, down to the first cause.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _infallible = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::HeaderMap;

    #[test]
    fn what_was_sent_in_secret_is_not_repeated() {
        let headers = [("authorization", "Bearer letmein"), ("x-key", "hunter2")];
        let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let receiver = Receiver {
            url: "http://a/v1/traces".to_owned(),
            protocol: OtlpProtocol::HttpProtobuf,
            timeout: Duration::from_secs(1),
            certificate: None,
            headers: HeaderMap::from_iter(headers),
            is_compressed: false,
        };
        let sender = Sender::new(receiver).unwrap();
        for (message, expected) in [
            ("too old", "too old"),
            ("bad: Bearer letmein", "bad: [secret]"),
            ("token letmein, key hunter2", "token [secret], key [secret]"),
        ] {
            assert_eq!(sender.redacted(message), expected);
        }
        let long = format!("{}letmein", "a".repeat(MESSAGE_MAX - 3));
        assert_eq!(sender.redacted(&long), format!("{}[se", "a".repeat(MESSAGE_MAX - 3)));
    }
}
