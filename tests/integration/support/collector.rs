//! A receiver of OTLP that keeps what it gets: gRPC, or protobuf over HTTP.

mod metrics;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::{Endpoint, eventually_some};
use metrics::Metrics;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    Grpc,
    Http,
}

/// What it does with a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Mood {
    #[default]
    Takes,
    /// All of it: it is not available.
    Refuses,
    /// The next one, and then takes all.
    RefusesOne,
    /// Three points or spans of each, as they are too old.
    Rejects,
}

pub(crate) struct Collector {
    endpoint: Endpoint,
    speech: Speech,
    seen: Arc<Mutex<Seen>>,
    mood: Arc<Mutex<Mood>>,
}

#[derive(Default)]
struct Seen {
    spans: Vec<Span>,
    metrics: Metrics,
    resource: BTreeMap<String, String>,
    /// Of the last request.
    headers: BTreeMap<String, String>,
}

/// The spans of one trace, by their parents.
#[derive(Clone, Debug)]
pub(crate) struct Trace(pub(crate) Vec<Span>);

impl Collector {
    pub(crate) fn start(speech: Speech) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mood = Arc::<Mutex<Mood>>::default();
        let (keep, follow) = (Arc::clone(&seen), Arc::clone(&mood));
        let endpoint = Endpoint::start(move |stream| {
            let (keep, follow) = (Arc::clone(&keep), Arc::clone(&follow));
            // Reading protobuf takes more stack than an endpoint's thread has.
            let serve = move || serve(stream, speech, &Taker { seen: &keep, mood: &follow });
            thread::spawn(serve).join().unwrap();
        });
        Self { endpoint, speech, seen, mood }
    }

    /// From now on it does this.
    pub(crate) fn set_mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Lines of the configuration that send all traces here, soon.
    pub(crate) fn settings(&self, more: &str) -> String {
        settings(self.speech, self.endpoint.address, more)
    }

    /// Lines of the configuration that send all metrics here, each second.
    pub(crate) fn metric_settings(&self) -> String {
        metric_settings(self.speech, self.endpoint.address, "1s")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// The newest of all series, and what else is known of them.
    pub(crate) fn metrics(&self) -> Metrics {
        self.seen.lock().unwrap().metrics.clone()
    }

    /// All spans of the trace with this root, once it is there.
    pub(crate) fn trace(&self, id: &str) -> Trace {
        eventually_some(&format!("trace {id}"), || {
            let seen = self.seen.lock().unwrap();
            let of_trace = seen.spans.iter().filter(|span| hex(&span.trace_id) == id);
            let spans: Vec<Span> = of_trace.cloned().collect();
            spans.iter().any(|span| span.kind == 2).then_some(Trace(spans))
        })
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.seen.lock().unwrap().spans.clone()
    }

    pub(crate) fn resource(&self) -> BTreeMap<String, String> {
        self.seen.lock().unwrap().resource.clone()
    }

    pub(crate) fn headers(&self) -> BTreeMap<String, String> {
        self.seen.lock().unwrap().headers.clone()
    }
}

/// As [`Collector::settings`], for any address.
pub(crate) fn settings(speech: Speech, address: SocketAddr, more: &str) -> String {
    let protocol = speech.protocol();
    format!("tracing: {{enabled: true, endpoint: \"http://{address}\", protocol: {protocol}, {more}}}\n")
}

/// As [`Collector::metric_settings`], for any address and interval.
pub(crate) fn metric_settings(speech: Speech, address: SocketAddr, interval: &str) -> String {
    let protocol = speech.protocol();
    format!(
        "metrics: {{otlp: {{enabled: true, endpoint: \"http://{address}\", protocol: {protocol}, \
         interval: {interval}}}}}\n"
    )
}

impl Speech {
    pub(crate) fn protocol(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

impl Trace {
    pub(crate) fn root(&self) -> &Span {
        self.0.iter().find(|span| span.kind == 2).unwrap()
    }

    /// Name, parent's name and `error.type`, in the order of their beginnings.
    pub(crate) fn tree(&self) -> Vec<(&str, &str, String)> {
        let mut spans: Vec<&Span> = self.0.iter().collect();
        // One that encloses another comes first.
        spans.sort_by_key(|span| (span.start_time_unix_nano, std::cmp::Reverse(span.end_time_unix_nano)));
        let name = |id: &[u8]| self.0.iter().find(|span| span.span_id == id).map_or("", |span| &*span.name);
        let row = |span: &'_ &Span| attribute(span, "error.type");
        spans.iter().map(|span| (&*span.name, name(&span.parent_span_id), row(span))).collect()
    }

    pub(crate) fn of_name(&self, name: &str) -> Vec<&Span> {
        self.0.iter().filter(|span| span.name == name).collect()
    }
}

/// Its text; empty: there is none of this name.
pub(crate) fn attribute(span: &Span, key: &str) -> String {
    span.attributes.iter().find(|attribute| attribute.key == key).map(text).unwrap_or_default()
}

/// From the beginning of `root` to that of `span`, and how long it took, in milliseconds.
pub(crate) fn times(root: &Span, span: &Span) -> (f64, f64) {
    let milliseconds = |nanoseconds: u64| nanoseconds as f64 / 1e6;
    let from = milliseconds(span.start_time_unix_nano - root.start_time_unix_nano);
    (from, milliseconds(span.end_time_unix_nano - span.start_time_unix_nano))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(attribute: &KeyValue) -> String {
    match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(value)) => value.to_string(),
        other => panic!("{other:?}"),
    }
}

/// What a connection is served with.
struct Taker<'a> {
    seen: &'a Mutex<Seen>,
    mood: &'a Mutex<Mood>,
}

impl Taker<'_> {
    /// What it says to the request; `None`: it is not available.
    fn take(&self, path: &str, bytes: &[u8], headers: BTreeMap<String, String>) -> Option<Vec<u8>> {
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Takes => {
                self.seen.lock().unwrap().take(path, bytes, headers);
                Some(Vec::new())
            }
            Mood::Refuses => None,
            Mood::RefusesOne => {
                *self.mood.lock().unwrap() = Mood::Takes;
                None
            }
            Mood::Rejects => {
                // What is said of spans has the same form.
                let error_message = "too old".to_owned();
                let part = ExportMetricsPartialSuccess { rejected_data_points: 3, error_message };
                Some(ExportMetricsServiceResponse { partial_success: Some(part) }.encode_to_vec())
            }
        }
    }
}

impl Seen {
    fn take(&mut self, path: &str, bytes: &[u8], headers: BTreeMap<String, String>) {
        let encoding = ["grpc-encoding", "content-encoding"].into_iter().find_map(|name| headers.get(name));
        let mut plain = Vec::new();
        match encoding.map(String::as_str) {
            Some("gzip") => {
                flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
            }
            _ => plain.extend(bytes),
        }
        self.headers = headers;
        match path {
            "/v1/traces" | "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => {
                for of_resource in ExportTraceServiceRequest::decode(&*plain).unwrap().resource_spans {
                    self.resource = texts(&of_resource.resource.unwrap().attributes);
                    self.spans.extend(of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
                }
            }
            "/v1/metrics" | "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => {
                self.metrics.requests.push(plain.len());
                for of_resource in ExportMetricsServiceRequest::decode(&*plain).unwrap().resource_metrics {
                    self.resource = texts(&of_resource.resource.unwrap().attributes);
                    let metrics = of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
                    metrics.for_each(|metric| self.metrics.take(&metric));
                }
            }
            _ => panic!("{path}"),
        }
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect()
}

fn serve(stream: TcpStream, speech: Speech, taker: &Taker<'_>) {
    match speech {
        Speech::Grpc => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            // Who has gone hears nothing any more.
            runtime.block_on(serve_grpc(stream, taker)).ok();
        }
        Speech::Http => serve_http(stream, taker).unwrap_or_default(),
    }
}

fn serve_http(stream: TcpStream, taker: &Taker<'_>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.strip_prefix("POST ").and_then(|line| line.strip_suffix(" HTTP/1.1\r\n")).unwrap();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        reader.read_exact(&mut body)?;
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let answer = taker.take(path, &body, headers);
        let status = if answer.is_some() { "200 OK" } else { "503 Service Unavailable" };
        let answer = answer.unwrap_or_default();
        let length = format!("content-type: application/x-protobuf\r\ncontent-length: {}", answer.len());
        let head = format!("HTTP/1.1 {status}\r\n{length}\r\n\r\n");
        reader.get_mut().write_all(&[head.as_bytes(), &answer].concat())?;
    }
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn serve_grpc(stream: TcpStream, taker: &Taker<'_>) -> Result<(), h2::Error> {
    stream.set_nonblocking(true).unwrap();
    let mut connection = h2::server::handshake(tokio::net::TcpStream::from_std(stream).unwrap()).await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        let answer = answer_grpc(request, respond, taker);
        let closed = poll_fn(|context| connection.poll_closed(context));
        // The connection has to be driven on while the body comes.
        match futures_util::future::select(std::pin::pin!(answer), closed).await {
            futures_util::future::Either::Left((answered, _)) => answered?,
            futures_util::future::Either::Right((closed, _)) => return closed,
        }
    }
    Ok(())
}

async fn answer_grpc(
    request: hyper::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<hyper::body::Bytes>,
    taker: &Taker<'_>,
) -> Result<(), h2::Error> {
    let path = request.uri().path().to_owned();
    let headers = request.headers().iter();
    let headers: BTreeMap<String, String> = headers
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let mut body = request.into_body();
    let mut message = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        message.extend_from_slice(&chunk);
    }
    // Whether it is compressed, and its length, come first.
    // A real one compresses what it says to who compresses.
    let compresses = headers.get("grpc-encoding").is_some_and(|encoding| encoding == "gzip");
    let answer = taker.take(&path, &message[5..], headers);
    let code = if answer.is_some() { "0" } else { "14" };
    let answer = answer.unwrap_or_default();
    let answer = if compresses { compressed(&answer) } else { answer };
    let encoding = if compresses { "gzip" } else { "identity" };
    let head = hyper::Response::builder().header("content-type", "application/grpc");
    let head = head.header("grpc-encoding", encoding).body(()).unwrap();
    let mut sending = respond.send_response(head, false)?;
    let length = u32::try_from(answer.len()).unwrap().to_be_bytes();
    sending.send_data([&[u8::from(compresses)][..], &length, &answer].concat().into(), false)?;
    let status = (
        hyper::header::HeaderName::from_static("grpc-status"),
        hyper::header::HeaderValue::from_static(code),
    );
    sending.send_trailers([status].into_iter().collect())
}
