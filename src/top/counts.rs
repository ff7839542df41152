//! What `/metrics` counts, as far as it is shown here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::telemetry::Outcome;

use super::exposition::{Sample, samples};
use super::histogram::Cumulative;
use super::text::Text;

/// One scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) version: Text,
    /// Since the Unix epoch; tells one process from the next.
    pub(super) started_at: f64,
    pub(super) uptime: f64,
    pub(super) phase: Text,
    pub(super) places_taken: f64,
    pub(super) places_max: f64,
    /// Kinds of objects that are followed, and those of them that are not up to date.
    pub(super) followed: usize,
    pub(super) unsynced: BTreeSet<Text>,
    pub(super) overload: BTreeSet<Text>,
    pub(super) reload_failed: bool,
    pub(super) restart_needed: BTreeSet<Text>,
    /// Certificates that have a problem, with its name.
    pub(super) certificates: BTreeMap<Text, Text>,
    pub(super) listeners: HashMap<Text, ListenerCounts>,
    pub(super) upstreams: HashMap<Text, UpstreamCounts>,
    /// By upstream, then by address.
    pub(super) endpoints: HashMap<Text, HashMap<Text, EndpointCounts>>,
    pub(super) workers: BTreeMap<u32, WorkerCounts>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ListenerCounts {
    pub(super) active: f64,
    pub(super) ended: f64,
    pub(super) errors: f64,
    pub(super) received: f64,
    pub(super) sent: f64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct UpstreamCounts {
    pub(super) active: f64,
    pub(super) ended: f64,
    pub(super) errors: f64,
    pub(super) retries: f64,
    pub(super) connect: Cumulative,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct EndpointCounts {
    pub(super) ended: f64,
    pub(super) failures: f64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct WorkerCounts {
    pub(super) driver: Text,
    pub(super) rung: Text,
    pub(super) core: Text,
    pub(super) active: f64,
    pub(super) accepted: f64,
    pub(super) received: f64,
    pub(super) sent: f64,
    pub(super) dropped: f64,
    /// Seconds of processor time; absent where the process does not say.
    pub(super) busy: Option<f64>,
    /// How much later than asked for its heartbeats came.
    pub(super) lag: Cumulative,
    pub(super) heartbeat_age: f64,
    pub(super) paused: bool,
}

impl Counts {
    /// `None` where the text is not from Sheave.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut counts = Self::default();
        for sample in samples(text) {
            let Some(name) = sample.name.strip_prefix("sheave_") else { continue };
            counts.add(name, &sample);
        }
        (counts.uptime > 0.0).then_some(counts)
    }

    fn add(&mut self, name: &str, sample: &Sample<'_>) {
        if let Some(name) = name.strip_prefix("worker_") {
            self.add_worker(name, sample);
        } else if let Some(name) = name.strip_prefix("listener_") {
            self.add_listener(name, sample);
        } else if let Some(name) = name.strip_prefix("upstream_") {
            self.add_upstream(name, sample);
        } else if let Some(name) = name.strip_prefix("endpoint_") {
            self.add_endpoint(name, sample);
        } else {
            self.add_process(name, sample);
        }
    }

    fn add_process(&mut self, name: &str, sample: &Sample<'_>) {
        let is_so = sample.value > 0.0;
        match name {
            "build_info" => self.version = label(sample, "version"),
            "process_start_time_seconds" => self.started_at = sample.value,
            "process_uptime_seconds" => self.uptime = sample.value,
            "connection_places_taken" => self.places_taken = sample.value,
            "connection_places_max" => self.places_max = sample.value,
            "config_last_reload_successful" => self.reload_failed = !is_so,
            "drain_phase" if is_so => self.phase = label(sample, "phase"),
            "overload" if is_so => {
                self.overload.insert(label(sample, "reason"));
            }
            "config_restart_needed" if is_so => {
                self.restart_needed.insert(label(sample, "section"));
            }
            "certificate_problem" if is_so => {
                self.certificates.insert(label(sample, "certificate"), label(sample, "reason"));
            }
            "kubernetes_synced" => {
                self.followed += 1;
                if !is_so {
                    let what =
                        format!("{} in {}", label(sample, "resource"), label(sample, "watched_namespace"));
                    self.unsynced.insert(what.into());
                }
            }
            "accepted_connections_total" => {
                self.with_worker(sample, |worker| worker.accepted = sample.value);
            }
            "accept_paused" => self.with_worker(sample, |worker| worker.paused |= is_so),
            _ => {}
        }
    }

    fn add_worker(&mut self, name: &str, sample: &Sample<'_>) {
        let value = sample.value;
        self.with_worker(sample, |worker| match name {
            "runtime_info" => {
                worker.driver = label(sample, "driver");
                worker.rung = label(sample, "rung");
                worker.core = label(sample, "core");
            }
            "active_connections" => worker.active = value,
            "bytes_total" if is_received(sample) => worker.received = value,
            "bytes_total" => worker.sent = value,
            "records_dropped_total" => worker.dropped = value,
            "cpu_seconds_total" => worker.busy = Some(value),
            "loop_lag_seconds_bucket" => worker.lag.add_sample(sample),
            "heartbeat_age_seconds" => worker.heartbeat_age = value,
            _ => {}
        });
    }

    fn with_worker(&mut self, sample: &Sample<'_>, change: impl FnOnce(&mut WorkerCounts)) {
        if let Some(worker) = sample.label("worker").and_then(|number| number.parse().ok()) {
            change(self.workers.entry(worker).or_default());
        }
    }

    fn add_listener(&mut self, name: &str, sample: &Sample<'_>) {
        let known = ["active_connections", "connections_total", "bytes_total"];
        if !known.contains(&name) {
            return;
        }
        let listener = self.listeners.entry(label(sample, "listener")).or_default();
        match name {
            "active_connections" => listener.active += sample.value,
            "connections_total" => {
                listener.ended += sample.value;
                if is_error(sample) {
                    listener.errors += sample.value;
                }
            }
            _ if is_received(sample) => listener.received += sample.value,
            _ => listener.sent += sample.value,
        }
    }

    fn add_upstream(&mut self, name: &str, sample: &Sample<'_>) {
        let known = ["active_connections", "connections_total", "retries_total", "connect_seconds_bucket"];
        if !known.contains(&name) {
            return;
        }
        let upstream = self.upstreams.entry(label(sample, "upstream")).or_default();
        match name {
            "active_connections" => upstream.active += sample.value,
            "connections_total" => {
                upstream.ended += sample.value;
                if is_error(sample) {
                    upstream.errors += sample.value;
                }
            }
            "retries_total" => upstream.retries += sample.value,
            _ => upstream.connect.add_sample(sample),
        }
    }

    fn add_endpoint(&mut self, name: &str, sample: &Sample<'_>) {
        let known = ["connections_total", "failures_total"];
        if !known.contains(&name) {
            return;
        }
        let endpoints = self.endpoints.entry(label(sample, "upstream")).or_default();
        let endpoint = endpoints.entry(label(sample, "endpoint")).or_default();
        match name {
            "connections_total" => endpoint.ended += sample.value,
            _ => endpoint.failures += sample.value,
        }
    }
}

fn label(sample: &Sample<'_>, name: &str) -> Text {
    sample.label(name).as_deref().unwrap_or_default().into()
}

fn is_received(sample: &Sample<'_>) -> bool {
    sample.label("direction").is_some_and(|direction| direction == "received")
}

/// Outcomes that this version does not know count as errors: better shown than not.
fn is_error(sample: &Sample<'_>) -> bool {
    let Some(label) = sample.label("outcome") else { return false };
    Outcome::ALL.into_iter().find(|outcome| outcome.label() == label).is_none_or(Outcome::is_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_found_and_the_rest_is_passed_over() {
        let text = "sheave_build_info{version=\"1.2.3\"} 1\nsheave_process_uptime_seconds 12.5\nother_metric 1\n\
            sheave_drain_phase{phase=\"serving\"} 0\nsheave_drain_phase{phase=\"leaving\"} 1\n\
            sheave_overload{reason=\"memory\"} 1\nsheave_overload{reason=\"loop_lag\"} 0\n\
            sheave_config_last_reload_successful 0\nsheave_config_restart_needed{section=\"log\"} 1\n\
            sheave_kubernetes_synced{resource=\"endpointslices\",watched_namespace=\"db\"} 0\n\
            sheave_kubernetes_synced{resource=\"services\",watched_namespace=\"db\"} 1\n\
            sheave_accepted_connections_total{worker=\"1\"} 7\nsheave_worker_bytes_total{worker=\"1\",direction=\"sent\"} 9\n\
            sheave_worker_runtime_info{worker=\"1\",driver=\"epoll\",rung=\"epoll\",core=\"\"} 1\n\
            sheave_listener_connections_total{listener=\"a\",outcome=\"downstream_closed\",side=\"downstream\"} 5\n\
            sheave_listener_connections_total{listener=\"a\",outcome=\"connect_refused\",side=\"upstream\"} 2\n\
            sheave_listener_connections_total{listener=\"a\",outcome=\"of_the_future\",side=\"sheave\"} 1\n\
            sheave_upstream_connections_total{upstream=\"u\",outcome=\"downstream_closed\",side=\"downstream\"} 7\n\
            sheave_upstream_connections_total{upstream=\"u\",outcome=\"connect_refused\",side=\"upstream\"} 1\n\
            sheave_upstream_connect_seconds_bucket{le=\"0.1\",upstream=\"u\"} 3\n\
            sheave_endpoint_failures_total{upstream=\"u\",endpoint=\"[::1]:1\",outcome=\"connect_refused\"} 2\n\
            sheave_endpoint_failures_total{upstream=\"u\",endpoint=\"[::1]:1\",outcome=\"connect_timeout\"} 1\n";
        let counts = Counts::parse(text).unwrap();
        assert_eq!((counts.version.as_str(), counts.uptime), ("1.2.3", 12.5));
        assert_eq!(counts.phase.as_str(), "leaving");
        assert!(counts.reload_failed);
        assert_eq!(counts.overload, BTreeSet::from(["memory".into()]));
        assert_eq!(counts.restart_needed, BTreeSet::from(["log".into()]));
        assert_eq!((counts.followed, counts.unsynced.len()), (2, 1));
        let worker = &counts.workers[&1];
        assert_eq!((worker.accepted, worker.sent, worker.driver.as_str()), (7.0, 9.0, "epoll"));
        let listener = &counts.listeners[&"a".into()];
        assert_eq!((listener.ended, listener.errors), (8.0, 3.0));
        let upstream = &counts.upstreams[&"u".into()];
        assert_eq!((upstream.ended, upstream.errors), (8.0, 1.0));
        assert_eq!(counts.endpoints[&"u".into()][&"[::1]:1".into()].failures, 3.0);
    }

    #[test]
    fn another_programs_metrics_are_not_taken_for_ours() {
        assert_eq!(Counts::parse("up 1\nprocess_uptime_seconds 3\n"), None);
    }
}
