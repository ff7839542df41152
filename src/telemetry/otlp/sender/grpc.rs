//! OTLP by gRPC.

use std::marker::PhantomData;
use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use opentelemetry_http::Bytes;
use prost::bytes::BufMut;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::telemetry::otlp::environment::Receiver;

use super::{AGENT, Again, Answer, Refusal, tls, with_causes};

#[derive(Debug)]
pub(super) struct GrpcSender {
    endpoint: Endpoint,
    is_compressed: bool,
    client: Grpc<Channel>,
    metadata: MetadataMap,
    /// Its URL, for the log.
    shown: String,
}

impl GrpcSender {
    /// Connects when there is something to send, and anew when a connection has ended.
    pub(super) fn new(receiver: &Receiver) -> Result<Self, String> {
        let shown = receiver.shown();
        let wrong = |error: tonic::transport::Error| format!("{shown}: {}", with_causes(&error));
        let endpoint = Endpoint::from_shared(receiver.url.clone()).map_err(wrong)?;
        let endpoint = endpoint.user_agent(AGENT).map_err(wrong)?;
        let endpoint = endpoint.connect_timeout(receiver.timeout);
        let endpoint = match tls::grpc(receiver)? {
            Some(tls) => endpoint.tls_config(tls).map_err(wrong)?,
            None => endpoint,
        };
        let is_compressed = receiver.is_compressed;
        let client = client(&endpoint, is_compressed);
        let metadata = MetadataMap::from_headers(receiver.headers.clone());
        Ok(Self { endpoint, is_compressed, client, metadata, shown })
    }

    /// No answer came: whoever is asked next is asked by a new connection, as this one may lead nowhere any more.
    pub(super) fn reconnect(&mut self) {
        self.client = client(&self.endpoint, self.is_compressed);
    }

    pub(super) async fn send<A: Answer>(&mut self, request: Bytes) -> Result<A, Refusal> {
        let ready = self.client.ready().await;
        ready.map_err(|error| {
            let why = format!("{}: {}", self.shown, with_causes(&error));
            Refusal { why, again: Again::Soon }
        })?;
        let mut request = Request::new(request);
        *request.metadata_mut() = self.metadata.clone();
        let codec = Encoded(PhantomData);
        let answer = self.client.unary(request, PathAndQuery::from_static(A::PATH), codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.refused(&status))
    }

    /// Without the receiver's message: some repeat secrets in it.
    fn refused(&self, status: &Status) -> Refusal {
        let cause = std::error::Error::source(status).map(|cause| format!(": {}", with_causes(cause)));
        let why =
            format!("{}: gRPC code {:?}{}", self.shown, status.code(), cause.as_deref().unwrap_or_default());
        let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
        // What has a cause here did not come from the receiver: the connection broke.
        let again = if cause.is_some() { Again::Soon } else { again(status.code(), after) };
        Refusal { why, again }
    }
}

fn client(endpoint: &Endpoint, is_compressed: bool) -> Grpc<Channel> {
    // A collector answers as it was asked.
    let client = Grpc::new(endpoint.connect_lazy()).accept_compressed(CompressionEncoding::Gzip);
    if is_compressed { client.send_compressed(CompressionEncoding::Gzip) } else { client }
}

fn again(code: Code, after: Option<Duration>) -> Again {
    match (code, after) {
        (Code::ResourceExhausted | Code::Unavailable, Some(after)) => Again::After(after),
        (
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss,
            _,
        ) => Again::Soon,
        _ => Again::Never,
    }
}

/// Messages that are bytes already, and their answers.
#[derive(Debug)]
struct Encoded<A>(PhantomData<A>);

impl<A: Answer> Codec for Encoded<A> {
    type Encode = Bytes;
    type Decode = A;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(PhantomData)
    }

    fn decoder(&mut self) -> Self {
        Self(PhantomData)
    }
}

impl<A: Answer> Encoder for Encoded<A> {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl<A: Answer> Decoder for Encoded<A> {
    type Item = A;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<A>, Status> {
        // What is no such message says of no part that it was rejected.
        Ok(Some(A::decode(from).unwrap_or_default()))
    }
}
