//! The configuration file as typed values: parse, don't validate.
//!
//! Every value here has been checked; nothing downstream checks again. How text becomes these values,
//! and every error with its line, is in the modules below. This module reads no clock and opens no socket.

mod assemble;
mod decode;
mod errors;
mod hostname;
mod proxy;
mod raw;
mod scalar;
mod tls;
mod tree;
mod upstream;

#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::io::Read;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustix::fs::OFlags;

pub use errors::{Error, Errors};
pub use hostname::Hostname;
pub use proxy::{ProxyIn, ProxyMode, ProxyOut, ProxyTlv, ProxyVersion};
pub use tls::{
    AuthorityRef, CertificateRef, ClientValidation, ClientValidationMode, ListenerTls, ObjectRef,
    POSTGRES_ALPN, Protocol, Roots, ServerNameText, StartTls, SubjectAltName, TlsMode, TlsVersion,
    UpstreamTls,
};
pub use upstream::{
    ActiveCheck, Breaker, Endpoint, HealthCheck, LoadBalancer, Location, Members, PassiveCheck, PortRef,
    ProbeKind, Rebalance, Retry, RetryTriggers, ServicePort, Upstream, UpstreamDrain, UpstreamLimits,
    UpstreamTimeouts, ZoneAware,
};

/// Everything one configuration file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub workers: Workers,
    pub admin: Admin,
    pub drain: Drain,
    pub limits: Limits,
    pub log: Log,
    pub access_log: AccessLog,
    pub metrics: Metrics,
    pub tracing: Tracing,
    pub kubernetes: Kubernetes,
    pub listeners: Vec<Listener>,
    pub routes: Vec<Route>,
    pub upstreams: Vec<Upstream>,
}

/// A name from the file; cheap to clone, because every connection's record carries some.
pub type Name = Arc<str>;

#[derive(Clone, Debug, PartialEq)]
pub struct Workers {
    /// `None`: one per core that this process may use.
    pub count: Option<NonZeroUsize>,
    pub pin: bool,
    pub driver: Driver,
    /// How long to look for more after an event, without sleeping; `None`: not at all.
    pub busy_poll: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Auto,
    IoUring,
    Epoll,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    pub address: SocketAddr,
    pub allow_changes: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    pub delay: Duration,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// `None`: what RLIMIT_NOFILE allows.
    pub max_connections: Option<NonZeroUsize>,
    pub overload: Overload,
}

/// Above either, new connections are refused. `None`: whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overload {
    /// Of the cgroup's memory.
    pub memory_percent: Option<NonZeroU32>,
    /// How late a worker's loop may run.
    pub loop_lag: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

/// The later, the more is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// As the file has it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    pub enabled: bool,
    /// Share of ordinary connections that get a line, 0 to 1; failed ones always do.
    pub sample: f64,
    pub format: LogFormat,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    pub per_endpoint: bool,
    pub otlp: MetricsOtlp,
}

/// What `/metrics` says, sent by OTLP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsOtlp {
    pub enabled: bool,
    /// A URL; a path is for HTTP only.
    pub endpoint: String,
    pub protocol: OtlpProtocol,
    /// From one time to the next.
    pub interval: Duration,
}

#[cfg(test)]
impl MetricsOtlp {
    pub(crate) fn off() -> Self {
        Self {
            enabled: false,
            endpoint: "http://localhost:4317".to_owned(),
            protocol: OtlpProtocol::Grpc,
            interval: Duration::from_secs(60),
        }
    }
}

/// One trace per connection, sent by OTLP.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    pub enabled: bool,
    /// A URL; a path is for HTTP only.
    pub endpoint: String,
    pub protocol: OtlpProtocol,
    /// Share of ordinary connections, 0 to 1; failed, retried and slow ones are always kept.
    pub sample: f64,
    /// `None`: none counts as slow.
    pub slower_than: Option<Duration>,
}

#[cfg(test)]
impl Tracing {
    pub(crate) fn off() -> Self {
        Self {
            enabled: false,
            endpoint: "http://localhost:4317".to_owned(),
            protocol: OtlpProtocol::Grpc,
            sample: 0.1,
            slower_than: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    Grpc,
    HttpProtobuf,
}

/// How the cluster is reached whose Services are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// `None`: the pod's own ServiceAccount, else the usual KUBECONFIG rules.
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub name: Name,
    pub address: SocketAddr,
    pub protocol: Protocol,
    /// A PROXY protocol header comes first; `None`: none does.
    pub proxy: Option<ProxyIn>,
    /// There exactly with protocol TLS.
    pub tls: Option<ListenerTls>,
    /// Client networks; empty: everyone.
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    pub limit: Option<ConnectionLimit>,
    /// `None`: clients are not told apart.
    pub sources: Option<SourceLimit>,
    pub timeouts: ListenerTimeouts,
    pub keepalive: Keepalive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimit {
    pub limit: NonZeroUsize,
    pub when_full: WhenFull,
}

/// What one client address may have; at least one of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SourceLimit {
    /// Connections at once.
    pub limit: Option<NonZeroU32>,
    /// New connections per second.
    pub rate: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    Reset,
    Wait,
}

/// `None` means never (`0s` in the file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerTimeouts {
    pub idle: Option<Duration>,
    pub max_duration: Option<Duration>,
    pub half_close: Option<Duration>,
    /// For the TLS handshake, or for peeking at the ClientHello.
    pub tls_handshake: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    pub idle_time: Duration,
    pub interval: Duration,
    pub probes: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub name: Name,
    /// The name of an existing listener.
    pub listener: Name,
    /// What TLS clients ask for; empty: any name, or none. The most specific wins.
    pub hostnames: Vec<Hostname>,
    /// Client networks; empty: everyone. The most specific wins.
    pub sources: Vec<IpNet>,
    /// What TLS clients offer to speak, one of these; empty: anything, or nothing.
    pub alpn: Vec<String>,
    /// Where TLS ends; `None`: where the listener says.
    pub tls_mode: Option<TlsMode>,
    /// At least one with a weight above 0.
    pub backends: Vec<BackendRef>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendRef {
    /// The name of an existing upstream.
    pub upstream: Name,
    pub weight: u32,
}

/// A file longer than this is none of ours: 100 000 endpoints need 4 MiB.
const MAX_FILE_BYTES: usize = 8 * 1024 * 1024;

/// What a parse knows, and lets pass, besides what the file says.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct ParseOptions {
    /// Listeners may have port 0, for tests: the kernel picks a free one.
    pub allow_port_zero: bool,
    /// Where this process runs; `kubernetes.zone` of the file wins.
    pub location: Location,
}

impl Config {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// Every mistake in it at once; or the one reason why it cannot be read: it is missing, no file,
    /// longer than 8 MiB, or not UTF-8.
    pub fn load(path: &Path) -> Result<Self, Errors> {
        Self::load_with(path, &ParseOptions::default())
    }

    /// Like [`Config::load`], for tests.
    ///
    /// # Errors
    /// As [`Config::load`].
    #[doc(hidden)]
    pub fn load_with(path: &Path, options: &ParseOptions) -> Result<Self, Errors> {
        let name = path.display().to_string();
        let text = read(path).map_err(|message| Errors::one(&name, None, message))?;
        let text = String::from_utf8(text).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let before = error.as_bytes().iter().take(valid);
            let line = before.filter(|byte| **byte == b'\n').count() + 1;
            let message = "not UTF-8 text; save the file in that encoding";
            Errors::one(&name, Some(line), message)
        })?;
        Self::parse_with(&text, &name, options)
    }

    /// Parses the text of a file; `file_name` is what the errors call it.
    ///
    /// # Errors
    /// Every mistake at once, in the order of the lines; or the one place where it stops being YAML.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, Errors> {
        Self::parse_with(text, file_name, &ParseOptions::default())
    }

    /// Like [`Config::parse`], for tests.
    #[doc(hidden)]
    pub fn parse_with(text: &str, file_name: &str, options: &ParseOptions) -> Result<Self, Errors> {
        if text.len() > MAX_FILE_BYTES {
            return Err(Errors::one(file_name, None, TOO_LONG));
        }
        let root =
            tree::read(text).map_err(|broken| Errors::one(file_name, Some(broken.line), broken.message))?;
        let report = errors::Report::new(file_name, root);
        let config = decode::decode(&report).map(|file| assemble::assemble(file, &report, options));
        match (report.finish(), config) {
            (None, Some(config)) => Ok(config),
            (Some(errors), _) => Err(errors),
            (None, None) => Err(Errors::one(file_name, None, "not a configuration")),
        }
    }
}

const TOO_LONG: &str =
    "the file is longer than 8 MiB; write fewer endpoints, or split it over several instances";

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let help = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file; write the path of one".to_owned(),
        std::io::ErrorKind::IsADirectory => "this is a directory; write the path of a file in it".to_owned(),
        std::io::ErrorKind::PermissionDenied => {
            "may not be read by this user; allow it, or write the path of another".to_owned()
        }
        _ => format!("cannot be read: {error}; check the path and the disk"),
    };
    // Non-blocking, because opening a FIFO would wait for somebody to write to it.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(help)?;
    let kind = file.metadata().map_err(help)?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err("this is no regular file; write the path of one".to_owned());
    }
    let mut text = Vec::new();
    // One byte more than allowed tells a file that is too long; a device without end stops here too.
    let most = MAX_FILE_BYTES as u64 + 1;
    file.take(most).read_to_end(&mut text).map_err(help)?;
    if text.len() > MAX_FILE_BYTES {
        return Err(TOO_LONG.to_owned());
    }
    Ok(text)
}

/// The JSON Schema (2020-12) of the configuration file, whose every description has units and defaults.
pub fn schema() -> serde_json::Value {
    schemars::generate::SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<raw::File>()
        .to_value()
}

/// A duration as the file has it, such as `250ms`.
///
/// # Errors
/// What is wrong with the text, and what to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    text.parse::<scalar::GatewayDuration>().map(|duration| duration.0)
}
