//! What is sent where, and how: what the file says, and the OTEL_* variables of the OpenTelemetry specification, which win
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
//!
//! Pure: the variables are an argument.

mod metrics;
mod pairs;
mod traces;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use crate::config::{MetricsOtlp, OtlpProtocol, Tracing};

use pairs::pairs;

pub use metrics::MetricSettings;
pub use traces::{Batches, TraceSettings};

/// What is sent by OTLP.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `None`: no traces are sent.
    pub traces: Option<TraceSettings>,
    /// `None`: they are scraped, and nothing else.
    pub metrics: Option<MetricSettings>,
    /// What is set and not heeded, for the log.
    pub complaints: Vec<String>,
}

/// Who takes one kind of telemetry, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Receiver {
    /// With the path, where HTTP has one.
    pub(super) url: String,
    pub(super) protocol: OtlpProtocol,
    /// For one request.
    pub(super) timeout: Duration,
    /// Of the authorities to trust in place of the system's.
    pub(super) certificate: Option<PathBuf>,
    /// Their values are secret.
    pub(super) headers: HeaderMap,
    pub(super) is_compressed: bool,
}

/// What the file says of a receiver.
#[derive(Clone, Copy)]
struct Written<'a> {
    endpoint: &'a str,
    protocol: OtlpProtocol,
}

/// A kind of telemetry, as names of variables and paths have it.
#[derive(Clone, Copy)]
struct Signal {
    name: &'static str,
    path: &'static str,
}

const TRACES: Signal = Signal { name: "TRACES", path: "/v1/traces" };
const METRICS: Signal = Signal { name: "METRICS", path: "/v1/metrics" };

const TIMEOUT: Duration = Duration::from_secs(10);

/// Those of `OTEL_EXPORTER_OTLP_...` that are heeded, for each signal and for all.
const OF_RECEIVERS: &[&str] =
    &["CERTIFICATE", "COMPRESSION", "ENDPOINT", "HEADERS", "INSECURE", "PROTOCOL", "TIMEOUT"];

/// The other variables that are heeded.
const HEEDED: &[&str] = &[
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
    "OTEL_METRICS_EXPORTER",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_METRIC_EXPORT_TIMEOUT",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
];

impl Settings {
    pub fn new(
        tracing: &Tracing,
        metrics: &MetricsOtlp,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut environment = Environment::new(variables);
        let traces = environment.traces(tracing);
        let metrics = environment.metrics(metrics);
        if traces.is_some() || metrics.is_some() {
            environment.complain_of_unknown();
        }
        Self { traces, metrics, complaints: environment.complaints }
    }
}

impl Receiver {
    /// For the log: without what may be secret in it.
    pub(super) fn shown(&self) -> String {
        shown(&self.url)
    }
}

/// A URL without user, password and query.
pub(super) fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").map_or((None, url), |(scheme, rest)| (Some(scheme), rest));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    match scheme {
        Some(scheme) => format!("{scheme}://{host}{path}"),
        None => format!("{host}{path}"),
    }
}

/// Whether it names a host that is spoken to in HTTP. A port that is none would otherwise count as the scheme's own.
fn is_url(text: &str) -> bool {
    let Ok(url) = text.parse::<hyper::Uri>() else { return false };
    let (Some("http" | "https"), Some(authority)) = (url.scheme_str(), url.authority()) else { return false };
    let place = authority.as_str().rsplit('@').next().unwrap_or_default();
    let is_port = place == authority.host() || authority.port_u16().is_some_and(|port| port > 0);
    !authority.host().is_empty() && is_port
}

struct Environment {
    /// Those whose names begin with OTEL_; an empty one is as none.
    variables: BTreeMap<String, String>,
    complaints: Vec<String>,
}

impl Environment {
    fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self { variables: BTreeMap::new(), complaints: Vec::new() };
        let named = variables.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        for (name, value) in named.filter(|(name, _)| name.starts_with("OTEL_")) {
            match value.into_string() {
                Ok(value) if value.trim().is_empty() => {}
                Ok(value) => {
                    environment.variables.insert(name, value);
                }
                Err(_) => environment.complain_in_secret(&name, "write it in UTF-8"),
            }
        }
        environment
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.trim())
    }

    /// The name of the variable that says it: the one for this signal, or else the one for all.
    fn either(&self, signal: Signal, name: &str) -> Option<String> {
        let names =
            [format!("OTEL_EXPORTER_OTLP_{}_{name}", signal.name), format!("OTEL_EXPORTER_OTLP_{name}")];
        names.into_iter().find(|name| self.variables.contains_key(name))
    }

    /// What that one says.
    fn value(&self, signal: Signal, name: &str) -> Option<&str> {
        self.get(&self.either(signal, name)?)
    }

    /// The value is one that is not known here: what is said instead holds.
    fn complain(&mut self, name: &str, instead: &str) {
        let value = self.variables.get(name).map_or("", String::as_str);
        self.complain_once(format!("{name}={value} is not heeded; {instead}"));
    }

    /// The same, of one whose value is secret.
    fn complain_in_secret(&mut self, name: &str, instead: &str) {
        self.complain_once(format!("{name} is not heeded; {instead}"));
    }

    /// Two signals may say the same of what is for all.
    fn complain_once(&mut self, complaint: String) {
        if !self.complaints.contains(&complaint) {
            self.complaints.push(complaint);
        }
    }

    /// Whether the signal is sent. `elsewhere`: who gets it otherwise, without any doing of ours.
    fn enables(&mut self, signal: Signal, file: bool, elsewhere: &[&str]) -> bool {
        if self.is_true("OTEL_SDK_DISABLED") {
            return false;
        }
        let name = format!("OTEL_{}_EXPORTER", signal.name);
        let said = self.get(&name).unwrap_or_default().to_ascii_lowercase();
        let exporters = said.split(',').map(str::trim).filter(|exporter| !exporter.is_empty());
        let is_known = |exporter: &&str| ["otlp", "none"].contains(exporter) || elsewhere.contains(exporter);
        let (known, unknown): (Vec<&str>, Vec<&str>) = exporters.partition(is_known);
        if !unknown.is_empty() {
            let choice = [&["otlp"], elsewhere].concat().join(", ");
            self.complain_once(format!(
                "{} in {name} is not heeded; write {choice} or none",
                unknown.join(",")
            ));
        }
        if known.is_empty() { file } else { known.contains(&"otlp") }
    }

    fn receiver(&mut self, signal: Signal, file: Written<'_>) -> Receiver {
        let protocol = self.protocol(signal, file.protocol);
        let timeout = self.either(signal, "TIMEOUT");
        Receiver {
            url: self.url(signal, file, protocol),
            protocol,
            timeout: timeout.map_or(TIMEOUT, |name| self.milliseconds(&name, TIMEOUT)),
            certificate: self.value(signal, "CERTIFICATE").map(PathBuf::from),
            headers: self.headers(signal),
            is_compressed: self.is_compressed(signal),
        }
    }

    fn protocol(&mut self, signal: Signal, file: OtlpProtocol) -> OtlpProtocol {
        let names = [
            format!("OTEL_EXPORTER_OTLP_{}_PROTOCOL", signal.name),
            "OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(),
        ];
        for name in names {
            match self.get(&name) {
                Some("grpc") => return OtlpProtocol::Grpc,
                Some("http/protobuf") => return OtlpProtocol::HttpProtobuf,
                None => {}
                Some(_) => self.complain(&name, "write grpc or http/protobuf"),
            }
        }
        file
    }

    fn url(&mut self, signal: Signal, file: Written<'_>, protocol: OtlpProtocol) -> String {
        let name = self.endpoint(signal, protocol);
        let insecure = self.either(signal, "INSECURE").is_some_and(|name| self.is_true(&name));
        let said = name.as_deref().and_then(|name| Some((name, self.get(name)?)));
        let with_path = |url: &str| {
            let (base, query) = url.split_at(url.find('?').unwrap_or(url.len()));
            format!("{}{}{query}", base.trim_end_matches('/'), signal.path)
        };
        match (protocol, said) {
            (OtlpProtocol::Grpc, Some((_, url))) if url.contains("://") => url.to_owned(),
            (OtlpProtocol::Grpc, Some((_, host))) => {
                format!("{}://{host}", if insecure { "http" } else { "https" })
            }
            // Only what is for all signals is a base.
            (OtlpProtocol::HttpProtobuf, Some(("OTEL_EXPORTER_OTLP_ENDPOINT", url))) => with_path(url),
            (OtlpProtocol::HttpProtobuf, Some((_, url))) => url.to_owned(),
            // Each has a port of its own, where nobody says where.
            (OtlpProtocol::HttpProtobuf, None) => match (file.protocol, file.endpoint) {
                (OtlpProtocol::Grpc, "http://localhost:4317") => with_path("http://localhost:4318"),
                (_, url) if url.splitn(4, '/').nth(3).unwrap_or_default().is_empty() => with_path(url),
                (_, url) => url.to_owned(),
            },
            (OtlpProtocol::Grpc, None) => match (file.protocol, file.endpoint) {
                (OtlpProtocol::HttpProtobuf, "http://localhost:4318") => "http://localhost:4317".to_owned(),
                (_, url) => url.to_owned(),
            },
        }
    }

    /// The name of the variable that says where to send, if what it says can be a place. Its value may hold a password.
    fn endpoint(&mut self, signal: Signal, protocol: OtlpProtocol) -> Option<String> {
        let name = self.either(signal, "ENDPOINT")?;
        let said = self.get(&name)?;
        // Only gRPC may do without a scheme.
        let is_place = match protocol {
            OtlpProtocol::Grpc if !said.contains("://") => is_url(&format!("http://{said}")),
            OtlpProtocol::Grpc | OtlpProtocol::HttpProtobuf => is_url(said),
        };
        if !is_place {
            self.complain_in_secret(&name, "write a URL like http://localhost:4317, or with https://");
        }
        is_place.then_some(name)
    }

    fn headers(&mut self, signal: Signal) -> HeaderMap {
        let Some(name) = self.either(signal, "HEADERS") else { return HeaderMap::new() };
        let headers = self.get(&name).and_then(headers);
        headers.unwrap_or_else(|| {
            self.complain_in_secret(&name, "write key=value,key=value, percent-encoded");
            HeaderMap::new()
        })
    }

    fn is_compressed(&mut self, signal: Signal) -> bool {
        let Some(name) = self.either(signal, "COMPRESSION") else { return false };
        match self.get(&name) {
            Some("gzip") => true,
            Some("none") => false,
            _ => {
                self.complain(&name, "write gzip or none");
                false
            }
        }
    }

    fn is_true(&mut self, name: &str) -> bool {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            Some("true") => true,
            Some("false") | None => false,
            Some(_) => {
                self.complain(name, "write true or false");
                false
            }
        }
    }

    fn milliseconds(&mut self, name: &str, default: Duration) -> Duration {
        match self.get(name).map(str::parse::<NonZeroU32>) {
            Some(Ok(milliseconds)) => Duration::from_millis(milliseconds.get().into()),
            None => default,
            Some(Err(_)) => {
                self.complain(name, "write milliseconds, as a whole number from 1");
                default
            }
        }
    }

    fn resource(&mut self) -> Vec<(String, String)> {
        const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let parsed = self.get(ATTRIBUTES).map(|text| pairs(text).ok_or(()));
        let mut resource = parsed.unwrap_or(Ok(Vec::new())).unwrap_or_else(|()| {
            self.complain_in_secret(ATTRIBUTES, "write key=value,key=value, percent-encoded");
            Vec::new()
        });
        if let Some(name) = self.get("OTEL_SERVICE_NAME") {
            resource.push(("service.name".to_owned(), name.to_owned()));
        }
        resource
    }

    /// Those that nobody here looks at.
    fn complain_of_unknown(&mut self) {
        let is_unknown = |name: &&String| {
            // Those of other signals that are switched off ask for nothing.
            let is_off = self.variables.get(*name).is_some_and(|value| value == "none");
            !is_heeded(name) && !is_off
        };
        let unknown: Vec<&str> = self.variables.keys().filter(is_unknown).map(String::as_str).collect();
        if !unknown.is_empty() {
            self.complaints.push(format!("these variables are not supported: {}", unknown.join(", ")));
        }
    }
}

fn is_heeded(name: &str) -> bool {
    let of_receiver = name.strip_prefix("OTEL_EXPORTER_OTLP_").map(|rest| {
        let of_signal = rest.strip_prefix("TRACES_").or_else(|| rest.strip_prefix("METRICS_"));
        of_signal.unwrap_or(rest)
    });
    HEEDED.contains(&name) || of_receiver.is_some_and(|rest| OF_RECEIVERS.contains(&rest))
}

/// `None`: something else than headers.
fn headers(text: &str) -> Option<HeaderMap> {
    let pairs = pairs(text)?.into_iter();
    let headers = pairs.map(|(name, value)| {
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::try_from(name).ok()?, value))
    });
    headers.collect()
}

#[cfg(test)]
mod tests;
