//! Endpoints in pods: a Deployment of the workload, with or without a Service in front.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::{Value, json};

use super::{Namespace, eventually, eventually_some, settings};

pub(crate) const CONTROL_PORT: u16 = 8081;
/// The Service's port and its name.
pub(crate) const SERVICE_PORT: u16 = 80;
pub(crate) const PORT_NAME: &str = "talk";
const ROLLOUT: Duration = Duration::from_secs(120);

/// What to deploy.
pub(crate) struct Wish {
    pub(crate) name: &'static str,
    pub(crate) replicas: i32,
    /// Further arguments of `workload serve`.
    pub(crate) arguments: &'static [&'static str],
    pub(crate) port: u16,
    /// The Service, if it is not the Deployment's own.
    pub(crate) service: &'static str,
}

impl Wish {
    pub(crate) fn new(name: &'static str, replicas: i32) -> Self {
        Self { name, replicas, arguments: &[], port: 8080, service: name }
    }
}

/// A Deployment of the workload.
pub(crate) struct Endpoints<'a> {
    namespace: &'a Namespace,
    name: &'static str,
}

impl<'a> Endpoints<'a> {
    /// With a Service of the same name, once all are ready.
    pub(crate) fn start(namespace: &'a Namespace, wish: &Wish) -> Self {
        namespace.apply::<Service>(service(wish.service, &json!({"selector": {"service": wish.service}})));
        let endpoints = Self::deploy(namespace, wish);
        endpoints.await_rollout();
        endpoints
    }

    /// Without a Service, and without waiting.
    pub(crate) fn deploy(namespace: &'a Namespace, wish: &Wish) -> Self {
        namespace.apply::<Deployment>(deployment(wish));
        Self { namespace, name: wish.name }
    }

    /// Those that are not leaving.
    pub(crate) fn pods(&self) -> Vec<Pod> {
        self.namespace.pods(&format!("app={}", self.name))
    }

    /// As `kubectl rollout restart`, until it is done.
    pub(crate) fn restart(&self, number: usize) {
        let annotations = json!({"sheave-e2e/restart": number.to_string()});
        let change = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        self.namespace.merge::<Deployment>(self.name, &change);
        self.await_rollout();
    }

    /// Does not wait.
    pub(crate) fn scale(&self, replicas: usize) {
        self.namespace.merge::<Deployment>(self.name, &json!({"spec": {"replicas": replicas}}));
    }

    pub(crate) fn await_rollout(&self) {
        let look = || {
            self.namespace
                .find::<Deployment>(self.name)
                .and_then(|found| Some((found.spec?, found.status?, found.metadata)))
        };
        eventually(&format!("the rollout of {}", self.name), ROLLOUT, look, |seen| {
            let Some((spec, status, metadata)) = seen else {
                return false;
            };
            let wanted = spec.replicas.unwrap_or(1);
            let counts = [status.updated_replicas, status.available_replicas, status.replicas];
            status.observed_generation >= metadata.generation
                && counts.iter().all(|count| count.unwrap_or(0) == wanted)
        });
    }

    /// Waits until no pod is left that is on its way out.
    pub(crate) fn await_departures(&self) {
        let is_leaving = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
        let labels = format!("app={}", self.name);
        let look = || self.namespace.list::<Pod>(&labels).iter().filter(|pod| is_leaving(pod)).count();
        eventually("the end of pods that leave", ROLLOUT, look, |leaving| *leaving == 0);
    }

    /// Any pod that is ready, as soon as there is one.
    pub(crate) fn await_first_ready(&self) -> Pod {
        eventually_some("a ready pod", ROLLOUT, || self.pods().into_iter().find(is_ready))
    }
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

pub(crate) fn name_of(pod: &Pod) -> String {
    pod.metadata.name.clone().expect("a pod has a name")
}

/// The address of its first family.
pub(crate) fn ip_of(pod: &Pod) -> String {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    ip.expect("a running pod has an address")
}

/// One port, [`SERVICE_PORT`], to the port that the pods call [`PORT_NAME`]; `spec` adds to it or changes it.
pub(crate) fn service(name: &str, spec: &Value) -> Value {
    let port = json!({"name": PORT_NAME, "port": SERVICE_PORT, "targetPort": PORT_NAME, "protocol": "TCP"});
    let mut service = json!({"metadata": {"name": name}, "spec": {"ports": [port]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        service["spec"][key] = value.clone();
    }
    service
}

fn deployment(wish: &Wish) -> Value {
    let labels = json!({"app": wish.name, "service": wish.service});
    let mut arguments = vec!["serve".to_owned(), format!("--port={}", wish.port)];
    arguments.extend(wish.arguments.iter().map(|argument| (*argument).to_owned()));
    let container = json!({
        "name": "workload",
        "image": settings::workload_image(),
        "args": arguments,
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [
            {"name": PORT_NAME, "containerPort": wish.port},
            {"name": "control", "containerPort": CONTROL_PORT},
        ],
        "readinessProbe": {"tcpSocket": {"port": PORT_NAME}, "periodSeconds": 1, "failureThreshold": 1},
        "securityContext": container_security(),
    });
    json!({
        "metadata": {"name": wish.name},
        "spec": {
            "replicas": wish.replicas,
            "selector": {"matchLabels": {"app": wish.name}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [container],
                    "automountServiceAccountToken": false,
                    "dnsPolicy": "Default",
                    "terminationGracePeriodSeconds": 30,
                    "securityContext": pod_security(),
                },
            },
        },
    })
}

/// What `restricted` asks for.
pub(crate) fn pod_security() -> Value {
    json!({"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}})
}

pub(crate) fn container_security() -> Value {
    json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
}
