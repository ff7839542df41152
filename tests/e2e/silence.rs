//! Pods that fall silent without a word, one of five and then all of them: who connects is served by the others, and an
//! outage is no storm.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::support::endpoints::{ip_of, is_ready, name_of};
use crate::support::release::{merged, of_service, straight};
use crate::support::report::Target;
use crate::support::silence::Silence;
use crate::support::{
    Endpoints, Load, Namespace, Release, Wish, eventually, figures, glimpse, is_full, is_own_cluster, names,
    skip_or_fail,
};

const PORTS: [(&str, u16); 2] = [("web", 8000), ("hedged", 8001)];
const SETTLES: Duration = Duration::from_secs(60);

struct Scene<'a> {
    endpoints: Endpoints<'a>,
    release: Release<'a>,
    load: Load<'a>,
}

impl<'a> Scene<'a> {
    /// Five pods, and two upstreams of them: one with the defaults, one that hedges.
    fn set(namespace: &'a Namespace, rate: u32) -> Self {
        let endpoints = Endpoints::start(namespace, &Wish::new("web", 5));
        let web = of_service(namespace, "web", "talk");
        let hedged = merged(web.clone(), json!({"retry": {"hedgeAfter": "20ms"}}));
        let quiet = json!({"accessLog": {"sample": 0}});
        let config = merged(straight("web", PORTS[0].1, web), straight("hedged", PORTS[1].1, hedged));
        let release = Release::install(namespace, merged(config, quiet), json!({}));
        let targets = PORTS.map(|(name, port)| format!("{name}={},rate={rate}", release.address(port)));
        let load = Load::start(namespace, &targets);
        PORTS.iter().for_each(|(name, _)| load.settle(name));
        load.reset();
        Self { endpoints, release, load }
    }

    fn ready(&self) -> Vec<Pod> {
        self.endpoints.pods().into_iter().filter(is_ready).collect()
    }

    /// What both targets saw in so long, from zero.
    fn watch(&self, length: Duration) -> [Target; 2] {
        self.load.reset();
        glimpse(length, || None::<()>);
        PORTS.map(|(name, _)| self.load.target(name))
    }
}

#[test]
fn a_silent_endpoint_fails_no_connection() {
    if !is_own_cluster() {
        skip_or_fail("silence", "only in tests/cluster/cluster can the network of a pod be reached");
        return;
    }
    let namespace = Namespace::create("silence");
    let scene = Scene::set(&namespace, if is_full() { 300 } else { 100 });
    let pods = scene.ready();
    let victim = pods.first().expect("a ready pod");
    // For Sheave alone, so that Kubernetes does not come to its help.
    let silence = Silence::begin(&[victim], Some(&ip_of(&scene.release.pod())));
    // Connections of the first second end in the next.
    let first = scene.watch(Duration::from_millis(1_500));
    let then = scene.watch(Duration::from_secs(if is_full() { 20 } else { 5 }));
    silence.end();
    for (phase, seen) in [("first", &first), ("then", &then)] {
        for ((name, _), seen) in PORTS.iter().zip(seen) {
            seen.assert_no_failure(&format!("{name}, {phase}, while {} was silent", name_of(victim)));
        }
    }
    let [web, hedged] = [0, 1].map(|index| (&first[index], &then[index]));
    // The other machines that this runs on in short are shared, and slow.
    if is_full() {
        let bounds = [(web.0, 1_200.0), (web.1, 20.0), (hedged.0, 40.0), (hedged.1, 40.0)];
        for (number, (seen, most)) in bounds.into_iter().enumerate() {
            let p99 = seen.latency.p99;
            assert!(p99 < most, "p99 is {p99} ms and not below {most} (of web, then of hedged: {number})");
        }
    }
    figures!(
        "silent-endpoint",
        attempted = web.0.attempted + web.1.attempted + hedged.0.attempted + hedged.1.attempted,
        failed = 0,
        first_p99_ms = web.0.latency.p99,
        first_max_ms = web.0.latency.max,
        then_p50_ms = web.1.latency.p50,
        then_p99_ms = web.1.latency.p99,
        hedged_first_p99_ms = hedged.0.latency.p99,
        hedged_first_max_ms = hedged.0.latency.max,
        hedged_then_p99_ms = hedged.1.latency.p99,
    );
}

#[test]
fn a_total_outage_is_no_storm() {
    if !is_own_cluster() {
        skip_or_fail("silence", "only in tests/cluster/cluster can the network of a pod be reached");
        return;
    }
    let namespace = Namespace::create("blackout");
    let rate = if is_full() { 500 } else { 100 };
    let scene = Scene::set(&namespace, rate);
    let before = scene.release.metrics();
    let pods = scene.ready();
    let silence = Silence::begin(&pods.iter().collect::<Vec<_>>(), None);
    let length = Duration::from_secs(10);
    let dark = scene.watch(length);
    silence.end();
    let ready_after = scene.load.now();
    scene.endpoints.await_first_ready();
    let ready = scene.load.now();
    let is_back = |target: &Target| target.last_ok.is_some_and(|last| last >= ready);
    for (name, _) in PORTS {
        eventually("service is back", SETTLES, || scene.load.target(name), is_back);
    }
    // What was begun before it was back may end as late as its patience allows.
    glimpse(Duration::from_secs(3), || None::<()>);
    let back = PORTS.map(|(name, _)| scene.load.target(name));
    let last_failed = back.iter().filter_map(|target| target.last_failed_begin).max();
    let back_after = last_failed.unwrap_or(ready).saturating_sub(ready);
    assert!(
        back_after <= 2_000,
        "of connections begun {back_after} ms after the first pod was ready one failed"
    );
    let after = scene.release.metrics();
    let retries = |name: &str| {
        let labels = [("upstream", name)];
        after.count(names::RETRIES, &labels) - before.count(names::RETRIES, &labels)
    };
    // A fifth of the connections and ten a second, in any ten seconds: two windows are touched.
    let spent = [0, 1].map(|index| {
        let name = PORTS[index].0;
        let allowed = back[index].attempted as f64 * 0.2 + 2.0 * 100.0;
        let retries = retries(name);
        assert!(
            retries <= allowed,
            "{name}: {retries} retries of {} connections, {allowed} are allowed",
            back[index].attempted
        );
        (retries, allowed)
    });
    figures!(
        "total-outage",
        seconds = length.as_secs(),
        rate = rate,
        attempted = back[0].attempted,
        failed_in_the_dark = dark[0].failed,
        retries = spent[0].0,
        retries_hedged = spent[1].0,
        retries_allowed = spent[0].1,
        ready_after_ms = ready.saturating_sub(ready_after),
        back_after_ready_ms = back_after,
    );
}
