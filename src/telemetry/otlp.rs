//! What is sent by OTLP: traces, one for each connection that is kept, made of its record; and metrics.
//!
//! The telemetry thread makes the spans and puts them into a queue that is bounded, drops and counts; a thread of its
//! own sends them. A collector that is slow or gone costs spans, and nothing else. Metrics are the control side's, whose
//! thread for it finds here what they become and how they are sent.

mod attributes;
mod environment;
mod exporter;
mod metrics;
mod request;
mod resource;
mod sender;
mod span;
mod spans;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{ConnectionRecord, LongLived};
use exporter::Exporter;
use span::Spans;
use wire::Message;

pub use environment::{Batches, MetricSettings, Settings, TraceSettings};
pub use metrics::{Description, MetricKind, MetricSender, MetricValue, Requests, Starts};

/// What the attributes' names are from.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.44.0";

/// What has become of spans.
#[derive(Debug, Default)]
pub struct SpanCounters {
    pub exported: AtomicU64,
    /// The queue was full, because the receiver was slow or gone.
    pub dropped_by_queue: AtomicU64,
    /// Sending them failed, and trying again too; or the receiver did not want them.
    pub dropped_by_export: AtomicU64,
    /// Batches that could not be sent, or not all of them.
    pub failed_exports: AtomicU64,
    /// Spans that wait to be sent.
    queued: AtomicUsize,
}

impl SpanCounters {
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }
}

/// Where the telemetry thread puts records that are to become traces.
#[derive(Debug)]
pub(super) struct Traces {
    queue: flume::Sender<Spans>,
    queue_max: usize,
    counters: Arc<SpanCounters>,
    /// Where a span is put together.
    fields: Message,
}

/// The sending thread, as its owner sees it.
#[derive(Debug)]
pub(super) struct Sending {
    finished: flume::Receiver<()>,
}

/// Starts the sending thread.
///
/// # Errors
/// What is wrong with the settings, or with what they name, for people.
pub(super) fn start(
    settings: TraceSettings,
    counters: &Arc<SpanCounters>,
) -> Result<(Traces, Sending), String> {
    let queue_max = settings.batches.queue_max;
    // Each trace has one span at least.
    let (sender, queue) = flume::bounded(queue_max);
    let finished = Exporter { settings, queue, counters: Arc::clone(counters) }.start()?;
    let fields = Message::default();
    let traces = Traces { queue: sender, queue_max, counters: Arc::clone(counters), fields };
    Ok((traces, Sending { finished }))
}

impl Traces {
    /// Makes the trace of a connection that ended.
    pub(super) fn enter(&mut self, record: &ConnectionRecord) {
        let spans = spans::of_ended(record, &mut self.fields);
        self.put(spans);
    }

    /// Shows a connection in its trace before it ends.
    pub(super) fn tell(&mut self, connection: &LongLived) {
        let spans = spans::of_long_lived(connection, &mut self.fields);
        self.put(spans);
    }

    fn put(&self, spans: Spans) {
        let count = spans.count();
        // The sending thread only ever takes some away meanwhile.
        let queued = self.counters.queued.fetch_add(count, Ordering::Relaxed) + count;
        if queued > self.queue_max || self.queue.try_send(spans).is_err() {
            self.counters.queued.fetch_sub(count, Ordering::Relaxed);
            self.counters.dropped_by_queue.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

impl Sending {
    /// Waits until what is queued was sent, but never longer than `timeout`. The telemetry thread has ended by then.
    pub(super) fn finish(self, timeout: Duration) {
        let _too_slow = self.finished.recv_timeout(timeout);
    }
}

/// Since the epoch.
fn nanoseconds(time: SystemTime) -> u64 {
    let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
