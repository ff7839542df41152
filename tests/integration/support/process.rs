//! A Sheave in a process of its own: for signals, exit codes and limits of the process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Settings, eventually_some};

/// Killed with its value, should it still run.
pub(crate) struct Process {
    child: Child,
    /// Standard error: the log.
    pub(crate) log: Text,
    /// Standard output: the access log.
    pub(crate) output: Text,
    pub(crate) config: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

/// What a stream has said so far.
#[derive(Clone, Default)]
pub(crate) struct Text(Arc<Mutex<String>>);

impl Process {
    /// `sheave run` on these settings; `prepare` may change the command.
    pub(crate) fn start(settings: &Settings, prepare: impl FnOnce(&mut Command)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("sheave.yaml");
        std::fs::write(&config, settings.yaml()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sheave"));
        command.args(["run", "--allow-port-zero", "--config"]).arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        // What `prepare` sent elsewhere says nothing here.
        let output = child.stdout.take().map(Text::of).unwrap_or_default();
        let log = child.stderr.take().map(Text::of).unwrap_or_default();
        Self { child, log, output, config, _directory: directory }
    }

    /// Where the listener `name` is bound, once it is.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        self.logged_address("listening", |line| line["listener"] == name)
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.logged_address("admin listening", |_| true)
    }

    fn logged_address(&self, message: &str, is_it: impl Fn(&Value) -> bool) -> SocketAddr {
        let what = format!("log line {message:?}; the log: {}", self.log.get());
        eventually_some(&what, || {
            let line = self.log.json().into_iter().find(|line| line["message"] == message && is_it(line))?;
            line["address"].as_str()?.parse().ok()
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, once it has.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually_some("the end of the process", || self.child.try_wait().unwrap())
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, or ended now; either way it is reaped.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Text {
    pub(super) fn of(stream: impl Read + Send + 'static) -> Self {
        let text = Self::default();
        let followed = text.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let mut text = followed.0.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
            }
        });
        text
    }

    pub(crate) fn get(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    /// The lines that are JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.get().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}
