//! How certificates fare: for probes, metrics and `/table`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::config::TlsMode;
use crate::routing::{Listener, RouteTable, Upstream};
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
        without.into_iter().next()
    }

    /// What is wrong.
    pub(in crate::control) fn troubles(&self) -> Vec<String> {
        let reports = self.reports();
        reports.iter().filter_map(|report| Some(report.problem.as_ref()?.text.to_string())).collect()
    }
}

/// Of each listener whose clients cannot be served for want of a certificate or an authority, why.
fn without(table: &RouteTable) -> Vec<String> {
    table
        .listeners
        .iter()
        .filter_map(|listener| of_listener(listener).or_else(|| of_upstreams(listener)))
        .collect()
}

/// Where TLS only passes through, nobody needs anything.
fn of_listener(listener: &Listener) -> Option<String> {
    listener.routes.iter().find(|route| route.tls_mode == Some(TlsMode::Terminate))?;
    let problem = listener.tls.as_ref()?.problem()?;
    Some(format!("listener {} cannot shake hands: {problem}", listener.name))
}

/// Only if none of its upstreams can be spoken to.
fn of_upstreams(listener: &Listener) -> Option<String> {
    let mut upstreams =
        listener.routes.iter().flat_map(|route| &route.backends).map(|backend| &backend.upstream);
    let problem = |upstream: &Arc<Upstream>| {
        let problem = upstream.tls.as_ref()?.problem()?;
        let (listener, upstream) = (&listener.name, &upstream.name);
        Some(format!("upstream {upstream} of listener {listener} cannot be shaken hands with: {problem}"))
    };
    let first = problem(upstreams.next()?)?;
    upstreams.all(|upstream| problem(upstream).is_some()).then_some(first)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::Config;
    use crate::routing::{Findings, compile};

    const TLS: &str = "tls: {validation: {hostname: db.example, caCertificateRefs: [{configMap: edge/ca}]}}";

    fn table(backends: &str) -> RouteTable {
        let text = format!(
            "listeners: [{{name: x, address: \"127.0.0.1:1\"}}, {{name: y, address: \"127.0.0.1:2\"}}]\n\
             routes: [{{name: x, listener: x, backendRefs: [{backends}]}}, {{name: y, listener: y, backendRefs: [{{upstream: a}}]}}]\n\
             upstreams: [{{name: a, endpoints: [{{address: \"10.0.0.1:1\"}}], {TLS}}}, {{name: b, endpoints: [{{address: \"10.0.0.2:1\"}}]}}]\n",
        );
        let config = Config::parse(&text, "t.yaml").unwrap_or_else(|errors| panic!("{errors}"));
        compile(&config, &Findings::default(), &RouteTable::empty(), Instant::now())
    }

    #[test]
    fn upstreams_that_cannot_be_spoken_to_hold_up_readiness() {
        let late = MISSING_FOR;
        let none = table("{upstream: a}");
        let certificates = Certificates::default();
        let why = certificates.not_ready(&none, late).unwrap();
        assert!(why.starts_with("upstream a of listener x cannot be shaken hands with: "), "{why}");

        let other = table("{upstream: a}, {upstream: b}");
        let why = certificates.not_ready(&other, Duration::ZERO).unwrap();
        assert!(why.contains("listener y"), "x has another upstream: {why}");
        assert_eq!(certificates.not_ready(&other, late), None, "x serves");
        assert_eq!(certificates.not_ready(&none, late), None, "what goes missing later is no reason");
    }
}
