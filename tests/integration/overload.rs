//! Short of memory or of time, new connections are refused and those that are there go on; then all is as before.
#![cfg(feature = "faults")]

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use crate::support::{
    Driver, Endpoint, Process, Settings, ask, connect, eventually, metric, on_both_drivers, round_trip,
};

on_both_drivers!(
    a_worker_that_runs_late_refuses_and_comes_back,
    a_process_short_of_memory_refuses_and_comes_back,
);

struct Stage {
    _echo: Endpoint,
    process: Process,
    /// Where the fault looks.
    directory: tempfile::TempDir,
}

impl Stage {
    fn new(driver: Driver, overload: &str, fault: &str, prepare: impl FnOnce(&Path)) -> Self {
        let (echo, directory) = (Endpoint::echo(), tempfile::tempdir().unwrap());
        prepare(directory.path());
        let mut settings =
            Settings::new(driver, &[echo.address]).top(&format!("limits: {{overload: {{{overload}}}}}"));
        settings.workers = 1;
        let process = Process::start(&settings, |command| {
            command.env("SHEAVE_FAULT", format!("{fault}={}", directory.path().display()));
        });
        Self { _echo: echo, process, directory }
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.directory.path().join(file), text).unwrap();
    }

    fn wait_for(&self, reason: &str, value: f64) {
        let admin = self.process.admin();
        let label = format!("reason=\"{reason}\"");
        let overload = || metric(admin, "sheave_overload", &[&label]);
        eventually(&format!("overload by {reason}"), overload, |overload| *overload == value);
    }

    /// From serving through refusing to serving.
    fn serves_refuses_and_serves(&self, reason: &str, begin: impl FnOnce(), end: impl FnOnce()) {
        let address = self.process.listener("main");
        let mut held = connect(address);
        round_trip(&mut held);
        assert_eq!(ask(address, "hello"), Ok("hello".to_owned()));
        begin();
        self.wait_for(reason, 1.0);
        for request in ["", "hello"] {
            assert_eq!(ask(address, request), Err(ErrorKind::ConnectionReset));
        }
        round_trip(&mut held);
        end();
        self.wait_for(reason, 0.0);
        assert_eq!(ask(address, "hello"), Ok("hello".to_owned()));
        round_trip(&mut held);
        let is_refused = |record: &&Value| record["outcome"] == "overload" && record["side"] == "sheave";
        let refused = || self.process.output.json().iter().filter(is_refused).count();
        eventually("two refusals in the access log", refused, |refused| *refused == 2);
        let said = |text: &str| {
            self.process
                .log
                .json()
                .iter()
                .filter(|line| line["message"].as_str().unwrap().starts_with(text))
                .count()
        };
        let lines = || (said("overload:"), said("overload is over:"));
        eventually("one line for each change", lines, |lines| *lines == (1, 1));
    }
}

/// Each beat blocks the worker for longer than the bound.
fn a_worker_that_runs_late_refuses_and_comes_back(driver: Driver) {
    let directory = |_: &Path| {};
    let stage = Stage::new(driver, "memoryPercent: 0, loopLag: 1s", "worker-stall", directory);
    stage.serves_refuses_and_serves(
        "loop_lag",
        || stage.write("stall", "1100"),
        || std::fs::remove_file(stage.directory.path().join("stall")).unwrap(),
    );
}

fn a_process_short_of_memory_refuses_and_comes_back(driver: Driver) {
    let prepare = |directory: &Path| {
        for (file, text) in
            [("memory.max", "1000\n"), ("memory.current", "790\n"), ("memory.stat", "file 200\n")]
        {
            std::fs::write(directory.join(file), text).unwrap();
        }
    };
    let stage = Stage::new(driver, "memoryPercent: 80, loopLag: 0s", "cgroup", prepare);
    stage.serves_refuses_and_serves(
        "memory",
        || stage.write("memory.current", "800\n"),
        || stage.write("memory.stat", "file 200\ninactive_file 100\n"),
    );
    let admin = stage.process.admin();
    assert_eq!(metric(admin, "sheave_cgroup_memory_used_bytes", &[]), 700.0);
    assert_eq!(metric(admin, "sheave_cgroup_memory_limit_bytes", &[]), 1_000.0);
}
