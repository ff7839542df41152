//! The access log: one line on standard output for each connection, at its end; JSON, or `text`.

mod text;

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::LogFormat;

use super::record::Attempt;
use super::{ConnectionRecord, Negotiated, TlsRecord};

/// The log says at most once in this time that lines are lost.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// The log of one output, at the telemetry thread.
pub(super) struct AccessLog<W> {
    output: W,
    format: LogFormat,
    /// Whole lines.
    batch: Vec<u8>,
    lines: u64,
    complained: Option<Instant>,
}

/// Lines that could not be written, of all access logs of this process.
static LINES_LOST: AtomicU64 = AtomicU64::new(0);

/// Lines that could not be written because the output failed. (Those that did not fit the queue are on the workers.)
pub fn lines_lost() -> u64 {
    LINES_LOST.load(Ordering::Relaxed)
}

impl<W: Write> AccessLog<W> {
    pub(super) fn new(output: W, format: LogFormat) -> Self {
        Self { output, format, batch: Vec::new(), lines: 0, complained: None }
    }

    /// Adds the line of a connection to those that are yet to be written.
    pub(super) fn enter(&mut self, record: &ConnectionRecord) {
        self.lines += u64::from(write_line(record, self.format, &mut self.batch).is_ok());
    }

    /// Writes all lines at once. Those that cannot be written are lost and counted; the next are tried all the same, because
    /// a disk that is full has room again some day.
    pub(super) fn write(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if lines == 0 {
            return;
        }
        if let Err(error) = self.output.write_all(&self.batch).and_then(|()| self.output.flush()) {
            LINES_LOST.fetch_add(lines, Ordering::Relaxed);
            if self.complained.is_none_or(|complained| complained.elapsed() > COMPLAINT_INTERVAL) {
                self.complained = Some(Instant::now());
                tracing::error!(%error, lines, "access log lines are lost; is the disk of standard output full?");
            }
        }
        self.batch.clear();
    }
}

/// The line of one connection, with its end.
pub fn write_line(record: &ConnectionRecord, format: LogFormat, output: &mut Vec<u8>) -> io::Result<()> {
    match format {
        LogFormat::Json => write_json(record, output),
        LogFormat::Text => text::write_line(record, output),
    }
}

fn write_json(record: &ConnectionRecord, output: &mut impl Write) -> io::Result<()> {
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
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
    half_close_downstream_ms: Option<f64>,
    half_close_upstream_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_start_ms: Option<f64>,
    attempts: Vec<AttemptField<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsField<'a>>,
}

#[derive(Serialize)]
struct AttemptField<'a> {
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
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
    names: Vec<String>,
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
            trace_id: record.trace.to_string(),
            worker: record.worker,
            listener: &record.listener,
            route: record.route.as_deref(),
            upstream: record.upstream.as_deref(),
            endpoint: record.endpoint.map(|endpoint| endpoint.to_string()),
            pod: record.pod().map(|pod| &**pod),
            client: record.client.to_string(),
            via: record.via.as_deref().map(|via| via.proxy.to_string()),
            outcome: record.outcome.label(),
            side: record.outcome.side().label(),
            bytes_received: record.bytes_received,
            bytes_sent: record.bytes_sent,
            duration_ms: milliseconds(timeline.ended),
            routed_ms: timeline.routed.map(milliseconds),
            connect_start_ms: timeline.connect_started.map(milliseconds),
            connect_end_ms: record.connected().map(milliseconds),
            first_byte_downstream_ms: timeline.first_byte_downstream.map(milliseconds),
            first_byte_upstream_ms: timeline.first_byte_upstream.map(milliseconds),
            half_close_downstream_ms: timeline.half_close_downstream.map(milliseconds),
            half_close_upstream_ms: timeline.half_close_upstream.map(milliseconds),
            drain_start_ms: timeline.drain_started.map(milliseconds),
            attempts: record.attempts.iter().map(AttemptField::from).collect(),
            tls: record.tls.as_deref().map(TlsField::from),
        }
    }
}

impl<'a> From<&'a Attempt> for AttemptField<'a> {
    fn from(attempt: &'a Attempt) -> Self {
        Self {
            endpoint: attempt.endpoint.to_string(),
            pod: attempt.pod.as_deref(),
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
            names: client.names.iter().map(ToString::to_string).collect(),
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

    /// Fails once, then takes everything.
    #[derive(Default)]
    struct Recovers {
        failed: bool,
        written: Vec<u8>,
    }

    impl Write for Recovers {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !std::mem::replace(&mut self.failed, true) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_failed_is_tried_again_and_what_was_lost_is_counted() {
        let mut log = AccessLog::new(Recovers::default(), LogFormat::Json);
        let lost = lines_lost();
        for id in [1, 2] {
            log.enter(&ConnectionRecord { id, ..ConnectionRecord::example() });
            log.write();
        }
        assert_eq!(lines_lost(), lost + 1);
        let written = String::from_utf8(log.output.written).unwrap();
        assert_eq!(written.lines().count(), 1, "{written}");
        assert!(written.contains("\"id\":2"), "{written}");
    }
}
