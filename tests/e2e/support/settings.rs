//! What the environment says: images, how long, and what to leave out.

use std::env;
use std::path::PathBuf;

use super::say;

pub(crate) fn sheave_image() -> String {
    image("SHEAVE_IMAGE")
}

pub(crate) fn workload_image() -> String {
    image("WORKLOAD_IMAGE")
}

/// The long versions, with the numbers of the promises; otherwise a few minutes for all of them together.
pub(crate) fn is_full() -> bool {
    env::var("SHEAVE_E2E_FULL").is_ok_and(|value| value == "1")
}

/// `SHEAVE_E2E_SKIP=apiserver-outage,ipv6` leaves these out.
pub(crate) fn is_skipped(what: &str) -> bool {
    let is_named =
        env::var("SHEAVE_E2E_SKIP").is_ok_and(|names| names.split(',').any(|name| name.trim() == what));
    if is_named {
        say!("{what} SKIPPED, because SHEAVE_E2E_SKIP names it");
    }
    is_named
}

/// For what this cluster cannot show: a failure, unless it was asked to be left out.
pub(crate) fn skip_or_fail(what: &str, why: &str) {
    if !is_skipped(what) {
        panic!("{what} cannot be tested on this cluster: {why}. SHEAVE_E2E_SKIP={what} leaves it out");
    }
}

/// Whether tests/cluster/cluster made the cluster: then its API server can be stopped.
pub(crate) fn is_own_cluster() -> bool {
    let folder = env::var_os("SHEAVE_CLUSTER_DIR").map(PathBuf::from);
    let kubeconfig = env::var_os("KUBECONFIG").map(PathBuf::from);
    folder.is_some_and(|folder| kubeconfig == Some(folder.join("kubeconfig")))
}

fn image(name: &str) -> String {
    env::var(name)
        .unwrap_or_else(|_| panic!("{name} must name an image that the cluster's nodes have: see `make e2e`"))
}
