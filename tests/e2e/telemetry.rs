//! What Prometheus and Jaeger know of pods that the chart installed: the chart's ways lead to all of them and to nothing else,
//! rules load, an exemplar is a trace, a trace names the pods that it went through as the cluster calls them, and
//! series end with their endpoint.
//!
//! Both are processes on the node, and not pods: nothing of this depends on it.

mod definitions;
mod prometheus;
mod pushed;
mod scrapes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::endpoints::{ip_of, name_of};
use crate::support::release::{merged, of_service, socket, straight};
use crate::support::{
    Endpoints, Jaeger, Load, Namespace, PORT, Release, Wish, eventually, figures, skip_or_fail, try_run,
    within,
};

use definitions::Definitions;
use prometheus::Prometheus;

const SOON: Duration = Duration::from_secs(60);
/// The ways to find pods, by the names of their scrape configurations.
const WAYS: [&str; 3] = ["annotations", "podMonitor", "serviceMonitor"];
/// Where the pods of endpoints listen.
const ENDPOINT_PORT: u16 = 8080;

#[test]
fn prometheus_and_jaeger_know_the_pods() {
    let Some(host) = own_address() else {
        skip_or_fail("jaeger", "this is none of its nodes, so pods could not send their traces here");
        return;
    };
    let (Ok(program), Ok(folder)) = (tool("prometheus"), tool("prometheus-operator")) else {
        skip_or_fail(
            "prometheus",
            "it is not there (tests/cluster/build prometheus prometheus-operator makes it)",
        );
        return;
    };
    let Some(jaeger) = Jaeger::start(host) else {
        skip_or_fail("jaeger", "there is no program `jaeger` on PATH (tests/cluster/build jaeger makes it)");
        return;
    };
    let definitions = Definitions::create(&folder);
    let namespace = Namespace::create("telemetry");
    let endpoints = Endpoints::start(&namespace, &Wish::new("web", 2));
    let release = install(&namespace, &jaeger);
    definitions.accept(&release);
    let rules = object(&namespace, "prometheusrules", &release.name)["spec"].clone();
    let prometheus = Prometheus::start(&program.join("prometheus"), &ways(&namespace, &release), &rules);
    let load = Load::start(&namespace, &[]);

    let pods = release.pods();
    let (found, ()) = within(|| finds_just(&prometheus, &pods));
    for pod in &pods {
        load.served(&socket(&ip_of(pod), PORT), 10);
    }
    has_rules(&prometheus, &rules);
    series_have_their_own_endpoint(&prometheus, &endpoints);
    let traces = exemplars_are_traces(&prometheus, &jaeger, &release, &endpoints);
    let gone = series_end_with_their_endpoint(&prometheus, &endpoints);
    figures!(
        "telemetry",
        found_seconds = found.as_secs_f64(),
        traces = traces,
        series_gone_seconds = gone.as_secs_f64(),
    );
}

/// Where pods can reach this process: an address of the node that it runs on.
fn own_address() -> Option<IpAddr> {
    let nodes = Cluster::current().http("GET", "/api/v1/nodes").unwrap();
    let nodes: Value = serde_json::from_str(&nodes).unwrap();
    let nodes = nodes["items"].as_array().unwrap().iter();
    let addresses = nodes.flat_map(|node| node["status"]["addresses"].as_array().into_iter().flatten());
    let addresses = addresses.filter_map(|address| address["address"].as_str()?.parse::<IpAddr>().ok());
    addresses.into_iter().find(|ip| ip.is_ipv4() && TcpListener::bind((*ip, 0)).is_ok())
}

/// The folder of a tool of the test cluster's.
fn tool(family: &str) -> Result<PathBuf, String> {
    try_run("tests/cluster/build", &["--cached", family]).map(|folder| folder.trim().into())
}

fn install<'a>(namespace: &'a Namespace, jaeger: &Jaeger) -> Release<'a> {
    let endpoint = format!("http://{}", jaeger.endpoint("grpc"));
    let config = json!({"tracing": {"enabled": true, "endpoint": endpoint, "sample": 1}});
    let web = straight("web", PORT, of_service(namespace, "web", "talk"));
    let enabled = json!({"enabled": true});
    let metrics = json!({
        "annotations": enabled, "service": enabled, "serviceMonitor": enabled, "podMonitor": enabled,
        "prometheusRule": enabled,
    });
    Release::install(namespace, merged(web, config), json!({"replicas": 2, "metrics": metrics}))
}

/// An object of the operator's.
fn object(namespace: &Namespace, kind: &str, name: &str) -> Value {
    let path = format!("/apis/monitoring.coreos.com/v1/namespaces/{}/{kind}/{name}", namespace.name);
    let text = namespace.cluster().http("GET", &path).unwrap_or_else(|error| panic!("{error}"));
    serde_json::from_str(&text).unwrap()
}

fn ways(namespace: &Namespace, release: &Release<'_>) -> [Value; 3] {
    let object = |kind: &str| object(namespace, kind, &release.name);
    [
        scrapes::by_annotations(&namespace.name),
        scrapes::by_pod_monitor(&namespace.name, &object("podmonitors")),
        scrapes::by_service_monitor(&namespace.name, &object("servicemonitors")),
    ]
}

/// Each way finds these pods and no other target in the namespace, and all of them answer.
fn finds_just(prometheus: &Prometheus, pods: &[Pod]) {
    let of_way = |way: &str| {
        let target =
            |pod: &Pod| (way.to_owned(), name_of(pod), format!("{}:9901", ip_of(pod)), "up".to_owned());
        pods.iter().map(target).collect::<Vec<_>>()
    };
    let expected: BTreeSet<_> = WAYS.into_iter().flat_map(of_way).collect();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let targets = || {
        let found = prometheus.get("targets", &[("state", "active")]);
        let targets = found["activeTargets"].as_array().unwrap().iter();
        let told = targets.map(|target| {
            let labels = &target["labels"];
            let way = text(&target["scrapePool"]);
            (way, text(&labels["pod"]), text(&labels["instance"]), text(&target["health"]))
        });
        told.collect::<BTreeSet<_>>()
    };
    eventually(&format!("just {expected:#?} are scraped"), SOON, targets, |targets| *targets == expected);
}

/// All of the release's rules are evaluated.
fn has_rules(prometheus: &Prometheus, rules: &Value) {
    let of = |groups: &Value, name: &str| {
        let groups = groups["groups"].as_array().unwrap().clone();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone());
        rules
            .map(|rule| (rule[name].as_str().unwrap().to_owned(), rule["health"].clone()))
            .collect::<BTreeMap<_, _>>()
    };
    let wanted: BTreeSet<String> = of(rules, "alert").into_keys().collect();
    assert!(!wanted.is_empty(), "{rules}");
    let loaded = || of(&prometheus.get("rules", &[]), "name");
    eventually("all rules are evaluated", SOON, loaded, |loaded| {
        loaded.keys().eq(&wanted) && loaded.values().all(|health| health == "ok")
    });
}

/// However Sheave is found: the operator would put the port's name there.
fn series_have_their_own_endpoint(prometheus: &Prometheus, endpoints: &Endpoints<'_>) {
    let expected: BTreeSet<String> =
        endpoints.pods().iter().map(|pod| socket(&ip_of(pod), ENDPOINT_PORT)).collect();
    for way in WAYS {
        let found = || {
            let series = prometheus.series(&format!("sheave_endpoint_connections_total{}", of_way(way)));
            series.iter().map(|labels| labels["endpoint"].as_str().unwrap_or_default().to_owned()).collect()
        };
        let is_so = |found: &BTreeSet<String>| *found == expected;
        eventually(&format!("{expected:?} by {way}"), SOON, found, is_so);
    }
}

/// A selector of the series that came this way.
fn of_way(way: &str) -> &'static str {
    match way {
        "annotations" => "{job=\"annotations\"}",
        "podMonitor" => "{job=~\".+/.+\"}",
        _ => "{job=~\"sheave-.*-metrics\"}",
    }
}

/// From a bucket of each pod to a trace, which says what the API server does of all pods that it went through.
fn exemplars_are_traces(
    prometheus: &Prometheus,
    jaeger: &Jaeger,
    release: &Release<'_>,
    endpoints: &Endpoints<'_>,
) -> usize {
    let of_name =
        |pods: Vec<Pod>| pods.into_iter().map(|pod| (name_of(&pod), pod)).collect::<BTreeMap<_, _>>();
    let (sheaves, served) = (of_name(release.pods()), of_name(endpoints.pods()));
    let query = "sheave_upstream_connect_seconds_bucket{upstream=\"web\"}";
    let found = || {
        let exemplars = prometheus.exemplars(query).into_iter();
        let of_pod = |(labels, trace): (Value, String)| (labels["pod"].as_str().unwrap().to_owned(), trace);
        exemplars.map(of_pod).collect::<BTreeSet<_>>()
    };
    let exemplars = eventually("exemplars of each pod", SOON, found, |found| {
        let pods: BTreeSet<&String> = found.iter().map(|(pod, _)| pod).collect();
        pods.into_iter().eq(sheaves.keys())
    });
    for (pod, trace) in &exemplars {
        let spans = jaeger.trace(trace);
        let root = spans.iter().find(|span| span.name == "tcp web").expect("a connection");
        let pod = &sheaves[pod];
        assert_eq!(root.service, release.name);
        for (key, value) in resource(pod) {
            let said = root.process.get(key);
            assert_eq!(said, Some(&value), "{key} of {trace}");
        }
        assert_eq!((root.tag("network.local.address"), root.tag("server.port")), (&*ip_of(pod), "8000"));
        let attempt = spans.iter().find(|span| span.name == "connect web").expect("an attempt");
        let endpoint = &served[attempt.tag("k8s.pod.name")];
        assert_eq!(attempt.tag("server.address"), ip_of(endpoint));
        assert_eq!(attempt.tag("network.local.address"), ip_of(pod));
        let namespace = &*release.namespace.name;
        let service = (attempt.tag("k8s.namespace.name"), attempt.tag("k8s.service.name"));
        assert_eq!(service, (namespace, "web"), "{attempt:#?}");
    }
    exemplars.len()
}

/// What the resource of this pod's traces has to say.
fn resource(pod: &Pod) -> BTreeMap<&'static str, String> {
    let (name, namespace) = (name_of(pod), pod.metadata.namespace.clone().unwrap());
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    BTreeMap::from([
        ("service.instance.id", format!("{namespace}.{name}.sheave")),
        ("service.namespace", namespace.clone()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("k8s.namespace.name", namespace),
        ("host.name", name.clone()),
        ("k8s.pod.name", name),
        ("k8s.pod.uid", pod.metadata.uid.clone().unwrap()),
        ("k8s.node.name", node.unwrap()),
        ("k8s.container.name", "sheave".to_owned()),
    ])
}

/// Without an endpoint Prometheus has no series of it, that is, not the last numbers for five minutes more.
fn series_end_with_their_endpoint(prometheus: &Prometheus, endpoints: &Endpoints<'_>) -> Duration {
    let before = endpoints.pods();
    endpoints.scale(1);
    endpoints.await_rollout();
    let stays: BTreeSet<String> = endpoints.pods().iter().map(name_of).collect();
    let of = |pod: &Pod| {
        let endpoint = socket(&ip_of(pod), ENDPOINT_PORT);
        prometheus.series(&format!("{{__name__=~\"sheave_endpoint_.*\", endpoint=\"{endpoint}\"}}"))
    };
    let (gone, staying): (Vec<&Pod>, Vec<&Pod>) =
        before.iter().partition(|pod| !stays.contains(&name_of(pod)));
    assert_eq!((gone.len(), staying.len()), (1, 1));
    let (took, _) =
        within(|| eventually("no series of the pod that left", SOON, || of(gone[0]), Vec::is_empty));
    assert!(!of(staying[0]).is_empty(), "the other one's are there");
    took
}
