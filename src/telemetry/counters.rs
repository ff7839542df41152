//! What one worker counts: one writer each, on cache lines of its own, summed at scrape.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::{ConnectionRecord, Histogram, Ledger};

/// The runtime that a worker got from the ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRuntime {
    /// `io_uring` or `epoll`.
    pub driver: &'static str,
    /// `defer`, `coop`, `plain` or `epoll`.
    pub rung: &'static str,
    /// The core that the worker is pinned to.
    pub core: Option<usize>,
}

/// Why a worker does not accept: connections stay in the backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// All places of the process are taken.
    ProcessLimit,
    /// Those of a listener whose clients are to wait.
    ListenerLimit,
    /// Accepting failed, as it does without file descriptors or memory.
    Error,
}

impl Pause {
    pub const ALL: [Self; 3] = [Self::ProcessLimit, Self::ListenerLimit, Self::Error];

    pub fn label(self) -> &'static str {
        match self {
            Self::ProcessLimit => "process_limit",
            Self::ListenerLimit => "listener_limit",
            Self::Error => "error",
        }
    }
}

/// One worker's numbers. The alignment keeps two workers off one cache line (and off the pair of lines that
/// the prefetcher fetches together).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerCounters {
    pub accepted: AtomicU64,
    /// Of these, given to a worker that had fewer.
    pub given_away: AtomicU64,
    pub accept_errors: AtomicU64,
    /// How many of its listening sockets it does not accept from, in the order of [`Pause::ALL`].
    pub accept_paused: [AtomicU64; Pause::ALL.len()],
    /// How often it began not to, in the same order.
    pub accept_pauses: [AtomicU64; Pause::ALL.len()],
    pub shown: Shown,
    /// Bytes handed to endpoints.
    pub bytes_received: AtomicU64,
    /// Bytes handed to clients.
    pub bytes_sent: AtomicU64,
    /// Bytes of both that never entered this process (splice).
    pub bytes_spliced: AtomicU64,
    /// Reads that found the buffer pool empty.
    pub buffer_fallbacks: AtomicU64,
    /// Pipes that it has for splicing.
    pub pipes: AtomicU64,
    /// Times that none was to be had, and bytes were copied.
    pub pipe_shortages: AtomicU64,
    pub records_dropped: AtomicU64,
    /// Processor time for which the thread was busy, in microseconds.
    pub cpu_us: AtomicU64,
    /// How much later than asked for the last heartbeat came, in microseconds.
    pub loop_lag_us: AtomicU64,
    /// The same of all heartbeats.
    loop_lag: Mutex<Histogram>,
    pub runtime: OnceLock<WorkerRuntime>,
    ledger: Mutex<Ledger>,
}

/// What other workers read at every connection that they accept. On lines of its own: beside the counters of bytes, each of
/// these looks would take their line from the worker, which writes there with every read.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Shown {
    /// Live connections.
    pub active: AtomicU64,
    /// Milliseconds of the process clock at the last turn of the heartbeat.
    pub heartbeat: AtomicU64,
    /// Whether the loop runs too late for new connections.
    pub runs_late: AtomicBool,
}

impl WorkerCounters {
    /// Adds to a counter that only this worker's thread writes: a load and a store, no locked instruction.
    pub fn add(counter: &AtomicU64, more: u64) {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// A listening socket is not accepted from, until [`Self::accept_again`].
    pub fn pause_accept(&self, why: Pause) {
        Self::add(&self.accept_paused[why as usize], 1);
        Self::add(&self.accept_pauses[why as usize], 1);
    }

    pub fn accept_again(&self, why: Pause) {
        let paused = &self.accept_paused[why as usize];
        paused.store(paused.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    /// Whether there is a listening socket that it does not accept from.
    pub fn is_accept_paused(&self) -> bool {
        self.accept_paused.iter().any(|paused| paused.load(Ordering::Relaxed) > 0)
    }

    /// Enters a connection that ended. The lock is contended only while a scrape reads.
    pub fn enter(&self, record: &ConnectionRecord) {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).enter(record);
    }

    /// A heartbeat came so much later than asked for, and for so much processor time was the thread busy so far.
    pub fn beat(&self, lag: Duration, cpu: Duration) {
        let microseconds = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.loop_lag_us.store(microseconds(lag), Ordering::Relaxed);
        self.cpu_us.store(microseconds(cpu), Ordering::Relaxed);
        self.loop_lag.lock().unwrap_or_else(PoisonError::into_inner).observe(lag);
    }

    /// How late all heartbeats were.
    pub fn loop_lag(&self) -> Histogram {
        self.loop_lag.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads or prunes the ledger.
    pub fn with_ledger<T>(&self, read: impl FnOnce(&mut Ledger) -> T) -> T {
        read(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::mem::{align_of, offset_of, size_of};

    /// Of a cache line and the one that the prefetcher fetches with it.
    const PAIR: usize = 128;

    #[test]
    fn what_others_read_is_not_beside_what_every_read_writes() {
        assert_eq!(size_of::<Shown>(), PAIR);
        assert_eq!((align_of::<WorkerCounters>() % PAIR, offset_of!(WorkerCounters, shown) % PAIR), (0, 0));
        let written = [
            offset_of!(WorkerCounters, bytes_received),
            offset_of!(WorkerCounters, bytes_sent),
            offset_of!(WorkerCounters, bytes_spliced),
            offset_of!(WorkerCounters, ledger),
        ];
        let shown = offset_of!(WorkerCounters, shown) / PAIR;
        assert!(written.iter().all(|offset| offset / PAIR != shown), "{written:?}");
    }
}
