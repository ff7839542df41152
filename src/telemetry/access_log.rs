//! The access log: one JSON line on standard output for each connection, at its end.
//!
//! A thread of its own writes; workers hand it records through a bounded queue and never wait. When standard
//! output blocks, the queue fills and records are dropped and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::record::Attempt;
use super::{ConnectionRecord, Negotiated, TlsRecord};

/// Records that may wait to be written, for all workers together.
const QUEUE_MAX: usize = 16_384;
/// Lines that are written at once.
const BATCH_MAX: usize = 256;
/// The log says at most once in this time that lines are lost.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);
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
            write_all(&queue, output);
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

/// Lines that could not be written, of all access logs of this process.
static LINES_LOST: AtomicU64 = AtomicU64::new(0);

/// Lines that could not be written because the output failed. (Those that did not fit the queue are on the workers.)
pub fn lines_lost() -> u64 {
    LINES_LOST.load(Ordering::Relaxed)
}

/// Writes batches of whole lines. One that cannot be written is lost and counted; the next is tried all the same, because
/// a disk that is full has room again some day.
fn write_all(queue: &flume::Receiver<ConnectionRecord>, mut output: impl Write) {
    let mut batch = Vec::new();
    let mut complained: Option<Instant> = None;
    while let Ok(record) = queue.recv() {
        let mut lines = 0;
        for record in std::iter::once(record).chain(queue.try_iter()).take(BATCH_MAX) {
            lines += u64::from(write_line(&record, &mut batch).is_ok());
        }
        if let Err(error) = output.write_all(&batch).and_then(|()| output.flush()) {
            LINES_LOST.fetch_add(lines, Ordering::Relaxed);
            if complained.is_none_or(|complained| complained.elapsed() > COMPLAINT_INTERVAL) {
                complained = Some(Instant::now());
                tracing::error!(%error, lines, "access log lines are lost; is the disk of standard output full?");
            }
        }
        batch.clear();
    }
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
    trace_id: String,
    worker: usize,
    listener: &'a str,
    route: Option<&'a str>,
    upstream: Option<&'a str>,
    endpoint: Option<String>,
    client: String,
    via: Option<String>,
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
    attempts: Vec<AttemptField<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsField<'a>>,
}

#[derive(Serialize)]
struct AttemptField<'a> {
    endpoint: String,
    start_ms: f64,
    end_ms: f64,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// What TLS it spoke; what does not apply is left out.
#[derive(Serialize)]
struct TlsField<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    downstream: Option<NegotiatedField<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<NegotiatedField<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<ClientField<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a str>,
}

#[derive(Serialize)]
struct NegotiatedField<'a> {
    version: &'a str,
    cipher: &'a str,
    alpn: Option<&'a str>,
    resumed: bool,
}

#[derive(Serialize)]
struct ClientField<'a> {
    names: Vec<&'a str>,
    common_name: Option<&'a str>,
    /// SHA-256 in hexadecimal.
    fingerprint: String,
}

impl<'a> From<&'a ConnectionRecord> for Line<'a> {
    fn from(record: &'a ConnectionRecord) -> Self {
        let timeline = &record.timeline;
        Self {
            time: super::logging::rfc3339(timeline.accepted),
            kind: "connection",
            id: record.id,
            trace_id: super::trace_id(record.id).to_string(),
            worker: record.worker,
            listener: &record.listener,
            route: record.route.as_deref(),
            upstream: record.upstream.as_deref(),
            endpoint: record.endpoint.map(|endpoint| endpoint.to_string()),
            client: record.client.to_string(),
            via: record.via.map(|via| via.to_string()),
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
            tls: record.tls.as_deref().map(TlsField::from),
        }
    }
}

impl<'a> From<&'a Attempt> for AttemptField<'a> {
    fn from(attempt: &'a Attempt) -> Self {
        Self {
            endpoint: attempt.endpoint.to_string(),
            start_ms: milliseconds(attempt.started),
            end_ms: milliseconds(attempt.ended),
            result: attempt.failure.map_or("connected", super::Outcome::label),
            reason: attempt.reason.as_deref(),
        }
    }
}

impl<'a> From<&'a TlsRecord> for TlsField<'a> {
    fn from(tls: &'a TlsRecord) -> Self {
        let client = tls.client.as_ref().map(|client| ClientField {
            names: client.names.iter().map(|name| &**name).collect(),
            common_name: client.common_name.as_deref(),
            fingerprint: client.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect(),
        });
        Self {
            server_name: tls.server_name.as_deref(),
            handshake_ms: tls.handshake_ended.map(milliseconds),
            downstream: tls.downstream.as_ref().map(NegotiatedField::from),
            upstream: tls.upstream.as_ref().map(NegotiatedField::from),
            client,
            failure: tls.failure.as_deref(),
        }
    }
}

impl<'a> From<&'a Negotiated> for NegotiatedField<'a> {
    fn from(negotiated: &'a Negotiated) -> Self {
        let Negotiated { version, cipher, alpn, resumed } = negotiated;
        Self { version, cipher, alpn: alpn.as_deref(), resumed: *resumed }
    }
}

/// With microseconds kept, and no more.
fn milliseconds(duration: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact for 285 years of microseconds")]
    let microseconds = duration.as_micros() as f64;
    microseconds / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Outcome, Timeline};
    use std::sync::{Arc, Mutex};
    use std::time::SystemTime;

    /// Fails once, then takes everything.
    #[derive(Clone, Default)]
    struct Recovers(Arc<Mutex<(bool, Vec<u8>)>>);

    impl Write for Recovers {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (failed, written) = &mut *self.0.lock().unwrap();
            if !std::mem::replace(failed, true) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn record(id: u64) -> ConnectionRecord {
        ConnectionRecord {
            id,
            worker: 0,
            client: "127.0.0.1:1".parse().unwrap(),
            via: None,
            listener: "a".into(),
            route: None,
            upstream: None,
            endpoint: None,
            attempts: Vec::new(),
            bytes_received: 0,
            bytes_sent: 0,
            tls: None,
            timeline: Timeline {
                accepted: SystemTime::now(),
                routed: None,
                connect_started: None,
                connect_ended: None,
                first_byte_downstream: None,
                first_byte_upstream: None,
                ended: Duration::ZERO,
            },
            outcome: Outcome::Denied,
        }
    }

    #[test]
    fn an_output_that_failed_is_tried_again_and_what_was_lost_is_counted() {
        let (records, queue) = flume::bounded(4);
        let output = Recovers::default();
        let lost = lines_lost();
        let writer = {
            let output = output.clone();
            thread::spawn(move || write_all(&queue, output))
        };
        records.send(record(1)).unwrap();
        while lines_lost() == lost {
            thread::yield_now();
        }
        records.send(record(2)).unwrap();
        drop(records);
        writer.join().unwrap();
        let written = String::from_utf8(output.0.lock().unwrap().1.clone()).unwrap();
        assert_eq!(written.lines().count(), 1, "{written}");
        assert!(written.contains("\"id\":2"), "{written}");
    }
}
