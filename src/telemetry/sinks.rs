//! The telemetry thread: takes the records of connections that ended, and hands each to those who want it.
//!
//! Workers hand it records through a bounded queue and never wait. When it does not keep up (standard output blocks),
//! the queue fills, and records are dropped and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::access_log::AccessLog;
use super::{ConnectionRecord, Failures, Sampling};

/// Records that may wait, of all workers together.
const QUEUE_MAX: usize = 16_384;
/// Records after which what was made of them is written.
const BATCH_MAX: usize = 256;
/// How long the end of the process waits for the last records.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The running thread, as its owner sees it.
#[derive(Debug)]
pub struct Sinks {
    records: flume::Sender<ConnectionRecord>,
    finished: flume::Receiver<()>,
    views: Views,
}

/// What others see of it, and may turn.
#[derive(Debug, Clone)]
pub struct Views {
    pub sampling: Arc<Sampling>,
    pub failures: Failures,
}

impl Sinks {
    /// Starts the thread; the access log goes to `output`.
    pub fn start(sampling: Sampling, output: impl Write + Send + 'static) -> io::Result<Self> {
        let (records, queue) = flume::bounded(QUEUE_MAX);
        let (finish, finished) = flume::bounded(1);
        let views = Views { sampling: Arc::new(sampling), failures: Failures::default() };
        let failures = views.failures.clone();
        thread::Builder::new().name("sheave-telemetry".into()).spawn(move || {
            consume(&queue, AccessLog::new(output), &failures);
            let _owner_is_gone = finish.send(());
        })?;
        Ok(Self { records, finished, views })
    }

    /// Where workers put their records.
    pub fn sender(&self) -> flume::Sender<ConnectionRecord> {
        self.records.clone()
    }

    pub fn views(&self) -> &Views {
        &self.views
    }

    /// Waits for what is queued, but never longer than a second: a blocked sink must not hold the exit.
    /// All other senders must be gone, or the second is spent in full.
    pub fn finish(self) {
        drop(self.records);
        let _too_slow = self.finished.recv_timeout(FLUSH_TIMEOUT);
    }
}

/// Until all senders are gone.
fn consume(queue: &flume::Receiver<ConnectionRecord>, mut log: AccessLog<impl Write>, failures: &Failures) {
    while let Ok(record) = queue.recv() {
        for record in std::iter::once(record).chain(queue.try_iter()).take(BATCH_MAX) {
            if record.wants.log {
                log.enter(&record);
            }
            // The last, as it keeps the record.
            if record.wants.failure {
                failures.push(record);
            }
        }
        log.write();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Wants;

    #[test]
    fn each_record_goes_to_those_who_want_it() {
        let (records, queue) = flume::bounded(4);
        let wants = |log, failure| Wants { log, trace: false, failure };
        for (id, wants) in [(1, wants(true, false)), (2, wants(false, true)), (3, wants(true, true))] {
            records.send(ConnectionRecord { id, wants, ..ConnectionRecord::example() }).unwrap();
        }
        drop(records);
        let (failures, mut output) = (Failures::default(), Vec::new());
        consume(&queue, AccessLog::new(&mut output), &failures);
        let lines = String::from_utf8(output).unwrap();
        let lines: Vec<bool> = [1, 2, 3].iter().map(|id| lines.contains(&format!("\"id\":{id},"))).collect();
        let failed: Vec<u64> = failures.newest().iter().map(|record| record.id).collect();
        assert_eq!((lines, failed), (vec![true, false, true], vec![3, 2]));
    }
}
