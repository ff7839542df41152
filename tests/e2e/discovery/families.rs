//! IPv6 and dual-stack Services: a pod with two addresses is one endpoint.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use super::{await_addresses, follow};
use crate::support::cluster::with_kind;
use crate::support::endpoints::{name_of, service};
use crate::support::release::socket;
use crate::support::{Endpoints, Load, Namespace, Wish, figures, is_skipped, skip_or_fail};

#[test]
fn each_pod_of_a_dual_stack_service_is_one_endpoint() {
    if is_skipped("ipv6") {
        return;
    }
    let namespace = Namespace::create("families");
    let ipv6 = ["IPv6"];
    if let Err(error) =
        create(&namespace, "six", &json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ipv6}))
    {
        skip_or_fail("ipv6", &format!("its API server refuses a Service with IPv6: {error}"));
        return;
    }
    let both = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]});
    create(&namespace, "both", &both).expect("a dual-stack Service");
    let both = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]});
    create(&namespace, "six-first", &both).expect("a dual-stack Service");
    let web = Endpoints::start(&namespace, &Wish::new("web", 2));
    let pods = web.pods();
    let talk = || json!("talk");
    let upstreams = [("six", "six", talk()), ("both", "both", talk()), ("six-first", "six-first", talk())];
    let release = follow(&namespace, &upstreams);
    let load = Load::start(&namespace, &[]);
    load.await_service(&release.address(8000));

    let of = |is_v6: bool| pods.iter().map(|pod| socket(&address(pod, is_v6), 8080)).collect::<Vec<_>>();
    await_addresses(&release, "six", &of(true));
    await_addresses(&release, "both", &of(false));
    await_addresses(&release, "six-first", &of(true));
    let names: BTreeSet<String> = pods.iter().map(name_of).collect();
    for port in 8000..8003 {
        let served: BTreeSet<String> = load.served(&release.address(port), 20).into_iter().collect();
        assert_eq!(served, names, "listener {port}");
    }
    let v6_of_sheave = address(&release.pod(), true);
    load.served(&socket(&v6_of_sheave, 8000), 5);
    figures!("discovery-families", upstreams = upstreams.len(), endpoints = pods.len());
}

fn create(namespace: &Namespace, name: &str, families: &Value) -> Result<Service, String> {
    let mut object = with_kind::<Service>(service(name, &json!({"selector": {"app": "web"}})));
    for (key, value) in families.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    let cluster = namespace.cluster();
    let api: Api<Service> = Api::namespaced(cluster.client(), &namespace.name);
    let object: Service = serde_json::from_value(object).unwrap();
    cluster.request(api.create(&PostParams::default(), &object))
}

fn address(pod: &Pod, is_v6: bool) -> String {
    let ips = pod.status.as_ref().and_then(|status| status.pod_ips.clone()).unwrap_or_default();
    let found = ips.into_iter().map(|ip| ip.ip).find(|ip| ip.contains(':') == is_v6);
    found.unwrap_or_else(|| panic!("{} has no address of the family", name_of(pod)))
}
