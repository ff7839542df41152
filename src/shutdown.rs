//! The end of the process as a value that is passed around: serving, then leaving, then draining.
//!
//! Neutral to any runtime: threads and tasks of all kinds watch it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Serving,
    /// The end was asked for, but load balancers may not have noticed: still accepting.
    Leaving,
    /// No new connections. Idle ones are closed first, the rest when they end or at `until`.
    Draining {
        since: Instant,
        until: Instant,
    },
}

impl Phase {
    pub fn label(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Leaving => "leaving",
            Self::Draining { .. } => "draining",
        }
    }
}

/// The one who moves the phase on.
#[derive(Debug, Clone)]
pub struct Drain {
    shared: Arc<Shared>,
}

/// One who watches it.
#[derive(Debug)]
pub struct DrainWatch {
    shared: Arc<Shared>,
    changed: flume::Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    phase: Mutex<Phase>,
    watchers: Mutex<Vec<flume::Sender<()>>>,
}

impl Default for Drain {
    fn default() -> Self {
        let shared = Shared { phase: Mutex::new(Phase::Serving), watchers: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }
}

impl Drain {
    pub fn watch(&self) -> DrainWatch {
        let (notify, changed) = flume::bounded(1);
        self.shared.watchers.lock().unwrap_or_else(PoisonError::into_inner).push(notify);
        DrainWatch { shared: Arc::clone(&self.shared), changed }
    }

    pub fn phase(&self) -> Phase {
        self.shared.phase()
    }

    /// Announces the end; still accepting.
    pub fn leave(&self) {
        self.set(Phase::Leaving);
    }

    /// Stops accepting; what is live has `timeout`.
    pub fn drain(&self, timeout: Duration) {
        let since = Instant::now();
        self.set(Phase::Draining { since, until: since + timeout });
    }

    fn set(&self, phase: Phase) {
        *self.shared.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        for watcher in &*self.shared.watchers.lock().unwrap_or_else(PoisonError::into_inner) {
            // Full means it has not looked since the last change, and will see this one too.
            let _already_told = watcher.try_send(());
        }
    }
}

impl DrainWatch {
    pub fn phase(&self) -> Phase {
        self.shared.phase()
    }

    /// Waits until the phase changes. `false`: it never will again.
    pub async fn changed(&self) -> bool {
        self.changed.recv_async().await.is_ok()
    }
}

impl Shared {
    fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
