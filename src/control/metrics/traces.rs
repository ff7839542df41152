//! Traces: what is kept, what was sent, and what was lost on the way.

use std::sync::atomic::Ordering;

use super::{Family, Kind};

pub(super) static FAMILIES: &[Family] = &[
    Family {
        name: "trace_sample",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Share of ordinary connections that become traces; 0 while none does, be it ordinary or not.",
        samples: |scrape, samples| {
            let trace = &scrape.shared.telemetry.sampling.trace;
            samples.put(&[], if trace.is_on() { trace.get() } else { 0.0 })
        },
    },
    Family {
        name: "trace_spans_exported",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Spans that the receiver has taken.",
        samples: |scrape, samples| {
            samples.put(&[], scrape.shared.telemetry.spans.exported.load(Ordering::Relaxed))
        },
    },
    Family {
        name: "trace_spans_dropped",
        kind: Kind::Counter,
        unit: None,
        labels: &["reason"],
        help: "Spans lost: `queue_full` (the receiver is slower than they come) or `export_failed` (it did not take \
               them, also when asked again).",
        samples: |scrape, samples| {
            let spans = &scrape.shared.telemetry.spans;
            samples.put(&["queue_full"], spans.dropped_by_queue.load(Ordering::Relaxed))?;
            samples.put(&["export_failed"], spans.dropped_by_export.load(Ordering::Relaxed))
        },
    },
    Family {
        name: "trace_export_failures",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Batches of spans that could not be sent, or not all of them; the log says why.",
        samples: |scrape, samples| {
            samples.put(&[], scrape.shared.telemetry.spans.failed_exports.load(Ordering::Relaxed))
        },
    },
    Family {
        name: "trace_spans_queued",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Spans that wait to be sent.",
        samples: |scrape, samples| samples.put(&[], scrape.shared.telemetry.spans.queued()),
    },
];
