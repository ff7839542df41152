//! A Sheave beside the cluster: a process of the test's own, for what no cluster is needed for.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{eventually, eventually_some};

const SOON: Duration = Duration::from_secs(30);

/// Killed with its value, should it still run.
pub(crate) struct Beside {
    process: Child,
    log: Lines,
    /// The access log.
    output: Lines,
    _files: tempfile::TempDir,
}

/// The lines that are JSON.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Value>>>);

impl Beside {
    pub(crate) fn start(config: &Value) -> Self {
        let files = tempfile::tempdir().unwrap();
        let file = files.path().join("sheave.yaml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sheave"));
        command.args(["run", "--allow-port-zero", "--config"]).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let output = Lines::of(process.stdout.take().unwrap());
        let log = Lines::of(process.stderr.take().unwrap());
        Self { process, log, output, _files: files }
    }

    /// Where it is bound, once it is.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        self.address("listening", |line| line["listener"] == name)
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.address("admin listening", |_| true)
    }

    fn address(&self, message: &str, is_it: impl Fn(&Value) -> bool) -> SocketAddr {
        eventually_some(message, SOON, || {
            let lines = self.log.0.lock().unwrap();
            let line = lines.iter().find(|line| line["message"] == message && is_it(line))?;
            line["address"].as_str()?.parse().ok()
        })
    }

    /// Asks it to end, and waits for that; all lines of its access log, once one of them is the last.
    pub(crate) fn end(mut self, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
        let pid = Pid::from_raw(self.process.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        eventually("the end of sheave", SOON, || self.process.try_wait().unwrap().is_some(), |ended| *ended);
        let lines = || self.output.0.lock().unwrap().clone();
        eventually("the access log", SOON, lines, |lines| lines.iter().any(&is_last))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let kept = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                kept.0.lock().unwrap().extend(serde_json::from_str(&line).ok());
            }
        });
        lines
    }
}
