//! Ready, serving and terminating: which endpoints take connections, and which only when nobody else does.

use serde_json::json;

use super::{await_addresses, follow};
use crate::support::endpoints::ip_of;
use crate::support::slices::{bare_service, endpoint, endpoint_that_is, slice};
use crate::support::{Endpoints, Load, Namespace, Wish, figures};
use k8s_openapi::api::core::v1::Service;

const NEVER_READY: Wish =
    Wish { name: "slow", replicas: 1, arguments: &["--delay=1h"], port: 8080, service: "slow" };

#[test]
fn conditions_decide_who_takes_connections() {
    let namespace = Namespace::create("conditions");
    let web = Endpoints::start(&namespace, &Wish::new("web", 2));
    let slow = Endpoints::deploy(&namespace, &NEVER_READY);
    publish(&namespace, "patient", false);
    publish(&namespace, "eager", true);
    bare_service(&namespace, "told");
    let ips: Vec<String> = web.pods().iter().map(ip_of).collect();
    let address = |number: usize| format!("{}:8080", ips[number]);
    let tell = |first: &serde_json::Value, second: &serde_json::Value| {
        slice(&namespace, "told-1", "told", 8080, &[endpoint_that_is(&ips[0], first)]);
        slice(&namespace, "told-2", "told", 8080, &[endpoint_that_is(&ips[1], second)]);
    };
    let unset = json!({});
    tell(&unset, &unset);
    let talk = || json!("talk");
    let release = follow(
        &namespace,
        &[("told", "told", talk()), ("patient", "patient", talk()), ("eager", "eager", talk())],
    );
    let load = Load::start(&namespace, &[]);
    load.await_service(&release.address(8000));

    await_addresses(&release, "told", &[address(0), address(1)]);
    load.served(&release.address(8000), 10);

    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    tell(&unset, &leaving);
    await_addresses(&release, "told", &[address(0)]);

    // Without a ready one, who still serves is better than nobody; serving unset means serving.
    tell(&json!({"ready": false, "serving": false}), &json!({"ready": false, "terminating": true}));
    await_addresses(&release, "told", &[address(1)]);
    load.served(&release.address(8000), 5);

    tell(
        &json!({"ready": false, "serving": false}),
        &json!({"ready": false, "serving": false, "terminating": true}),
    );
    let table = await_addresses(&release, "told", &[]);
    assert!(table.upstream("told").problem().contains("told"), "{:?}", table.upstream("told"));
    load.refused_at_once(&release.address(8000), 10);

    slice(&namespace, "told-2", "told", 8080, &[endpoint(&ips[1])]);
    await_addresses(&release, "told", &[address(1)]);
    load.served(&release.address(8000), 5);

    let unready =
        crate::support::eventually_some("the address of a pod that is not ready", super::ARRIVES, || {
            slow.pods().iter().find_map(|pod| pod.status.as_ref()?.pod_ip.clone())
        });
    await_addresses(&release, "eager", &[format!("{unready}:8080")]);
    await_addresses(&release, "patient", &[]);
    figures!("discovery-conditions", changes = 5);
}

/// A Service for pods that are not ready.
fn publish(namespace: &Namespace, name: &str, not_ready_too: bool) {
    let spec = json!({"selector": {"app": "slow"}, "publishNotReadyAddresses": not_ready_too});
    namespace.apply::<Service>(crate::support::endpoints::service(name, &spec));
}
