//! A Jaeger all-in-one of the test's own, and what its query API says.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::tools::get_json;
use super::{eventually, eventually_some};

const STARTS: Duration = Duration::from_secs(60);
const ARRIVES: Duration = Duration::from_secs(30);

/// Ends with its value.
pub(crate) struct Jaeger {
    process: Child,
    grpc: SocketAddr,
    http: SocketAddr,
    query: SocketAddr,
}

/// Times are milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) parent: Option<String>,
    pub(crate) start: f64,
    pub(crate) duration: f64,
    pub(crate) tags: BTreeMap<String, String>,
    /// Who made it: what its resource says.
    pub(crate) process: BTreeMap<String, String>,
    /// What that is called.
    pub(crate) service: String,
}

impl Jaeger {
    /// It takes traces at this address of the machine. `None`: there is no such program.
    pub(crate) fn start(receiver: IpAddr) -> Option<Self> {
        let free_at = |ip: IpAddr| TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
        let free = || free_at(Ipv4Addr::LOCALHOST.into());
        let (grpc, http, query) = (free_at(receiver), free_at(receiver), free());
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
        eventually("jaeger answers", STARTS, || get_json(query, "/api/services"), Option::is_some);
        Some(jaeger)
    }

    pub(crate) fn endpoint(&self, protocol: &str) -> SocketAddr {
        if protocol == "grpc" { self.grpc } else { self.http }
    }

    /// The spans of a trace, once all that Sheave said of it are there: those that began first come first.
    pub(crate) fn trace(&self, id: &str) -> Vec<Span> {
        eventually_some(&format!("trace {id} in jaeger"), ARRIVES, || {
            let answer = get_json(self.query, &format!("/api/traces/{id}"))?;
            let trace = &answer["data"][0];
            let mut spans: Vec<Span> =
                trace["spans"].as_array()?.iter().map(|span| Span::of(span, &trace["processes"])).collect();
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
    /// Empty: none.
    pub(crate) fn tag(&self, key: &str) -> &str {
        self.tags.get(key).map_or("", String::as_str)
    }

    fn of(span: &Value, processes: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let milliseconds = |value: &Value| value.as_f64().unwrap() / 1_000.0;
        let process = &processes[text(&span["processID"])];
        Self {
            id: text(&span["spanID"]),
            name: text(&span["operationName"]),
            parent: span["references"][0]["spanID"].as_str().map(str::to_owned),
            start: milliseconds(&span["startTime"]),
            duration: milliseconds(&span["duration"]),
            tags: tags(&span["tags"]),
            process: tags(&process["tags"]),
            service: text(&process["serviceName"]),
        }
    }
}

fn tags(tags: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let tags = tags.as_array().unwrap().iter();
    tags.map(|tag| (text(&tag["key"]), text(&tag["value"]))).collect()
}
