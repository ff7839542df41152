//! Services that cannot be followed are told by name, once for each change, and hurt nobody else.

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::{ARRIVES, await_addresses, follow};
use crate::support::endpoints::ip_of;
use crate::support::slices::{bare_service, endpoint, slice};
use crate::support::{Endpoints, Load, Namespace, Release, Wish, figures, within};

/// Upstream, Service, port, and what the problem has to name.
fn broken() -> [(&'static str, &'static str, Value, &'static str); 5] {
    [
        ("absent", "absent", json!(80), "absent"),
        ("external", "external", json!(80), "ExternalName"),
        ("no-port", "web", json!("tlak"), "tlak"),
        ("no-number", "web", json!(81), "81"),
        ("names", "names", json!("talk"), "FQDN"),
    ]
}

#[test]
fn a_broken_service_is_told_by_name_and_hurts_no_other() {
    let namespace = Namespace::create("problems");
    let web = Endpoints::start(&namespace, &Wish::new("web", 1));
    let external =
        json!({"metadata": {"name": "external"}, "spec": {"type": "ExternalName", "externalName": "a.test"}});
    namespace.apply::<Service>(external);
    bare_service(&namespace, "names");
    slice(&namespace, "names-1", "names", 80, &[endpoint("pod.example.test")]);

    let mut upstreams = vec![("web", "web", json!("talk"))];
    upstreams.extend(broken().map(|(upstream, service, port, _)| (upstream, service, port)));
    let release = follow(&namespace, &upstreams);
    let load = Load::start(&namespace, &[]);
    load.await_service(&release.address(8000));
    load.served(&release.address(8000), 10);
    for ((upstream, service, _, named), port) in broken().into_iter().zip(8001..) {
        assert_told(&release, upstream, service, named);
        load.refused_at_once(&release.address(port), 5);
        let outcome = [("listener", upstream), ("outcome", "no_endpoint")];
        let counted = release.metrics().count(crate::support::names::OUTCOMES, &outcome);
        assert_eq!(counted, 5.0, "outcome no_endpoint of {upstream}");
    }
    load.served(&release.address(8000), 10);

    let (mended, ()) = within(|| {
        bare_service(&namespace, "absent");
        let mut with_port = crate::support::slices::bare_service_object("absent");
        with_port["spec"]["ports"][0]["port"] = 80.into();
        namespace.apply::<Service>(with_port);
        let ip = ip_of(&web.pods()[0]);
        slice(&namespace, "absent-1", "absent", 8080, &[endpoint(&ip)]);
        await_addresses(&release, "absent", &[format!("{ip}:8080")]);
    });
    load.served(&release.address(8001), 5);
    let table = release.table();
    assert_eq!(table.upstream("absent").problem(), "", "mended");
    figures!("discovery-problems", broken = broken().len(), mended_ms = mended.as_millis());
}

/// In the table, in the metrics, and in one line of the log.
fn assert_told(release: &Release<'_>, upstream: &str, service: &str, named: &str) {
    let is_told = |table: &crate::support::Table| {
        let problem = table.upstream(upstream).problem().to_owned();
        problem.contains(service) && problem.contains(named)
    };
    release.await_table(&format!("the problem of {upstream} names {service} and {named}"), ARRIVES, is_told);
    let problem = release.metrics().sum(crate::support::names::PROBLEM, &[("upstream", upstream)]);
    assert_eq!(problem, Some(1.0), "a metric says that {upstream} has a problem");
    let log = release.log();
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains(&format!("\"upstream\":\"{upstream}\""))).collect();
    assert_eq!(lines.len(), 1, "one line about {upstream}: {lines:#?}");
}
