//! A Prometheus of the test's own, and questions to it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::{Program, admin_get, admin_request, eventually, eventually_some};

pub(super) struct Prometheus {
    address: SocketAddr,
    started: SystemTime,
    _program: Program,
}

/// What the Prometheus operator calls the port, and what the chart does about it.
const DROP_ENDPOINT: &str = "        - action: labeldrop\n          regex: endpoint\n";

impl Prometheus {
    /// Scrapes these admin ports, with labels as the Prometheus operator gives them.
    pub(super) fn start(targets: &[SocketAddr], rules: &str) -> Self {
        let chart = include_str!("../../../charts/sheave/templates/metrics.yaml");
        assert_eq!(chart.matches(DROP_ENDPOINT).count(), 2, "of the ServiceMonitor and the PodMonitor");
        let targets: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
        let configuration = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [alerts.yaml]\n\
             scrape_configs:\n  - job_name: edge/sheave\n    static_configs:\n      \
             - {{targets: [{}], labels: {{namespace: edge}}}}\n    relabel_configs:\n        \
             - {{target_label: endpoint, replacement: admin}}\n{DROP_ENDPOINT}",
            targets.join(", ")
        );
        let program = super::prometheus(&configuration, rules);
        let address = eventually_some("an address that Prometheus listens on", || {
            let said = program.said[1].get();
            let line = said.lines().find(|line| line.contains("msg=\"Listening on\""))?;
            line.rsplit_once("address=")?.1.parse().ok()
        });
        let ready = || admin_request(address, "GET", "/-/ready").0;
        eventually("Prometheus is ready", ready, |status| *status == 200);
        Self { address, started: SystemTime::now(), _program: program }
    }

    /// What it says of `path`, once it is ready to say anything.
    pub(super) fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut path = format!("/api/v1/{path}");
        for (number, (name, value)) in parameters.iter().enumerate() {
            let mark = if number == 0 { '?' } else { '&' };
            write!(path, "{mark}{name}={}", encoded(value)).unwrap();
        }
        let answer: Value = serde_json::from_str(&admin_get(self.address, &path)).unwrap();
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// From its start until now, in seconds of the Unix epoch.
    pub(super) fn span(&self) -> [String; 2] {
        [self.started, SystemTime::now()].map(|time| {
            let time = time.duration_since(UNIX_EPOCH).unwrap();
            format!("{:.3}", time.as_secs_f64())
        })
    }

    /// How many series have had a number since its start.
    pub(super) fn series(&self, query: &str) -> usize {
        let [start, end] = self.span();
        let parameters = [("query", query), ("start", &*start), ("end", &*end), ("step", "1")];
        let answer = self.get("query_range", &parameters);
        let series = answer["result"].as_array().unwrap().iter();
        let is_number = |point: &Value| point[1].as_str().unwrap().parse::<f64>().unwrap().is_finite();
        series.filter(|series| series["values"].as_array().unwrap().iter().any(is_number)).count()
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
