use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use serde_json::json;

use super::*;
use crate::config::PortRef;
use crate::control::kubernetes::plan::{Resource, plan};

const REACHABLE: Reachable<'static> = &|_| true;

fn port(name: &str) -> config::ServicePort {
    config::ServicePort { namespace: "db".into(), name: name.into(), port: PortRef::Number(80) }
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::of(&port(name))
}

fn scope(resource: Resource, services: &[&str]) -> Arc<Scope> {
    let names = services.iter().map(|name| Name::from(*name)).collect();
    Arc::new(Scope { resource, namespace: "db".into(), names })
}

fn service(name: &str) -> Service {
    service_with_port(name, "")
}

fn service_with_port(name: &str, port: &str) -> Service {
    let object = json!({"metadata": {"name": name}, "spec": {"ports": [{"name": port, "port": 80}]}});
    Service::new(serde_json::from_value::<core::Service>(object).unwrap()).unwrap()
}

fn slice(name: &str, service: &str, address: &str, changed_at: &str) -> Slice {
    slice_with_port(name, service, "", address, changed_at)
}

fn slice_with_port(name: &str, service: &str, port: &str, address: &str, changed_at: &str) -> Slice {
    let object = json!({
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/service-name": service},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": changed_at},
        },
        "addressType": "IPv4",
        "ports": [{"name": port, "port": 1}],
        "endpoints": [{"addresses": [address], "zone": "a", "nodeName": "n", "hints": {"forZones": [{"name": "b"}]}}],
    });
    Slice::new(serde_json::from_value::<discovery::EndpointSlice>(object).unwrap()).unwrap()
}

struct Watched {
    index: Index,
    services: Arc<Scope>,
    slices: Arc<Scope>,
}

impl Watched {
    fn new(names: &[&str]) -> Self {
        let mut index = Index::default();
        let keys: Vec<ServiceKey> = names.iter().map(|name| key(name)).collect();
        index.follow(keys.iter());
        Self {
            index,
            services: scope(Resource::Services, names),
            slices: scope(Resource::EndpointSlices, names),
        }
    }

    fn service(&mut self, change: Change<Service>) -> Vec<Changed> {
        let observation = Observation {
            scope: Arc::clone(&self.services),
            received: Instant::now(),
            object: Object::Service(change),
        };
        self.index.apply(observation)
    }

    fn slice(&mut self, change: Change<Slice>) -> Vec<Changed> {
        let observation = Observation {
            scope: Arc::clone(&self.slices),
            received: Instant::now(),
            object: Object::Slice(change),
        };
        self.index.apply(observation)
    }

    fn addresses(&self, name: &str) -> Option<Vec<String>> {
        let found = self.index.find(&port(name), REACHABLE)?;
        Some(found.members.iter().map(|member| member.address.to_string()).collect())
    }
}

fn names(changed: &[Changed]) -> Vec<&str> {
    changed.iter().map(|changed| &*changed.service.name).collect()
}

#[test]
fn nothing_is_known_before_both_lists_are_complete() {
    let mut watched = Watched::new(&["pg"]);
    watched.slice(Change::Set(slice("early", "pg", "10.0.0.9", "")));
    assert_eq!(names(&watched.slice(Change::All(vec![slice("a", "pg", "10.0.0.1", "")]))), ["pg"]);
    assert_eq!(watched.addresses("pg"), None, "the Service itself is not known");
    watched.service(Change::All(vec![service("pg")]));
    assert_eq!(watched.addresses("pg").unwrap(), ["10.0.0.1:1"]);
}

#[test]
fn a_new_list_replaces_what_was_and_tells_only_what_differs() {
    let mut watched = Watched::new(&["pg", "web"]);
    watched.service(Change::All(vec![service("pg"), service("web")]));
    watched.slice(Change::All(vec![
        slice("a", "pg", "10.0.0.1", ""),
        slice("b", "pg", "10.0.0.2", ""),
        slice("w", "web", "10.0.1.1", ""),
    ]));
    let again = watched.slice(Change::All(vec![
        slice("b", "pg", "10.0.0.2", ""),
        slice("w", "web", "10.0.1.1", ""),
        slice("x", "nobody", "10.0.2.1", ""),
    ]));
    assert_eq!(names(&again), ["pg"]);
    assert!(again[0].stamp.is_none(), "a list may be old news");
    assert_eq!(watched.addresses("pg").unwrap(), ["10.0.0.2:1"]);
    assert_eq!(watched.addresses("nobody"), None);
}

#[test]
fn a_change_is_dated_once() {
    let mut watched = Watched::new(&["pg"]);
    watched.service(Change::All(vec![service("pg")]));
    watched.slice(Change::All(vec![]));
    let dated = |changed: Vec<Changed>| changed[0].stamp.unwrap().changed_at.is_some();
    let first = "2026-11-22T10:00:00.5Z";
    assert!(dated(watched.slice(Change::Set(slice("a", "pg", "10.0.0.1", first)))));
    assert!(watched.slice(Change::Set(slice("a", "pg", "10.0.0.1", first))).is_empty(), "nothing is new");
    assert!(
        !dated(watched.slice(Change::Set(slice("a", "pg", "10.0.0.2", first)))),
        "the date is an older one"
    );
    assert!(dated(watched.slice(Change::Set(slice("a", "pg", "10.0.0.3", "2026-11-22T10:00:01Z")))));
    assert!(!dated(watched.slice(Change::Set(slice("a", "pg", "10.0.0.4", "yesterday")))));
    assert_eq!(names(&watched.slice(Change::Gone(slice("a", "pg", "10.0.0.4", "")))), ["pg"]);
    assert!(watched.slice(Change::Gone(slice("a", "pg", "10.0.0.4", ""))).is_empty());
}

#[test]
fn a_slice_that_is_given_to_another_service_leaves_the_first() {
    let mut watched = Watched::new(&["pg", "web"]);
    watched.service(Change::All(vec![service("pg"), service("web")]));
    watched.slice(Change::All(vec![slice("a", "pg", "10.0.0.1", "")]));
    let mut changed = watched.slice(Change::Set(slice("a", "web", "10.0.0.1", "")));
    changed.sort_by(|one, other| one.service.cmp(&other.service));
    assert_eq!(names(&changed), ["pg", "web"]);
    assert_eq!(watched.addresses("pg").unwrap(), [""; 0]);
    assert_eq!(watched.addresses("web").unwrap(), ["10.0.0.1:1"]);
}

#[test]
fn a_deleted_service_has_nothing_and_one_that_is_made_has_at_once() {
    let mut watched = Watched::new(&["pg"]);
    watched.service(Change::All(vec![service("pg")]));
    watched.slice(Change::All(vec![slice("a", "pg", "10.0.0.1", "")]));
    assert_eq!(names(&watched.service(Change::Gone(service("pg")))), ["pg"]);
    let found = watched.index.find(&port("pg"), REACHABLE).unwrap();
    assert_eq!((found.members.len(), found.problem.unwrap().reason), (0, "service_missing"));
    watched.service(Change::Set(service("pg")));
    assert_eq!(watched.addresses("pg").unwrap(), ["10.0.0.1:1"]);
}

#[test]
fn what_is_followed_no_longer_is_forgotten_and_the_rest_stays() {
    let mut watched = Watched::new(&["pg", "web"]);
    watched.service(Change::All(vec![service("pg"), service("web")]));
    watched.slice(Change::All(vec![slice("a", "pg", "10.0.0.1", "")]));
    watched.index.follow([key("pg"), key("new")].iter());
    assert_eq!(watched.addresses("pg").unwrap(), ["10.0.0.1:1"]);
    assert_eq!(watched.addresses("web"), None);
    assert_eq!(watched.addresses("new"), None);
}

#[test]
fn where_an_endpoint_runs_is_kept() {
    let slice = slice("a", "pg", "10.0.0.1", "");
    let topology = &slice.members[0].topology;
    assert_eq!((topology.zone.as_deref(), topology.node.as_deref()), (Some("a"), Some("n")));
    assert_eq!(*topology.for_zones, ["b".into()]);
}

#[test]
fn only_pods_have_the_name_of_one() {
    let named = |target: serde_json::Value| {
        let slice = json!({
            "metadata": {"name": "a", "labels": {"kubernetes.io/service-name": "pg"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "targetRef": target}],
        });
        let pod = Slice::new(serde_json::from_value(slice).unwrap()).unwrap().members[0].pod.clone();
        pod.map(|pod| pod.to_string())
    };
    let pod = json!({"kind": "Pod", "namespace": "db", "name": "pg-0", "uid": "1"});
    assert_eq!(named(pod).as_deref(), Some("pg-0"));
    for other in
        [json!(null), json!({"kind": "Node", "name": "n"}), json!({"name": "x"}), json!({"kind": "Pod"})]
    {
        assert_eq!(named(other.clone()), None, "{other}");
    }
}

#[test]
fn what_nobody_says_is_ready_and_serving_and_not_terminating() {
    let object = |conditions: serde_json::Value| {
        let slice = json!({
            "metadata": {"name": "a", "labels": {"kubernetes.io/service-name": "pg"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": conditions}],
        });
        Slice::new(serde_json::from_value(slice).unwrap()).unwrap().members[0].condition
    };
    use crate::control::kubernetes::object::Condition::{NotReady, Ready, ServingTerminating};
    for (conditions, expected) in [
        (json!({}), Ready),
        (json!(null), Ready),
        (json!({"ready": true, "serving": false}), Ready),
        (json!({"ready": false}), NotReady),
        (json!({"ready": false, "terminating": true}), ServingTerminating),
        (json!({"ready": false, "serving": true, "terminating": true}), ServingTerminating),
        (json!({"ready": false, "serving": false, "terminating": true}), NotReady),
    ] {
        assert_eq!(object(conditions.clone()), expected, "{conditions}");
    }
}

#[test]
fn only_what_is_named_is_watched() {
    let upstream = |name: &str, namespace: &str, service: &str| {
        format!("  - {{name: {name}, service: {{namespace: {namespace}, name: {service}, port: 80}}}}\n")
    };
    let text = format!(
        "listeners: [{{name: x, address: \"127.0.0.1:1\"}}]\nroutes: [{{name: r, listener: x, backendRefs: [{{upstream: a}}]}}]\nupstreams:\n{}{}{}{}  - {{name: l, endpoints: [{{address: \"10.0.0.1:1\"}}]}}\n",
        upstream("a", "shop", "web"),
        upstream("b", "db", "pg"),
        upstream("c", "db", "redis"),
        upstream("d", "db", "pg"),
    );
    let config = crate::config::Config::parse(&text, "t.yaml").unwrap();
    let watches: Vec<(String, Option<String>, Option<String>)> = plan(&config)
        .iter()
        .map(|scope| (scope.to_string(), scope.label_selector(), scope.field_selector()))
        .collect();
    let labels = |names: &str| Some(format!("kubernetes.io/service-name in ({names})"));
    assert_eq!(
        watches,
        [
            ("services in namespace db".into(), None, None),
            ("endpointslices in namespace db".into(), labels("pg,redis"), None),
            ("services in namespace shop".into(), None, Some("metadata.name=web".into())),
            ("endpointslices in namespace shop".into(), labels("web"), None),
        ]
    );
}

#[test]
fn what_tls_needs_is_watched_by_name() {
    let text = "
listeners:
  - name: x
    address: \"127.0.0.1:1\"
    protocol: TLS
    tls:
      certificateRefs: [{secret: edge/b}, {secret: edge/a}, {file: {certificate: /c, key: /k}}]
      clientValidation: {caCertificateRefs: [{secret: edge/a}, {configMap: edge/ca}, {file: /ca}]}
routes: [{name: r, listener: x, backendRefs: [{upstream: a}]}]
upstreams: [{name: a, endpoints: [{address: \"10.0.0.1:1\"}]}]
";
    let config = crate::config::Config::parse(text, "t.yaml").unwrap_or_else(|errors| panic!("{errors}"));
    let watches: Vec<_> = plan(&config)
        .iter()
        .map(|scope| {
            assert!(scope.label_selector().is_none() && scope.source().is_some());
            (scope.resource.label(), scope.to_string(), scope.field_selector().unwrap())
        })
        .collect();
    let watch = |resource, name: &str, selector: &str| {
        (resource, name.to_owned(), format!("metadata.name={selector}"))
    };
    assert_eq!(
        watches,
        [
            watch("secrets", "Secret edge/a", "a"),
            watch("secrets", "Secret edge/b", "b"),
            watch("configmaps", "ConfigMap edge/ca", "ca"),
            watch("secrets", "Secret edge/a", "a"),
        ]
    );
}

/// The slices follow in a moment, or not while their watch is down: neither takes the endpoints away.
#[test]
fn a_renamed_port_keeps_its_endpoints_until_the_slices_follow() {
    let mut watched = Watched::new(&["pg"]);
    watched.service(Change::All(vec![service_with_port("pg", "old")]));
    watched.slice(Change::All(vec![slice_with_port("a", "pg", "old", "10.0.0.1", "")]));
    let problem = |watched: &Watched| watched.index.find(&port("pg"), REACHABLE).unwrap().problem;
    assert!(problem(&watched).is_none());
    for name in ["new", "newer"] {
        assert_eq!(names(&watched.service(Change::Set(service_with_port("pg", name)))), ["pg"]);
        assert_eq!(watched.addresses("pg").unwrap(), ["10.0.0.1:1"], "{name}");
        let problem = problem(&watched).unwrap();
        assert!(problem.reason == UNRESOLVED && problem.text.contains("are kept"), "{problem:?}");
    }
    watched.slice(Change::Set(slice_with_port("a", "pg", "newer", "10.0.0.2", "")));
    assert_eq!(watched.addresses("pg").unwrap(), ["10.0.0.2:1"]);
    assert!(problem(&watched).is_none());
    // A name that no slice has any more leads nowhere.
    watched.slice(Change::Set(slice_with_port("a", "pg", "other", "10.0.0.2", "")));
    assert_eq!(watched.addresses("pg").unwrap(), Vec::<String>::new());
}
