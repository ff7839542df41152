//! A namespace for one test: it enforces `restricted`, tells what happened in it when the test fails, and goes with it.

use std::thread;

use k8s_openapi::api::core::v1::{Namespace as Object, Pod};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};

use super::cluster::{self, Cluster, with_kind};
use super::say;
use super::tools::try_run;

/// Of a log, or of a list of events.
const LINES_MAX: usize = 40;

pub(crate) struct Namespace {
    pub(crate) name: String,
    cluster: &'static Cluster,
}

impl Namespace {
    /// Its name begins with `test`.
    pub(crate) fn create(test: &str) -> Self {
        let cluster = Cluster::current();
        let name = format!("e2e-{test}-{:06x}", fastrand::u32(..0x0100_0000));
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted", "sheave-e2e": test});
        let object = with_kind::<Object>(json!({"metadata": {"name": name, "labels": labels}}));
        let object: Object = serde_json::from_value(object).unwrap();
        let namespaces: Api<Object> = Api::all(cluster.client());
        cluster.request(namespaces.create(&PostParams::default(), &object)).expect("a namespace of its own");
        say!("{test} in namespace {name}");
        Self { name, cluster }
    }

    pub(crate) fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    pub(crate) fn apply<K: cluster::Object>(&self, object: Value) -> K {
        self.cluster.apply(&self.name, object)
    }

    pub(crate) fn merge<K: cluster::Object>(&self, name: &str, change: &Value) -> K {
        self.cluster.merge(&self.name, name, change)
    }

    pub(crate) fn find<K: cluster::Object>(&self, name: &str) -> Option<K> {
        self.cluster.find(&self.name, name)
    }

    pub(crate) fn list<K: cluster::Object>(&self, labels: &str) -> Vec<K> {
        self.cluster.list(&self.name, labels)
    }

    pub(crate) fn delete<K: cluster::Object>(&self, name: &str) {
        self.cluster.delete::<K>(&self.name, name, &DeleteParams::default());
    }

    /// Its pods with these labels that are neither leaving nor done.
    pub(crate) fn pods(&self, labels: &str) -> Vec<Pod> {
        let mut pods: Vec<Pod> = self.list(labels);
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods
    }

    pub(crate) fn pod_http(&self, method: &str, pod: &str, port: u16, path: &str) -> Result<String, String> {
        self.cluster.pod_http(method, &self.name, pod, port, path)
    }

    /// What somebody who looks for the reason would ask for.
    fn tell(&self) {
        let name = self.name.as_str();
        let show = |title: &str, arguments: &[&str]| {
            let text = try_run("kubectl", arguments).unwrap_or_else(|error| error);
            println!("--- {title} in {name}\n{}", end_of(text.lines()));
        };
        show("pods and services", &["get", "pods,services,endpointslices", "-o", "wide", "-n", name]);
        show("events", &["get", "events", "-n", name, "--sort-by=.lastTimestamp", "--no-headers"]);
        let logs = ["logs", "-n", name, "-l", "app.kubernetes.io/name=sheave", "--tail=-1", "--prefix"];
        self.tell_log(&try_run("kubectl", &logs).unwrap_or_else(|error| error));
        let loads: Vec<Pod> = self.list("sheave-e2e=load");
        for load in loads.iter().filter_map(|pod| pod.metadata.name.as_deref()) {
            let report = self.pod_http("GET", load, super::load::REPORT_PORT, "report");
            println!("--- what {load} saw\n{}", report.unwrap_or_else(|error| error));
        }
    }
}

impl Namespace {
    /// Connections that ended well are of no interest, and the most.
    fn tell_log(&self, log: &str) {
        let is_connection = |line: &&str| line.contains("\"kind\":\"connection\"");
        let is_failed = |line: &&str| !line.contains("\"side\":\"downstream\"");
        println!(
            "--- Sheave's log in {}\n{}",
            self.name,
            end_of(log.lines().filter(|line| !is_connection(line)))
        );
        let failed = log.lines().filter(is_connection).filter(is_failed);
        println!("--- connections that failed in {}\n{}", self.name, end_of(failed));
    }
}

fn end_of<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let lines: Vec<&str> = lines.collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell();
        }
        // Clients first and at once: without them nobody has connections to drain.
        let quick =
            ["delete", "pods", "-n", &self.name, "-l", "sheave-e2e=load", "--grace-period=0", "--force"];
        for arguments in [&quick[..], &["delete", "namespace", &self.name, "--wait=false"]] {
            if let Err(error) = try_run("kubectl", arguments) {
                say!("namespace {} stays behind: {error}", self.name);
            }
        }
    }
}
