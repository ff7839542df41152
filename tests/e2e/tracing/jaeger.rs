//! A Jaeger all-in-one of the test's own, and what its query API says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{eventually, eventually_some};

const STARTS: Duration = Duration::from_secs(60);
const ARRIVES: Duration = Duration::from_secs(30);

/// Ends with its value.
pub(super) struct Jaeger {
    process: Child,
    grpc: SocketAddr,
    http: SocketAddr,
    query: SocketAddr,
}

/// Times are milliseconds.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) parent: Option<String>,
    pub(super) start: f64,
    pub(super) duration: f64,
    /// Empty: none.
    pub(super) error: String,
}

impl Jaeger {
    /// `None`: there is no such program.
    pub(super) fn start() -> Option<Self> {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (grpc, http, query) = (free(), free(), free());
        let anywhere = "127.0.0.1:0";
        let mut command = Command::new("jaeger");
        command.args([
            format!("--collector.otlp.grpc.host-port={grpc}"),
            format!("--collector.otlp.http.host-port={http}"),
            format!("--query.http-server.host-port={query}"),
            format!("--query.grpc-server.host-port={}", free()),
        ]);
        for server in ["admin.http", "collector.grpc-server", "collector.http-server", "http-server"] {
            command.arg(format!("--{server}.host-port={anywhere}"));
        }
        for processor in ["jaeger-binary", "jaeger-compact", "zipkin-compact"] {
            command.arg(format!("--processor.{processor}.server-host-port={anywhere}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().ok()?;
        let jaeger = Self { process, grpc, http, query };
        eventually("jaeger answers", STARTS, || get(query, "/api/services"), Option::is_some);
        Some(jaeger)
    }

    pub(super) fn endpoint(&self, protocol: &str) -> SocketAddr {
        if protocol == "grpc" { self.grpc } else { self.http }
    }

    /// The spans of a trace, once all that Sheave said of it are there: those that began first come first.
    pub(super) fn trace(&self, id: &str) -> Vec<Span> {
        eventually_some(&format!("trace {id} in jaeger"), ARRIVES, || {
            let answer = get(self.query, &format!("/api/traces/{id}"))?;
            let spans = answer["data"][0]["spans"].as_array()?;
            let mut spans: Vec<Span> = spans.iter().map(Span::of).collect();
            // One that encloses another comes first.
            // One that is as long as its parent comes after it.
            let ids: Vec<String> = spans.iter().map(|span: &Span| span.id.clone()).collect();
            let is_below = |span: &Span| span.parent.as_ref().is_some_and(|parent| ids.contains(parent));
            let key = |span: &Span| (span.start, is_below(span), -span.duration);
            spans.sort_by(|one, other| key(one).partial_cmp(&key(other)).unwrap());
            Some(spans)
        })
    }
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Span {
    fn of(span: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let milliseconds = |value: &Value| value.as_f64().unwrap() / 1_000.0;
        let tags = span["tags"].as_array().unwrap();
        let error = tags.iter().find(|tag| tag["key"] == "error.type").map(|tag| text(&tag["value"]));
        Self {
            id: text(&span["spanID"]),
            name: text(&span["operationName"]),
            parent: span["references"][0]["spanID"].as_str().map(str::to_owned),
            start: milliseconds(&span["startTime"]),
            duration: milliseconds(&span["duration"]),
            error: error.unwrap_or_default(),
        }
    }
}

/// `None`: it is not there (yet).
fn get(address: SocketAddr, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: jaeger\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| serde_json::from_str(body).ok()).flatten()
}
