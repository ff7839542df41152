//! How Prometheus is to find Sheave's pods: by what the chart says, as those who read it make scrape configurations of it.

use serde_json::{Value, json};

/// The convention of `prometheus.io/scrape`, as in Prometheus' own example for Kubernetes.
pub(super) fn by_annotations(namespace: &str) -> Value {
    let annotation = |name: &str| format!("__meta_kubernetes_pod_annotation_prometheus_io_{name}");
    scrape(
        "annotations",
        namespace,
        "pod",
        &[
            json!({"source_labels": [annotation("scrape")], "action": "keep", "regex": "true"}),
            json!({"source_labels": [annotation("path")], "target_label": "__metrics_path__", "regex": "(.+)"}),
            json!({
                "source_labels": ["__meta_kubernetes_pod_ip", annotation("port")], "separator": ";",
                "regex": "([0-9.]+);([0-9]+)", "target_label": "__address__", "replacement": "$1:$2",
            }),
            json!({"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"}),
            json!({"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"}),
        ],
    )
}

/// As the operator does with the first endpoint of a ServiceMonitor.
pub(super) fn by_service_monitor(namespace: &str, monitor: &Value) -> Value {
    let mut relabelings = selecting("service", &monitor["spec"]["selector"]);
    let endpoint = &monitor["spec"]["endpoints"][0];
    relabelings.push(keep("__meta_kubernetes_endpointslice_port_name", &endpoint["port"]));
    relabelings.push(named("__meta_kubernetes_service_name", "service"));
    relabelings.push(named("__meta_kubernetes_service_name", "job"));
    monitored(namespace, "endpointslice", relabelings, endpoint)
}

/// The same with that of a PodMonitor.
pub(super) fn by_pod_monitor(namespace: &str, monitor: &Value) -> Value {
    let mut relabelings = selecting("pod", &monitor["spec"]["selector"]);
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    relabelings.push(json!({
        "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)", "action": "drop",
    }));
    relabelings.push(keep("__meta_kubernetes_pod_container_port_name", &endpoint["port"]));
    let job = format!("{namespace}/{}", monitor["metadata"]["name"].as_str().unwrap());
    relabelings.push(json!({"target_label": "job", "replacement": job}));
    monitored(namespace, "pod", relabelings, endpoint)
}

/// What both kinds of monitors have, their own relabelings at the end.
fn monitored(namespace: &str, role: &str, mut relabelings: Vec<Value>, endpoint: &Value) -> Value {
    for (name, label) in
        [("namespace", "namespace"), ("pod_name", "pod"), ("pod_container_name", "container")]
    {
        relabelings.push(named(&format!("__meta_kubernetes_{name}"), label));
    }
    relabelings.push(json!({"target_label": "endpoint", "replacement": endpoint["port"]}));
    for own in endpoint["relabelings"].as_array().into_iter().flatten() {
        let known: Vec<&str> = own.as_object().unwrap().keys().map(String::as_str).collect();
        // The operator spells others in its own way.
        assert_eq!(known, ["action", "regex"], "{own}");
        relabelings.push(own.clone());
    }
    let name = if role == "pod" { "podMonitor" } else { "serviceMonitor" };
    let mut scrape = scrape(name, namespace, role, &relabelings);
    scrape["metrics_path"] = endpoint["path"].clone();
    scrape
}

/// Of all targets in the namespace.
fn scrape(name: &str, namespace: &str, role: &str, relabelings: &[Value]) -> Value {
    let kubeconfig = std::env::var("KUBECONFIG").unwrap();
    json!({
        "job_name": name,
        "kubernetes_sd_configs": [
            {"role": role, "kubeconfig_file": kubeconfig, "namespaces": {"names": [namespace]}},
        ],
        "relabel_configs": relabelings,
    })
}

fn selecting(kind: &str, selector: &Value) -> Vec<Value> {
    let labels = selector["matchLabels"].as_object().unwrap();
    let of_label = |(name, value): (&String, &Value)| {
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        keep(&format!("__meta_kubernetes_{kind}_label_{name}"), value)
    };
    labels.iter().map(of_label).collect()
}

fn keep(source: &str, value: &Value) -> Value {
    json!({"source_labels": [source], "action": "keep", "regex": value})
}

fn named(source: &str, label: &str) -> Value {
    json!({"source_labels": [source], "target_label": label})
}
