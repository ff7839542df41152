//! The permission to look is withdrawn while Sheave runs: the last table serves, and everybody can see why it is the last.

use std::time::Duration;

use k8s_openapi::api::rbac::v1::RoleBinding;
use serde_json::{Value, json};

use crate::support::release::{merged, of_service, straight};
use crate::support::slices::{bare_service, endpoint, slice};
use crate::support::{Namespace, Stage, eventually, figures, names, within};

/// A watch that is open stays open: Sheave notices when it opens the next one.
const NOTICED: Duration = Duration::from_secs(120);
const CAUGHT_UP: Duration = Duration::from_secs(10);

#[test]
fn without_permission_the_last_table_serves() {
    let namespace = Namespace::create("permission");
    bare_service(&namespace, "fixed");
    slice(&namespace, "fixed-1", "fixed", 8080, &[endpoint("10.200.0.1")]);
    let fixed = straight("fixed", 8001, of_service(&namespace, "fixed", "talk"));
    let stage = Stage::set(&namespace, merged(fixed, json!({})), json!({}));
    let release = &stage.release;
    let bindings = namespace.list::<RoleBinding>(&release.labels());
    let [binding] =
        <[RoleBinding; 1]>::try_from(bindings).expect("the chart binds one Role in this namespace");
    let name = binding.metadata.name.clone().unwrap();
    let synced = || release.metrics().count(names::SYNCED, &[]);
    let errors_before = release.metrics().count(names::WATCH_ERRORS, &[]);
    let all = synced();
    assert!(all > 0.0, "watches are in step before anything is withdrawn");

    namespace.delete::<RoleBinding>(&name);
    let (noticed, _) = within(|| eventually("a watch is refused", NOTICED, synced, |synced| *synced < all));
    slice(&namespace, "fixed-1", "fixed", 8080, &[endpoint("10.200.0.2")]);
    eventually(
        "errors are counted",
        NOTICED,
        || release.metrics().count(names::WATCH_ERRORS, &[]),
        |errors| *errors > errors_before,
    );
    for resource in ["services", "endpointslices"] {
        let rule = format!("resources: [{resource}], verbs: [list, watch]");
        let says =
            |line: &str| line.contains("forbidden") && line.contains(&namespace.name) && line.contains(&rule);
        let what = format!("the log says that {resource} are forbidden, and which rule to add");
        eventually(&what, NOTICED, || release.log(), |log| log.lines().any(says));
    }
    assert!(
        release.ask(&release.pod(), "readyz").is_ok(),
        "ready without permission, because the last table serves"
    );
    let seen = stage.load.target("web");
    seen.assert_no_failure("without permission");
    assert_eq!(release.table().upstream("web").endpoints.len(), 3);

    namespace.apply::<RoleBinding>(bare(&binding));
    let (caught_up, ()) = within(|| {
        let has_changed =
            |table: &crate::support::Table| table.upstream("fixed").addresses() == ["10.200.0.2:8080"];
        release.await_table("the change that was missed", CAUGHT_UP, has_changed);
    });
    eventually("all watches are in step again", NOTICED, synced, |synced| *synced >= all);
    figures!(
        "permission-withdrawn",
        noticed_seconds = noticed.as_secs_f64(),
        caught_up_seconds = caught_up.as_secs_f64(),
        attempted = seen.attempted,
        failed = seen.failed,
    );
}

/// As somebody would write it who gives it back.
fn bare(binding: &RoleBinding) -> Value {
    let (name, labels) = (&binding.metadata.name, &binding.metadata.labels);
    json!({"metadata": {"name": name, "labels": labels}, "roleRef": binding.role_ref, "subjects": binding.subjects})
}
