//! A rolling update of Sheave itself: nobody who connects fails, and held connections leave as documented.

use std::time::Duration;

use serde_json::json;

use crate::support::report::Target;
use crate::support::{Namespace, Stage, eventually, figures, within};

const DELAY_SECONDS: u64 = 5;
const TIMEOUT_SECONDS: u64 = 20;
const LEAVES: Duration = Duration::from_secs(120);

#[test]
fn a_rolling_update_of_sheave_fails_no_connection() {
    let namespace = Namespace::create("rollout");
    let drain = json!({"drain": {
        "delay": format!("{DELAY_SECONDS}s"),
        "timeout": format!("{TIMEOUT_SECONDS}s"),
    }});
    let mut stage = Stage::set(&namespace, drain, json!({"replicas": 2}));
    let old = stage.release.pods();
    let held = stage.load.target("web").held.now;
    let begin = stage.load.now();
    let (took, ()) = within(|| {
        stage.release.upgrade(json!({"podAnnotations": {"sheave-e2e/rollout": "1"}}));
        for pod in &old {
            let gone =
                || namespace.find::<k8s_openapi::api::core::v1::Pod>(&pod.metadata.name.clone().unwrap());
            let is_gone = |found: &Option<_>| found.is_none();
            eventually("an old pod of Sheave is gone", LEAVES, gone, is_gone);
        }
    });
    let seen = stage.settled();
    seen.assert_no_failure("during the rolling update");
    let refused = &seen.held.not_opened;
    assert!(refused.is_empty(), "connections to hold could not be opened again: {refused:?}");
    assert_drained(&seen, held, begin);
    figures!(
        "sheave-rollout",
        attempted = seen.attempted,
        failed = seen.failed,
        held = held,
        held_ended = seen.held.ended.values().map(|ends| ends.count).sum::<u64>(),
        held_closed = seen.ended("closed"),
        held_reset = seen.ended("reset"),
        busiest_second_ended = seen.seconds.iter().map(|second| second.held_ended).max().unwrap_or(0),
        p99_ms = seen.latency.p99,
        max_ms = seen.latency.max,
        longest_gap_ms = seen.longest_gap,
        seconds = took.as_secs(),
    );
}

/// None before the delay is over, all of them by the drain's end, and spread over time.
fn assert_drained(seen: &Target, held: u64, begin: u64) {
    assert!(!seen.held.ended.contains_key("announced"), "no pod but Sheave's left: {:?}", seen.held.ended);
    let ended: u64 = seen.held.ended.values().map(|ends| ends.count).sum();
    assert!(ended >= held, "{ended} ends, but each of {held} was on a pod that left: {:?}", seen.held.ended);
    // A connection that moved to the other old pod ends twice.
    assert!(ended <= 2 * held, "{ended} ends of {held} connections: {:?}", seen.held.ended);
    let first = seen.seconds.iter().find(|second| second.held_ended > 0).map(|second| second.second);
    let earliest = begin / 1000 + DELAY_SECONDS;
    assert!(first >= Some(earliest), "the first held connection ended at {first:?}, before {earliest}");
    let busiest = seen.seconds.iter().map(|second| second.held_ended).max();
    assert!(busiest <= Some(held / 2), "{busiest:?} of {held} held connections ended in one second");
}
