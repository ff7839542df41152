//! What most scenarios begin with: three endpoints, Sheave, and clients that go through its Service.

use std::time::Duration;

use serde_json::{Value, json};

use super::release::{merged, of_service, straight};
use super::report::Target;
use super::{Endpoints, Load, Namespace, Release, Wish, eventually, is_full};

/// Of the listener for the upstream `web`.
pub(crate) const PORT: u16 = 8000;
const SETTLES: Duration = Duration::from_secs(60);

pub(crate) struct Stage<'a> {
    pub(crate) endpoints: Endpoints<'a>,
    pub(crate) release: Release<'a>,
    pub(crate) load: Load<'a>,
}

impl<'a> Stage<'a> {
    /// `config` is added to Sheave's, `values` to the chart's. The load is steady, and counts from zero.
    pub(crate) fn set(namespace: &'a Namespace, config: Value, values: Value) -> Self {
        let endpoints = Endpoints::start(namespace, &Wish::new("web", 3));
        let web = straight("web", PORT, of_service(namespace, "web", "talk"));
        // Connections that fail are logged all the same; the others would have the kubelet rotate the log.
        let quiet = json!({"accessLog": {"sample": 0}});
        let release = Release::install(namespace, merged(merged(web, quiet), config), values);
        let (rate, held) = if is_full() { (300, 200) } else { (100, 50) };
        let target = format!("web={},rate={rate},held={held}", release.address(PORT));
        let load = Load::start(namespace, &[target]);
        load.settle("web");
        Self { endpoints, release, load }
    }

    /// What clients saw, once no pod of an earlier round holds a connection.
    pub(crate) fn settled(&self) -> Target {
        self.endpoints.await_departures();
        let is_steady = |target: &Target| target.held.now == target.held.wanted;
        eventually("all held connections are back", SETTLES, || self.load.target("web"), is_steady)
    }
}
