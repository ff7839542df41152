//! The telemetry thread: takes the records of connections that ended, and hands each to those who want it.
//!
//! Workers hand it records through a bounded queue and never wait. When it does not keep up (standard output blocks),
//! the queue fills, and records are dropped and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::config::AccessLog as LogConfig;

use super::access_log::AccessLog;
use super::otlp::{self, Sending, SpanCounters, TraceSettings, Traces};
use super::{ConnectionRecord, Failures, Report, Sampling};

/// Records that may wait, of all workers together.
const QUEUE_MAX: usize = 16_384;
/// Records after which what was made of them is written.
const BATCH_MAX: usize = 256;
/// How long records gather before they are taken: waking this thread for each of thousands a second, on a core that a worker
/// uses, costs more than all else about them.
const GATHER: Duration = Duration::from_millis(20);
/// How long the end of the process waits for the last records.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it then waits for the last spans to be sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// The running thread, as its owner sees it.
#[derive(Debug)]
pub struct Sinks {
    records: flume::Sender<Report>,
    finished: flume::Receiver<()>,
    sending: Option<Sending>,
    views: Views,
}

/// What others see of it, and may turn.
#[derive(Debug, Clone)]
pub struct Views {
    pub sampling: Arc<Sampling>,
    pub failures: Failures,
    /// Of traces.
    pub spans: Arc<SpanCounters>,
}

impl Sinks {
    /// Starts the thread; the access log goes to `output`. Without `traces` none are made, as when they cannot be sent.
    pub fn start(
        log: &LogConfig,
        traces: Option<TraceSettings>,
        output: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        let (records, queue) = flume::bounded(QUEUE_MAX);
        let (finish, finished) = flume::bounded(1);
        let spans = Arc::default();
        let rules = traces.as_ref().map(|settings| settings.rules);
        let (traces, sending) = traces.and_then(|settings| start_traces(settings, &spans)).unzip();
        let sampling = Arc::new(Sampling::new(log, rules.filter(|_| sending.is_some())));
        let failures = Failures::default();
        let mut takers =
            Takers { log: AccessLog::new(output, log.format), traces, failures: failures.clone() };
        thread::Builder::new().name("sheave-telemetry".into()).spawn(move || {
            takers.consume(&queue);
            // The sending thread hears that there will be no more.
            drop(takers);
            let _owner_is_gone = finish.send(());
        })?;
        Ok(Self { records, finished, sending, views: Views { sampling, failures, spans } })
    }

    /// Where workers put their reports.
    pub fn sender(&self) -> flume::Sender<Report> {
        self.records.clone()
    }

    pub fn views(&self) -> &Views {
        &self.views
    }

    /// Waits for what is queued, but never longer than a second, and two for spans to be sent: a blocked sink must not
    /// hold the exit. All other senders must be gone, or that time is spent in full.
    pub fn finish(self) {
        drop(self.records);
        let _too_slow = self.finished.recv_timeout(FLUSH_TIMEOUT);
        if let Some(sending) = self.sending {
            sending.finish(SEND_TIMEOUT);
        }
    }
}

/// `None`: they cannot be sent, which is no reason not to carry connections.
fn start_traces(settings: TraceSettings, spans: &Arc<SpanCounters>) -> Option<(Traces, Sending)> {
    let receiver = settings.receiver();
    let started = otlp::start(settings, spans);
    match &started {
        Ok(_) => tracing::info!(receiver, "traces are sent"),
        Err(error) => tracing::error!(receiver, error, "no traces are sent"),
    }
    started.ok()
}

#[expect(
    clippy::disallowed_methods,
    reason = "only the end of the process waits for this thread, and has a second for it"
)]
fn gather() {
    thread::sleep(GATHER);
}

/// Who gets records.
struct Takers<W> {
    log: AccessLog<W>,
    traces: Option<Traces>,
    failures: Failures,
}

impl<W: Write> Takers<W> {
    /// Until all senders are gone.
    fn consume(&mut self, queue: &flume::Receiver<Report>) {
        while let Ok(first) = queue.recv() {
            gather();
            self.take(first);
            let mut waiting = queue.try_iter().peekable();
            while waiting.peek().is_some() {
                waiting.by_ref().take(BATCH_MAX).for_each(|report| self.take(report));
                self.log.write();
            }
            self.log.write();
        }
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Ended(record) => self.take_ended(record),
            Report::Lives(connection) => {
                if let Some(traces) = &mut self.traces {
                    traces.tell(&connection);
                }
            }
        }
    }

    fn take_ended(&mut self, record: ConnectionRecord) {
        if record.wants.log {
            self.log.enter(&record);
        }
        if let Some(traces) = self.traces.as_mut().filter(|_| record.wants.trace) {
            traces.enter(&record);
        }
        // The last, as it keeps the record.
        if record.wants.failure {
            self.failures.push(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;
    use crate::telemetry::Wants;

    #[test]
    fn each_record_goes_to_those_who_want_it() {
        let (records, queue) = flume::bounded(4);
        let wants = |log, failure| Wants { log, trace: false, failure };
        for (id, wants) in [(1, wants(true, false)), (2, wants(false, true)), (3, wants(true, true))] {
            let record = ConnectionRecord { id, wants, ..ConnectionRecord::example() };
            records.send(Report::Ended(record)).unwrap();
        }
        drop(records);
        let (failures, mut output) = (Failures::default(), Vec::new());
        let log = AccessLog::new(&mut output, LogFormat::Json);
        Takers { log, traces: None, failures: failures.clone() }.consume(&queue);
        let lines = String::from_utf8(output).unwrap();
        let lines: Vec<bool> = [1, 2, 3].iter().map(|id| lines.contains(&format!("\"id\":{id},"))).collect();
        let failed: Vec<u64> = failures.newest().iter().map(|record| record.id).collect();
        assert_eq!((lines, failed), (vec![true, false, true], vec![3, 2]));
    }
}
