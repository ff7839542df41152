//! Endpoints come and go under load: rolling restarts, and scaling between nine and none.

use std::time::Duration;

use serde_json::json;

use crate::support::report::Target;
use crate::support::{Namespace, PORT, Stage, Table, eventually, figures, is_full, say};

const SETTLES: Duration = Duration::from_secs(60);
/// The workload goes on accepting for 3 s after SIGTERM: before that no client may notice that all pods leave.
const STILL_SERVING_MILLISECONDS: u64 = 2500;
const BACK_WITHIN_MILLISECONDS: u64 = 1000;

#[test]
fn rolling_restarts_fail_no_connection() {
    let namespace = Namespace::create("restarts");
    let stage = Stage::set(&namespace, json!({}), json!({"replicas": 2}));
    roll("rolling-restarts", &stage, if is_full() { 100 } else { 3 });
}

pub(crate) fn roll(name: &str, stage: &Stage<'_>, restarts: usize) {
    for number in 1..=restarts {
        stage.endpoints.restart(number);
        let seen = stage.load.target("web");
        seen.assert_no_failure(&format!("restart {number}"));
        seen.assert_held_until_announced(&format!("restart {number}"));
        if number % 10 == 0 {
            say!("{name} {number} of {restarts}: {} connections, none failed", seen.attempted);
        }
    }
    let seen = stage.settled();
    seen.assert_no_failure("after all restarts");
    seen.assert_held_until_announced("after all restarts");
    assert!(seen.held.ended.contains_key("announced"), "no held connection saw its pod leave: {seen:?}");
    figures!(
        name,
        restarts = restarts,
        attempted = seen.attempted,
        failed = seen.failed,
        held_ended_by_pods = seen.ended("announced"),
        held_ended_otherwise = 0,
        untidy_ends = seen.untidy_ends,
        p50_ms = seen.latency.p50,
        p99_ms = seen.latency.p99,
        max_ms = seen.latency.max,
        longest_gap_ms = seen.longest_gap,
    );
}

#[test]
fn scaling_fails_no_connection_while_an_endpoint_is_ready() {
    let namespace = Namespace::create("scaling");
    let stage = Stage::set(&namespace, json!({}), json!({}));
    scale("scaling", &stage);
}

/// 3 -> 9 -> 0 -> 3, again and again.
pub(crate) fn scale(name: &str, stage: &Stage<'_>) {
    let cycles = if is_full() { 20 } else { 1 };
    let (mut attempted, mut refused, mut slowest_return, mut longest_outage) = (0, 0, 0, 0);
    for cycle in 1..=cycles {
        let (seen, back_after) = cycle_once(stage, cycle);
        attempted += seen.attempted;
        refused += seen.failed;
        slowest_return = slowest_return.max(back_after);
        longest_outage = longest_outage.max(seen.longest_gap);
    }
    figures!(
        name,
        cycles = cycles,
        attempted = attempted,
        failed_while_ready = 0,
        failed_without_endpoint = refused,
        back_after_ready_max_ms = slowest_return,
        outage_max_ms = longest_outage,
    );
}

/// 3 -> 9 -> 0 -> 3; what clients saw of it, and how long after the first pod's readiness they were served.
fn cycle_once(stage: &Stage<'_>, cycle: usize) -> (Target, u64) {
    let Stage { endpoints, load, release } = stage;
    let has = |count: usize| {
        let is_so = move |table: &Table| table.upstream("web").endpoints.len() == count;
        release.await_table(&format!("{count} endpoints in the table"), SETTLES, is_so);
    };
    load.reset();
    endpoints.scale(9);
    endpoints.await_rollout();
    has(9);
    load.target("web").assert_no_failure(&format!("cycle {cycle}, scaled to nine"));

    let going = load.now();
    endpoints.scale(0);
    has(0);
    load.refused_at_once(&release.address(PORT), 20);
    let down = load.target("web");
    let first = down.first_failed_begin;
    assert!(
        first.is_none_or(|first| first >= going + STILL_SERVING_MILLISECONDS),
        "cycle {cycle}: clients that came {:?} ms after the pods were told to leave failed: {}",
        first.map(|first| i128::from(first) - i128::from(going)),
        down.failures_text()
    );

    endpoints.scale(3);
    endpoints.await_first_ready();
    let ready = load.now();
    let is_back = |target: &Target| target.last_ok.is_some_and(|last| last >= ready);
    eventually("service is back", SETTLES, || load.target("web"), is_back);
    endpoints.await_rollout();
    let seen = stage.settled();
    let back_after = seen.last_failed_begin.unwrap_or(ready).saturating_sub(ready);
    assert!(
        back_after <= BACK_WITHIN_MILLISECONDS,
        "cycle {cycle}: of connections begun {back_after} ms after the first pod was ready one failed"
    );
    let mut ends = seen.held.ended.clone();
    ends.remove("announced");
    assert!(ends.is_empty(), "cycle {cycle}: held connections ended before their pods did: {ends:?}");
    (seen, back_after)
}
