//! The access log: one JSON line on standard output for each connection, at its end.
//!
//! A thread of its own writes; workers hand it records through a bounded queue and never wait. When standard
//! output blocks, the queue fills and records are dropped and counted.

use std::io::{self, BufWriter, Write};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::ConnectionRecord;
use super::record::Attempt;

/// Records that may wait to be written, for all workers together.
const QUEUE_MAX: usize = 16_384;
/// How long the end of the process waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The writing thread, as its owner sees it.
#[derive(Debug)]
pub struct AccessLog {
    records: flume::Sender<ConnectionRecord>,
    finished: flume::Receiver<()>,
}

impl AccessLog {
    /// Starts the thread that writes to `output`.
    pub fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (records, queue) = flume::bounded(QUEUE_MAX);
        let (finish, finished) = flume::bounded(1);
        thread::Builder::new().name("sheave-telemetry".into()).spawn(move || {
            if let Err(error) = write_all(&queue, BufWriter::new(output)) {
                tracing::error!(%error, "the access log cannot be written; no more lines will be");
                // Keep taking records: workers must not count them as dropped by their own doing.
                while queue.recv().is_ok() {}
            }
            let _owner_is_gone = finish.send(());
        })?;
        Ok(Self { records, finished })
    }

    /// Where workers put their records.
    pub fn sender(&self) -> flume::Sender<ConnectionRecord> {
        self.records.clone()
    }

    /// Waits for what is queued, but never longer than a second: a blocked sink must not hold the exit.
    /// All other senders must be gone, or the second is spent in full.
    pub fn finish(self) {
        drop(self.records);
        let _too_slow = self.finished.recv_timeout(FLUSH_TIMEOUT);
    }
}

fn write_all(queue: &flume::Receiver<ConnectionRecord>, mut output: impl Write) -> io::Result<()> {
    while let Ok(record) = queue.recv() {
        write_line(&record, &mut output)?;
        for record in queue.try_iter() {
            write_line(&record, &mut output)?;
        }
        output.flush()?;
    }
    Ok(())
}

fn write_line(record: &ConnectionRecord, output: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *output, &Line::from(record))?;
    output.write_all(b"\n")
}

/// The line's fields, in the order in which they are read. Times are milliseconds.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    kind: &'static str,
    id: u64,
    worker: usize,
    listener: &'a str,
    route: Option<&'a str>,
    upstream: Option<&'a str>,
    endpoint: Option<String>,
    client: String,
    outcome: &'static str,
    side: &'static str,
    bytes_received: u64,
    bytes_sent: u64,
    duration_ms: f64,
    routed_ms: Option<f64>,
    connect_start_ms: Option<f64>,
    connect_end_ms: Option<f64>,
    first_byte_downstream_ms: Option<f64>,
    first_byte_upstream_ms: Option<f64>,
    attempts: Vec<AttemptField>,
}

#[derive(Serialize)]
struct AttemptField {
    endpoint: String,
    start_ms: f64,
    end_ms: f64,
    result: &'static str,
}

impl<'a> From<&'a ConnectionRecord> for Line<'a> {
    fn from(record: &'a ConnectionRecord) -> Self {
        let timeline = &record.timeline;
        Self {
            time: super::logging::rfc3339(timeline.accepted),
            kind: "connection",
            id: record.id,
            worker: record.worker,
            listener: &record.listener,
            route: record.route.as_deref(),
            upstream: record.upstream.as_deref(),
            endpoint: record.endpoint.map(|endpoint| endpoint.to_string()),
            client: record.client.to_string(),
            outcome: record.outcome.label(),
            side: record.outcome.side().label(),
            bytes_received: record.bytes_received,
            bytes_sent: record.bytes_sent,
            duration_ms: milliseconds(timeline.ended),
            routed_ms: timeline.routed.map(milliseconds),
            connect_start_ms: timeline.connect_started.map(milliseconds),
            connect_end_ms: timeline.connect_ended.map(milliseconds),
            first_byte_downstream_ms: timeline.first_byte_downstream.map(milliseconds),
            first_byte_upstream_ms: timeline.first_byte_upstream.map(milliseconds),
            attempts: record.attempts.iter().map(AttemptField::from).collect(),
        }
    }
}

impl From<&Attempt> for AttemptField {
    fn from(attempt: &Attempt) -> Self {
        Self {
            endpoint: attempt.endpoint.to_string(),
            start_ms: milliseconds(attempt.started),
            end_ms: milliseconds(attempt.ended),
            result: attempt.failure.map_or("connected", super::Outcome::label),
        }
    }
}

/// With microseconds kept, and no more.
fn milliseconds(duration: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact for 285 years of microseconds")]
    let microseconds = duration.as_micros() as f64;
    microseconds / 1_000.0
}
