//! Where a container may not use io_uring, Sheave runs on epoll, says so, and does the same.

use serde_json::json;

use crate::restarts::{roll, scale};
use crate::support::{Namespace, Stage, is_full, is_own_cluster, is_skipped, names, skip_or_fail};

/// A profile that allows everything but the three calls of io_uring; tests/cluster/cluster puts it on its node.
const PROFILE: &str = "profiles/no-io-uring.json";

#[test]
fn without_io_uring_it_runs_on_epoll() {
    if !is_own_cluster() {
        skip_or_fail("seccomp", "only tests/cluster/cluster brings the profile to its nodes");
        return;
    }
    if is_skipped("seccomp") {
        return;
    }
    let namespace = Namespace::create("seccomp");
    let profile = json!({"type": "Localhost", "localhostProfile": PROFILE});
    let stage = Stage::set(&namespace, json!({}), json!({"seccompProfile": profile}));
    let drivers = stage.release.metrics().by(names::RUNTIME, "driver");
    assert!(drivers.keys().eq(["epoll"]), "every worker is on epoll: {drivers:?}");
    let log = stage.release.log();
    assert!(log.lines().any(|line| line.contains("epoll")), "the log names epoll: {log}");
    roll("no-io-uring", &stage, if is_full() { 100 } else { 3 });
    scale("no-io-uring-scaling", &stage);
}
