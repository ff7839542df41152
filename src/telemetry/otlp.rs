//! What is sent by OTLP: traces, one for each connection that is kept, made of its record; and metrics.
//!
//! The telemetry thread makes the spans and puts them into a queue that is bounded, drops and counts; a thread of its
//! own sends them. A collector that is slow or gone costs spans, and nothing else. Metrics are the control side's, whose
//! thread for it finds here what they become and how they are sent.

mod attributes;
mod client;
mod environment;
mod exporter;
mod http;
mod metrics;
mod resource;
mod spans;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::trace::SpanData;

use super::{ConnectionRecord, LongLived};
use exporter::Exporter;

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
    /// Sending them failed, and trying again too.
    pub dropped_by_export: AtomicU64,
    /// Batches that could not be sent.
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
    queue: flume::Sender<Vec<SpanData>>,
    queue_max: usize,
    counters: Arc<SpanCounters>,
    scope: InstrumentationScope,
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
    let scope = InstrumentationScope::builder("sheave")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(SCHEMA)
        .build();
    let traces = Traces { queue: sender, queue_max, counters: Arc::clone(counters), scope };
    Ok((traces, Sending { finished }))
}

impl Traces {
    /// Makes the trace of a connection that ended.
    pub(super) fn enter(&self, record: &ConnectionRecord) {
        self.put(spans::of_ended(record, &self.scope));
    }

    /// Shows a connection in its trace before it ends.
    pub(super) fn tell(&self, connection: &LongLived) {
        self.put(vec![spans::of_long_lived(connection, &self.scope)]);
    }

    fn put(&self, spans: Vec<SpanData>) {
        let count = spans.len();
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
