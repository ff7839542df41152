//! Endpoints that die without a word: what was on them ends, and those that connect are served by the others.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::json;

use crate::support::endpoints::{CONTROL_PORT, is_ready, name_of};
use crate::support::report::Target;
use crate::support::{Namespace, Stage, eventually, figures, is_full, say};

const NOTICED: Duration = Duration::from_secs(60);

#[test]
fn an_endpoint_that_dies_fails_only_what_it_had() {
    let namespace = Namespace::create("crash");
    let stage = Stage::set(&namespace, json!({}), json!({}));
    let rounds = if is_full() { 5 } else { 1 };
    for round in 0..rounds {
        // The process ends by SIGABRT; Kubernetes starts it again in the same pod.
        kill(&stage, &namespace, round, |pod| {
            // The answer is the end of the connection.
            namespace.pod_http("POST", pod, CONTROL_PORT, "abort").unwrap_err();
        });
        // The pod is gone at once, and its address with it.
        kill(&stage, &namespace, round, |pod| {
            let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            namespace.cluster().delete::<Pod>(&namespace.name, pod, &now);
        });
    }
    let seen = stage.settled();
    let outcomes = stage.release.outcomes();
    let count = |outcome: &str| outcomes.get(outcome).copied().unwrap_or(0.0);
    for outcome in
        ["connect_refused", "connect_timeout", "connect_unreachable", "connect_failed", "no_endpoint"]
    {
        assert_eq!(
            count(outcome),
            0.0,
            "connections found no endpoint: {outcomes:?}; {}",
            seen.failures_text()
        );
    }
    // Whoever was between its request and the answer on the pod that died; nothing is ever sent twice.
    assert_only_in_flight(&seen, 2 * rounds);
    figures!(
        "killed-endpoints",
        kills = 2 * rounds,
        attempted = seen.attempted,
        failed_to_connect = 0,
        failed_in_flight = seen.failed,
        held_ended = seen.held.ended.values().map(|ends| ends.count).sum::<u64>(),
        retries = stage.release.metrics().count(crate::support::names::RETRIES, &[]),
        p99_ms = seen.latency.p99,
        max_ms = seen.latency.max,
    );
}

fn kill(stage: &Stage<'_>, namespace: &Namespace, round: usize, how: impl Fn(&str)) {
    // The one with the most to lose.
    let held = stage.load.target("web").held.pods;
    let held_by = |pod: &Pod| held.get(&name_of(pod)).copied().unwrap_or(0);
    let ready = stage.endpoints.pods().into_iter().filter(is_ready);
    let victim = ready.max_by_key(held_by).expect("a ready pod");
    let (name, on_it) = (name_of(&victim), held_by(&victim));
    how(&name);
    say!("killed-endpoints round {round}: {name} with {on_it} held connections");
    let moved = |target: &Target| target.held.now == target.held.wanted;
    eventually("held connections are back", NOTICED, || stage.load.target("web"), moved);
    stage.endpoints.await_rollout();
    assert!(namespace.pods("app=web").len() >= 3);
}

fn assert_only_in_flight(seen: &Target, kills: usize) {
    // At these rates hardly more than one connection is between request and answer at any moment.
    let most = u64::try_from(3 * kills).unwrap();
    let samples = seen.failures.values().flat_map(|failures| &failures.samples);
    let are_in_flight = samples.clone().all(|sample| sample.stage == "answer" || sample.stage == "request");
    let are_cut = seen.failures.keys().all(|kind| kind == "reset" || kind == "closed");
    assert!(
        seen.failed <= most && are_in_flight && are_cut,
        "more failed than what was in flight: {}",
        seen.failures_text()
    );
}
