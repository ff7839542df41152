//! One look at a process: its table, its counts, and on request who is connected.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::client::{AskError, Client};
use super::counts::Counts;
use super::text::Text;

#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    pub(super) table: Table,
    pub(super) counts: Counts,
    /// `None`: not asked for.
    pub(super) connections: Option<Connections>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Table {
    pub(super) generation: u64,
    pub(super) acknowledged_generations: Vec<u64>,
    pub(super) listeners: Vec<Listener>,
    pub(super) upstreams: Vec<Upstream>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listener {
    pub(super) name: Text,
    pub(super) address: Text,
    pub(super) protocol: Text,
    pub(super) limit: Option<u64>,
    pub(super) routes: Vec<Route>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Route {}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Upstream {
    pub(super) name: Text,
    pub(super) load_balancer: Text,
    pub(super) problem: Option<Problem>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) limit: Option<u64>,
    pub(super) pending: u64,
    pub(super) panics: bool,
    pub(super) leaving: Vec<Endpoint>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Problem {
    pub(super) reason: Text,
    pub(super) text: Text,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint {
    pub(super) address: Text,
    pub(super) weight: u64,
    #[serde(default)]
    pub(super) priority: u64,
    pub(super) active: u64,
    pub(super) limit: Option<u64>,
    pub(super) slow_start_percent: Option<u64>,
    pub(super) connect_millis: Option<f64>,
    #[serde(default)]
    pub(super) unhealthy_by: Vec<Text>,
    pub(super) probe_failure: Option<Text>,
    pub(super) ejected_for_seconds: Option<f64>,
    pub(super) breaker: Option<Text>,
    pub(super) zone: Option<Text>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Connections {
    /// Whether every worker answered in time.
    pub(super) complete: bool,
    pub(super) connections: Vec<Connection>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) worker: u64,
    pub(super) client: Text,
    pub(super) listener: Text,
    pub(super) upstream: Option<Text>,
    pub(super) endpoint: Option<Text>,
    /// What the client asked for in TLS.
    pub(super) server_name: Option<Text>,
    pub(super) age_seconds: f64,
    pub(super) idle_seconds: f64,
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
}

/// Asking for connections makes every worker list its own, so it is done only where they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Nobody,
    /// As many as a person scrolls through.
    Oldest,
    /// As many as the port gives.
    All,
}

impl Reading {
    pub(super) fn take(client: &Client, who: Who) -> Result<Self, AskError> {
        let metrics = client.get("/metrics")?;
        let counts =
            Counts::parse(&metrics).ok_or_else(|| client.foreign("/metrics", "these are not its metrics"))?;
        let table = ask(client, "/table")?;
        let connections = match who {
            Who::Nobody => None,
            Who::Oldest => Some(ask(client, "/connections?limit=1000")?),
            Who::All => Some(ask(client, "/connections?limit=10000")?),
        };
        Ok(Self { table, counts, connections })
    }
}

fn ask<T: DeserializeOwned>(client: &Client, path: &'static str) -> Result<T, AskError> {
    let text = client.get(path)?;
    serde_json::from_str(&text).map_err(|error| client.foreign(path, &error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_absent_or_unknown_are_no_trouble() {
        let text = r#"{"generation": 3, "acknowledgedGenerations": [3], "ofTheFuture": 1, "listeners": [
                {"name": "a", "address": "[::]:1", "protocol": "TCP", "limit": null, "active": 0, "routes": [{"name": "r"}]}],
            "upstreams": [{"name": "u", "loadBalancer": "Random", "problem": {"reason": "r", "text": "t"}, "pending": 0,
                "panics": false, "leaving": [], "endpoints": [
                {"address": "10.0.0.1:1", "weight": 1, "active": 2, "health": "healthy"}]}]}"#;
        let table: Table = serde_json::from_str(text).unwrap();
        assert_eq!((table.generation, table.listeners[0].routes.len()), (3, 1));
        let upstream = &table.upstreams[0];
        assert_eq!(upstream.problem.as_ref().unwrap().text.as_str(), "t");
        let endpoint = &upstream.endpoints[0];
        assert_eq!((endpoint.active, endpoint.priority, &endpoint.breaker), (2, 0, &None));
    }
}
