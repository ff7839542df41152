//! What `/table` says: the one place that knows its form.

use serde::Deserialize;
use serde_json::Value;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Table {
    pub(crate) generation: u64,
    pub(crate) upstreams: Vec<Upstream>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Upstream {
    pub(crate) name: String,
    /// Why it has not the endpoints that it should have.
    problem: Option<Problem>,
    pub(crate) endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Endpoint {
    pub(crate) address: String,
    pub(crate) zone: Option<String>,
    pub(crate) node_name: Option<String>,
    /// Zones or nodes, in whatever form they are shown.
    pub(crate) hints: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Problem {
    text: String,
}

impl Table {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("{error} in {text}"))
    }

    /// One that is configured and absent has no endpoint, which is what a test then sees.
    pub(crate) fn upstream(&self, name: &str) -> Upstream {
        self.upstreams.iter().find(|upstream| upstream.name == name).cloned().unwrap_or_default()
    }

    pub(crate) fn endpoint_count(&self) -> usize {
        self.upstreams.iter().map(|upstream| upstream.endpoints.len()).sum()
    }
}

impl Upstream {
    /// In order.
    pub(crate) fn addresses(&self) -> Vec<&str> {
        let mut addresses: Vec<&str> =
            self.endpoints.iter().map(|endpoint| endpoint.address.as_str()).collect();
        addresses.sort_unstable();
        addresses
    }

    /// In words; empty when there is none.
    pub(crate) fn problem(&self) -> &str {
        self.problem.as_ref().map_or("", |problem| &problem.text)
    }
}
