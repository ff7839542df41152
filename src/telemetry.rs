//! What is known about connections: one record each, counters per worker, and who is live.
//!
//! Workers only ever write to their own counters and to bounded queues that drop and count; nothing here makes a
//! connection wait. Reading (scrapes, the access log) happens on other threads.

pub mod access_log;
mod counters;
mod failures;
mod histogram;
mod identity;
mod ledger;
mod live;
pub mod logging;
pub mod otlp;
mod outcome;
mod record;
mod sampling;
mod sinks;

pub use counters::{Pause, Shown, WorkerCounters, WorkerRuntime};
pub use failures::Failures;
pub use histogram::{Exemplar, Histogram, Traced, quantile};
pub use identity::{TraceId, span_id, trace_id};
pub use ledger::{EndpointLedger, Ledger, ListenerLedger, RouteLedger, Tally, Total, UpstreamLedger};
pub use live::{
    Closed, LiveConnection, LiveDirectory, LiveInbox, LiveList, LiveOrder, LiveQuery, LiveShare, LiveWish,
    process_clock_ms,
};
pub use outcome::{Outcome, Side};
pub use record::{
    Attempt, ClientIdentity, ConnectionRecord, LongLived, Negotiated, Parent, Report, Timeline, TlsRecord,
    Via, wait_for_answer,
};
pub use sampling::{Parents, Sampling, Share, TraceRules, Wants};
pub use sinks::{Sinks, Views};
