//! What each proxy is told: one thread on one core, no log, room for every connection, all else as it comes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What a configuration is made from.
pub(super) struct Site<'a> {
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) endpoints: &'a [SocketAddr],
    pub(super) max_connections: u64,
    /// Where the proxy's files go, all with an extension of their own.
    pub(super) stem: &'a Path,
}

/// What of Sheave is turned on besides carrying connections.
#[derive(Clone, Copy)]
pub(super) enum Policies {
    None,
    Default,
    All,
}

impl Site<'_> {
    /// `format` of every endpoint and its number, one after the other.
    fn each_endpoint(&self, format: impl Fn(usize, &SocketAddr) -> String) -> String {
        self.endpoints.iter().enumerate().map(|(index, endpoint)| format(index, endpoint)).collect()
    }
}

pub(super) fn haproxy(site: &Site<'_>, splice: bool) -> String {
    let max = site.max_connections;
    // Unset, haproxy would reserve a pipe for every fourth connection and exceed the limit of open files.
    // splice-auto decides only when the whole stream is processed again, which a plain relay never needs:
    // haproxy 2.6 made not one splice call with it. These two do make it splice.
    let (pipes, option) = if splice {
        ("    maxpipes 256\n", "    option splice-request\n    option splice-response\n")
    } else {
        ("", "")
    };
    let servers = site.each_endpoint(|index, endpoint| format!("    server s{index} {endpoint}\n"));
    format!(
        "global\n    nbthread 1\n    maxconn {max}\n{pipes}\
         defaults\n    mode tcp\n{option}    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n\
         listen bench\n    bind {}\n    balance roundrobin\n    maxconn {max}\n{servers}",
        site.listen
    )
}

pub(super) fn nginx(site: &Site<'_>) -> String {
    // Debian has it apart; where it is built in there is no such file.
    let module = PathBuf::from("/usr/lib/nginx/modules/ngx_stream_module.so");
    let load = if module.is_file() { format!("load_module {};\n", module.display()) } else { String::new() };
    // As root it would become a user that may not write its files here.
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    let servers = site.each_endpoint(|_, endpoint| format!("        server {endpoint};\n"));
    format!(
        "{load}{user}daemon off;\nworker_processes 1;\nworker_rlimit_nofile {files};\npid {stem}.pid;\nerror_log stderr warn;\n\
         events {{\n    worker_connections {connections};\n}}\n\
         stream {{\n    upstream bench {{\n{servers}    }}\n\
         \u{20}   server {{\n        listen {listen} backlog=4096;\n        proxy_connect_timeout 5s;\n        proxy_timeout 1h;\n\
         \u{20}       proxy_pass bench;\n    }}\n}}\n",
        files = 2 * site.max_connections + 500,
        connections = 2 * site.max_connections + 100,
        stem = site.stem.display(),
        listen = site.listen,
    )
}

pub(super) fn envoy(site: &Site<'_>) -> String {
    let address = |address: &SocketAddr| {
        format!("{{socket_address: {{address: \"{}\", port_value: {}}}}}", address.ip(), address.port())
    };
    let endpoints = site
        .each_endpoint(|_, endpoint| format!("          - endpoint: {{address: {}}}\n", address(endpoint)));
    // Its own default of 1 024 connections would refuse most of the idle ones.
    format!(
        "static_resources:\n\
         \u{20} listeners:\n\
         \u{20}   - name: bench\n      address: {listen}\n      filter_chains:\n        - filters:\n\
         \u{20}           - name: envoy.filters.network.tcp_proxy\n              typed_config:\n\
         \u{20}               \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\n\
         \u{20}               stat_prefix: bench\n                cluster: bench\n\
         \u{20} clusters:\n    - name: bench\n      type: STATIC\n      lb_policy: ROUND_ROBIN\n      connect_timeout: 5s\n\
         \u{20}     circuit_breakers: {{thresholds: [{{max_connections: {max}, max_pending_requests: {max}}}]}}\n\
         \u{20}     load_assignment:\n        cluster_name: bench\n        endpoints:\n        - lb_endpoints:\n{endpoints}",
        listen = address(&site.listen),
        max = site.max_connections,
    )
}

pub(super) fn traefik(site: &Site<'_>, routes: &Path) -> String {
    format!(
        "global: {{checkNewVersion: false, sendAnonymousUsage: false}}\nlog: {{level: ERROR}}\n\
         entryPoints:\n  bench: {{address: \"{}\"}}\nproviders:\n  file: {{filename: \"{}\", watch: false}}\n",
        site.listen,
        routes.display()
    )
}

pub(super) fn traefik_routes(site: &Site<'_>) -> String {
    let servers = site.each_endpoint(|_, endpoint| format!("          - {{address: \"{endpoint}\"}}\n"));
    format!(
        "tcp:\n  routers:\n    bench: {{entryPoints: [bench], rule: \"HostSNI(`*`)\", service: bench}}\n\
         \u{20} services:\n    bench:\n      loadBalancer:\n        servers:\n{servers}"
    )
}

pub(super) fn sheave(site: &Site<'_>, driver: &str, policies: Policies) -> String {
    let (of_listener, of_upstream) = match policies {
        Policies::None => (
            "",
            "    retry: {numRetries: 0}\n\
             \u{20}   circuitBreaker: {perEndpoint: {consecutiveFailures: 0}}\n",
        ),
        Policies::Default => ("", ""),
        Policies::All => (
            ", connection: {limit: 100000, limitPerSource: 100000, ratePerSource: 1000000}",
            "    retry: {hedgeAfter: 1s}\n\
             \u{20}   circuitBreaker: {maxConnections: 100000, maxPendingConnections: 1000, maxParallelRetries: 100, \
             perEndpoint: {maxConnections: 100000}}\n\
             \u{20}   healthCheck: {passive: {resetWithin: 1s}}\n",
        ),
    };
    let endpoints = site.each_endpoint(|_, endpoint| format!("      - {{address: \"{endpoint}\"}}\n"));
    format!(
        "workers: {{count: 1, pin: false, driver: {driver}}}\n\
         admin: {{address: \"{}\"}}\n\
         drain: {{delay: 0s, timeout: 1s}}\n\
         accessLog: {{enabled: false}}\n\
         listeners:\n  - {{name: bench, address: \"{}\", protocol: TCP{of_listener}}}\n\
         routes:\n  - {{name: bench, listener: bench, backendRefs: [{{upstream: bench, weight: 1}}]}}\n\
         upstreams:\n  - name: bench\n    loadBalancer: {{type: RoundRobin}}\n{of_upstream}    endpoints:\n{endpoints}",
        site.admin, site.listen
    )
}
