//! How traces are sent: what the file says, and the OTEL_* variables of the OpenTelemetry specification, which win
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
//!
//! Pure: the variables are an argument. The exporter itself reads those for headers and compression.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Tracing, TracingProtocol};
use crate::telemetry::{Parents, TraceRules};

/// How traces are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub(super) endpoint: Endpoint,
    pub(super) protocol: TracingProtocol,
    /// For one request, and for trying again.
    pub(super) timeout: Duration,
    /// Of the authorities to trust in place of the system's.
    pub(super) certificate: Option<PathBuf>,
    pub(super) rules: TraceRules,
    pub batches: Batches,
    /// Of `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`.
    pub(super) resource: Vec<(String, String)>,
    /// What is set and not heeded, for the log.
    pub complaints: Vec<String>,
}

/// Where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// As the file says.
    Url(String),
    /// The exporter reads it from the environment.
    Environment(String),
}

/// How spans are sent together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    /// Spans that may wait.
    pub queue_max: usize,
    /// Spans in one request, as far as traces are not torn.
    pub batch_max: usize,
    /// How long the first of a batch waits for others.
    pub delay: Duration,
    /// For a batch, with trying again.
    pub timeout: Duration,
}

impl Default for Batches {
    fn default() -> Self {
        Self {
            queue_max: 16_384,
            batch_max: 512,
            delay: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
        }
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);
/// More spans than any batch or queue has use for.
const SPANS_MAX: u64 = 1 << 20;

/// The variables that are heeded here or by the exporter.
const HEEDED: &[&str] = &[
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_INSECURE",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
];

impl Settings {
    /// `None`: no traces are sent.
    pub fn new(file: &Tracing, variables: impl IntoIterator<Item = (String, String)>) -> Option<Self> {
        let mut environment = Environment::new(variables);
        if !environment.enables(file.enabled) {
            return None;
        }
        let protocol = environment.protocol(file.protocol);
        let batches = Batches::default();
        let timeout = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
        let rules = environment.rules(file)?;
        let settings = Self {
            endpoint: environment.endpoint(&file.endpoint, file.protocol, protocol),
            protocol,
            timeout: environment.milliseconds(&timeout, TIMEOUT),
            certificate: environment.either("CERTIFICATE").map(PathBuf::from),
            rules,
            batches: Batches {
                queue_max: environment.spans("OTEL_BSP_MAX_QUEUE_SIZE", batches.queue_max),
                batch_max: environment.spans("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", batches.batch_max),
                delay: environment.milliseconds(&["OTEL_BSP_SCHEDULE_DELAY"], batches.delay),
                timeout: environment.milliseconds(&["OTEL_BSP_EXPORT_TIMEOUT"], batches.timeout),
            },
            resource: environment.resource(),
            complaints: Vec::new(),
        };
        Some(Self { complaints: environment.complaints(), ..settings })
    }

    /// For the log.
    pub fn receiver(&self) -> &str {
        let (Endpoint::Url(url) | Endpoint::Environment(url)) = &self.endpoint;
        url
    }
}

struct Environment {
    /// Those whose names begin with OTEL_; an empty one is as none.
    variables: BTreeMap<String, String>,
    complaints: Vec<String>,
}

impl Environment {
    fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let is_meant =
            |(name, value): &(String, String)| name.starts_with("OTEL_") && !value.trim().is_empty();
        Self { variables: variables.into_iter().filter(is_meant).collect(), complaints: Vec::new() }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.trim())
    }

    /// The variable of this name for traces, or else the one for everything.
    fn either(&self, name: &str) -> Option<&str> {
        let of_traces = self.get(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"));
        of_traces.or_else(|| self.get(&format!("OTEL_EXPORTER_OTLP_{name}")))
    }

    /// The value is one that is not known here: what is said instead holds.
    fn complain(&mut self, name: &str, instead: &str) {
        let value = self.variables.get(name).map_or("", String::as_str);
        self.complaints.push(format!("{name}={value} is not heeded; {instead}"));
    }

    fn enables(&mut self, file: bool) -> bool {
        if self.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return false;
        }
        match self.get("OTEL_TRACES_EXPORTER") {
            Some("otlp") => true,
            Some("none") => false,
            None => file,
            Some(_) => {
                self.complain("OTEL_TRACES_EXPORTER", "write otlp or none");
                file
            }
        }
    }

    fn protocol(&mut self, file: TracingProtocol) -> TracingProtocol {
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            match self.get(name) {
                Some("grpc") => return TracingProtocol::Grpc,
                Some("http/protobuf") => return TracingProtocol::HttpProtobuf,
                None => {}
                Some(_) => self.complain(name, "write grpc or http/protobuf"),
            }
        }
        file
    }

    fn endpoint(&self, file: &str, written_for: TracingProtocol, protocol: TracingProtocol) -> Endpoint {
        if let Some(url) = self.either("ENDPOINT") {
            return Endpoint::Environment(url.to_owned());
        }
        let url = match (protocol, written_for) {
            // Each has a port of its own, where nobody says where.
            (TracingProtocol::HttpProtobuf, TracingProtocol::Grpc) if file == "http://localhost:4317" => {
                "http://localhost:4318"
            }
            (TracingProtocol::Grpc, TracingProtocol::HttpProtobuf) if file == "http://localhost:4318" => {
                "http://localhost:4317"
            }
            _ => file,
        };
        let path = url.splitn(4, '/').nth(3).unwrap_or_default();
        Endpoint::Url(match protocol {
            TracingProtocol::HttpProtobuf if path.is_empty() => {
                format!("{}/v1/traces", url.trim_end_matches('/'))
            }
            _ => url.to_owned(),
        })
    }

    /// `None`: no trace is kept at all.
    fn rules(&mut self, file: &Tracing) -> Option<TraceRules> {
        let share = match self.get("OTEL_TRACES_SAMPLER_ARG").map(str::parse::<f64>) {
            Some(Ok(share)) if (0.0..=1.0).contains(&share) => share,
            None => 1.0,
            Some(_) => {
                self.complain("OTEL_TRACES_SAMPLER_ARG", "write a number from 0 (none) to 1 (all)");
                1.0
            }
        };
        let rules = |sample, parents| TraceRules { sample, slower_than: file.slower_than, parents };
        Some(match self.get("OTEL_TRACES_SAMPLER") {
            None => rules(file.sample, Parents::Kept),
            Some("always_on") => rules(1.0, Parents::Ignored),
            Some("always_off") => return None,
            Some("traceidratio") => rules(share, Parents::Ignored),
            Some("parentbased_always_on") => rules(1.0, Parents::Followed),
            Some("parentbased_always_off") => rules(0.0, Parents::Followed),
            Some("parentbased_traceidratio") => rules(share, Parents::Followed),
            Some(_) => {
                let instead = "write always_on, always_off, traceidratio, or one of them with parentbased_";
                self.complain("OTEL_TRACES_SAMPLER", instead);
                rules(file.sample, Parents::Kept)
            }
        })
    }

    /// The first of these variables that is set.
    fn milliseconds(&mut self, names: &[&str], default: Duration) -> Duration {
        for name in names {
            match self.get(name).map(str::parse::<u32>) {
                Some(Ok(milliseconds)) => return Duration::from_millis(milliseconds.into()),
                Some(Err(_)) => self.complain(name, "write milliseconds, as a whole number"),
                None => {}
            }
        }
        default
    }

    fn spans(&mut self, name: &str, default: usize) -> usize {
        match self.get(name).map(str::parse::<u64>) {
            Some(Ok(spans)) if (1..=SPANS_MAX).contains(&spans) => usize::try_from(spans).unwrap_or(default),
            None => default,
            Some(_) => {
                self.complain(name, &format!("write a whole number from 1 to {SPANS_MAX}"));
                default
            }
        }
    }

    fn resource(&mut self) -> Vec<(String, String)> {
        const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let parsed = self.get(ATTRIBUTES).map(|text| attributes(text).ok_or(()));
        let mut resource = parsed.unwrap_or(Ok(Vec::new())).unwrap_or_else(|()| {
            self.complain(ATTRIBUTES, "write key=value,key=value, percent-encoded");
            Vec::new()
        });
        if let Some(name) = self.get("OTEL_SERVICE_NAME") {
            resource.push(("service.name".to_owned(), name.to_owned()));
        }
        resource
    }

    /// With those about variables that nobody here looks at.
    fn complaints(mut self) -> Vec<String> {
        let is_unknown = |name: &&String| {
            // Those of other signals that are switched off ask for nothing.
            let is_off = self.variables.get(*name).is_some_and(|value| value == "none");
            !HEEDED.contains(&name.as_str()) && !is_off
        };
        let unknown: Vec<&str> = self.variables.keys().filter(is_unknown).map(String::as_str).collect();
        if !unknown.is_empty() {
            self.complaints.push(format!("these variables are not supported: {}", unknown.join(", ")));
        }
        self.complaints
    }
}

/// `key=value` by commas, percent-encoded. `None`: something else.
fn attributes(text: &str) -> Option<Vec<(String, String)>> {
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let (key, value) = (decode(key.trim())?, decode(value.trim())?);
            (!key.is_empty()).then_some((key, value))
        })
        .collect()
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        bytes.push(is_number.then(|| u8::from_str_radix(digits, 16).ok()).flatten()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
