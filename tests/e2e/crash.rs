//! Endpoints that die without a word: what was on them ends, and those that connect are served by the others.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::json;

use crate::support::endpoints::{CONTROL_PORT, is_ready, name_of};
use crate::support::report::Target;
use crate::support::{Namespace, Stage, eventually, figures, is_full, names};

const NOTICED: Duration = Duration::from_secs(60);

#[test]
fn an_endpoint_that_dies_fails_only_what_it_had() {
    let namespace = Namespace::create("crash");
    let stage = Stage::set(&namespace, json!({}), json!({}));
    let rounds = if is_full() { 5 } else { 1 };
    let mut total = Losses::default();
    for _ in 0..rounds {
        // The process ends at once; Kubernetes starts it again in the same pod.
        total.add(kill(&stage, |pod| {
            // The answer is the end of the connection.
            namespace.pod_http("POST", pod, CONTROL_PORT, "abort").unwrap_err();
        }));
        // The pod is no longer known at once, and killed soon after.
        total.add(kill(&stage, |pod| {
            let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            namespace.cluster().delete::<Pod>(&namespace.name, pod, &now);
        }));
    }
    let outcomes = stage.release.outcomes();
    let found_none =
        ["connect_refused", "connect_timeout", "connect_unreachable", "connect_failed", "no_endpoint"];
    let is_none = |outcome: &str| outcomes.get(outcome).is_none_or(|count| *count == 0.0);
    assert!(found_none.into_iter().all(is_none), "connections found no endpoint: {outcomes:?}");
    figures!(
        "killed-endpoints",
        kills = 2 * rounds,
        attempted = total.attempted,
        failed_begun_after_the_kill = 0,
        failed_in_flight = total.in_flight,
        held_ended = total.held,
        retries = stage.release.metrics().count(names::RETRIES, &[]),
        max_ms = total.slowest,
    );
}

#[derive(Default)]
struct Losses {
    attempted: u64,
    in_flight: u64,
    held: u64,
    /// Of those that succeeded.
    slowest: f64,
}

impl Losses {
    fn add(&mut self, other: Self) {
        self.attempted += other.attempted;
        self.in_flight += other.in_flight;
        self.held += other.held;
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// One pod; what its end cost, which is nothing to those who came after it.
fn kill(stage: &Stage<'_>, how: impl Fn(&str)) -> Losses {
    // The one with the most to lose.
    let held = stage.load.target("web").held.pods;
    let held_by = |pod: &Pod| held.get(&name_of(pod)).copied().unwrap_or(0);
    let ready = stage.endpoints.pods().into_iter().filter(is_ready);
    let victim = ready.max_by_key(held_by).expect("a ready pod");
    let (name, on_it) = (name_of(&victim), held_by(&victim));
    stage.load.reset();
    how(&name);
    let dead = stage.load.now();
    let ended = |target: &Target| target.held.ended.values().map(|ends| ends.count).sum::<u64>();
    let moved = |target: &Target| target.held.now == target.held.wanted && ended(target) >= on_it;
    eventually("held connections are back", NOTICED, || stage.load.target("web"), moved);
    stage.endpoints.await_rollout();
    let seen = stage.settled();
    assert!(
        seen.last_failed_begin.is_none_or(|begin| begin <= dead),
        "of those who came after {name} was killed at {dead}, some failed: {}",
        seen.failures_text()
    );
    Losses {
        attempted: seen.attempted,
        in_flight: seen.failed,
        held: ended(&seen),
        slowest: seen.latency.max,
    }
}
