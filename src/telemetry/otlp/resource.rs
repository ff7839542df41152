//! What the traces and metrics are of: this process, its host, and the pod that it runs in.
//!
//! The chart says the pod's names in `OTEL_RESOURCE_ATTRIBUTES`, as any injected environment does.

use std::collections::BTreeMap;
use std::fs;

use crate::telemetry::identity;

/// `environment` wins over what is known here.
pub(super) fn of_this_process(environment: &[(String, String)]) -> BTreeMap<String, String> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    attributes(host.trim(), environment)
}

fn attributes(host: &str, environment: &[(String, String)]) -> BTreeMap<String, String> {
    let own = [
        ("host.name", host.to_owned()),
        ("service.instance.id", identity::instance()),
        ("service.name", "sheave".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("telemetry.sdk.language", "rust".to_owned()),
        // No other library makes what is sent.
        ("telemetry.sdk.name", "sheave".to_owned()),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let own = own.into_iter().filter(|(_, value)| !value.is_empty());
    let own = own.map(|(key, value)| (key.to_owned(), value));
    own.chain(environment.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_wins_over_what_is_known() {
        let environment = [("service.name", "edge"), ("k8s.pod.name", "sheave-0"), ("service.name", "own")];
        let environment = environment.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let attributes = attributes("node-1", &environment);
        let get = |key: &str| attributes.get(key).map(String::as_str);
        assert_eq!(get("service.name"), Some("own"), "the last one");
        assert_eq!((get("host.name"), get("k8s.pod.name")), (Some("node-1"), Some("sheave-0")));
        assert_eq!(get("service.instance.id").map(str::len), Some(16));
        let library = ["name", "language", "version"].map(|part| get(&format!("telemetry.sdk.{part}")));
        assert_eq!(library, [Some("sheave"), Some("rust"), Some(env!("CARGO_PKG_VERSION"))]);
    }
}
