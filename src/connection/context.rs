//! What every connection of a worker shares; one per worker, handed down.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::resilience::MemoryState;
use crate::routing::Verdicts;
use crate::routing::publish::Published;
use crate::telemetry::{Report, Sampling, WorkerCounters};

use super::Registry;
use super::handshake::Handshakes;
use super::pipes::Pipes;
use super::secure;

pub(crate) struct Context {
    pub(crate) worker: usize,
    /// Whether reads complete (io_uring) or wait for readiness (epoll).
    pub(crate) completes_reads: bool,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) registry: Registry,
    pub(super) pipes: Pipes,
    pub(super) random: RefCell<fastrand::Rng>,
    /// Bytes on their way from a socket to another within one turn of the loop, never longer.
    pub(super) scratch: RefCell<Box<[u8]>>,
    /// The same for what is encrypted or decrypted; empty until something is.
    pub(super) secure_scratch: RefCell<secure::Scratch>,
    pub(super) handshakes: Handshakes,
    /// Where records go.
    pub(super) records: flume::Sender<Report>,
    /// Which of them are wanted.
    pub(super) sampling: Arc<Sampling>,
    /// Where to say that an endpoint has failed too often.
    pub(super) verdicts: Arc<Verdicts>,
    memory: Arc<MemoryState>,
    /// From when on connections are to end by themselves; `None`: the process is not leaving.
    pub(crate) draining_since: Cell<Option<Instant>>,
    /// There may be connections whose endpoint has left the table.
    pub(crate) departures: Notice,
    /// There may be connections that the table no longer permits.
    pub(crate) restrictions: Notice,
    /// Where the newest table is, which this worker may be yet to follow.
    pub(super) tables: Published,
}

/// What connections have to do with the rest of the process.
pub(crate) struct Outside {
    /// Where records go.
    pub(crate) records: flume::Sender<Report>,
    /// Which of them are wanted.
    pub(crate) sampling: Arc<Sampling>,
    /// Where to say that an endpoint has failed too often.
    pub(crate) verdicts: Arc<Verdicts>,
    pub(crate) memory: Arc<MemoryState>,
    pub(crate) tables: Published,
}

/// Says that somebody should look, however often that was said since the last look.
pub(crate) struct Notice {
    tell: flume::Sender<()>,
    told: flume::Receiver<()>,
    times: Cell<u32>,
}

const SCRATCH_LEN: usize = 64 * 1024;

impl Context {
    pub(crate) fn new(
        worker: usize,
        completes_reads: bool,
        pipes_max: usize,
        counters: Arc<WorkerCounters>,
        outside: Outside,
    ) -> Self {
        let Outside { records, sampling, verdicts, memory, tables } = outside;
        Self {
            worker,
            completes_reads,
            registry: Registry::new(worker, Arc::clone(&counters)),
            pipes: Pipes::new(pipes_max, Arc::clone(&counters)),
            counters,
            random: RefCell::new(fastrand::Rng::new()),
            scratch: RefCell::new(vec![0; SCRATCH_LEN].into_boxed_slice()),
            secure_scratch: RefCell::default(),
            handshakes: Handshakes::default(),
            records,
            sampling,
            verdicts,
            memory,
            draining_since: Cell::new(None),
            departures: Notice::new(),
            restrictions: Notice::new(),
            tables,
        }
    }
}

impl Context {
    /// Whether a new connection would be at the expense of those that are there.
    pub(super) fn is_overloaded(&self) -> bool {
        self.memory.is_short() || self.counters.shown.runs_late.load(Ordering::Relaxed)
    }
}

impl Notice {
    fn new() -> Self {
        let (tell, told) = flume::bounded(1);
        Self { tell, told, times: Cell::new(0) }
    }

    pub(crate) fn tell(&self) {
        self.times.set(self.times.get().wrapping_add(1));
        let _already_told = self.tell.try_send(());
    }

    /// How often that was said.
    pub(super) fn times(&self) -> u32 {
        self.times.get()
    }

    /// Waits to be told.
    pub(crate) async fn told(&self) {
        let _never_disconnected = self.told.recv_async().await;
    }
}
