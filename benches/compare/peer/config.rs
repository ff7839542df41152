//! What each proxy is told: one thread on one core, no log unless it is asked for, room for every connection, all else as it comes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::secure::{Credentials, HOSTNAME};

use super::Addresses;

/// What a configuration is made from.
pub(super) struct Site<'a> {
    pub(super) listen: Addresses,
    /// `None`: it listens for plain connections only.
    pub(super) credentials: Option<&'a Credentials>,
    pub(super) admin: SocketAddr,
    pub(super) endpoints: &'a [SocketAddr],
    pub(super) max_connections: u64,
    /// Whether Sheave also gets a large table to route by.
    pub(super) is_large: bool,
    /// Whether there is to be a line for each connection, as the proxy makes them by itself, to where nobody keeps it.
    pub(super) is_logged: bool,
    /// Where the proxy's files go, all with an extension of their own.
    pub(super) stem: &'a Path,
}

const MANY_ROUTES: usize = 5_000;
const MANY_ENDPOINTS: usize = 10_000;

/// What of Sheave is turned on besides carrying connections.
#[derive(Clone, Copy)]
pub(super) enum Policies {
    None,
    Default,
    All,
}

/// What of Sheave's connections is told, and to whom.
#[derive(Clone, Copy)]
pub(super) struct Observed {
    /// Share of lines and of traces.
    pub(super) share: f64,
    /// Who takes the traces.
    pub(super) receiver: SocketAddr,
}

impl Site<'_> {
    /// `format` of every endpoint and its number, one after the other.
    fn each_endpoint(&self, format: impl Fn(usize, &SocketAddr) -> String) -> String {
        self.endpoints.iter().enumerate().map(|(index, endpoint)| format(index, endpoint)).collect()
    }
}

/// How HAProxy runs.
#[derive(Clone, Copy)]
pub(super) enum Haproxy {
    Default,
    Splice,
    /// It polls without ever waiting.
    Busy,
}

pub(super) fn haproxy(site: &Site<'_>, way: Haproxy) -> String {
    let max = site.max_connections;
    // Unset, haproxy would reserve a pipe for every fourth connection and exceed the limit of open files.
    // splice-auto decides only when the whole stream is processed again, which a plain relay never needs:
    // haproxy 2.6 made not one splice call with it. These two do make it splice.
    let (of_process, option) = match way {
        Haproxy::Default => ("", ""),
        Haproxy::Splice => ("    maxpipes 256\n", "    option splice-request\n    option splice-response\n"),
        Haproxy::Busy => ("    busy-polling\n", ""),
    };
    let (log, lines) = match site.is_logged {
        false => ("", ""),
        true => ("    log stdout format raw daemon\n", "    log global\n    option tcplog\n"),
    };
    let servers = site.each_endpoint(|index, endpoint| format!("    server s{index} {endpoint}\n"));
    let Addresses { plain, tls, sni, .. } = site.listen;
    let secure = site.credentials.map_or_else(String::new, |credentials| {
        format!(
            "listen tls\n    bind {tls} ssl crt {both}\n    balance roundrobin\n    maxconn {max}\n{servers}\
             frontend sni\n    bind {sni}\n    maxconn {max}\n    tcp-request inspect-delay 5s\n\
             \u{20}   tcp-request content accept if {{ req_ssl_hello_type 1 }}\n\
             \u{20}   use_backend sni if {{ req.ssl_sni -i {HOSTNAME} }}\n\
             backend sni\n    balance roundrobin\n{servers}",
            both = credentials.both.display(),
        )
    });
    format!(
        "global\n    nbthread 1\n    maxconn {max}\n{of_process}{log}\
         defaults\n    mode tcp\n{option}{lines}    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n\
         listen bench\n    bind {plain}\n    balance roundrobin\n    maxconn {max}\n{servers}{secure}"
    )
}

pub(super) fn nginx(site: &Site<'_>) -> String {
    // Debian has it apart; where it is built in there is no such file.
    let module = PathBuf::from("/usr/lib/nginx/modules/ngx_stream_module.so");
    let load = if module.is_file() { format!("load_module {};\n", module.display()) } else { String::new() };
    // As root it would become a user that may not write its files here.
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    let servers = site.each_endpoint(|_, endpoint| format!("        server {endpoint};\n"));
    let Addresses { plain, tls, sni, .. } = site.listen;
    let server = |listen: String, more: String| {
        format!(
            "    server {{\n        listen {listen} backlog=4096;\n        proxy_timeout 1h;\n{more}    }}\n"
        )
    };
    let mut blocks = server(plain.to_string(), "        proxy_pass bench;\n".to_owned());
    if let Some(Credentials { certificate, key, .. }) = site.credentials {
        let (certificate, key) = (certificate.display(), key.display());
        let ends = format!(
            "        ssl_certificate {certificate};\n        ssl_certificate_key {key};\n\
             \u{20}       ssl_protocols TLSv1.2 TLSv1.3;\n        ssl_session_cache shared:bench:8m;\n        proxy_pass bench;\n"
        );
        blocks.push_str(&server(format!("{tls} ssl"), ends));
        blocks.push_str(&format!(
            "    map $ssl_preread_server_name $chosen {{\n        {HOSTNAME} bench;\n    }}\n"
        ));
        let routes = "        ssl_preread on;\n        proxy_pass $chosen;\n".to_owned();
        blocks.push_str(&server(sni.to_string(), routes));
    }
    let log = match site.is_logged {
        false => "",
        true => {
            "    log_format connection '$remote_addr:$remote_port [$time_iso8601] $protocol $status $bytes_sent $bytes_received \
             $session_time $upstream_addr';\n    access_log /dev/null connection;\n"
        }
    };
    format!(
        "{load}{user}daemon off;\nworker_processes 1;\nworker_rlimit_nofile {files};\npid {stem}.pid;\nerror_log stderr warn;\n\
         events {{\n    worker_connections {connections};\n}}\n\
         stream {{\n{log}    proxy_connect_timeout 5s;\n    upstream bench {{\n{servers}    }}\n{blocks}}}\n",
        files = 2 * site.max_connections + 500,
        connections = 2 * site.max_connections + 100,
        stem = site.stem.display(),
    )
}

pub(super) fn envoy(site: &Site<'_>) -> String {
    let address = |address: &SocketAddr| {
        format!("{{socket_address: {{address: \"{}\", port_value: {}}}}}", address.ip(), address.port())
    };
    let endpoints = site
        .each_endpoint(|_, endpoint| format!("          - endpoint: {{address: {}}}\n", address(endpoint)));
    let Addresses { plain, tls, sni, .. } = site.listen;
    let log = match site.is_logged {
        false => String::new(),
        true => format!(
            "                access_log:\n                  - name: envoy.access_loggers.file\n                    typed_config:\n\
             \u{20}                     \"@type\": {TYPES}.access_loggers.file.v3.FileAccessLog\n                      path: /dev/null\n"
        ),
    };
    let listener = |name: &str, at: &SocketAddr, filter: &str, chain: &str| {
        format!(
            "\u{20}   - name: {name}\n      address: {at}\n{filter}      filter_chains:\n        - filters:\n\
             \u{20}           - name: envoy.filters.network.tcp_proxy\n              typed_config:\n\
             \u{20}               \"@type\": {TYPES}.filters.network.tcp_proxy.v3.TcpProxy\n\
             \u{20}               stat_prefix: {name}\n                cluster: bench\n{log}{chain}",
            at = address(at),
        )
    };
    let mut listeners = listener("bench", &plain, "", "");
    if let Some(Credentials { certificate, key, .. }) = site.credentials {
        let ends = format!(
            "          transport_socket:\n            name: envoy.transport_sockets.tls\n            typed_config:\n\
             \u{20}             \"@type\": {TYPES}.transport_sockets.tls.v3.DownstreamTlsContext\n\
             \u{20}             common_tls_context:\n                tls_certificates:\n\
             \u{20}                 - certificate_chain: {{filename: \"{}\"}}\n                    private_key: {{filename: \"{}\"}}\n",
            certificate.display(),
            key.display()
        );
        listeners.push_str(&listener("tls", &tls, "", &ends));
        let inspects = format!(
            "      listener_filters:\n        - name: envoy.filters.listener.tls_inspector\n          typed_config:\n\
             \u{20}           \"@type\": {TYPES}.filters.listener.tls_inspector.v3.TlsInspector\n"
        );
        let matches = format!("          filter_chain_match: {{server_names: [{HOSTNAME}]}}\n");
        listeners.push_str(&listener("sni", &sni, &inspects, &matches));
    }
    // Its own default of 1 024 connections would refuse most of the idle ones.
    format!(
        "static_resources:\n  listeners:\n{listeners}\
         \u{20} clusters:\n    - name: bench\n      type: STATIC\n      lb_policy: ROUND_ROBIN\n      connect_timeout: 5s\n\
         \u{20}     circuit_breakers: {{thresholds: [{{max_connections: {max}, max_pending_requests: {max}}}]}}\n\
         \u{20}     load_assignment:\n        cluster_name: bench\n        endpoints:\n        - lb_endpoints:\n{endpoints}",
        max = site.max_connections,
    )
}

const TYPES: &str = "type.googleapis.com/envoy.extensions";

pub(super) fn traefik(site: &Site<'_>, routes: &Path) -> String {
    let Addresses { plain, tls, sni, .. } = site.listen;
    format!(
        "global: {{checkNewVersion: false, sendAnonymousUsage: false}}\nlog: {{level: ERROR}}\n\
         entryPoints:\n  bench: {{address: \"{plain}\"}}\n  tls: {{address: \"{tls}\"}}\n  sni: {{address: \"{sni}\"}}\n\
         providers:\n  file: {{filename: \"{}\", watch: false}}\n",
        routes.display()
    )
}

pub(super) fn traefik_routes(site: &Site<'_>) -> String {
    let servers = site.each_endpoint(|_, endpoint| format!("          - {{address: \"{endpoint}\"}}\n"));
    let router = |name: &str, host: &str, more: &str| {
        format!("    {name}: {{entryPoints: [{name}], rule: \"HostSNI(`{host}`)\", service: bench{more}}}\n")
    };
    let mut routers = router("bench", "*", "");
    let mut certificates = String::new();
    if let Some(Credentials { certificate, key, .. }) = site.credentials {
        routers.push_str(&router("tls", HOSTNAME, ", tls: {}"));
        routers.push_str(&router("sni", HOSTNAME, ", tls: {passthrough: true}"));
        certificates = format!(
            "tls:\n  certificates:\n    - {{certFile: \"{}\", keyFile: \"{}\"}}\n",
            certificate.display(),
            key.display()
        );
    }
    format!(
        "tcp:\n  routers:\n{routers}  services:\n    bench:\n      loadBalancer:\n        servers:\n{servers}{certificates}"
    )
}

pub(super) fn sheave(
    site: &Site<'_>,
    [driver, busy_poll]: [&str; 2],
    policies: Policies,
    observed: Option<Observed>,
) -> String {
    // Older ones that are measured beside this one do not know it.
    let spin = if busy_poll == "0s" { String::new() } else { format!(", busyPoll: {busy_poll}") };
    let told = match observed {
        None => format!("accessLog: {{enabled: {}}}\n", site.is_logged),
        Some(Observed { share, receiver }) => format!(
            "accessLog: {{enabled: true, sample: {share}}}\n\
             tracing: {{enabled: true, endpoint: \"http://{receiver}\", protocol: http/protobuf, sample: {share}}}\n"
        ),
    };
    let (of_listener, of_upstream) = match policies {
        Policies::None => (
            "",
            "    retry: {numRetries: 0}\n\
             \u{20}   circuitBreaker: {perEndpoint: {consecutiveFailures: 0}}\n",
        ),
        Policies::Default => ("", ""),
        Policies::All => (
            ", connection: {limit: 100000, limitPerSource: 100000, ratePerSource: 1000000}",
            "    retry: {hedgeAfter: 900ms}\n\
             \u{20}   circuitBreaker: {maxConnections: 100000, maxPendingConnections: 1000, maxParallelRetries: 100, \
             perEndpoint: {maxConnections: 100000}}\n\
             \u{20}   healthCheck: {passive: {resetWithin: 1s}}\n",
        ),
    };
    let endpoints = site.each_endpoint(|_, endpoint| format!("      - {{address: \"{endpoint}\"}}\n"));
    let Addresses { plain, tls, sni, many } = site.listen;
    let (mut listeners, mut routes) = (String::new(), String::new());
    let mut upstreams = String::new();
    if site.is_large {
        listeners.push_str(&format!("  - {{name: many, address: \"{many}\"}}\n"));
        routes.push_str(&many_routes());
        upstreams.push_str(&many_endpoints(site.endpoints));
    }
    if let Some(Credentials { certificate, key, .. }) = site.credentials {
        let (certificate, key) = (certificate.display(), key.display());
        listeners.push_str(&format!(
            "  - name: tls\n    address: \"{tls}\"\n    protocol: TLS\n\
             \u{20}   tls: {{certificateRefs: [{{file: {{certificate: \"{certificate}\", key: \"{key}\"}}}}]}}\n\
             \u{20} - {{name: sni, address: \"{sni}\", protocol: TLS, tls: {{mode: Passthrough}}}}\n"
        ));
        routes.push_str(&format!(
            "  - {{name: tls, listener: tls, backendRefs: [{{upstream: bench}}]}}\n\
             \u{20} - {{name: sni, listener: sni, hostnames: [{HOSTNAME}], backendRefs: [{{upstream: bench}}]}}\n"
        ));
    }
    format!(
        "workers: {{count: 1, pin: false, driver: {driver}{spin}}}\n\
         admin: {{address: \"{}\"}}\n\
         drain: {{delay: 0s, timeout: 1s}}\n\
         {told}\
         listeners:\n  - {{name: bench, address: \"{plain}\", protocol: TCP{of_listener}}}\n{listeners}\
         routes:\n  - {{name: bench, listener: bench, backendRefs: [{{upstream: bench, weight: 1}}]}}\n{routes}\
         upstreams:\n  - name: bench\n    loadBalancer: {{type: RoundRobin}}\n{of_upstream}    endpoints:\n{endpoints}{upstreams}",
        site.admin
    )
}

/// Routes for networks that no client of the run is in, and one for everyone.
fn many_routes() -> String {
    let of_network = |number: usize| {
        let (high, low) = (number / 250, number % 250);
        format!(
            "  - {{name: many-{number}, listener: many, sources: [10.{high}.{low}.0/24], backendRefs: [{{upstream: many}}]}}\n"
        )
    };
    let routes: String = (0..MANY_ROUTES - 1).map(of_network).collect();
    format!("{routes}  - {{name: many, listener: many, backendRefs: [{{upstream: many}}]}}\n")
}

/// All of loopback is this machine.
fn many_endpoints(endpoints: &[SocketAddr]) -> String {
    let mut text = "  - name: many\n    endpoints:\n".to_owned();
    for number in 0..MANY_ENDPOINTS {
        let port = endpoints[number % endpoints.len()].port();
        text.push_str(&format!(
            "      - {{address: \"127.1.{}.{}:{port}\"}}\n",
            number / 250,
            number % 250 + 1
        ));
    }
    text
}
