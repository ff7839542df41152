//! Sheave, as people install it: by Helm and the chart.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::{Value, json};

use super::admin::Table;
use super::endpoints::name_of;
use super::metrics::Metrics;
use super::tools::{root, run};
use super::{Namespace, eventually, eventually_some, settings};

const CHART: &str = "charts/sheave";
const ADMIN_PORT: u16 = 9901;
/// How long Helm may wait for pods.
const TIMEOUT: &str = "--timeout=180s";
/// A changed ConfigMap reaches a pod with the kubelet's next round.
pub(crate) const CONFIG_ARRIVES: Duration = Duration::from_secs(150);

pub(crate) struct Release<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) name: String,
    values: Value,
}

/// A listener on `port` whose connections go to the upstream of the same name.
pub(crate) fn straight(name: &str, port: u16, upstream: Value) -> Value {
    let mut upstream = upstream;
    upstream["name"] = name.into();
    json!({
        "listeners": [{"name": name, "address": format!("[::]:{port}")}],
        "routes": [{"name": name, "listener": name, "backendRefs": [{"upstream": name}]}],
        "upstreams": [upstream],
    })
}

/// The upstream of a Service.
pub(crate) fn of_service(namespace: &Namespace, service: &str, port: impl Into<Value>) -> Value {
    json!({"service": {"namespace": namespace.name, "name": service, "port": port.into()}})
}

/// What both have; of lists and of objects within.
pub(crate) fn merged(mut one: Value, other: Value) -> Value {
    match (&mut one, other) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in theirs {
                let mine = ours.remove(&key).unwrap_or_default();
                ours.insert(key, merged(mine, value));
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => ours.extend(theirs),
        (ours, theirs) => *ours = theirs,
    }
    one
}

impl<'a> Release<'a> {
    /// `helm install --wait`. `config` is Sheave's, `values` what the chart is given besides.
    pub(crate) fn install(namespace: &'a Namespace, config: Value, values: Value) -> Self {
        let image = settings::sheave_image();
        let (repository, tag) = image.rsplit_once(':').expect("SHEAVE_IMAGE is NAME:TAG");
        let probe = json!({"periodSeconds": 1});
        let ours = json!({
            "config": config,
            "replicas": 1,
            "minReadySeconds": 0,
            "image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
            "readinessProbe": probe,
        });
        let name = namespace.name.replacen("e2e", "sheave", 1);
        let release = Self { namespace, name, values: merged(ours, values) };
        release.helm("install");
        release
    }

    /// `helm upgrade --wait` with this added to the values.
    pub(crate) fn upgrade(&mut self, values: Value) {
        self.values = merged(self.values.take(), values);
        self.helm("upgrade");
    }

    pub(crate) fn uninstall(&self) {
        run("helm", &["uninstall", &self.name, "--namespace", &self.namespace.name, "--wait", TIMEOUT]);
    }

    fn helm(&self, verb: &str) {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        // JSON is YAML.
        file.as_file().write_all(self.values.to_string().as_bytes()).unwrap();
        let chart = root().join(CHART);
        let (chart, values) = (chart.to_str().unwrap(), file.path().to_str().unwrap());
        let namespace = self.namespace.name.as_str();
        run(
            "helm",
            &[verb, &self.name, chart, "--namespace", namespace, "--values", values, "--wait", TIMEOUT],
        );
    }

    pub(crate) fn labels(&self) -> String {
        format!("app.kubernetes.io/instance={}", self.name)
    }

    /// Those that are not leaving.
    pub(crate) fn pods(&self) -> Vec<Pod> {
        self.namespace.pods(&self.labels())
    }

    /// The only pod.
    pub(crate) fn pod(&self) -> Pod {
        let only = || <[Pod; 1]>::try_from(self.pods()).ok();
        let [pod] = eventually_some("one pod of Sheave", Duration::from_secs(60), only);
        pod
    }

    /// The address of a listener behind the Service's address.
    pub(crate) fn address(&self, port: u16) -> String {
        let services = self.namespace.list::<Service>(&self.labels());
        let mut addresses =
            services.iter().filter_map(|service| service.spec.as_ref()?.cluster_ip.as_deref());
        let ip = addresses.find(|ip| *ip != "None").expect("the chart has a Service");
        socket(ip, port)
    }

    pub(crate) fn metrics(&self) -> Metrics {
        self.metrics_of(&self.pod())
    }

    pub(crate) fn metrics_of(&self, pod: &Pod) -> Metrics {
        Metrics::parse(&self.ask(pod, "metrics").unwrap_or_else(|error| panic!("{error}")))
    }

    /// All pods' together.
    pub(crate) fn outcomes(&self) -> std::collections::BTreeMap<String, f64> {
        let mut sums = std::collections::BTreeMap::new();
        for pod in self.pods() {
            for (outcome, count) in self.metrics_of(&pod).by(super::names::OUTCOMES, "outcome") {
                *sums.entry(outcome).or_default() += count;
            }
        }
        sums
    }

    pub(crate) fn table(&self) -> Table {
        self.table_of(&self.pod())
    }

    pub(crate) fn table_of(&self, pod: &Pod) -> Table {
        let text = self.ask(pod, "table").unwrap_or_else(|error| panic!("{error}"));
        Table::parse(&text).unwrap_or_else(|error| panic!("{error}"))
    }

    /// An answer of the admin port, by way of the API server.
    pub(crate) fn ask(&self, pod: &Pod, path: &str) -> Result<String, String> {
        self.namespace.pod_http("GET", &name_of(pod), ADMIN_PORT, path)
    }

    /// The same without the API server: only from within the cluster's network. HTTP/1.0, so that what is streamed
    /// comes as it is.
    pub(crate) fn ask_directly(ip: &str, path: &str) -> Result<String, String> {
        let ask = || -> std::io::Result<String> {
            let address = socket(ip, ADMIN_PORT).parse().map_err(std::io::Error::other)?;
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET /{path} HTTP/1.0\r\nHost: sheave\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().map_err(|error| format!("{ip} does not answer {path}: {error}"))
    }

    /// Everything that the only pod has logged, connections apart.
    pub(crate) fn log(&self) -> String {
        let pod = name_of(&self.pod());
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/log?tailLines=100000", self.namespace.name);
        let text = self.namespace.cluster().http("GET", &path).unwrap_or_else(|error| panic!("{error}"));
        let lines = text.lines().filter(|line| !line.contains("\"outcome\":"));
        lines.map(|line| format!("{line}\n")).collect()
    }

    /// Waits until the table of the only pod is as wanted.
    pub(crate) fn await_table(
        &self,
        what: &str,
        deadline: Duration,
        is_so: impl Fn(&Table) -> bool,
    ) -> Table {
        eventually(what, deadline, || self.table(), is_so)
    }
}

pub(crate) fn socket(ip: &str, port: u16) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}
