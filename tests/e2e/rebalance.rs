//! Long connections after a scale-out: they spread over the new pods, within the budget and without a failed one.

use std::time::Duration;

use serde_json::json;

use crate::support::release::{merged, of_service, straight};
use crate::support::report::{Second, Target};
use crate::support::{Endpoints, Load, Namespace, PORT, Release, Wish, eventually, figures, is_full, within};

const SPREADS: Duration = Duration::from_secs(300);

#[test]
fn long_connections_spread_after_a_scale_out() {
    let namespace = Namespace::create("rebalance");
    let endpoints = Endpoints::start(&namespace, &Wish::new("web", 2));
    let (held, percent) = if is_full() { (2_000, 40) } else { (100, 400) };
    let policy = json!({"rebalance": {"percentPerMinute": percent, "minAge": "1s"}});
    let web = merged(of_service(&namespace, "web", "talk"), policy);
    let config = merged(straight("web", PORT, web), json!({"accessLog": {"sample": 0}}));
    let release = Release::install(&namespace, config, json!({}));
    let load = Load::start(&namespace, &[format!("web={},rate=10,held={held}", release.address(PORT))]);
    load.settle("web");
    let before = spread(&load.target("web"));
    // What is closed before all of them are there is of the budget, too.
    load.reset();
    endpoints.scale(4);
    endpoints.await_rollout();
    let is_even = |target: &Target| {
        let (least, most) = spread(target);
        target.held.now == target.held.wanted && target.held.pods.len() == 4 && most * 5 <= least * 6
    };
    let (took, seen) = within(|| eventually("an even spread", SPREADS, || load.target("web"), is_even));
    seen.assert_no_failure("while connections were rebalanced");
    let busiest = busiest_minute(&seen.seconds);
    let budget = held * percent / 100;
    assert!(busiest <= budget, "{busiest} connections were closed within a minute, {budget} may be");
    let (least, most) = spread(&seen);
    figures!(
        "rebalance",
        held = held,
        percent_per_minute = percent,
        seconds = took.as_secs_f64(),
        closed = seen.held.ended.values().map(|ends| ends.count).sum::<u64>(),
        busiest_minute = busiest,
        before_least = before.0,
        before_most = before.1,
        least = least,
        most = most,
    );
}

/// Of the pods that have connections, the fewest and the most.
fn spread(target: &Target) -> (u64, u64) {
    let counts = || target.held.pods.values().copied();
    (counts().min().unwrap_or(0), counts().max().unwrap_or(0))
}

fn busiest_minute(seconds: &[Second]) -> u64 {
    let in_minute = |first: &Second| {
        let is_in = |other: &&Second| (first.second..first.second + 60).contains(&other.second);
        seconds.iter().filter(is_in).map(|second| second.held_ended).sum::<u64>()
    };
    seconds.iter().map(in_minute).max().unwrap_or(0)
}
