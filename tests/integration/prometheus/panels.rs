//! The dashboards' queries.

use serde_json::Value;

const DASHBOARDS: [&str; 4] = [
    include_str!("../../../charts/sheave/dashboards/overview.json"),
    include_str!("../../../charts/sheave/dashboards/upstream-endpoint.json"),
    include_str!("../../../charts/sheave/dashboards/control-plane.json"),
    include_str!("../../../charts/sheave/dashboards/runtime.json"),
];

/// (where it stands, the query as Grafana asks it when nothing is selected).
pub(super) fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for dashboard in DASHBOARDS {
        let dashboard: Value = serde_json::from_str(dashboard).unwrap();
        let all = dashboard["templating"]["list"].as_array().unwrap().iter().filter_map(|variable| {
            Some((format!("${}", variable["name"].as_str()?), variable["allValue"].as_str()?.to_owned()))
        });
        let all: Vec<(String, String)> = all.collect();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                // Four scrapes and a little: what Grafana makes of it.
                let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "5s");
                let query = all.iter().fold(query, |query, (variable, value)| query.replace(variable, value));
                assert!(!query.contains('$'), "{query}");
                let place = [&dashboard["title"], &panel["title"], &target["refId"]];
                queries.push((place.map(|part| part.as_str().unwrap()).join(": "), query));
            }
        }
    }
    queries
}
