//! How certificates fare: for probes, metrics and `/table`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::config::{Name, TlsMode};
use crate::routing::{Listener, RouteTable};
use crate::tls::{Credentials, Report};

/// After this long a listener without a certificate holds up nobody's readiness any more, as long as there is another
/// one that serves. With nothing to serve a process must not be ready: its Secrets may be those of another cluster.
const MISSING_FOR: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(in crate::control) struct Certificates {
    reports: Mutex<Arc<[Report]>>,
    /// Once all listeners had what they need, what goes missing later is no reason to be unready.
    was_ready: AtomicBool,
}

impl Certificates {
    pub(in crate::control) fn update(&self, credentials: &Credentials) {
        let reports: Arc<[Report]> = credentials.reports().collect();
        *self.reports.lock().unwrap_or_else(PoisonError::into_inner) = reports;
    }

    pub(in crate::control) fn reports(&self) -> Arc<[Report]> {
        Arc::clone(&self.reports.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why the process cannot serve all that it should yet; `None` once it could. `running` is how long it has been.
    pub(in crate::control) fn not_ready(&self, table: &RouteTable, running: Duration) -> Option<String> {
        if table.generation == 0 {
            // That it needs nothing says nothing of the first one that is published.
            return None;
        }
        let without = without(table);
        let serves = without.len() < table.listeners.len();
        if without.is_empty() || serves && running >= MISSING_FOR {
            self.was_ready.store(true, Ordering::Relaxed);
        }
        if self.was_ready.load(Ordering::Relaxed) {
            return None;
        }
        let (listener, problem) = without.into_iter().next()?;
        Some(format!("listener {listener} cannot shake hands: {problem}"))
    }

    /// What is wrong.
    pub(in crate::control) fn troubles(&self) -> Vec<String> {
        let reports = self.reports();
        reports.iter().filter_map(|report| Some(report.problem.as_ref()?.text.to_string())).collect()
    }
}

/// Listeners that have nothing to shake hands with, and why. Where TLS only passes through, nobody needs anything.
fn without(table: &RouteTable) -> Vec<(&Name, &str)> {
    let shakes_hands = |listener: &&Arc<Listener>| {
        listener.routes.iter().any(|route| route.tls_mode == Some(TlsMode::Terminate))
    };
    let listeners = table.listeners.iter().filter(shakes_hands);
    listeners.filter_map(|listener| Some((&listener.name, listener.tls.as_ref()?.problem()?))).collect()
}
