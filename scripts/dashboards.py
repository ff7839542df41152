"""Writes charts/sheave/dashboards/*.json: Grafana's dashboards, from the panels below.

Usage: dashboards.py FOLDER. Standard library only.

A panel answers one question, which its description says, and says what to do about the answer. What they have in common
(variables, exemplars, links to traces, places on the grid) is made here, so that it is the same everywhere.
"""

import json
import pathlib
import sys
import urllib.parse

# What every query is narrowed down to.
INSTANCES = 'namespace=~"$namespace",job=~"$job",instance=~"$instance"'
LISTENER = f'{INSTANCES},listener=~"$listener"'
UPSTREAM = f'{INSTANCES},upstream=~"$upstream"'
# Ends that nobody has to look at (Outcome::is_error says the same).
ORDINARY = "downstream_closed|upstream_closed|idle_timeout|half_close_timeout|max_duration|drain|table_removed|rebalance"
WINDOW = "[$__rate_interval]"

WIDTH = 24
PANEL = {"w": 8, "h": 8}
STAT = {"w": 4, "h": 4}


def rate(metric, by, selector):
    return f"sum by ({by}) (rate({metric}{{{selector}}}{WINDOW}))"


def quantiles(metric, by, selector):
    """The median, and what one in a hundred takes; exemplars lead from there to traces."""
    buckets = f"sum by (le, {by}) (rate({metric}_bucket{{{selector}}}{WINDOW}))"
    labels = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return [(f"histogram_quantile({quantile}, {buckets})", f"{labels} {name}") for quantile, name in ((0.5, "p50"), (0.99, "p99"))]


def mean(metric, by, selector):
    return f"sum by ({by}) (rate({metric}_sum{{{selector}}}{WINDOW})) / sum by ({by}) (rate({metric}_count{{{selector}}}{WINDOW}))"


def top(expression):
    return f"topk(10, {expression})"


def days_left(by):
    return f"min by ({by}) (sheave_certificate_expiry_timestamp_seconds{{{INSTANCES}}} - time()) / 86400"


# (title, unit, what it answers and what to do, [(query, legend)], options)
OVERVIEW = [
    ("Instances", "short", "How many Sheaves answer? Fewer than replicas: see SheaveDown's runbook.",
     [(f"count(sheave_build_info{{{INSTANCES}}})", "")], {"stat": True}),
    ("Live connections", "short", "How many connections are there now?",
     [(f"sum(sheave_worker_active_connections{{{INSTANCES}}})", "")], {"stat": True}),
    ("New connections", "cps", "How many come each second?",
     [(f"sum(rate(sheave_accepted_connections_total{{{INSTANCES}}}{WINDOW}))", "")], {"stat": True}),
    ("Relayed", "Bps", "How much is carried, both directions together?",
     [(f"sum(rate(sheave_worker_bytes_total{{{INSTANCES}}}{WINDOW}))", "")], {"stat": True}),
    ("Failed by endpoints", "percentunit",
     "Which share of connections ends in a failure of an endpoint or the way to it? Above 1 %: 'Upstreams and endpoints' says of which.",
     [(f'sum(rate(sheave_listener_connections_total{{{LISTENER},side="upstream",outcome!="upstream_closed"}}{WINDOW})) '
       f"/ sum(rate(sheave_listener_connections_total{{{LISTENER}}}{WINDOW}))", "")],
     {"stat": True, "red": 0.01}),
    ("Refusing", "short", "Are new connections refused for want of memory or time? 1: see SheaveOverload's runbook.",
     [(f"max(sheave_overload{{{INSTANCES}}})", "")], {"stat": True, "red": 1}),
    ("Ended, by side", "cps", "Who ends connections: clients, endpoints or Sheave itself? A change of the mix is the first thing to see; "
     "the panel beside says how they end.",
     [(rate("sheave_listener_connections_total", "side", LISTENER), "{{side}}")], {"stacked": True}),
    ("Failures, by outcome", "cps", "How do connections fail? The words are those of the access log; docs/operations.md says of each what to do.",
     [(rate("sheave_listener_connections_total", "outcome, side", f'{LISTENER},outcome!~"{ORDINARY}"'), "{{side}}: {{outcome}}")], {}),
    ("Live, by listener", "short", "Where are the connections, and is a listener near its limit? At the limit clients are reset or wait "
     "(connection.whenFull): raise connection.limit, or add replicas.",
     [(f"sum by (listener) (sheave_listener_active_connections{{{LISTENER}}})", "{{listener}}"),
      (f"sum by (listener) (sheave_listener_connection_limit{{{LISTENER}}})", "{{listener}} limit")], {}),
    ("Time to connect", "s", "How long do clients wait for an endpoint, retries included? Slow: open a trace from a dot, its attempts say which "
     "endpoint it was.",
     quantiles("sheave_upstream_connect_seconds", "upstream", INSTANCES), {"traces": "upstream"}),
    ("Time to first byte", "s", "How long do endpoints take to say something once connected? It is theirs, not Sheave's: look at the upstream.",
     quantiles("sheave_upstream_first_byte_seconds", "upstream", INSTANCES), {"traces": "upstream"}),
    ("Length of connections", "s", "How long do connections live? A fall means that something cuts them: compare with 'Failures, by outcome'.",
     quantiles("sheave_listener_connection_duration_seconds", "listener", LISTENER), {"traces": "listener"}),
    ("Routes", "cps", "Which routes carry the load? One that takes nothing has a hostname, source or weight that matches nobody.",
     [(rate("sheave_route_connections_total", "route", INSTANCES), "{{route}}")], {}),
    ("Failures, by route", "cps", "Which routes fail, by their own endpoints? Go on at the upstream behind it (/table says which).",
     [(rate("sheave_route_connections_total", "route, outcome", f'{INSTANCES},outcome!~"{ORDINARY}"'), "{{route}}: {{outcome}}")], {}),
    ("Length of connections, by route", "s", "Whose connections are cut, or last for ever? Compare with the listener's.",
     quantiles("sheave_route_connection_duration_seconds", "route", INSTANCES), {"traces": "route"}),
    ("Carried, by listener", "Bps", "Who carries the bytes? They are counted when a connection ends; 'Relayed' counts while they flow.",
     [(rate("sheave_listener_bytes_total", "listener, direction", LISTENER), "{{listener}} {{direction}}")], {}),
    ("Carried, by route", "Bps", "Which routes carry the bytes? Counted when connections end.",
     [(rate("sheave_route_bytes_total", "route, direction", INSTANCES), "{{route}} {{direction}}")], {}),
    ("TLS handshakes", "cps", "Which TLS do clients speak, and how many resume? Few resumptions cost CPU: clients may not keep tickets.",
     [(rate("sheave_listener_tls_handshakes_total", "version, kind", LISTENER), "{{version}} {{kind}}")], {"stacked": True}),
    ("Time to shake hands", "s", "How long until a client's TLS stands, from accepting on? Slow clients, or workers short of CPU: compare with "
     "'Busy' on the runtime dashboard.",
     quantiles("sheave_listener_tls_handshake_duration_seconds", "listener", LISTENER), {"traces": "listener"}),
    ("Days until certificates end", "short", "Which certificate ends first? Below 14: renew it; Sheave takes the new one over by itself.",
     [(days_left("certificate, kind"), "{{certificate}} ({{kind}})")], {}),
]

UPSTREAMS = [
    ("Connections", "cps", "Which upstreams are used, and how much?",
     [(rate("sheave_upstream_connections_total", "upstream", UPSTREAM), "{{upstream}}")], {}),
    ("Failures by endpoints", "cps", "How do this upstream's connections fail by its own doing? See SheaveUpstreamFailures' runbook.",
     [(rate("sheave_upstream_connections_total", "upstream, outcome", f'{UPSTREAM},side="upstream",outcome!="upstream_closed"'),
       "{{upstream}}: {{outcome}}")], {}),
    ("Live connections", "short", "How full is it? At its limit connections wait or are refused: raise circuitBreaker.maxConnections if "
     "the endpoints can carry more.",
     [(f"sum by (upstream) (sheave_upstream_active_connections{{{UPSTREAM}}})", "{{upstream}}"),
      (f"sum by (upstream) (sheave_upstream_limited_connections{{{UPSTREAM}}})", "{{upstream}} by the limit's measure"),
      (f"sum by (upstream) (sheave_upstream_connection_limit{{{UPSTREAM}}})", "{{upstream}} limit")], {}),
    ("Time to connect", "s", "How long until connected, retries included? A second line of dots far above: some endpoint does not answer.",
     quantiles("sheave_upstream_connect_seconds", "upstream", UPSTREAM), {"traces": "upstream"}),
    ("Time to first byte", "s", "How long do endpoints think before their first byte? Theirs to explain; one of many: see the endpoints below.",
     quantiles("sheave_upstream_first_byte_seconds", "upstream", UPSTREAM), {"traces": "upstream"}),
    ("Carried", "Bps", "How much do they carry? Counted when connections end.",
     [(rate("sheave_upstream_bytes_total", "upstream, direction", UPSTREAM), "{{upstream}} {{direction}}")], {}),
    ("Endpoints", "short", "How many endpoints are there, are healthy, and get new connections first? Healthy far below all: probes or "
     "ejections, see below. Preferred 0: SheaveNoEndpoint's runbook.",
     [(f"min by (upstream) (sheave_upstream_endpoints{{{UPSTREAM}}})", "{{upstream}}"),
      (f"min by (upstream) (sheave_upstream_healthy_endpoints{{{UPSTREAM}}})", "{{upstream}} healthy"),
      (f"min by (upstream) (sheave_upstream_preferred_endpoints{{{UPSTREAM}}})", "{{upstream}} preferred"),
      (f"max by (upstream) (sheave_upstream_leaving_endpoints{{{UPSTREAM}}})", "{{upstream}} leaving")], {}),
    ("Left alone", "short", "How many endpoints are left alone by breakers or ejected? Many at once: the fault is before them, in the network "
     "or in what they all need.",
     [(f"max by (upstream) (sheave_upstream_open_breakers{{{UPSTREAM}}})", "{{upstream}} breakers open"),
      (f"max by (upstream) (sheave_upstream_ejected_endpoints{{{UPSTREAM}}})", "{{upstream}} ejected")], {}),
    ("Panic", "short", "Is health ignored because too few endpoints are healthy? 1: connections go to endpoints that may be dead, on purpose "
     "(healthCheck.panicThreshold).",
     [(f"max by (upstream) (sheave_upstream_panics{{{UPSTREAM}}})", "{{upstream}}")], {"faulty": True}),
    ("Retries", "cps", "How often does the first attempt not do? Refused ones mean that the budget is used up: the upstream is down, not slow.",
     [(rate("sheave_upstream_retries_total", "upstream", UPSTREAM), "{{upstream}}"),
      (rate("sheave_upstream_retries_refused_total", "upstream", UPSTREAM), "{{upstream}} refused"),
      (rate("sheave_upstream_outpaced_attempts_total", "upstream", UPSTREAM), "{{upstream}} outpaced")], {}),
    ("No place", "cps", "How many connections found no place, and why? queue_timeout: endpoints are too slow for the load; full: there is no queue.",
     [(rate("sheave_upstream_rejections_total", "upstream, reason", UPSTREAM), "{{upstream}}: {{reason}}")], {"faulty": True}),
    ("Waiting for a place", "short", "How many connections queue? A queue that is never empty only adds waiting: raise the limit or add endpoints.",
     [(f"sum by (upstream) (sheave_upstream_pending_connections{{{UPSTREAM}}})", "{{upstream}}")], {}),
    ("Probes", "cps", "Do active probes succeed? Failures of one endpoint: its logs; of all: the check's port, path or time limit.",
     [(rate("sheave_upstream_probes_total", "upstream, result", UPSTREAM), "{{upstream}}: {{result}}")], {}),
    ("Rebalancing", "short", "How many connections sit on endpoints that have more than their share, and does that shrink after a scale-out?",
     [(f"sum by (upstream) (sheave_upstream_excess_connections{{{UPSTREAM}}})", "{{upstream}} too many"),
      (f"sum by (upstream) (increase(sheave_upstream_rebalanced_connections_total{{{UPSTREAM}}}[5m]))", "{{upstream}} moved in 5 min")], {}),
    ("TLS handshakes with endpoints", "cps", "Which TLS do endpoints speak, and how many handshakes resume?",
     [(rate("sheave_upstream_tls_handshakes_total", "upstream, version, kind", UPSTREAM), "{{upstream}} {{version}} {{kind}}")], {}),
    ("Busiest endpoints", "cps", "Is the load spread? One that stands out: loadBalancer.type, weights, or clients that hash alike.",
     [(top(rate("sheave_endpoint_connections_total", "upstream, endpoint", UPSTREAM)), "{{upstream}} {{endpoint}}")], {}),
    ("Fullest endpoints", "short", "Who holds the most connections, and how near is that to each one's limit?",
     [(top(f"sum by (upstream, endpoint) (sheave_endpoint_active_connections{{{UPSTREAM}}})"), "{{upstream}} {{endpoint}}"),
      (f"sum by (upstream) (sheave_upstream_endpoint_connection_limit{{{UPSTREAM}}})", "{{upstream}} limit of each")], {}),
    ("Endpoints that fail", "cps", "Which endpoints fail, and how? connect_refused: nothing listens there; connect_timeout: network or an "
     "overflowing backlog; upstream_reset: it crashed or gave up.",
     [(top(rate("sheave_endpoint_failures_total", "upstream, endpoint, outcome", UPSTREAM)), "{{upstream}} {{endpoint}}: {{outcome}}")], {}),
    ("Slowest to connect", "s", "Which endpoints take longest to connect, on average? Far ones, or ones whose backlog is full.",
     [(top(mean("sheave_endpoint_connect_seconds", "upstream, endpoint", UPSTREAM)), "{{upstream}} {{endpoint}}")], {}),
    ("Slowest to answer", "s", "Which endpoints take longest to their first byte, on average? One of many is sick or overloaded: drain it.",
     [(top(mean("sheave_endpoint_first_byte_seconds", "upstream, endpoint", UPSTREAM)), "{{upstream}} {{endpoint}}")], {}),
    ("Endpoints that carry most", "Bps", "Who carries the bytes? Counted when connections end.",
     [(top(rate("sheave_endpoint_bytes_total", "upstream, endpoint", UPSTREAM)), "{{upstream}} {{endpoint}}")], {}),
    ("Endpoints out of use", "short", "Which endpoints get nothing, and by whose verdict? Nothing here is as it should be. Look at the "
     "endpoint's logs; the verdict ends by itself.",
     [(f"max by (upstream, endpoint) (sheave_endpoint_unhealthy{{{UPSTREAM}}})", "{{upstream}} {{endpoint}} unhealthy"),
      (f"max by (upstream, endpoint) (sheave_endpoint_ejected{{{UPSTREAM}}})", "{{upstream}} {{endpoint}} ejected"),
      (f"max by (upstream, endpoint, state) (sheave_endpoint_breaker_state{{{UPSTREAM}}})", "{{upstream}} {{endpoint}} breaker {{state}}")],
     {"faulty": True}),
    ("Ejections and openings", "short", "How often do endpoints fall out of use? One that comes and goes is worse than one that is gone: take it out.",
     [(f"sum by (upstream, endpoint) (increase(sheave_endpoint_ejections_total{{{UPSTREAM}}}[5m]))", "{{upstream}} {{endpoint}} ejected"),
      (f"sum by (upstream, endpoint) (increase(sheave_endpoint_breaker_openings_total{{{UPSTREAM}}}[5m]))", "{{upstream}} {{endpoint}} opened")],
     {"faulty": True}),
]

CONTROL = [
    ("In step with the cluster", "short", "Does every watch hear of changes? 0: endpoints are those known before; SheaveNotSynced's runbook.",
     [(f"min by (watched_namespace, resource) (sheave_kubernetes_synced{{{INSTANCES}}})", "{{watched_namespace}} {{resource}}")], {}),
    ("Last sign of the API server", "s", "How long is the API server silent? It says something every minute; more, and changes are not heard.",
     [(f"max by (watched_namespace, resource) (sheave_kubernetes_last_event_age_seconds{{{INSTANCES}}})", "{{watched_namespace}} {{resource}}")], {}),
    ("Lists and watches that failed", "cps", "Why are watches not in step? docs/kubernetes.md says what each reason means.",
     [(rate("sheave_kubernetes_watch_errors_total", "resource, reason", INSTANCES), "{{resource}}: {{reason}}")], {"faulty": True}),
    ("Propagation", "s", "How long from a change in the cluster, and from hearing of it, until all workers have it? Slow from the change only: "
     "the API server or its controllers; slow from the receipt: SheavePropagationSlow's runbook.",
     quantiles("sheave_propagation_seconds", "from", INSTANCES), {}),
    ("Propagation of reloads", "s", "How long until all workers have a reloaded table? More than a turn of the loop: workers are busy.",
     [(f"histogram_quantile(0.99, sum by (le, instance) (rate(sheave_table_propagation_seconds_bucket{{{INSTANCES}}}[30m])))", "{{instance}} p99")], {}),
    ("Changes without a date", "cps", "Can 'from the change' be believed? absent: nobody dates the slices; skewed: the nodes' clocks differ.",
     [(rate("sheave_propagation_undated_total", "reason", INSTANCES), "{{reason}}")], {}),
    ("Tables published", "cps", "How often do tables change? A storm costs CPU: see what flaps in the cluster.",
     [(f"sum by (instance) (rate(sheave_table_generation{{{INSTANCES}}}{WINDOW}))", "{{instance}} tables"),
      (rate("sheave_upstream_compilations_total", "instance", INSTANCES), "{{instance}} upstreams compiled")], {}),
    ("Tables not yet taken", "short", "Does every worker route by the newest table? Above 0 for long: SheaveTableNotTaken's runbook.",
     [(f"sheave_table_generation{{{INSTANCES}}} - on (namespace, job, instance) group_right () sheave_table_acknowledged_generation{{{INSTANCES}}}",
       "{{instance}} worker {{worker}}")], {}),
    ("Size of the table", "short", "How much is there to route by? Above 20000 endpoints they have no series of their own.",
     [(f"max by (kind) (sheave_table_objects{{{INSTANCES}}})", "{{kind}}"),
      (f"max(sheave_metrics_endpoints_left_out{{{INSTANCES}}})", "endpoints without series")], {}),
    ("Upstreams with a problem", "short", "Which upstreams have not the endpoints that they should have? docs/kubernetes.md says what each reason means.",
     [(f"max by (upstream, reason) (sheave_upstream_problem{{{INSTANCES}}})", "{{upstream}}: {{reason}}")], {"faulty": True}),
    ("Reloads", "short", "Does the configuration load? Failures leave what was there before: /readyz?verbose says what is wrong.",
     [(f"sum by (instance) (increase(sheave_config_reloads_total{{{INSTANCES}}}[5m]))", "{{instance}} published"),
      (f"sum by (instance) (increase(sheave_config_reload_failures_total{{{INSTANCES}}}[5m]))", "{{instance}} failed"),
      (f"1 - sheave_config_last_reload_successful{{{INSTANCES}}}", "{{instance}} last one failed")], {}),
    ("Age of the configuration", "s", "Since when does each instance run what it runs? Replicas that differ for long: one did not reload.",
     [(f"time() - sheave_config_last_reload_success_timestamp_seconds{{{INSTANCES}}}", "{{instance}} in effect"),
      (f"time() - sheave_config_last_reload_timestamp_seconds{{{INSTANCES}}}", "{{instance}} last tried")], {}),
    ("Waiting for a restart", "short", "Which sections of the file changed and need a restart? The chart restarts pods for them by itself.",
     [(f"max by (instance, section) (sheave_config_restart_needed{{{INSTANCES}}})", "{{instance}}: {{section}}")], {"faulty": True}),
    ("Days until certificates end", "short", "Which certificate, authority or list ends first? Below 14: renew it.",
     [(days_left("certificate, kind"), "{{certificate}} ({{kind}})")], {}),
    ("Certificates with a problem", "short", "Which new certificate could not be used, and why? The one before stays in use while there is one.",
     [(f"max by (certificate, kind, reason) (sheave_certificate_problem{{{INSTANCES}}})", "{{certificate}}: {{reason}}"),
      (f"sum by (certificate, kind) (increase(sheave_certificate_load_errors_total{{{INSTANCES}}}[5m]))", "{{certificate}} load errors in 5 min")],
     {}),
    ("Control thread", "percentunit", "How much of a core does following the cluster take? Near 1 changes queue up.",
     [(rate("sheave_control_cpu_seconds_total", "instance", INSTANCES), "{{instance}}")], {}),
]

RUNTIME = [
    ("Busy", "percentunit", "How much of its core does each worker use? Near 1: it is the bottleneck; all of them: add replicas or CPU, "
     "one of them: connections are not spread.",
     [(rate("sheave_worker_cpu_seconds_total", "instance, worker", INSTANCES), "{{instance}} worker {{worker}}")], {}),
    ("Loop lag", "s", "How much later than it should does a worker get to what is due? That is latency for every connection on it: "
     "SheaveLoopLag's runbook.",
     [(f"histogram_quantile(0.99, sum by (le, instance, worker) (rate(sheave_worker_loop_lag_seconds_bucket{{{INSTANCES}}}{WINDOW})))",
       "{{instance}} worker {{worker}} p99")], {}),
    ("Last heartbeat", "s", "Does every loop turn? At 5 s /livez fails and the kubelet restarts the pod.",
     [(f"sheave_worker_heartbeat_age_seconds{{{INSTANCES}}}", "{{instance}} worker {{worker}}")], {}),
    ("Connections by worker", "short", "Are workers even? They even it out by giving new connections away; long ones stay where they are.",
     [(f"sheave_worker_active_connections{{{INSTANCES}}}", "{{instance}} worker {{worker}}")], {}),
    ("Accepted by worker", "cps", "Who accepts, and how much is given away to others?",
     [(rate("sheave_accepted_connections_total", "instance, worker", INSTANCES), "{{instance}} worker {{worker}}"),
      (rate("sheave_worker_given_away_connections_total", "instance, worker", INSTANCES), "{{instance}} worker {{worker}} gave away")], {}),
    ("Accepting stopped", "short", "Do clients wait in the backlog, and for which limit? SheaveAcceptPaused's runbook.",
     [(f"sheave_accept_paused{{{INSTANCES}}}", "{{instance}} worker {{worker}} {{reason}}"),
      (f"sum by (instance, reason) (increase(sheave_accept_pauses_total{{{INSTANCES}}}[5m]))", "{{instance}} pauses in 5 min, {{reason}}"),
      (f"sum by (instance) (increase(sheave_accept_errors_total{{{INSTANCES}}}[5m]))", "{{instance}} errors in 5 min")], {}),
    ("Relayed by worker", "Bps", "Who carries the bytes, as they flow?",
     [(rate("sheave_worker_bytes_total", "instance, worker, direction", INSTANCES), "{{instance}} worker {{worker}} {{direction}}")], {}),
    ("Spliced share", "percentunit", "Which share of the bytes never enters the process? Bulk data should; small messages never do.",
     [(f"sum by (instance) (rate(sheave_worker_spliced_bytes_total{{{INSTANCES}}}{WINDOW})) "
       f"/ sum by (instance) (rate(sheave_worker_bytes_total{{{INSTANCES}}}{WINDOW}))", "{{instance}}")], {}),
    ("Pipes and buffers", "short", "Is something for the data path used up? Shortages mean copies instead of splices, fallbacks mean heap "
     "instead of pooled buffers: more CPU, no loss.",
     [(f"sum by (instance) (sheave_worker_pipes{{{INSTANCES}}})", "{{instance}} pipes"),
      (f"sum by (instance) (increase(sheave_worker_pipe_shortages_total{{{INSTANCES}}}[5m]))", "{{instance}} shortages of pipes in 5 min"),
      (f"sum by (instance) (increase(sheave_worker_buffer_fallbacks_total{{{INSTANCES}}}[5m]))", "{{instance}} fallbacks to heap in 5 min")], {}),
    ("Places", "percentunit", "How full is the process? At 1 new connections wait in the backlog: limits.maxConnections, RLIMIT_NOFILE.",
     [(f"sheave_connection_places_taken{{{INSTANCES}}} / sheave_connection_places_max{{{INSTANCES}}}", "{{instance}} places"),
      (f"sheave_process_open_fds{{{INSTANCES}}} / sheave_process_max_fds{{{INSTANCES}}}", "{{instance}} file descriptors")], {}),
    ("Memory", "bytes", "How much memory is used, and how near is the limit? Above limits.overload.memoryPercent new connections are refused.",
     [(f"sheave_process_resident_memory_bytes{{{INSTANCES}}}", "{{instance}} process"),
      (f"sheave_cgroup_memory_used_bytes{{{INSTANCES}}}", "{{instance}} cgroup"),
      (f"sheave_cgroup_memory_limit_bytes{{{INSTANCES}}}", "{{instance}} limit")], {}),
    ("Refusing", "short", "Are new connections refused, and for want of what? SheaveOverload's runbook.",
     [(f"max by (instance, reason) (sheave_overload{{{INSTANCES}}})", "{{instance}} {{reason}}")], {}),
    ("Processor", "percentunit", "How many cores does the process use, all threads together?",
     [(rate("sheave_process_cpu_seconds_total", "instance", INSTANCES), "{{instance}}")], {}),
    ("Runtimes", "short", "Which runtime did each worker get? epoll where io_uring was expected: the seccomp profile forbids it "
     "(docs/kubernetes.md).",
     [(f"sum by (driver, rung) (sheave_worker_runtime_info{{{INSTANCES}}})", "{{driver}} {{rung}}")], {}),
    ("Versions", "short", "Which versions run? More than one for long: a rollout is stuck.",
     [(f"count by (version) (sheave_build_info{{{INSTANCES}}})", "{{version}}")], {}),
    ("Age and end", "s", "Since when do instances run, and is one draining? Short ages: it restarts, see its log.",
     [(f"sheave_process_uptime_seconds{{{INSTANCES}}}", "{{instance}}"),
      (f'sum by (instance) (sheave_drain_phase{{{INSTANCES},phase!="serving"}})', "{{instance}} leaving or draining (1)")], {}),
    ("Lost records", "short", "Are lines of the access log lost? SheaveRecordsDropped's runbook. Connections are never held up for the log.",
     [(f"sum by (instance) (increase(sheave_worker_records_dropped_total{{{INSTANCES}}}[5m]))", "{{instance}} dropped in 5 min"),
      (f"sum by (instance) (increase(sheave_access_log_lost_lines_total{{{INSTANCES}}}[5m]))", "{{instance}} not written in 5 min")], {}),
    ("Kept", "percentunit", "Which share of ordinary connections has a line in the access log, and a trace? Failed and retried ones are kept "
     "at any share; 0 for traces: tracing is off.",
     [(f"min by (instance) (sheave_access_log_sample{{{INSTANCES}}})", "{{instance}} lines"),
      (f"min by (instance) (sheave_trace_sample{{{INSTANCES}}})", "{{instance}} traces")], {}),
    ("Traces", "cps", "Do spans arrive, and are some lost? See SheaveTracesDropped's runbook. Connections are never held up for them.",
     [(rate("sheave_trace_spans_exported_total", "instance", INSTANCES), "{{instance}} exported"),
      (rate("sheave_trace_spans_dropped_total", "instance, reason", INSTANCES), "{{instance}} lost: {{reason}}"),
      (rate("sheave_trace_export_failures_total", "instance", INSTANCES), "{{instance}} batches failed")], {}),
    ("Spans that wait", "short", "Does the receiver keep up? A queue that is always full loses what comes: lower tracing.sample, or look at the receiver.",
     [(f"sum by (instance) (sheave_trace_spans_queued{{{INSTANCES}}})", "{{instance}}")], {}),
    ("Metrics by OTLP", "short", "Are metrics pushed as well (metrics.otlp), and do they arrive? None of either: they are not pushed. "
     "SheaveMetricExportsFail's runbook.",
     [(f"sum by (instance) (increase(sheave_metrics_exports_total{{{INSTANCES}}}[5m]))", "{{instance}} sent in 5 min"),
      (f"sum by (instance) (increase(sheave_metrics_export_failures_total{{{INSTANCES}}}[5m]))", "{{instance}} failed in 5 min")], {}),
    ("Clients told apart", "short", "How many client addresses are limited one by one? Uncounted ones had no limit: more than 65536 at once.",
     [(f"sum by (instance, listener) (sheave_listener_sources{{{INSTANCES}}})", "{{instance}} {{listener}}"),
      (f"sum by (instance, listener) (increase(sheave_listener_uncounted_connections_total{{{INSTANCES}}}[5m]))",
       "{{instance}} {{listener}} uncounted in 5 min")], {}),
]

DASHBOARDS = [
    ("overview", "Sheave: overview", "Is it well, who ends connections, and where does the time go?", OVERVIEW, ["listener"]),
    ("upstream-endpoint", "Sheave: upstreams and endpoints", "Which upstream or endpoint is it, and what is the matter with it?", UPSTREAMS, ["upstream"]),
    ("control-plane", "Sheave: control plane", "Does Sheave know what it should know, and how soon?", CONTROL, []),
    ("runtime", "Sheave: runtime", "Has the process what it needs: CPU, memory, descriptors, time?", RUNTIME, []),
]


def main(folder):
    for name, title, description, panels, variables in DASHBOARDS:
        text = json.dumps(dashboard(name, title, description, panels, variables), indent=2, ensure_ascii=False)
        pathlib.Path(folder, f"{name}.json").write_text(text + "\n")


def dashboard(name, title, description, panels, variables):
    return {
        "uid": f"sheave-{name}",
        "title": title,
        "description": description,
        "tags": ["sheave"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "links": links(),
        "templating": {"list": templating(variables)},
        "panels": placed([panel(number, *rest) for number, rest in enumerate(panels, 1)]),
    }


def links():
    common = {"icon": "external link", "tooltip": "", "tags": [], "asDropdown": False, "includeVars": False, "keepTime": False}
    others = {"type": "dashboards", "title": "Sheave", "tags": ["sheave"], "asDropdown": True, "includeVars": True, "keepTime": True}
    trace = {"type": "link", "title": "Trace $trace", "url": explore({"queryType": "traceID", "query": "${trace}"})}
    return [{**common, **others, "url": "", "targetBlank": False}, {**common, **trace, "targetBlank": True}]


def templating(variables):
    known = [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {"name": "traces", "label": "Jaeger", "type": "datasource", "query": "jaeger"},
        label_values("namespace", "Namespace", "sheave_build_info"),
        label_values("job", "Job", 'sheave_build_info{namespace=~"$namespace"}'),
        label_values("instance", "Instance", 'sheave_build_info{namespace=~"$namespace",job=~"$job"}'),
    ]
    if "listener" in variables:
        known.append(label_values("listener", "Listener", f"sheave_listener_active_connections{{{INSTANCES}}}"))
    if "upstream" in variables:
        known.append(label_values("upstream", "Upstream", f"sheave_upstream_endpoints{{{INSTANCES}}}"))
    if variables:
        # What traces call Sheave: `service.name`, which the chart makes the release's name.
        known.append({"name": "service", "label": "Service", "type": "textbox", "query": "sheave"})
    known.append({"name": "trace", "label": "Trace id", "type": "textbox", "query": ""})
    return known


def label_values(name, label, series):
    query = f"label_values({series}, {name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"qryType": 1, "query": query, "refId": name},
        # Where nobody gives series this label, "all" still finds them.
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
        "sort": 1,
    }


def panel(number, title, unit, description, queries, options):
    defaults = {"unit": unit, "min": 0}
    stat = options.get("stat", False)
    if "red" in options:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": options["red"]}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    if not stat:
        stacking = {"mode": "normal"} if options.get("stacked") else {"mode": "none"}
        defaults["custom"] = {"drawStyle": "line", "fillOpacity": 10, "showPoints": "never", "stacking": stacking}
    if options.get("faulty"):
        defaults["noValue"] = "None, as it should be"
    if "traces" in options:
        label = options["traces"]
        search = {"queryType": "search", "service": "${service}", "tags": f"sheave.{label}=${{__field.labels.{label}}}"}
        defaults["links"] = [{"title": f"Traces of this {label}", "url": explore(search), "targetBlank": True}]
    made = {
        "id": number,
        "type": "stat" if stat else "timeseries",
        "title": title,
        "description": description,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": dict(STAT if stat else PANEL),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [target(index, query, legend, options) for index, (query, legend) in enumerate(queries)],
    }
    if stat:
        made["options"] = {"colorMode": "value" if "red" in options else "none", "reduceOptions": {"calcs": ["lastNotNull"]}}
    else:
        made["options"] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return made


def target(index, query, legend, options):
    made = {
        "refId": chr(ord("A") + index),
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "editorMode": "code",
        "expr": query,
        "legendFormat": legend or "__auto",
        "range": True,
    }
    if "traces" in options:
        made["exemplar"] = True
    return made


def explore(query):
    """Grafana's address for looking at traces. What it fills in itself must stay as it is."""
    query = {"refId": "A", "datasource": {"type": "jaeger", "uid": "${traces}"}, **query}
    panes = {"traces": {"datasource": "${traces}", "queries": [query], "range": {"from": "${__from}", "to": "${__to}"}}}
    text = urllib.parse.quote(json.dumps(panes, separators=(",", ":")), safe="${}:,._[]")
    return f"/explore?schemaVersion=1&panes={text}"


def placed(panels):
    """Side by side, row by row."""
    x = y = row = 0
    for made in panels:
        place = made["gridPos"]
        if x + place["w"] > WIDTH or (x and place["h"] != row):
            x, y = 0, y + row
        place.update(x=x, y=y)
        x, row = x + place["w"], place["h"]
    return panels


if __name__ == "__main__":
    main(*sys.argv[1:])
