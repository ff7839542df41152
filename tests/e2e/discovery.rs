//! Which endpoints an upstream has: what Services and EndpointSlices mean, on the API server that gives them meaning.

mod conditions;
mod families;
mod problems;
mod services;

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::release::{merged, of_service, straight};
use crate::support::{Namespace, Release, Table};

/// From a change in the API to the table: promised is far less, and this machine may be busy.
const ARRIVES: Duration = Duration::from_secs(10);

/// A Sheave that follows these ports of Services, each behind a listener of its own from port 8000 on.
fn follow<'a>(namespace: &'a Namespace, upstreams: &[(&str, &str, Value)]) -> Release<'a> {
    let config = upstreams.iter().zip(8000..).fold(json!({}), |config, ((name, service, port), listener)| {
        merged(config, straight(name, listener, of_service(namespace, service, port.clone())))
    });
    Release::install(namespace, config, json!({}))
}

/// Waits until the upstream has exactly these endpoints.
fn await_addresses(release: &Release<'_>, upstream: &str, addresses: &[String]) -> Table {
    let mut wanted: Vec<&str> = addresses.iter().map(String::as_str).collect();
    wanted.sort_unstable();
    let what = format!("{upstream} has {wanted:?}");
    release.await_table(&what, ARRIVES, |table| table.upstream(upstream).addresses() == wanted)
}
