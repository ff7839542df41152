//! Requests that are encoded already, by gRPC.

use hyper::http::uri::PathAndQuery;
use opentelemetry_http::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;
use prost::bytes::BufMut;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::AGENT;
use crate::telemetry::otlp::client;
use crate::telemetry::otlp::environment::MetricSettings;
use crate::telemetry::otlp::http::with_causes;

const PATH: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

#[derive(Debug)]
pub(super) struct GrpcSender {
    client: Grpc<Channel>,
    metadata: MetadataMap,
    receiver: String,
}

impl GrpcSender {
    /// Connects when there is something to send, and anew when a connection has ended.
    pub(super) fn new(settings: &MetricSettings) -> Result<Self, String> {
        let receiver = settings.receiver.shown();
        let wrong = |error: tonic::transport::Error| format!("{receiver}: {}", with_causes(&error));
        let endpoint = Endpoint::from_shared(settings.receiver.url.clone()).map_err(wrong)?;
        let endpoint = endpoint.user_agent(AGENT).map_err(wrong)?;
        let endpoint = endpoint.connect_timeout(settings.receiver.timeout);
        let endpoint = match client::grpc_tls(&settings.receiver)? {
            Some(tls) => endpoint.tls_config(tls).map_err(wrong)?,
            None => endpoint,
        };
        // A collector answers as it was asked.
        let client = Grpc::new(endpoint.connect_lazy()).accept_compressed(CompressionEncoding::Gzip);
        let client = match settings.is_compressed {
            true => client.send_compressed(CompressionEncoding::Gzip),
            false => client,
        };
        Ok(Self { client, metadata: MetadataMap::from_headers(settings.headers.clone()), receiver })
    }

    pub(super) async fn send(&mut self, request: Bytes) -> Result<ExportMetricsServiceResponse, String> {
        let ready = self.client.ready().await;
        ready.map_err(|error| format!("{}: {}", self.receiver, with_causes(&error)))?;
        let mut request = Request::new(request);
        *request.metadata_mut() = self.metadata.clone();
        let answer = self.client.unary(request, PathAndQuery::from_static(PATH), Encoded).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.why(&status))
    }

    /// Without the receiver's message: some repeat secrets in it.
    fn why(&self, status: &Status) -> String {
        let cause = std::error::Error::source(status).map(|cause| format!(": {}", with_causes(cause)));
        format!("{}: gRPC code {:?}{}", self.receiver, status.code(), cause.unwrap_or_default())
    }
}

/// Messages that are bytes already.
#[derive(Clone, Copy, Debug)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = ExportMetricsServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = ExportMetricsServiceResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        // What is no such message says of no part that it was rejected.
        Ok(Some(ExportMetricsServiceResponse::decode(from).unwrap_or_default()))
    }
}
