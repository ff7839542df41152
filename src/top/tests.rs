//! A process made of text, looked at in every way.

mod rows;
mod screen;
mod view;

use super::counts::Counts;
use super::reading::Reading;

/// After `seconds`, in which it did `each` of everything a second.
fn reading(seconds: f64, each: f64) -> Reading {
    let count = seconds * each;
    let metrics = format!(
        "sheave_build_info{{version=\"1.2.3\"}} 1
sheave_process_start_time_seconds 1000
sheave_process_uptime_seconds {uptime}
sheave_drain_phase{{phase=\"serving\"}} 1
sheave_connection_places_taken 5
sheave_connection_places_max 1000
sheave_kubernetes_synced{{resource=\"endpointslices\",watched_namespace=\"db\"}} 1
sheave_worker_active_connections{{worker=\"0\"}} 3
sheave_worker_active_connections{{worker=\"1\"}} 2
sheave_worker_runtime_info{{worker=\"0\",driver=\"io_uring\",rung=\"defer\",core=\"0\"}} 1
sheave_accepted_connections_total{{worker=\"0\"}} {count}
sheave_accepted_connections_total{{worker=\"1\"}} {count}
sheave_worker_bytes_total{{worker=\"0\",direction=\"received\"}} {bytes}
sheave_worker_cpu_seconds_total{{worker=\"0\"}} {busy}
sheave_worker_loop_lag_seconds_bucket{{worker=\"0\",le=\"0.1\"}} 0
sheave_worker_loop_lag_seconds_bucket{{worker=\"0\",le=\"0.2\"}} {count}
sheave_worker_loop_lag_seconds_bucket{{worker=\"0\",le=\"+Inf\"}} {count}
sheave_listener_active_connections{{listener=\"front\"}} 5
sheave_listener_connections_total{{listener=\"front\",outcome=\"upstream_closed\",side=\"upstream\"}} {ended}
sheave_listener_connections_total{{listener=\"front\",outcome=\"connect_refused\",side=\"upstream\"}} {count}
sheave_upstream_connections_total{{upstream=\"pg\",outcome=\"connect_refused\",side=\"upstream\"}} {count}
sheave_upstream_retries_total{{upstream=\"pg\"}} {count}
sheave_upstream_connect_seconds_bucket{{le=\"0.001\",upstream=\"pg\"}} {count}
sheave_upstream_connect_seconds_bucket{{le=\"+Inf\",upstream=\"pg\"}} {count}
sheave_endpoint_connections_total{{upstream=\"pg\",endpoint=\"10.0.0.1:1\"}} {count}
sheave_endpoint_failures_total{{upstream=\"pg\",endpoint=\"10.0.0.2:1\",outcome=\"connect_refused\"}} {count}
",
        uptime = 100.0 + seconds,
        bytes = count * 1024.0,
        busy = seconds * 0.5,
        ended = count * 3.0,
    );
    let table = r#"{"generation": 7, "acknowledgedGenerations": [7, 6],
        "listeners": [{"name": "front", "address": "[::]:5432", "protocol": "TCP", "limit": 50, "routes": [{}, {}]}],
        "upstreams": [
            {"name": "empty", "loadBalancer": "Random", "pending": 0, "panics": false, "leaving": [], "endpoints": [],
             "problem": {"reason": "service_missing", "text": "there is no Service db/pg"}},
            {"name": "pg", "loadBalancer": "LeastConnections", "problem": null, "pending": 4, "panics": false,
             "leaving": [{"address": "10.0.0.9:1", "weight": 1, "active": 1}],
             "endpoints": [
                {"address": "10.0.0.1:1", "weight": 1, "active": 4, "breaker": "closed", "connectMillis": 1.5},
                {"address": "10.0.0.2:1", "weight": 1, "active": 0, "breaker": "open", "zone": "a"}]}]}"#;
    let connections = format!(
        r#"{{"complete": true, "connections": [
            {{"id": 123456, "worker": 0, "client": "192.0.2.1:999", "listener": "front", "upstream": "pg",
              "endpoint": "10.0.0.1:1", "ageSeconds": {seconds}, "idleSeconds": 0.5, "bytesReceived": {count}, "bytesSent": 9,
              "serverName": "db.example\u001b[2J"}},
            {{"id": 123457, "worker": 1, "client": "192.0.2.2:999", "listener": "front", "upstream": null,
              "endpoint": null, "ageSeconds": 0.1, "idleSeconds": 0.1, "bytesReceived": 0, "bytesSent": 0}}]}}"#
    );
    Reading {
        table: serde_json::from_str(table).unwrap(),
        counts: Counts::parse(&metrics).unwrap(),
        connections: Some(serde_json::from_str(&connections).unwrap()),
    }
}
