//! What the chart brings for Prometheus and Grafana, with a real Prometheus: each query of each panel finds something, each
//! alert fires for a fault made for it. There is a Sheave that is well and has everything, and others with every fault.

mod alerts;
mod exemplars;
mod panels;
mod server;
mod sick;
mod traffic;
mod well;

use std::net::SocketAddr;
use std::process::Command;

use crate::support::{Driver, Endpoint, Process, Program, Settings, admin_get, ask, on_both_drivers};

on_both_drivers!(promtool_likes_the_metrics);

/// Further listeners, routes and upstreams, a listener each for an upstream of the same name.
struct Several(Settings);

impl Several {
    fn add(&mut self, name: &str, listener: &str, members: &str) {
        let settings = &mut self.0;
        // Two of the same address would be two names of one.
        let number = settings.more_listeners.len() + 2;
        settings
            .more_listeners
            .push(format!("{{name: {name}, address: \"127.0.0.{number}:0\", {listener}}}"));
        settings
            .more_routes
            .push(format!("{{name: {name}, listener: {name}, backendRefs: [{{upstream: {name}}}]}}"));
        settings.more_upstreams.push(format!("{{name: {name}, {members}}}"));
    }
}

/// An upstream's `endpoints`.
fn endpoints(addresses: &[SocketAddr]) -> String {
    let each = addresses.iter().map(|address| format!("{{address: \"{address}\"}}"));
    format!("endpoints: [{}]", each.collect::<Vec<_>>().join(", "))
}

fn promtool_likes_the_metrics(driver: Driver) {
    let echo = Endpoint::echo();
    let process = Process::start(&Settings::new(driver, &[echo.address]), |_: &mut Command| {});
    assert_eq!(ask(process.listener("main"), "hello"), Ok("hello".to_owned()));
    pleases_promtool(process.admin());
    assert!(admin_get(process.admin(), "/metrics").ends_with("# EOF\n"), "OpenMetrics for all others");
}

/// Names, units and types are as Prometheus wants them, in the text that its own tool reads.
fn pleases_promtool(admin: SocketAddr) {
    let check = format!("curl -sS -H 'Accept: text/plain' http://{admin}/metrics | promtool check metrics");
    let output = Command::new("bash").args(["-o", "pipefail", "-c", &check]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// Ends with its value.
fn prometheus(configuration: &str, rules: &str) -> Program {
    Program::start(
        "prometheus",
        &[("prometheus.yaml", configuration), ("alerts.yaml", rules)],
        |command, directory| {
            command
                .arg(format!("--config.file={}", directory.join("prometheus.yaml").display()))
                .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
                .args(["--web.listen-address=127.0.0.1:0", "--enable-feature=exemplar-storage"]);
        },
    )
}
