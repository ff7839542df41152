//! How reloading has gone so far: what probes, metrics and the next reload want to know.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::config::Config;
use crate::telemetry::Histogram;

#[derive(Debug)]
pub(super) struct Status {
    report: Mutex<Report>,
}

/// The status at one moment.
#[derive(Debug, Clone)]
pub(super) struct Report {
    /// Of the table that is published now.
    pub(super) config: Arc<Config>,
    pub(super) reloads: u64,
    pub(super) failures: u64,
    /// Why the last reload failed; `None`: it did not, or there was none.
    pub(super) error: Option<Arc<str>>,
    /// When the last reload, or the start, ended.
    pub(super) last_at: SystemTime,
    pub(super) last_success_at: SystemTime,
    /// Sections of the file that differ from what runs and need a restart.
    pub(super) restart: Vec<&'static str>,
    /// From publishing a table until all workers had it.
    pub(super) propagation: Histogram,
}

impl Status {
    pub(super) fn new(config: Arc<Config>) -> Self {
        let now = SystemTime::now();
        let report = Report {
            config,
            reloads: 0,
            failures: 0,
            error: None,
            last_at: now,
            last_success_at: now,
            restart: Vec::new(),
            propagation: Histogram::default(),
        };
        Self { report: Mutex::new(report) }
    }

    pub(super) fn report(&self) -> Report {
        self.with(|report| report.clone())
    }

    /// A reload published the table of `config`.
    pub(super) fn succeeded(&self, config: Arc<Config>, restart: Vec<&'static str>) {
        self.with(|report| {
            let now = SystemTime::now();
            report.config = config;
            report.reloads += 1;
            report.error = None;
            report.last_at = now;
            report.last_success_at = now;
            report.restart = restart;
        });
    }

    pub(super) fn failed(&self, error: &str) {
        self.with(|report| {
            report.failures += 1;
            report.error = Some(error.into());
            report.last_at = SystemTime::now();
        });
    }

    pub(super) fn propagated(&self, after: Duration) {
        self.with(|report| report.propagation.observe(after));
    }

    /// Whether acting on this would change nothing: what runs already, or the error that is known already.
    pub(super) fn knows(&self, loaded: &Result<Config, String>) -> bool {
        self.with(|report| match (&report.error, loaded) {
            (None, Ok(config)) => *report.config == *config,
            (Some(known), Err(error)) => **known == **error,
            (None, Err(_)) | (Some(_), Ok(_)) => false,
        })
    }

    /// Whether the last reload failed just so.
    pub(super) fn has_failed_with(&self, error: &str) -> bool {
        self.with(|report| report.error.as_deref() == Some(error))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Report) -> T) -> T {
        act(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
