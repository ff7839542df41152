//! What each proxy is told: how it is best set up to get over failing endpoints, one thread, no log.

use std::net::SocketAddr;

use crate::network::ENDPOINTS;
use crate::peer::Kind;

/// The text, and what such a file's name ends with.
pub(super) fn of(kind: Kind, listen: SocketAddr) -> (String, &'static str) {
    match kind {
        Kind::Haproxy => (haproxy(listen), "cfg"),
        Kind::Envoy => (envoy(listen), "yaml"),
        Kind::Sheave => (sheave(listen, ""), "yaml"),
        Kind::SheaveHedged => (sheave(listen, "    retry: {hedgeAfter: 20ms}\n"), "yaml"),
        Kind::SheaveTuned => (sheave(listen, SHEAVE_TUNED), "yaml"),
        // Without breakers, so that only the choice counts, and patient enough for a SYN that is sent again.
        Kind::Balancer(kind) => {
            let upstream = format!(
                "    loadBalancer: {{type: {kind}}}\n    retry: {{perRetry: {{timeout: 4s}}}}\n\
                 \u{20}   circuitBreaker: {{perEndpoint: {{consecutiveFailures: 0}}}}\n"
            );
            (sheave(listen, &upstream), "yaml")
        }
    }
}

/// `format` of every endpoint and its number, one after the other.
fn each(format: impl Fn(usize, &SocketAddr) -> String) -> String {
    ENDPOINTS.iter().enumerate().map(|(index, endpoint)| format(index, endpoint)).collect()
}

/// Attempts of 250 ms, probes each half second, and what fails is out after two of them or three attempts, however many are left.
const SHEAVE_TUNED: &str = "    retry: {hedgeAfter: 20ms, perRetry: {timeout: 250ms}}
    loadBalancer: {slowStart: {window: 10s}}
    circuitBreaker: {perEndpoint: {consecutiveFailures: 3, openFor: {maxInterval: 1s}}}
    healthCheck:
      panicThreshold: 0
      active: {interval: 500ms, jitter: 0s, timeout: 250ms, unhealthyThreshold: 2, healthyThreshold: 2}
";

fn sheave(listen: SocketAddr, upstream: &str) -> String {
    let endpoints = each(|_, endpoint| format!("      - {{address: \"{endpoint}\"}}\n"));
    format!(
        "workers: {{count: 1, pin: false}}\nadmin: {{address: \"127.0.0.1:6001\"}}\ndrain: {{delay: 0s, timeout: 1s}}\n\
         accessLog: {{enabled: false}}\nlisteners: [{{name: bench, address: \"{listen}\"}}]\n\
         routes: [{{name: bench, listener: bench, backendRefs: [{{upstream: bench}}]}}]\n\
         upstreams:\n  - name: bench\n{upstream}    endpoints:\n{endpoints}"
    )
}

/// `redispatch 1`: each retry at another server, and without the pause of a second.
fn haproxy(listen: SocketAddr) -> String {
    let servers = each(|index, endpoint| format!("    server s{index} {endpoint}\n"));
    format!(
        "global\n    nbthread 1\n    maxconn 9000\n\
         defaults\n    mode tcp\n    timeout connect 250ms\n    timeout check 250ms\n    timeout client 1h\n    timeout server 1h\n\
         \u{20}   retries 2\n    option redispatch 1\n\
         listen bench\n    bind {listen}\n    balance leastconn\n\
         \u{20}   default-server check inter 500ms fall 2 rise 2 observe layer4 error-limit 3 on-error mark-down slowstart 10s\n\
         {servers}"
    )
}

fn envoy(listen: SocketAddr) -> String {
    let address = |address: &SocketAddr| {
        format!("{{socket_address: {{address: \"{}\", port_value: {}}}}}", address.ip(), address.port())
    };
    let endpoints = each(|_, endpoint| format!("          - endpoint: {{address: {}}}\n", address(endpoint)));
    format!(
        "static_resources:
  listeners:
    - name: bench
      address: {listen}
      filter_chains:
        - filters:
            - name: envoy.filters.network.tcp_proxy
              typed_config:
                \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                stat_prefix: bench
                cluster: bench
                max_connect_attempts: 3
  clusters:
    - name: bench
      type: STATIC
      lb_policy: LEAST_REQUEST
      least_request_lb_config: {{slow_start_config: {{slow_start_window: 10s}}}}
      connect_timeout: 0.25s
      common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}
      circuit_breakers: {{thresholds: [{{max_connections: 20000, max_pending_requests: 20000}}]}}
      outlier_detection:
        split_external_local_origin_errors: true
        consecutive_local_origin_failure: 3
        enforcing_local_origin_success_rate: 0
        interval: 0.5s
        base_ejection_time: 5s
        max_ejection_percent: 50
      health_checks:
        - {{timeout: 0.25s, interval: 0.5s, no_traffic_interval: 0.5s, unhealthy_threshold: 2, healthy_threshold: 2, tcp_health_check: {{}}}}
      load_assignment:
        cluster_name: bench
        endpoints:
        - lb_endpoints:
{endpoints}",
        listen = address(&listen),
    )
}
