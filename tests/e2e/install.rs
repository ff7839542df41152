//! Installing, changing and removing Sheave with Helm, in a namespace that enforces `restricted`.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::support::release::{CONFIG_ARRIVES, of_service, straight};
use crate::support::{Endpoints, Load, Namespace, Release, Wish, eventually, figures, run, within};

const READY: Duration = Duration::from_secs(20);
/// Pods may take their whole grace period to leave.
const GONE: Duration = Duration::from_secs(150);

#[test]
fn helm_installs_changes_and_removes_sheave() {
    let namespace = Namespace::create("install");
    let endpoints = Endpoints::start(&namespace, &Wish::new("web", 2));
    let load = Load::start(&namespace, &[]);
    let web = || of_service(&namespace, "web", "talk");
    let install = || Release::install(&namespace, straight("web", 8000, web()), json!({"replicas": 2}));
    let (ready, mut release) = within(install);
    assert!(ready < READY, "ready after {ready:?}, promised are {READY:?}");

    let pods = release.pods();
    assert_eq!(pods.len(), 2);
    load.await_service(&release.address(8000));
    let served = load.served(&release.address(8000), 50);
    for pod in endpoints.pods() {
        let name = pod.metadata.name.unwrap();
        assert!(served.contains(&name), "{name} is an endpoint and served none of {served:?}");
    }
    for pod in &pods {
        load.served(&crate::support::release::socket(&crate::support::endpoints::ip_of(pod), 8000), 5);
    }

    let before = identities(&pods);
    let (arrival, ()) = within(|| {
        let mut second = straight("second", 8001, web());
        second["upstreams"][0]["name"] = "second".into();
        release.upgrade(json!({"config": second}));
        for pod in &pods {
            let address = crate::support::release::socket(&crate::support::endpoints::ip_of(pod), 8001);
            let answers = || load.tries(&address, 1).iter().all(|trial| trial.failure.is_empty());
            eventually("the new listener answers in the old pod", CONFIG_ARRIVES, answers, |is_so| *is_so);
        }
    });
    load.await_service(&release.address(8001));
    load.served(&release.address(8001), 20);
    load.served(&release.address(8000), 20);
    assert_eq!(identities(&release.pods()), before, "a new listener must not restart anything");

    release.uninstall();
    let (gone, ()) =
        within(|| eventually("nothing is left", GONE, || left_behind(&release), String::is_empty).clear());
    figures!(
        "install",
        ready_seconds = ready.as_secs_f64(),
        listener_arrived_seconds = arrival.as_secs_f64(),
        gone_seconds = gone.as_secs_f64(),
    );
}

/// Pods by their identity, with their restarts.
fn identities(pods: &[Pod]) -> BTreeMap<String, i32> {
    let identity = |pod: &Pod| {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        let restarts = statuses.into_iter().flatten().map(|status| status.restart_count).sum();
        (pod.metadata.uid.clone().unwrap_or_default(), restarts)
    };
    pods.iter().map(identity).collect()
}

/// Every object of any kind in any namespace that carries a label of the release.
fn left_behind(release: &Release<'_>) -> String {
    let kinds = run("kubectl", &["api-resources", "--verbs=list", "--output=name"]);
    // Events tell the past; metrics are no objects.
    let is_kept = |kind: &&str| !kind.starts_with("events") && !kind.contains("metrics.k8s.io");
    let kinds: Vec<&str> = kinds.split_whitespace().filter(is_kept).collect();
    let kinds = kinds.join(",");
    let mut left = String::new();
    for label in [release.labels(), format!("owner=helm,name={}", release.name)] {
        left += &run("kubectl", &["get", &kinds, "-A", "-l", &label, "-o", "name", "--ignore-not-found"]);
    }
    left
}
