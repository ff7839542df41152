//! Clients in a pod of their own, and what they report.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::report::{Failures, Report, Target, Trial};
use super::{Namespace, endpoints, eventually, eventually_some, settings};

pub(crate) const REPORT_PORT: u16 = 8081;
/// The load ends by itself, should a test not end it.
const LIFE_SECONDS: u64 = 3600;
const START: Duration = Duration::from_secs(60);

pub(crate) struct Load<'a> {
    namespace: &'a Namespace,
    pod: String,
}

impl<'a> Load<'a> {
    /// `targets` as the workload takes them: `NAME=ADDRESS[,rate=N][,held=N][,greet]`.
    pub(crate) fn start(namespace: &'a Namespace, targets: &[String]) -> Self {
        Self::trusting(namespace, targets, "")
    }

    /// The same, of `...[,tls=HOSTNAME]` too; `authority` (PEM) has to vouch for who answers.
    pub(crate) fn trusting(namespace: &'a Namespace, targets: &[String], authority: &str) -> Self {
        let mut arguments = vec!["load".to_owned(), format!("--seconds={LIFE_SECONDS}")];
        for target in targets {
            arguments.extend(["--target".to_owned(), target.clone()]);
        }
        let container = json!({
            "name": "load",
            "image": settings::workload_image(),
            "args": arguments,
            "env": [{"name": "WORKLOAD_AUTHORITY", "value": authority}],
            "ports": [{"name": "report", "containerPort": REPORT_PORT}],
            "readinessProbe": {"tcpSocket": {"port": REPORT_PORT}, "periodSeconds": 1},
            "securityContext": endpoints::container_security(),
        });
        let pod = "load".to_owned();
        namespace.apply::<Pod>(json!({
            "metadata": {"name": pod, "labels": {"sheave-e2e": "load"}},
            "spec": {
                "containers": [container],
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                    "dnsPolicy": "Default",
                "terminationGracePeriodSeconds": 1,
                "securityContext": endpoints::pod_security(),
            },
        }));
        let load = Self { namespace, pod };
        eventually_some("the load's report", START, || load.try_report().ok());
        load
    }

    pub(crate) fn report(&self) -> Report {
        self.try_report().unwrap_or_else(|error| panic!("the load does not report: {error}"))
    }

    pub(crate) fn try_report(&self) -> Result<Report, String> {
        let text = self.namespace.pod_http("GET", &self.pod, REPORT_PORT, "report")?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    pub(crate) fn target(&self, name: &str) -> Target {
        self.report().targets.remove(name).unwrap_or_else(|| panic!("the load has no target {name}"))
    }

    /// The load's clock, by which its report is dated.
    pub(crate) fn now(&self) -> u64 {
        self.report().now
    }

    /// Counts from zero; held connections live on.
    pub(crate) fn reset(&self) {
        let path = "reset";
        self.namespace
            .pod_http("POST", &self.pod, REPORT_PORT, path)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// So many connections one after the other, to `ADDRESS[,greet]`.
    pub(crate) fn tries(&self, aim: &str, count: usize) -> Vec<Trial> {
        let aim = aim.replace('[', "%5B").replace(']', "%5D");
        let path = format!("try?aim={aim}&count={count}");
        let text = self.namespace.pod_http("GET", &self.pod, REPORT_PORT, &path);
        let text = text.unwrap_or_else(|error| panic!("the load cannot try {aim}: {error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// Waits until a Service leads to Sheave: the node's proxy learns of its ports and pods a moment after they are
    /// there, and refuses connections meanwhile.
    pub(crate) fn await_service(&self, aim: &str) {
        let leads = |trials: &Vec<Trial>| trials.iter().all(|trial| trial.failure != "refused");
        eventually(&format!("{aim} leads to Sheave"), START, || self.tries(aim, 1), leads);
    }

    /// Every one of `count` connections is answered; by whom.
    pub(crate) fn served(&self, aim: &str, count: usize) -> Vec<String> {
        let trials = self.tries(aim, count);
        assert!(trials.iter().all(|trial| trial.failure.is_empty()), "of connections to {aim}: {trials:#?}");
        trials.into_iter().map(|trial| trial.pod).collect()
    }

    /// Every one of `count` connections is reset, and most of them soon: a busy machine may hold up a few.
    pub(crate) fn refused_at_once(&self, aim: &str, count: usize) {
        const SOON: u64 = 200;
        let trials = self.tries(aim, count);
        let soon = trials.iter().filter(|trial| trial.seen.after <= SOON).count();
        let are_reset = trials.iter().all(|trial| trial.failure == "reset");
        assert!(are_reset && 2 * soon > count, "not reset within {SOON} ms at {aim}: {trials:#?}");
    }

    /// Waits until the connections to hold are there and new ones succeed, then counts from zero.
    pub(crate) fn settle(&self, name: &str) {
        let is_steady = |target: &Target| target.held.now == target.held.wanted && target.ok > 0;
        eventually("a steady load", START, || self.target(name), is_steady);
        self.reset();
    }
}

impl Target {
    /// What went wrong with new connections, for people.
    pub(crate) fn failures_text(&self) -> String {
        text(&self.failures)
    }

    pub(crate) fn assert_no_failure(&self, when: &str) {
        assert!(self.attempted > 0, "{when}: no connection was attempted");
        assert_eq!(
            self.failed,
            0,
            "{when}: of {} new connections failed {}",
            self.attempted,
            self.failures_text()
        );
    }

    /// Every connection that ended was ended by its pod, and none could not be opened.
    pub(crate) fn assert_held_until_announced(&self, when: &str) {
        let mut others = self.held.ended.clone();
        others.remove("announced");
        assert!(others.is_empty(), "{when}: held connections ended before their pod did: {}", text(&others));
        let refused = &self.held.not_opened;
        assert!(refused.is_empty(), "{when}: connections to hold could not be opened: {}", text(refused));
    }

    pub(crate) fn ended(&self, kind: &str) -> u64 {
        self.held.ended.get(kind).map_or(0, |ends| ends.count)
    }
}

fn text(failures: &std::collections::BTreeMap<String, Failures>) -> String {
    let kinds = failures.iter().map(|(kind, of_kind)| {
        let samples: String = of_kind.samples.iter().map(|sample| format!("\n      {sample:?}")).collect();
        format!("\n  {} x {kind}, the slowest after {} ms:{samples}", of_kind.count, of_kind.slowest)
    });
    kinds.collect()
}
