//! Ports by number and by name, target ports that differ, headless Services, and Services that the user fills.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::json;

use super::{await_addresses, follow};
use crate::support::endpoints::{ip_of, name_of, service};
use crate::support::slices::{bare_service, slice};
use crate::support::{Endpoints, Load, Namespace, Release, Wish, figures};

/// Both speak first.
const ALPHA: Wish =
    Wish { name: "alpha", replicas: 1, arguments: &["--mode=greet"], port: 8080, service: "mixed" };
/// Another port under the same name.
const BETA: Wish =
    Wish { name: "beta", replicas: 1, arguments: &["--mode=greet"], port: 9090, service: "mixed" };

#[test]
fn a_port_of_a_service_leads_to_its_pods() {
    let namespace = Namespace::create("services");
    let alpha = Endpoints::start(&namespace, &ALPHA);
    let beta = Endpoints::start(&namespace, &BETA);
    let (alpha, beta) = (only(alpha.pods()), only(beta.pods()));
    let headless = json!({"clusterIP": "None", "selector": {"service": "mixed"}});
    namespace.apply::<Service>(service("headless", &headless));
    bare_service(&namespace, "filled");
    fill(&namespace, &alpha, &beta);

    let talk = json!("talk");
    let upstreams = [
        ("by-number", "mixed", json!(80)),
        ("by-name", "mixed", talk.clone()),
        ("headless", "headless", talk.clone()),
        ("filled", "filled", talk),
    ];
    let release = follow(&namespace, &upstreams);
    let load = Load::start(&namespace, &[]);
    load.await_service(&release.address(8000));
    let both = [format!("{}:8080", ip_of(&alpha)), format!("{}:9090", ip_of(&beta))];
    for ((upstream, ..), port) in upstreams.iter().zip(8000..) {
        let table = await_addresses(&release, upstream, &both);
        assert_eq!(table.upstream(upstream).problem(), "");
        let served: BTreeSet<String> =
            load.served(&format!("{},greet", release.address(port)), 20).into_iter().collect();
        assert_eq!(served, BTreeSet::from([name_of(&alpha), name_of(&beta)]), "{upstream}");
    }
    assert_places(&release, &alpha);
    figures!("discovery-services", upstreams = upstreams.len(), endpoints = 2);
}

fn only(pods: Vec<Pod>) -> Pod {
    let [pod] = <[Pod; 1]>::try_from(pods).expect("one pod");
    pod
}

/// Two slices with one endpoint each; the first says where it is and whom it is for. The second repeats it.
fn fill(namespace: &Namespace, alpha: &Pod, beta: &Pod) {
    let node = alpha.spec.as_ref().unwrap().node_name.clone();
    let here = json!({
        "addresses": [ip_of(alpha)],
        "zone": "zone-a",
        "nodeName": node,
        "hints": {"forZones": [{"name": "zone-b"}]},
        "conditions": {"ready": true},
    });
    slice(namespace, "filled-1", "filled", 8080, std::slice::from_ref(&here));
    slice(namespace, "filled-2", "filled", 9090, &[json!({"addresses": [ip_of(beta)]})]);
    slice(namespace, "filled-3", "filled", 8080, &[here]);
}

fn assert_places(release: &Release<'_>, alpha: &Pod) {
    let node = alpha.spec.as_ref().unwrap().node_name.clone();
    let table = release.table();
    let address = format!("{}:8080", ip_of(alpha));
    for upstream in ["by-number", "filled"] {
        let endpoints = table.upstream(upstream).endpoints;
        let endpoint = endpoints.iter().find(|endpoint| endpoint.address == address).unwrap();
        assert_eq!(endpoint.node_name, node, "{upstream}: {endpoint:?}");
        if upstream == "filled" {
            assert_eq!(endpoint.zone.as_deref(), Some("zone-a"), "{endpoint:?}");
            assert!(endpoint.hints.to_string().contains("zone-b"), "{endpoint:?}");
        }
    }
}
