//! A Sheave in this process, started from the text of a configuration file.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use sheave::app::{Instance, Options};
use sheave::config::{Config, LogLevel, ParseOptions};
use sheave::telemetry::logging::Level;

use super::{DEADLINE, Settings, eventually, eventually_some};

/// Ends with its value, without time for connections.
pub(crate) struct Proxy {
    instance: Option<Instance>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) lines: Lines,
    directory: tempfile::TempDir,
}

/// The access log so far.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Proxy {
    pub(crate) fn start(settings: &Settings) -> Self {
        Self::start_yaml(&settings.yaml())
    }

    /// As [`Self::start`], on this text, which has a listener `main`.
    pub(crate) fn start_yaml(yaml: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sheave.yaml");
        std::fs::write(&file, yaml).unwrap();
        let lines = Lines::default();
        let instance = Instance::start(Options {
            config: load(&file).unwrap_or_else(|errors| panic!("{errors}\n{yaml}")),
            load: {
                let file = file.clone();
                Box::new(move || load(&file))
            },
            config_file: None,
            handle_signals: false,
            access_log: Box::new(lines.clone()),
            log: Level::unheard(LogLevel::Info),
        })
        .unwrap_or_else(|error| panic!("{error}"));
        Self {
            address: instance.listener_address("main").unwrap(),
            admin: instance.admin_address(),
            instance: Some(instance),
            lines,
            directory,
        }
    }

    pub(crate) fn instance(&self) -> &Instance {
        self.instance.as_ref().unwrap()
    }

    /// Replaces the configuration and reloads it.
    pub(crate) fn reload(&self, settings: &Settings) -> Result<(), String> {
        std::fs::write(self.config(), settings.yaml()).unwrap();
        self.instance().reload().map(|_| ())
    }

    /// Its configuration file.
    pub(crate) fn config(&self) -> std::path::PathBuf {
        self.directory.path().join("sheave.yaml")
    }

    /// Where a listener of the first table is bound.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        self.instance().listener_address(name).unwrap()
    }

    /// The access log lines, once there are at least `count`.
    pub(crate) fn records(&self, count: usize) -> Vec<Value> {
        let what = format!("{count} lines in the access log");
        eventually(&what, || self.lines.all(), |lines| lines.len() >= count)
    }

    /// The line of the one connection there was.
    pub(crate) fn record(&self) -> Value {
        let records = self.records(1);
        assert_eq!(records.len(), 1, "{records:?}");
        records[0].clone()
    }

    /// As the function of this name.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        metric(self.admin, name, labels)
    }

    /// Live connections, as the admin port says.
    pub(crate) fn live(&self) -> Vec<Value> {
        live(self.admin)
    }

    pub(crate) fn wait_for_live(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} live connections"), || self.live(), |live| live.len() == count)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let Some(instance) = self.instance.take() else { return };
        // On a thread of its own: compio aborts the process when a thread that panics (a test that fails) wakes a worker.
        thread::spawn(|| instance.abort()).join().ok();
    }
}

impl Lines {
    pub(crate) fn all(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap();
        // The last line may be half written.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        bytes[..whole]
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn load(file: &Path) -> Result<Config, String> {
    Config::load_with(file, &ParseOptions { allow_port_zero: true, ..ParseOptions::default() })
        .map_err(|errors| errors.to_string())
}

/// Live connections, as this admin port says.
pub(crate) fn live(admin: SocketAddr) -> Vec<Value> {
    let answer: Value = serde_json::from_str(&admin_get(admin, "/connections?limit=10000")).unwrap();
    answer["connections"].as_array().unwrap().clone()
}

/// The body of a GET that has to succeed.
pub(crate) fn admin_get(admin: SocketAddr, path: &str) -> String {
    let (status, body) = admin_request(admin, "GET", path);
    assert_eq!(status, 200, "GET {path}: {body}");
    body
}

/// The sum of a metric over the series whose labels contain all of `labels` (such as `listener="main"`).
pub(crate) fn metric(admin: SocketAddr, name: &str, labels: &[&str]) -> f64 {
    let text = admin_get(admin, "/metrics");
    let series = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    // What follows is an exemplar.
    let value = |line: &str| line.split(" # ").next()?.rsplit(' ').next()?.parse::<f64>().ok();
    series.map(|line| value(line).unwrap()).sum()
}

/// Status and body. The admin port may not be there yet.
pub(crate) fn admin_request(admin: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let Answer { status, body, .. } = admin_request_with(admin, method, path, &[]);
    (status, body)
}

/// What the admin port said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// As [`admin_request`], with these headers; `Host` is `admin` unless it is one of them.
pub(crate) fn admin_request_with(
    admin: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let mut stream = eventually_some("a connection to the admin port", || {
        TcpStream::connect_timeout(&admin, DEADLINE).ok()
    });
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        request.push_str("Host: admin\r\n");
    }
    headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
    write!(stream, "{request}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    let head = head.to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let chunked = head.contains("transfer-encoding: chunked");
    Answer { status: status.unwrap(), body: if chunked { unchunk(body) } else { body.to_owned() }, head }
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    whole
}
