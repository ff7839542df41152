//! Right files, and the values they become.

use super::*;

fn config(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const KEEPALIVE: Keepalive =
    Keepalive { idle_time: Duration::from_secs(120), interval: Duration::from_secs(15), probes: 4 };

#[test]
fn defaults_of_the_process() {
    let config = config(BASE);
    let workers = Workers { count: None, pin: true, driver: Driver::Auto, busy_poll: None };
    let admin = Admin { address: "127.0.0.1:9901".parse().unwrap(), allow_changes: false };
    let drain = Drain { delay: seconds(5), timeout: seconds(60) };
    let log = Log { level: LogLevel::Info, format: LogFormat::Json };
    let access_log = AccessLog { enabled: true, sample: 1.0, format: LogFormat::Json };
    assert_eq!(config.workers, workers);
    assert_eq!(config.admin, admin);
    assert_eq!(config.drain, drain);
    assert_eq!(config.limits.max_connections, None);
    let loop_lag = Some(Duration::from_millis(500));
    assert_eq!(config.limits.overload, Overload { memory_percent: NonZeroU32::new(95), loop_lag });
    assert_eq!(config.log, log);
    assert_eq!(config.access_log, access_log);
    let otlp = MetricsOtlp {
        enabled: false,
        endpoint: "http://localhost:4317".to_owned(),
        protocol: OtlpProtocol::Grpc,
        interval: seconds(60),
    };
    assert_eq!(config.metrics, Metrics { per_endpoint: true, otlp });
    let tracing = Tracing {
        enabled: false,
        endpoint: "http://localhost:4317".to_owned(),
        protocol: OtlpProtocol::Grpc,
        sample: 0.1,
        slower_than: Some(seconds(1)),
    };
    assert_eq!(config.tracing, tracing);
}

#[test]
fn defaults_of_a_listener_and_a_route() {
    let config = config(BASE);
    let listener = Listener {
        name: "pg".into(),
        address: "[::]:5432".parse().unwrap(),
        protocol: Protocol::Tcp,
        proxy: None,
        tls: None,
        allow: vec![],
        deny: vec![],
        limit: None,
        sources: None,
        timeouts: ListenerTimeouts {
            idle: Some(seconds(3600)),
            max_duration: None,
            half_close: Some(seconds(60)),
            tls_handshake: seconds(10),
        },
        keepalive: KEEPALIVE,
    };
    let route = Route {
        name: "pg".into(),
        listener: "pg".into(),
        hostnames: Vec::new(),
        sources: vec![],
        alpn: Vec::new(),
        tls_mode: None,
        backends: vec![BackendRef { upstream: "pg".into(), weight: 1 }],
    };
    assert_eq!(config.listeners, [listener]);
    assert_eq!(config.routes, [route]);
}

#[test]
fn defaults_of_an_upstream() {
    let upstream = Upstream {
        name: "pg".into(),
        members: Members::Listed(vec![Endpoint {
            address: "10.0.0.7:5432".parse().unwrap(),
            weight: 1,
            zone: None,
            priority: 0,
        }]),
        load_balancer: LoadBalancer::RoundRobin,
        zone_aware: None,
        slow_start: None,
        timeouts: UpstreamTimeouts { connect: seconds(5), idle: Some(seconds(3600)), max_duration: None },
        keepalive: KEEPALIVE,
        retry: Retry {
            num_retries: 2,
            triggers: RetryTriggers { connect_failure: true, tls_failure: true },
            hedge_after: None,
            per_retry_timeout: Some(seconds(1)),
            base_interval: Duration::from_millis(25),
            max_interval: seconds(1),
            budget_percent: 20,
            budget_floor: 10,
        },
        rebalance: None,
        limits: UpstreamLimits { pending_timeout: Duration::from_secs(1), ..UpstreamLimits::default() },
        breaker: Some(Breaker {
            consecutive_failures: NonZeroU32::new(5).unwrap(),
            base_interval: seconds(1),
            max_interval: seconds(30),
        }),
        health: HealthCheck { panic_threshold: 50, active: None, passive: None },
        proxy: None,
        tls: None,
        drain: UpstreamDrain { timeout: seconds(300), close_per_second: None },
    };
    assert_eq!(config(BASE).upstreams, [upstream]);
}

#[test]
fn least_connections_is_the_default_balancer() {
    let config = config(&upstream("drain: {timeout: 1s}"));
    assert_eq!(config.upstreams[0].load_balancer, LoadBalancer::LeastConnections);
    assert_eq!(config.upstreams[0].drain.timeout, Duration::from_secs(1));
}

#[test]
fn a_slow_start_has_its_window() {
    let window = |text: &str| config(&upstream(&format!("loadBalancer: {text}"))).upstreams[0].slow_start;
    assert_eq!(window("{slowStart: {window: 1m30s}}"), Some(seconds(90)));
    assert_eq!(window("{slowStart: {}}"), None);
}

#[test]
fn there_are_five_ways_of_choosing() {
    let balancer = |name: &str| config(&edit("RoundRobin", name)).upstreams[0].load_balancer;
    assert_eq!(balancer("RoundRobin"), LoadBalancer::RoundRobin);
    assert_eq!(balancer("LeastConnections"), LoadBalancer::LeastConnections);
    assert_eq!(balancer("Random"), LoadBalancer::Random);
    assert_eq!(balancer("PeakEWMA"), LoadBalancer::PeakEwma);
}

#[test]
fn clients_are_hashed_into_a_table_of_a_prime_size() {
    let balancer = |rest: &str| {
        let text = edit("{type: RoundRobin}", &format!("{{type: ConsistentHash{rest}}}"));
        config(&text).upstreams[0].load_balancer
    };
    assert_eq!(balancer(""), LoadBalancer::ConsistentHash { table_size: 65_537 });
    assert_eq!(
        balancer(", consistentHash: {type: SourceIP, tableSize: 1009}"),
        LoadBalancer::ConsistentHash { table_size: 1009 }
    );
}

#[test]
fn zero_means_never() {
    let listener = config(&listener(
        "timeout: {tcp: {idleTimeout: 0s, maxConnectionDuration: 1h30m, halfCloseTimeout: 0s}}",
    ));
    let timeouts = listener.listeners[0].timeouts;
    assert_eq!((timeouts.idle, timeouts.half_close), (None, None));
    assert_eq!(timeouts.max_duration, Some(Duration::from_secs(5400)));
    let upstream =
        config(&upstream("timeout: {tcp: {idleTimeout: 0s}}\n    retry: {perRetry: {timeout: 0s}}"));
    assert_eq!(upstream.upstreams[0].timeouts.idle, None);
    assert_eq!(upstream.upstreams[0].retry.per_retry_timeout, None);
}

#[test]
fn what_is_not_named_is_not_retried() {
    let tcp_and_tls = [
        ("[]", (false, false)),
        ("[tls-failure]", (false, true)),
        ("[connect-failure]", (true, false)),
        ("[tls-failure, connect-failure]", (true, true)),
    ];
    for (triggers, (connect_failure, tls_failure)) in tcp_and_tls {
        // Without connect-failure there is nothing to hedge.
        let hedge_after = if connect_failure { "1s" } else { "0s" };
        let text = format!("hedgeAfter: {hedge_after}, perRetry: {{timeout: 2s}}, triggers: {triggers}");
        let retry = config(&upstream(&format!("retry: {{{text}}}"))).upstreams[0].retry;
        assert_eq!(retry.triggers, RetryTriggers { connect_failure, tls_failure }, "{triggers}");
        assert_eq!(retry.hedge_after, connect_failure.then(|| seconds(1)), "{triggers}");
    }
}

#[test]
fn a_limit_has_its_way_of_being_full() {
    let limit = |field: &str| config(&listener(field)).listeners[0].limit;
    let ten = NonZeroUsize::new(10).unwrap();
    for (written, when_full) in
        [("{limit: 10}", WhenFull::Reset), ("{limit: 10, whenFull: Wait}", WhenFull::Wait)]
    {
        let expected = ConnectionLimit { limit: ten, when_full };
        assert_eq!(limit(&format!("connection: {written}")), Some(expected));
    }
    assert_eq!(limit("connection: {limit: 0}"), None);
}

#[test]
fn either_bound_of_overload_can_be_off() {
    let overload = |field: &str| config(&top(&format!("limits: {{overload: {field}}}"))).limits.overload;
    let (memory_percent, loop_lag) = (NonZeroU32::new(80), Some(Duration::from_millis(500)));
    assert_eq!(overload("{memoryPercent: 80}"), Overload { memory_percent, loop_lag });
    assert_eq!(overload("{memoryPercent: 80, loopLag: 0s}"), Overload { memory_percent, loop_lag: None });
    assert_eq!(
        overload("{memoryPercent: 0, loopLag: 0s}"),
        Overload { memory_percent: None, loop_lag: None }
    );
}

#[test]
fn traces_go_where_the_file_says() {
    let tracing = |text: &str| config(&top(&format!("tracing: {text}"))).tracing;
    let http = tracing("{enabled: true, protocol: http/protobuf, sample: 1, slowerThan: 0s}");
    assert_eq!((http.enabled, http.protocol), (true, OtlpProtocol::HttpProtobuf));
    assert_eq!((&*http.endpoint, http.sample, http.slower_than), ("http://localhost:4318", 1.0, None));
    for endpoint in ["https://otel.example.com", "http://[::1]:4317", "http://[fd00::1]/", "http://a:1/b/c"] {
        assert_eq!(tracing(&format!("{{endpoint: \"{endpoint}\"}}")).endpoint, endpoint);
    }
}

#[test]
fn metrics_go_where_the_file_says() {
    let otlp = |text: &str| config(&top(&format!("metrics: {{otlp: {text}}}"))).metrics.otlp;
    let http = otlp("{enabled: true, protocol: http/protobuf, interval: 1s}");
    assert_eq!((http.enabled, http.protocol), (true, OtlpProtocol::HttpProtobuf));
    assert_eq!((&*http.endpoint, http.interval), ("http://localhost:4318", seconds(1)));
    assert_eq!(otlp("{endpoint: \"https://otel.example.com\"}").endpoint, "https://otel.example.com");
}

#[test]
fn a_client_address_has_limits_of_its_own() {
    let sources = |field: &str| config(&listener(&format!("connection: {field}"))).listeners[0].sources;
    let limit = NonZeroU32::new(100);
    let both = SourceLimit { limit, rate: Some(2.5) };
    assert_eq!(sources("{limitPerSource: 100, ratePerSource: 2.5}"), Some(both));
    assert_eq!(sources("{limitPerSource: 100}"), Some(SourceLimit { rate: None, ..both }));
    assert_eq!(
        sources("{limit: 5, ratePerSource: 2.5, whenFull: Wait}"),
        Some(SourceLimit { limit: None, ..both })
    );
    assert_eq!(sources("{limitPerSource: 0, ratePerSource: 0}"), None);
}

#[test]
fn a_time_to_spin() {
    let busy_poll = |text: &str| config(&top(&format!("workers: {{busyPoll: {text}}}"))).workers.busy_poll;
    assert_eq!(busy_poll("50us"), Some(Duration::from_micros(50)));
    assert_eq!(busy_poll("10ms"), Some(Duration::from_millis(10)));
    assert_eq!(busy_poll("0us"), None);
}

#[test]
fn what_is_off_may_be_written() {
    for text in [
        top("workers: {busyPoll: 0s}"),
        top("limits: {overload: {memoryPercent: 0, loopLag: 0s}}"),
        top("accessLog: {format: json}"),
        top("kubernetes: {enabled: auto, kubeconfig: \"\"}"),
        top("kubernetes: {enabled: false, zone: \"\"}"),
        listener("protocol: TCP"),
        listener("proxyProtocol: {mode: Off, trusted: [10.0.0.0/8]}"),
        listener("connection: {limitPerSource: 0, ratePerSource: 0}"),
        listener("timeout: {tcp: {tlsHandshakeTimeout: 1s}}"),
        route("hostnames: []"),
        endpoint("{address: 10.0.0.7:1, zone: \"\", priority: 0}"),
        listener("connection: {limit: 0, whenFull: Reset}"),
        upstream("retry: {hedgeAfter: 0s, budget: {percent: 0, minRetriesPerSecond: 0}}"),
        upstream("retry: {hedgeAfter: 20ms, budget: {percent: 0}}"),
        upstream("loadBalancer: {type: Random, consistentHash: {type: SourceIP, tableSize: 65537}}"),
        upstream("loadBalancer: {slowStart: {window: 0s}, zoneAware: {preferLocal: false}}"),
        upstream("circuitBreaker: {maxConnections: 0, pendingTimeout: 1s}"),
        upstream("circuitBreaker: {perEndpoint: {consecutiveFailures: 0}}"),
        upstream("healthCheck: {panicThreshold: 0, passive: {consecutiveFailures: 0}}"),
        upstream(
            "healthCheck: {active: {type: HTTP, initialState: Unhealthy, http: {hostname: \"[fd00::8]:80\"}}}",
        ),
        upstream("retry: {budget: {percent: 0, minRetriesPerSecond: 0}}"),
        upstream("rebalance: {percentPerMinute: 0, minAge: 5m, dryRun: true}"),
        upstream("drain: {closePerSecond: 0}"),
    ] {
        config(&text);
    }
}

#[test]
fn rebalancing_is_off_unless_written() {
    let rebalance = |text: &str| config(&upstream(text)).upstreams[0].rebalance;
    assert_eq!(rebalance("rebalance: {minAge: 5m}"), None);
    let expected = Rebalance { percent_per_minute: 2.5, min_age: Duration::from_secs(60), dry_run: false };
    assert_eq!(rebalance("rebalance: {percentPerMinute: 2.5}"), Some(expected));
}

#[test]
fn limits_and_hedging_are_off_unless_written() {
    let config = config(&upstream("retry: {numRetries: 1}"));
    let pg = &config.upstreams[0];
    let limits = pg.limits;
    assert_eq!(
        (limits.max_connections, limits.max_per_endpoint, limits.max_parallel_retries, limits.max_pending),
        (None, None, None, 0)
    );
    assert_eq!(pg.retry.hedge_after, None);
    let written = "retry: {hedgeAfter: 20ms}\n    circuitBreaker: {maxConnections: 9, maxPendingConnections: 8, \
                   pendingTimeout: 7s, maxParallelRetries: 6, perEndpoint: {maxConnections: 5}}";
    let config = self::config(&upstream(written));
    let pg = &config.upstreams[0];
    let expected = UpstreamLimits {
        max_connections: NonZeroUsize::new(9),
        max_per_endpoint: NonZeroUsize::new(5),
        max_pending: 8,
        pending_timeout: Duration::from_secs(7),
        max_parallel_retries: NonZeroUsize::new(6),
    };
    assert_eq!((pg.limits, pg.retry.hedge_after), (expected, Some(Duration::from_millis(20))));
}

#[test]
fn near_endpoints_are_preferred_where_it_is_known_what_is_near() {
    let zone_aware = |kubernetes: &str, upstream: &str, location: Location| {
        let text = format!("{kubernetes}\n{}", self::upstream(upstream));
        let options = ParseOptions { location, ..ParseOptions::default() };
        Config::parse_with(&text, "t.yaml", &options).unwrap().upstreams[0].zone_aware.clone()
    };
    let here = |zone: &str, node: &str| {
        let some = |name: &str| Some(name).filter(|name| !name.is_empty()).map(Name::from);
        Location { zone: some(zone), node: some(node) }
    };
    let expected = |location, min_endpoints| Some(ZoneAware { here: Arc::new(location), min_endpoints });
    assert_eq!(zone_aware("", "retry: {}", here("", "")), None);
    assert_eq!(zone_aware("", "retry: {}", here("b", "n")), expected(here("b", "n"), 3));
    let empty = Location { zone: Some("".into()), node: Some("".into()) };
    assert_eq!(zone_aware("", "retry: {}", empty), None, "a label that is not there");
    let kubernetes = "kubernetes: {zone: a}";
    let wish = "loadBalancer: {zoneAware: {minEndpointsPerZone: 7}}";
    assert_eq!(zone_aware(kubernetes, wish, here("b", "")), expected(here("a", ""), 7), "the file wins");
    let off = "loadBalancer: {zoneAware: {preferLocal: false}}";
    assert_eq!(zone_aware(kubernetes, off, here("b", "n")), None);
}

#[test]
fn endpoints_may_have_a_zone_and_be_spares() {
    let config = config(&endpoint("{address: 10.0.0.7:1, zone: a, priority: 2}"));
    let [endpoint] = config.upstreams[0].members.listed() else { panic!("one endpoint") };
    assert_eq!((endpoint.zone.as_deref(), endpoint.priority), (Some("a"), 2));
}

#[test]
fn probes_are_of_four_kinds() {
    let kind = |text: &str| {
        let config = config(&upstream(&format!("healthCheck: {{active: {{{text}}}}}")));
        config.upstreams[0].health.active.clone().unwrap().kind
    };
    assert_eq!(kind("interval: 1s"), ProbeKind::Tcp);
    assert_eq!(kind("type: TCP"), ProbeKind::Tcp);
    assert_eq!(kind("type: TLS"), ProbeKind::Tls);
    let http = ProbeKind::Http { path: "/".to_owned(), host: None, statuses: vec![200] };
    assert_eq!(kind("type: HTTP"), http);
    assert_eq!(kind("type: GRPC"), ProbeKind::Grpc { service: String::new() });
    let cart = ProbeKind::Grpc { service: "shop.v1.Cart".to_owned() };
    assert_eq!(kind("type: GRPC, grpc: {service: shop.v1.Cart}"), cart);
}

#[test]
fn passive_health_has_defaults_and_a_way_to_be_off() {
    let passive =
        |text: &str| config(&upstream(&format!("healthCheck: {{{text}}}"))).upstreams[0].health.passive;
    let default = PassiveCheck {
        consecutive_failures: NonZeroU32::new(5).unwrap(),
        reset_within: Duration::ZERO,
        base_ejection_time: seconds(30),
        max_ejection_percent: 50,
    };
    assert_eq!(passive("panicThreshold: 50"), None);
    assert_eq!(passive("passive: {consecutiveFailures: 0, resetWithin: 1s}"), None);
    assert_eq!(passive("passive: {}"), Some(default));
    let text = "consecutiveFailures: 2, resetWithin: 150ms, baseEjectionTime: 1m, maxEjectionPercent: 100";
    let expected = PassiveCheck {
        consecutive_failures: NonZeroU32::new(2).unwrap(),
        reset_within: Duration::from_millis(150),
        base_ejection_time: seconds(60),
        max_ejection_percent: 100,
    };
    assert_eq!(passive(&format!("passive: {{{text}}}")), Some(expected));
}

#[test]
fn services_are_named_by_namespace_name_and_port() {
    let members = |port: &str| {
        let text = edit(
            "    endpoints: [{address: \"10.0.0.7:5432\"}]\n",
            &format!(
                "    service: {{namespace: db, name: pg, port: {port}}}\n    drain: {{closePerSecond: 2.5}}\n"
            ),
        );
        let upstream =
            config(&format!("kubernetes: {{enabled: true, kubeconfig: /k}}\n{text}")).upstreams.remove(0);
        assert_eq!(upstream.drain.close_per_second, Some(2.5));
        upstream.members
    };
    let service = |port| Members::Followed(ServicePort { namespace: "db".into(), name: "pg".into(), port });
    assert_eq!(members("5432"), service(PortRef::Number(5432)));
    assert_eq!(members("\"5432\""), service(PortRef::Number(5432)));
    assert_eq!(members("postgres"), service(PortRef::Name("postgres".into())));
}

#[test]
fn a_wildcard_and_one_of_its_addresses_are_two_binds() {
    let text = edit(
        "routes:",
        "  - {name: b, address: 127.0.0.1:5432}\nroutes:\n  - {name: b, listener: b, backendRefs: [{upstream: pg}]}",
    );
    assert_eq!(config(&text).listeners.len(), 2);
}

#[test]
fn port_zero_is_for_tests() {
    let options = ParseOptions { allow_port_zero: true, ..ParseOptions::default() };
    let two = r#""[::]:0"
  - {name: b, address: "[::]:0"}
routes:
  - {name: b, listener: b, backendRefs: [{upstream: pg}]}"#;
    let text = edit("\"[::]:5432\"\nroutes:", two);
    assert!(Config::parse_with(&text, "t.yaml", &options).is_ok());
    assert_eq!(lines(&text).len(), 2);
    assert!(parse(&top("admin: {address: 127.0.0.1:0}")).is_ok());
}

#[test]
fn aliases_and_a_byte_order_mark_are_yaml() {
    let text = endpoint("&a {address: \"10.0.0.7:5432\"}") + "  - {name: other, endpoints: [*a]}\n";
    let config = config(&format!("\u{feff}{text}"));
    assert_eq!(config.upstreams[0].members, config.upstreams[1].members);
}
