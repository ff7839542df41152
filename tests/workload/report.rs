//! What the clients report: plain values as they travel in JSON, read by the end-to-end tests as well.
//!
//! Times of day are milliseconds since the Unix epoch by the clock of the load's pod, others are milliseconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Report {
    /// When this was written.
    pub(crate) now: u64,
    /// When counting began: the start, or the last reset.
    pub(crate) since: u64,
    pub(crate) targets: BTreeMap<String, Target>,
}

/// What clients of one address saw.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) attempted: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    /// By kind: `refused`, `reset`, `timeout`, `unreachable`, `closed` (an end before the answer), `wrong`, `overrun`
    /// (not tried, because too many were under way), `other`.
    pub(crate) failures: BTreeMap<String, Failures>,
    /// Resets after the right answer: untidy, but nobody lost anything.
    pub(crate) untidy_ends: u64,
    pub(crate) latency: Latency,
    /// The longest time without a success, up to now; the time between two attempts is the least it can be.
    pub(crate) longest_gap: u64,
    pub(crate) last_ok: Option<u64>,
    /// When the connections that failed were begun: the earliest and the latest.
    pub(crate) first_failed_begin: Option<u64>,
    pub(crate) last_failed_begin: Option<u64>,
    /// Answers by pod.
    pub(crate) pods: BTreeMap<String, u64>,
    pub(crate) held: Held,
    /// The last five minutes.
    pub(crate) seconds: Vec<Second>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Failures {
    pub(crate) count: u64,
    /// How long the slowest of them took to fail.
    pub(crate) slowest: u64,
    /// The first few.
    pub(crate) samples: Vec<Sample>,
}

/// One thing that happened to one connection.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Sample {
    pub(crate) at: u64,
    /// How long it had taken, or lived.
    pub(crate) after: u64,
    /// `connect`, `greeting`, `request`, `answer` or `held`.
    pub(crate) stage: String,
    pub(crate) error: String,
    /// The client's own address, as in Sheave's access log.
    pub(crate) local: String,
    /// Who served it, once that is known.
    pub(crate) pod: String,
}

/// From the connect until the answer, of connections that succeeded.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// Connections that were opened to stay.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Held {
    pub(crate) wanted: u64,
    pub(crate) now: u64,
    pub(crate) opened: u64,
    /// Not opened, by kind as above; tried again a little later.
    pub(crate) not_opened: BTreeMap<String, Failures>,
    /// By kind: `announced` (the pod said bye and ended it), `closed` (ended without that), `reset`, `timeout`, `wrong`,
    /// `other`.
    pub(crate) ended: BTreeMap<String, Failures>,
    /// How many of each kind ended, by the pod that had served them.
    pub(crate) ended_by_pod: BTreeMap<String, BTreeMap<String, u64>>,
    /// Where those that live are served.
    pub(crate) pods: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Second {
    /// Since the Unix epoch.
    pub(crate) second: u64,
    pub(crate) attempted: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    /// Held connections that ended, in whatever way.
    pub(crate) held_ended: u64,
}

/// What a single connection saw, for `GET /try`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Trial {
    /// Empty when it failed.
    pub(crate) pod: String,
    /// Empty when it succeeded; else as in [`Target::failures`].
    pub(crate) failure: String,
    pub(crate) seen: Sample,
}
