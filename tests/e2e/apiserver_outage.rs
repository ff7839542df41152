//! The API server is away for a while, in the middle of a rolling restart: nobody who connects notices.

use std::thread;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use crate::support::endpoints::ip_of;
use crate::support::release::{Release, of_service, straight};
use crate::support::slices::{bare_service, endpoint, slice};
use crate::support::{
    Metrics, Namespace, Stage, Table, eventually, figures, glimpse, is_full, is_own_cluster, names, run, say,
    skip_or_fail, within,
};

const CLUSTER: &str = "tests/cluster/cluster";
const CAUGHT_UP: Duration = Duration::from_secs(5);
const RECOVERS: Duration = Duration::from_secs(120);

#[test]
fn an_outage_of_the_api_server_fails_no_connection() {
    if !is_own_cluster() {
        skip_or_fail("apiserver-outage", "only tests/cluster/cluster can stop its API server");
        return;
    }
    if crate::support::is_skipped("apiserver-outage") {
        return;
    }
    let namespace = Namespace::create("outage");
    bare_service(&namespace, "fixed");
    slice(&namespace, "fixed-1", "fixed", 8080, &[endpoint("10.200.0.1")]);
    let stage =
        Stage::set(&namespace, straight("fixed", 8001, of_service(&namespace, "fixed", "talk")), json!({}));
    let sheave = stage.release.pod();
    let before = stage.release.metrics_of(&sheave);

    // In the middle of a rolling restart, so that the last that Sheave learns is soon out of date.
    let annotations =
        json!({"spec": {"template": {"metadata": {"annotations": {"sheave-e2e/outage": "1"}}}}});
    namespace.merge::<Deployment>("web", &annotations);
    let length = Duration::from_secs(if is_full() { 60 } else { 15 });
    let guard = Outage::begin();
    let (worst_synced, worst_age) = watch_outage(&ip_of(&sheave), length);
    guard.end();

    let (caught_up, ()) = within(|| {
        slice(&namespace, "fixed-1", "fixed", 8080, &[endpoint("10.200.0.2")]);
        let has_changed = |table: &Table| table.upstream("fixed").addresses() == ["10.200.0.2:8080"];
        stage.release.await_table("a change made right after the outage", CAUGHT_UP, has_changed);
    });
    let all = before.count(names::SYNCED, &[]);
    let synced = || stage.release.metrics_of(&sheave).count(names::SYNCED, &[]);
    eventually("all watches are in step again", CAUGHT_UP, synced, |synced| *synced >= all);
    let after = stage.release.metrics_of(&sheave);
    assert!(
        worst_synced < all,
        "the metric shows the outage: {worst_synced} of {all} were in step at its end"
    );
    assert!(
        worst_age >= length.as_secs_f64() / 2.0,
        "the age of the last event shows the outage: {worst_age} s after {length:?}"
    );
    assert!(
        after.count(names::WATCH_ERRORS, &[]) > before.count(names::WATCH_ERRORS, &[]),
        "failed watches are counted"
    );
    // The kubelet and the controllers have an outage to catch up with, too.
    eventually("the rolling restart goes on", RECOVERS, || stage.load.try_report().is_ok(), |is_so| *is_so);
    stage.endpoints.await_rollout();
    let seen = stage.settled();
    seen.assert_no_failure("while the API server was away");
    seen.assert_held_until_announced("while the API server was away");
    figures!(
        "apiserver-outage",
        seconds = length.as_secs(),
        attempted = seen.attempted,
        failed = seen.failed,
        held_ended_by_pods = seen.ended("announced"),
        caught_up_seconds = caught_up.as_secs_f64(),
        last_event_age_max_seconds = worst_age,
        watch_errors = after.count(names::WATCH_ERRORS, &[]),
        p99_ms = seen.latency.p99,
        max_ms = seen.latency.max,
        longest_gap_ms = seen.longest_gap,
    );
}

/// What Sheave says of itself meanwhile, asked without the API server: watches in step, and the age of the last event.
fn watch_outage(ip: &str, length: Duration) -> (f64, f64) {
    let (mut synced, mut age) = (f64::INFINITY, 0.0_f64);
    let end = Instant::now() + length;
    glimpse(length, || {
        let metrics = Metrics::parse(&Release::ask_directly(ip, "metrics").unwrap());
        synced = synced.min(metrics.count(names::SYNCED, &[]));
        age = age.max(metrics.max(names::LAST_EVENT_AGE));
        let ready = Release::ask_directly(ip, "readyz").unwrap();
        assert!(
            ready.starts_with("HTTP/1.0 200"),
            "an outage of the API server is no reason to be unready: {ready}"
        );
        (Instant::now() >= end).then_some(())
    });
    (synced, age)
}

/// The API server comes back, whatever becomes of the test.
struct Outage;

impl Outage {
    fn begin() -> Self {
        run(CLUSTER, &["stop-apiserver"]);
        Self
    }

    fn end(self) {
        drop(self);
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        match crate::support::try_run(CLUSTER, &["start-apiserver"]) {
            Ok(_) => {}
            Err(error) if thread::panicking() => say!("the API server stays down: {error}"),
            Err(error) => panic!("{error}"),
        }
    }
}
