//! The log of the program itself, on standard error: one line per change of the system's state.
//!
//! Lines are handed to a writing thread through a bounded queue that drops when standard error blocks, so that
//! logging never makes a worker wait.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{Log, LogFormat, LogLevel};

/// Writes what is queued when dropped.
#[derive(Debug)]
pub struct LogGuard {
    _writer: WorkerGuard,
    level: Level,
}

impl LogGuard {
    /// The level of the log that it guards.
    pub fn level(&self) -> Level {
        self.level.clone()
    }
}

/// What is least severe and still written; can be changed while the process runs.
#[derive(Clone, Debug)]
pub struct Level {
    current: Arc<Mutex<LogLevel>>,
    /// `None`: nobody writes a log.
    filter: Option<reload::Handle<Targets, Registry>>,
}

impl Level {
    /// Of a process that writes no log, such as a test.
    pub fn unheard(level: LogLevel) -> Self {
        Self { current: Arc::new(Mutex::new(level)), filter: None }
    }

    pub fn get(&self) -> LogLevel {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, level: LogLevel) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &self.filter {
            // Fails where the log is gone, that is at the end of the process.
            let _nobody_writes = handle.reload(filter(level));
        }
        *current = level;
    }
}

/// Starts logging; to be called once, first of all.
pub fn start(log: &Log) -> LogGuard {
    let (writer, guard) = NonBlockingBuilder::default().lossy(true).finish(std::io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_timer(Rfc3339).with_target(false);
    let lines = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(false).boxed(),
    };
    let (filter, handle) = reload::Layer::new(filter(log.level));
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    let level = Level { filter: Some(handle), ..Level::unheard(log.level) };
    LogGuard { _writer: guard, level }
}

/// Libraries log every attempt that fails, with whole answers in it, and do not say whose: this program says by
/// itself what an operator needs, once. At `trace` they are heard, but for those that may have a Secret in their hands.
fn filter(level: LogLevel) -> Targets {
    let everything = Targets::new().with_default(level_filter(level));
    let heard = if level == LogLevel::Trace { &LIBRARIES[..] } else { &[] };
    let unheard = SECRETIVE.iter().chain(&LIBRARIES).filter(|library| !heard.contains(library));
    unheard.fold(everything, |filter, library| filter.with_target(*library, LevelFilter::OFF))
}

/// By the beginning of their targets.
const LIBRARIES: [&str; 6] = ["hyper", "tower", "rustls", "h2", "tonic", "opentelemetry"];
/// An answer of the API server that cannot be decoded is logged whole.
const SECRETIVE: [&str; 1] = ["kube"];

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

struct Rfc3339;

impl FormatTime for Rfc3339 {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        writer.write_str(&rfc3339(SystemTime::now()))
    }
}

/// The last second of the year 9999.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// `2026-11-22T14:00:03.123456Z`. What lies outside the years 1970 to 9999 is shown as their first or last second, because the
/// library panics over it, and certificates come from others.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn any_time_can_be_printed() {
        let second = Duration::from_secs(1);
        assert_eq!(rfc3339(UNIX_EPOCH - second), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(UNIX_EPOCH + LAST + second), "9999-12-31T23:59:59.000000Z");
    }

    #[test]
    fn what_may_hold_a_secret_is_never_logged() {
        for level in [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace] {
            let filter = filter(level);
            assert!(!filter.would_enable("kube_client::client", &Level::ERROR), "{level:?}");
            assert!(filter.would_enable("sheave::control", &Level::ERROR), "{level:?}");
            assert_eq!(filter.would_enable("hyper::proto", &Level::ERROR), level == LogLevel::Trace);
        }
    }
}
