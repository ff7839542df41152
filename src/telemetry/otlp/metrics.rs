//! Metrics by OTLP: what they become, and sending them.
//!
//! Written here and not by a meter of the SDK: the numbers are the workers', merged when they are asked for, as for a scrape,
//! and the SDK takes neither histograms that others have filled nor exemplars.

mod grpc;
mod requests;
mod starts;

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use opentelemetry_http::{Bytes, HttpClient, Request};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;
use tokio::time::timeout;

use crate::config::OtlpProtocol;

use super::environment::MetricSettings;
use super::http::HttpSender;
use super::{client, resource};
use grpc::GrpcSender;

pub use requests::{Description, MetricKind, MetricValue, Requests};
pub use starts::Starts;

const AGENT: &str = concat!("sheave/", env!("CARGO_PKG_VERSION"));
/// Of what a receiver says to what it rejects.
const MESSAGE_MAX: usize = 200;

/// What sends metrics.
#[derive(Debug)]
pub struct MetricSender {
    settings: MetricSettings,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Grpc(GrpcSender),
    Http(HttpSender),
}

impl MetricSender {
    /// To be called where tokio runs.
    ///
    /// # Errors
    /// What is wrong with the settings, or with what they name, for people.
    pub fn new(settings: MetricSettings) -> Result<Self, String> {
        let way = match settings.receiver.protocol {
            OtlpProtocol::Grpc => Way::Grpc(GrpcSender::new(&settings)?),
            OtlpProtocol::HttpProtobuf => Way::Http(client::http(&settings.receiver)?),
        };
        Ok(Self { settings, way })
    }

    /// Requests to be filled, from this process.
    pub fn requests<'a>(&self, starts: &'a mut Starts) -> Requests<'a> {
        Requests::new(&resource::attributes_of_this_process(&self.settings.resource), starts)
    }

    /// Sends them one after the other, until one fails. None is tried again: the next export says more.
    ///
    /// # Errors
    /// What went wrong, for the log.
    pub async fn send(&mut self, requests: Vec<Bytes>) -> Result<(), String> {
        let limit = self.settings.timeout;
        match timeout(limit, self.send_all(requests)).await {
            Ok(result) => result,
            Err(_) => Err(format!("{}: not all is sent after {limit:?}", self.settings.receiver.shown())),
        }
    }

    async fn send_all(&mut self, requests: Vec<Bytes>) -> Result<(), String> {
        let (mut rejected, mut reason) = (0, String::new());
        for request in requests {
            let answer = self.send_one(request).await?;
            if let Some(part) = answer.partial_success.filter(|part| part.rejected_data_points > 0) {
                rejected += part.rejected_data_points;
                reason = part.error_message.chars().take(MESSAGE_MAX).collect();
            }
        }
        match rejected {
            0 => Ok(()),
            _ => Err(format!("{} rejects {rejected} points: {reason:?}", self.settings.receiver.shown())),
        }
    }

    async fn send_one(&mut self, request: Bytes) -> Result<ExportMetricsServiceResponse, String> {
        let (receiver, limit) = (self.settings.receiver.shown(), self.settings.receiver.timeout);
        let sent = match &mut self.way {
            Way::Grpc(sender) => timeout(limit, sender.send(request)).await,
            Way::Http(sender) => timeout(limit, send_by_http(sender, &self.settings, request)).await,
        };
        match sent {
            Ok(result) => result,
            Err(_) => Err(format!("{receiver}: no answer after {limit:?}")),
        }
    }
}

async fn send_by_http(
    sender: &HttpSender,
    settings: &MetricSettings,
    request: Bytes,
) -> Result<ExportMetricsServiceResponse, String> {
    let mut message = Request::post(&settings.receiver.url)
        .header(CONTENT_TYPE, "application/x-protobuf")
        .header(USER_AGENT, AGENT);
    let body = match settings.is_compressed {
        true => {
            message = message.header(CONTENT_ENCODING, "gzip");
            compressed(&request).map_err(|error| error.to_string())?
        }
        false => request,
    };
    let mut message = message.body(body).map_err(|error| error.to_string())?;
    message.headers_mut().extend(settings.headers.clone());
    let answer = sender.send_bytes(message).await;
    // An answer that says otherwise is one too.
    if let Some(trouble) = sender.trouble().take() {
        return Err(trouble);
    }
    let answer = answer.map_err(|error| error.to_string())?;
    // What is no such message says of no part that it was rejected.
    Ok(ExportMetricsServiceResponse::decode(answer.into_body()).unwrap_or_default())
}

fn compressed(bytes: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.into())
}
