//! A receiver of OTLP that keeps what it gets: gRPC, or protobuf over HTTP.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::{Endpoint, eventually_some};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    Grpc,
    Http,
}

pub(crate) struct Collector {
    endpoint: Endpoint,
    speech: Speech,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    spans: Vec<Span>,
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
        let keep = Arc::clone(&seen);
        let endpoint = Endpoint::start(move |stream| {
            let keep = Arc::clone(&keep);
            // Reading protobuf takes more stack than an endpoint's thread has.
            thread::spawn(move || serve(stream, speech, &keep)).join().unwrap();
        });
        Self { endpoint, speech, seen }
    }

    /// Lines of the configuration that send all traces here, soon.
    pub(crate) fn settings(&self, more: &str) -> String {
        settings(self.speech, self.endpoint.address, more)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.address
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
    let protocol = match speech {
        Speech::Grpc => "grpc",
        Speech::Http => "http/protobuf",
    };
    format!("tracing: {{enabled: true, endpoint: \"http://{address}\", protocol: {protocol}, {more}}}\n")
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

impl Seen {
    fn take(&mut self, bytes: &[u8], headers: BTreeMap<String, String>) {
        let encoding = ["grpc-encoding", "content-encoding"].into_iter().find_map(|name| headers.get(name));
        let mut plain = Vec::new();
        match encoding.map(String::as_str) {
            Some("gzip") => {
                flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
            }
            _ => plain.extend(bytes),
        }
        let request = ExportTraceServiceRequest::decode(&*plain).unwrap();
        self.headers = headers;
        for of_resource in request.resource_spans {
            let attributes = of_resource.resource.unwrap().attributes;
            self.resource =
                attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect();
            self.spans.extend(of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans));
        }
    }
}

fn serve(stream: TcpStream, speech: Speech, seen: &Mutex<Seen>) {
    match speech {
        Speech::Grpc => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            // Who has gone hears nothing any more.
            runtime.block_on(serve_grpc(stream, seen)).ok();
        }
        Speech::Http => serve_http(stream, seen).unwrap_or_default(),
    }
}

fn serve_http(stream: TcpStream, seen: &Mutex<Seen>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        assert_eq!(line, "POST /v1/traces HTTP/1.1\r\n");
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
        seen.lock().unwrap().take(&body, headers);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        reader.get_mut().write_all(head.as_bytes())?;
    }
}

async fn serve_grpc(stream: TcpStream, seen: &Mutex<Seen>) -> Result<(), h2::Error> {
    stream.set_nonblocking(true).unwrap();
    let mut connection = h2::server::handshake(tokio::net::TcpStream::from_std(stream).unwrap()).await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        let answer = answer_grpc(request, respond, seen);
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
    seen: &Mutex<Seen>,
) -> Result<(), h2::Error> {
    assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    let headers = request.headers().iter();
    let headers = headers
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
    seen.lock().unwrap().take(&message[5..], headers);
    let head = hyper::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut sending = respond.send_response(head, false)?;
    sending.send_data(vec![0; 5].into(), false)?;
    let status =
        (hyper::header::HeaderName::from_static("grpc-status"), hyper::header::HeaderValue::from_static("0"));
    sending.send_trailers([status].into_iter().collect())
}
