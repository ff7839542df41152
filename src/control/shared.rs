//! What the parts of the control side share: the ends of the channels to the workers and to the main thread.
//!
//! What changes in here locks or counts by itself, so that all of it is shared by reference.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use crate::config::Config;
use crate::routing::RouteTable;
use crate::routing::publish::Publisher;
use crate::shutdown::Drain;
use crate::telemetry::logging::Level;
use crate::telemetry::{Ledger, LiveDirectory, Views, WorkerCounters, process_clock_ms};

use super::certificates::Certificates;
use super::generations::{Cause, Generations};
use super::history::History;
use super::metrics::Pushes;
use super::probes::Tally;
use super::propagation::Propagation;
use super::status::Status;
use super::{ConnectionLimits, Event, kubernetes};

/// What came from outside.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) publisher: Publisher,
    pub(super) counters: Vec<Arc<WorkerCounters>>,
    pub(super) live: LiveDirectory,
    pub(super) telemetry: Views,
    pub(super) log: Level,
    pub(super) drain: Drain,
    pub(super) events: flume::Sender<Event>,
    pub(super) limits: ConnectionLimits,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) publisher: Publisher,
    pub(super) counters: Vec<Arc<WorkerCounters>>,
    pub(super) live: LiveDirectory,
    pub(super) telemetry: Views,
    pub(super) log: Level,
    pub(super) drain: Drain,
    pub(super) events: flume::Sender<Event>,
    pub(super) limits: ConnectionLimits,
    pub(super) status: Status,
    /// How the watches of the cluster fare.
    pub(super) watches: Arc<kubernetes::Watches>,
    pub(super) certificates: Certificates,
    pub(super) propagation: Propagation,
    /// The last tables.
    pub(super) generations: Generations,
    /// The last minutes.
    pub(super) history: History,
    pub(super) compilations: Count,
    /// Metrics that were sent by OTLP.
    pub(super) pushes: Pushes,
    /// The generation of the table that was published last.
    pub(super) published: watch::Sender<u64>,
    pub(super) probes: Tally,
    /// The configuration that the process started with.
    pub(super) started_with: Arc<Config>,
    /// The one that is in effect.
    pub(super) configs: watch::Sender<Arc<Config>>,
    /// What was taken from the workers' ledgers so far.
    pub(super) ledger: Mutex<Ledger>,
    pub(super) started: Instant,
    pub(super) started_at: SystemTime,
    pub(super) tuning: Tuning,
}

/// Counts up.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

/// Times of the control side; tests make them shorter.
#[derive(Debug, Clone)]
pub(super) struct Tuning {
    /// From the first event of a change until the file is read: editors and ConfigMaps make several.
    pub(super) debounce: Duration,
    /// How often the file is looked at without any event: file systems without notification, a symlink
    /// elsewhere on the way to the file.
    pub(super) poll: Duration,
    /// How long a reload waits for all workers to have the table.
    pub(super) acknowledge: Duration,
    /// A worker whose last heartbeat is older is stuck.
    pub(super) stalled_after: Duration,
    /// How long `/connections` waits for the workers.
    pub(super) live: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(100),
            poll: Duration::from_secs(5),
            acknowledge: Duration::from_secs(10),
            stalled_after: Duration::from_secs(5),
            live: Duration::from_secs(1),
        }
    }
}

impl Shared {
    pub(super) fn new(sources: Sources, config: Config, tuning: Tuning) -> Self {
        let (started_with, started) = (Arc::new(config), Instant::now());
        let generations = Generations::default();
        let first = sources.publisher.current();
        generations.enter(&RouteTable::empty(), &first, Cause::Start, started);
        Self {
            publisher: sources.publisher,
            counters: sources.counters,
            live: sources.live,
            telemetry: sources.telemetry,
            log: sources.log,
            drain: sources.drain,
            events: sources.events,
            limits: sources.limits,
            status: Status::new(Arc::clone(&started_with)),
            watches: Arc::default(),
            certificates: Certificates::default(),
            propagation: Propagation::new(),
            generations,
            history: History::default(),
            compilations: Count::default(),
            pushes: Pushes::default(),
            published: watch::Sender::new(0),
            probes: Tally::default(),
            configs: watch::Sender::new(Arc::clone(&started_with)),
            started_with,
            ledger: Mutex::default(),
            started,
            started_at: SystemTime::now(),
            tuning,
        }
    }

    /// How long ago each worker's last heartbeat was.
    pub(super) fn heartbeat_ages(&self) -> Vec<Duration> {
        let now = process_clock_ms();
        self.counters
            .iter()
            .map(|counters| {
                let beat = counters.shown.heartbeat.load(std::sync::atomic::Ordering::Relaxed);
                Duration::from_millis(now.saturating_sub(beat))
            })
            .collect()
    }
}

impl Count {
    pub(super) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
