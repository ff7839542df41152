//! A Prometheus of the test's own, and what it says.

use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::{eventually, get_json};

const STARTS: Duration = Duration::from_secs(60);

/// Ends with its value.
pub(super) struct Prometheus {
    process: Child,
    address: SocketAddr,
    started: SystemTime,
    _files: tempfile::TempDir,
}

impl Prometheus {
    /// `rules` is what a PrometheusRule has.
    pub(super) fn start(program: &Path, scrapes: &[Value], rules: &Value) -> Self {
        let files = tempfile::tempdir().unwrap();
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": scrapes,
        });
        // JSON is YAML.
        for (name, content) in [("prometheus.yaml", &config), ("rules.yaml", rules)] {
            std::fs::write(files.path().join(name), content.to_string()).unwrap();
        }
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(program);
        command.current_dir(files.path()).args([
            "--config.file=prometheus.yaml",
            "--storage.tsdb.path=data",
            "--enable-feature=exemplar-storage",
            "--web.enable-otlp-receiver",
            "--log.level=warn",
            &format!("--web.listen-address={address}"),
        ]);
        // What it says against its configuration is in the test's output.
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let prometheus = Self { process, address, started: SystemTime::now(), _files: files };
        let answers = || get_json(address, "/api/v1/status/runtimeinfo").is_some();
        eventually("Prometheus answers", STARTS, answers, |answers| *answers);
        prometheus
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut path = format!("/api/v1/{path}");
        for (number, (name, value)) in parameters.iter().enumerate() {
            let mark = if number == 0 { '?' } else { '&' };
            write!(path, "{mark}{name}={}", encoded(value)).unwrap();
        }
        let answer = get_json(self.address, &path).unwrap_or_else(|| panic!("Prometheus refuses {path}"));
        answer["data"].clone()
    }

    /// The series that there are now, as their labels.
    pub(super) fn series(&self, query: &str) -> Vec<Value> {
        let answer = self.get("query", &[("query", query)]);
        answer["result"].as_array().unwrap().iter().map(|series| series["metric"].clone()).collect()
    }

    /// The labels of each series, and the traces that it has examples of.
    pub(super) fn exemplars(&self, series: &str) -> Vec<(Value, String)> {
        let [start, end] = [self.started, SystemTime::now()].map(|time| {
            let time = time.duration_since(UNIX_EPOCH).unwrap();
            format!("{:.3}", time.as_secs_f64())
        });
        let found = self.get("query_exemplars", &[("query", series), ("start", &start), ("end", &end)]);
        let each = found.as_array().unwrap().iter().flat_map(|series| {
            let labels = &series["seriesLabels"];
            let exemplars = series["exemplars"].as_array().unwrap().iter();
            exemplars.map(|exemplar| {
                let trace = exemplar["labels"]["trace_id"].as_str().unwrap();
                (labels.clone(), trace.to_owned())
            })
        });
        each.collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'.' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").unwrap(),
        }
    }
    encoded
}
