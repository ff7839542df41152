//! What needs more than one field to judge.

use super::*;

#[test]
#[rustfmt::skip]
fn references_and_weights() {
    check(&[
        (edit("listener: pg", "listener: gp"), &[
            r#"t.yaml:6: routes[0].listener: there is no listener "gp"; write pg (route "pg")"#,
        ]),
        (edit("listener: pg", "listener: redis"), &[
            r#"t.yaml:6: routes[0].listener: there is no listener "redis"; write pg, or add it under listeners (route "pg")"#,
        ]),
        (edit("{upstream: pg}", "{upstream: pgg}"), &[
            r#"t.yaml:7: routes[0].backendRefs[0].upstream: there is no upstream "pgg"; write pg (route "pg")"#,
        ]),
        (edit("{upstream: pg}", "{upstream: pg, weight: 0}"), &[
            r#"t.yaml:7: routes[0].backendRefs: every weight is 0, so no connection could go anywhere; write a weight of at least 1 (route "pg")"#,
        ]),
        (edit("{upstream: pg}", "{upstream: pg, weight: 1000001}"), &[
            r#"t.yaml:7: routes[0].backendRefs[0].weight: 1000001 is out of range; write a whole number from 0 to 1000000 (route "pg")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn names_and_addresses_that_collide() {
    check(&[
        (address("\"[::]:5432\"\n  - {name: pg, address: \"[::]:5433\"}"), &[
            r#"t.yaml:4: listeners[1].name: "pg" is already the name of listeners[0]; write another name"#,
        ]),
        (address("\"[::]:5432\"\n  - {name: pg2, address: \"[::]:5433\"}"), &[
            r#"t.yaml:4: listeners[1]: no route takes its connections; add a route with listener: pg2 (listener "pg2")"#,
        ]),
        (edit("routes:", "  - {name: b, address: \"[::]:5432\"}\nroutes:\n  - {name: b, listener: b, backendRefs: [{upstream: pg}]}"), &[
            r#"t.yaml:4: listeners[1].address: [::]:5432 is already the address of listeners[0], which only listeners with protocol TLS can share; write another port, or add routes to that listener (listener "b")"#,
        ]),
        (edit("routes:", "  - {name: b, address: \"0.0.0.0:5432\"}\nroutes:\n  - {name: b, listener: b, backendRefs: [{upstream: pg}]}"), &[
            r#"t.yaml:4: listeners[1].address: 0.0.0.0:5432 overlaps listeners[0], because [::] takes IPv4 too; remove one of the two, or write another port (listener "b")"#,
        ]),
        (top("admin: {address: 127.0.0.1:5432}"), &[
            r#"t.yaml:4: listeners[0].address: [::]:5432 overlaps admin.address 127.0.0.1:5432; write another port here or there (listener "pg")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn sources_that_collide() {
    check(&[
        (edit("upstreams:", "  - {name: pg, listener: pg, sources: [10.0.0.0/8], backendRefs: [{upstream: pg}]}\nupstreams:"), &[
            r#"t.yaml:8: routes[1].name: "pg" is already the name of routes[0]; write another name"#,
        ]),
        (edit("upstreams:", "  - {name: b, listener: pg, backendRefs: [{upstream: pg}]}\nupstreams:"), &[
            r#"t.yaml:8: routes[1].sources: every client of listener "pg" is already taken by routes[0]; write the sources this route is for (route "b")"#,
        ]),
        (edit("upstreams:", "  - {name: b, listener: pg, sources: [10.0.0.0/8], backendRefs: [{upstream: pg}]}\n  - {name: c, listener: pg, sources: [fd00::/8, 10.0.0.0/8], backendRefs: [{upstream: pg}]}\nupstreams:"), &[
            r#"t.yaml:9: routes[2].sources[1]: 10.0.0.0/8 of listener "pg" is already taken by routes[1]; remove it from one of the two (route "c")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn endpoints() {
    check(&[
        (endpoint(r#"{address: "10.0.0.7:5432"}, {address: "10.0.0.7:5432"}"#), &[
            r#"t.yaml:10: upstreams[0].endpoints[1].address: 10.0.0.7:5432 is already upstreams[0].endpoints[0]; write it once, with a higher weight if it shall get more (upstream "pg")"#,
        ]),
        (endpoint(""), &[
            r#"t.yaml:9: upstreams[0]: it has no endpoints; write at least one, like endpoints: [{address: 10.0.0.7:5432}], or the Service to follow, like service: {namespace: db, name: pg, port: 5432} (upstream "pg")"#,
        ]),
        (endpoint("{address: 10.0.0.7:1, weight: 0}"), &[
            r#"t.yaml:10: upstreams[0].endpoints: every weight is 0, so no connection could go anywhere; write a weight of at least 1 (upstream "pg")"#,
        ]),
        (endpoint("{address: 10.0.0.7:1, weight: 10001}"), &[
            r#"t.yaml:10: upstreams[0].endpoints[0].weight: 10001 is out of range; write a whole number from 0 to 10000 (upstream "pg")"#,
        ]),
        (edit("    endpoints: [{address: \"10.0.0.7:5432\"}]\n", ""), &[
            r#"t.yaml:9: upstreams[0]: it has no endpoints; write at least one, like endpoints: [{address: 10.0.0.7:5432}], or the Service to follow, like service: {namespace: db, name: pg, port: 5432} (upstream "pg")"#,
        ]),
        (upstream("service: {namespace: db, name: pg, port: 5432}"), &[
            r#"t.yaml:9: upstreams[0]: it has both endpoints and a service; keep one of the two (upstream "pg")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn services() {
    let service = |text: &str| edit("    endpoints: [{address: \"10.0.0.7:5432\"}]\n", &format!("    service: {text}\n"));
    check(&[
        (service("{namespace: db}"), &[
            r#"t.yaml:10: upstreams[0].service.name: missing; write the Service's name (upstream "pg")"#,
            r#"t.yaml:10: upstreams[0].service.port: missing; write the Service's port, its number or its name (upstream "pg")"#,
        ]),
        (service("{namespace: db, name: db/pg, port: 0}"), &[
            r#"t.yaml:10: upstreams[0].service.name: "db/pg" is no name that Kubernetes gives; write 1 to 63 of a-z, 0-9 and -, with no - at either end; the namespace and the name are two fields (upstream "pg")"#,
            r#"t.yaml:10: upstreams[0].service.port: 0 is not a port; write a number from 1 to 65535 (upstream "pg")"#,
        ]),
        (service("{namespace: db, name: pg, port: Post_gres}"), &[
            r#"t.yaml:10: upstreams[0].service.port: "Post_gres" is not a port; write its number, like 5432, or its name in the Service, like postgres (upstream "pg")"#,
        ]),
        (format!("kubernetes: {{enabled: false}}\n{}", service("{namespace: db, name: pg, port: pg}")), &[
            r#"t.yaml:11: upstreams[0].service: kubernetes.enabled is false; write auto or true there, or list endpoints here (upstream "pg")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn bounds() {
    check(&[
        (upstream("timeout: {tcp: {connectTimeout: 0s}}"), &[
            r#"t.yaml:11: upstreams[0].timeout.tcp.connectTimeout: connecting in no time always fails; write how long it may take, like 5s (upstream "pg")"#,
        ]),
        (upstream("tcpKeepalive: {idleTime: 1500ms}"), &[
            r#"t.yaml:11: upstreams[0].tcpKeepalive.idleTime: 1s500ms is not a time the kernel can keep; write whole seconds, from 1s to 32767s (upstream "pg")"#,
        ]),
        (upstream("tcpKeepalive: {probes: 128}"), &[
            r#"t.yaml:11: upstreams[0].tcpKeepalive.probes: 128 is out of range; write a whole number from 1 to 127 (upstream "pg")"#,
        ]),
        (top("limits: {overload: {memoryPercent: 101, loopLag: 9ms}}"), &[
            "t.yaml:1: limits.overload.memoryPercent: 101 is out of range; write a whole number from 0 to 100",
            "t.yaml:1: limits.overload.loopLag: 9ms is how late a loop runs at any time; write 10ms or more, or 0s for no bound",
        ]),
        (listener("connection: {limitPerSource: -1, ratePerSource: 0.0001}"), &[
            r#"t.yaml:4: listeners[0].connection.limitPerSource: -1 is out of range; write a whole number from 0 to 4294967295 (listener "pg")"#,
            r#"t.yaml:4: listeners[0].connection.ratePerSource: 0.0001 is out of range; write a number from 0.001 to 1000000, or 0 for no limit (listener "pg")"#,
        ]),
        (listener("connection: {ratePerSource: -0.0}"), &[
            r#"t.yaml:4: listeners[0].connection.ratePerSource: -0 is out of range; write a number from 0.001 to 1000000, or 0 for no limit (listener "pg")"#,
        ]),
        (listener("connection: {ratePerSource: -1}"), &[
            r#"t.yaml:4: listeners[0].connection.ratePerSource: -1 is out of range; write a number from 0.001 to 1000000, or 0 for no limit (listener "pg")"#,
        ]),
        (upstream("drain: {closePerSecond: -0.0}"), &[
            r#"t.yaml:11: upstreams[0].drain.closePerSecond: -0 is out of range; write a number from 0 (none) to 100000 (upstream "pg")"#,
        ]),
        (upstream("drain: {closePerSecond: -1}"), &[
            r#"t.yaml:11: upstreams[0].drain.closePerSecond: -1 is out of range; write a number from 0 (none) to 100000 (upstream "pg")"#,
        ]),
        (upstream("retry: {numRetries: 101}"), &[
            r#"t.yaml:11: upstreams[0].retry.numRetries: 101 is out of range; write a whole number from 0 to 100 (upstream "pg")"#,
        ]),
        (upstream("retry: {perRetry: {backOff: {maxInterval: 1ms}}}"), &[
            r#"t.yaml:11: upstreams[0].retry.perRetry.backOff.maxInterval: 1ms is less than baseInterval; write 25ms or more (upstream "pg")"#,
        ]),
        (upstream("circuitBreaker: {perEndpoint: {openFor: {baseInterval: 40s}}}"), &[
            r#"t.yaml:11: upstreams[0].circuitBreaker.perEndpoint.openFor.maxInterval: 30s is less than baseInterval; write 40s or more (upstream "pg")"#,
        ]),
        (upstream("circuitBreaker: {perEndpoint: {openFor: {baseInterval: 0s}}}"), &[
            r#"t.yaml:11: upstreams[0].circuitBreaker.perEndpoint.openFor.baseInterval: a breaker that opens for no time never is open; write how long, like 1s, or consecutiveFailures: 0 (upstream "pg")"#,
        ]),
        (upstream("circuitBreaker: {perEndpoint: {consecutiveFailures: 1001}}"), &[
            r#"t.yaml:11: upstreams[0].circuitBreaker.perEndpoint.consecutiveFailures: 1001 is out of range; write a whole number from 0 to 1000 (upstream "pg")"#,
        ]),
        (edit("type: RoundRobin", "type: ConsistentHash, consistentHash: {tableSize: 65536}"), &[
            r#"t.yaml:11: upstreams[0].loadBalancer.consistentHash.tableSize: 65536 is not a prime number; write 65537 (upstream "pg")"#,
        ]),
        (edit("type: RoundRobin", "type: ConsistentHash, consistentHash: {tableSize: 5000010}"), &[
            r#"t.yaml:11: upstreams[0].loadBalancer.consistentHash.tableSize: 5000010 is not a prime number; write 5000011 (upstream "pg")"#,
        ]),
        (edit("type: RoundRobin", "type: ConsistentHash, consistentHash: {tableSize: 7}"), &[
            r#"t.yaml:11: upstreams[0].loadBalancer.consistentHash.tableSize: 7 is out of range; write a whole number from 101 to 5000011 (upstream "pg")"#,
        ]),
        (edit("type: RoundRobin", "type: RoundRobin, consistentHash: {tableSize: 101}"), &[
            r#"t.yaml:11: upstreams[0].loadBalancer.consistentHash.tableSize: only type ConsistentHash has such a table; write that type, or remove this (upstream "pg")"#,
        ]),
        (edit("type: RoundRobin", "type: ConsistentHash, consistentHash: {type: Cookie}"), &[
            r#"t.yaml:11: upstreams[0].loadBalancer.consistentHash.type: "Cookie" is not a known value; write SourceIP (upstream "pg")"#,
        ]),
        (upstream("retry: {budget: {percent: 10001, minRetriesPerSecond: 1000001}}"), &[
            r#"t.yaml:11: upstreams[0].retry.budget.percent: 10001 is out of range; write a whole number from 0 to 10000 (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].retry.budget.minRetriesPerSecond: 1000001 is out of range; write a whole number from 0 to 1000000 (upstream "pg")"#,
        ]),
        (upstream("retry: {triggers: [reset]}"), &[
            r#"t.yaml:11: upstreams[0].retry.triggers[0]: "reset" is not a known value; write connect-failure or tls-failure (upstream "pg")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn health_checks() {
    check(&[
        (upstream("healthCheck: {panicThreshold: 101, active: {interval: 0s, unhealthyThreshold: 0, port: 0}}"), &[
            r#"t.yaml:11: upstreams[0].healthCheck.panicThreshold: 101 is out of range; write a whole number from 0 to 100 (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].healthCheck.active.unhealthyThreshold: 0 is out of range; write a whole number from 1 to 100 (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].healthCheck.active.port: 0 is out of range; write a whole number from 1 to 65535 (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].healthCheck.active.interval: no time at all; write one like 5s (upstream "pg")"#,
        ]),
        (upstream("healthCheck: {active: {type: HTTP, http: {path: healthz, hostname: \"a b\", expectedStatuses: [99]}}}"), &[
            r#"t.yaml:11: upstreams[0].healthCheck.active.http.expectedStatuses[0]: 99 is out of range; write a whole number from 200 to 599 (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].healthCheck.active.http.path: "healthz" is no path; write one that begins with /, like /healthz (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].healthCheck.active.http.hostname: "a b" is no host name; write one like pg.db.svc, with :port if need be (upstream "pg")"#,
        ]),
        (upstream("healthCheck: {active: {type: HTTP, http: {path: \"/a<b\"}}}"), &[
            r#"t.yaml:11: upstreams[0].healthCheck.active.http.path: "/a<b" is no path; write %3C for '<' (upstream "pg")"#,
        ]),
        (upstream("healthCheck: {active: {type: HTTP, http: {path: \"/a?b c\"}}}"), &[
            r#"t.yaml:11: upstreams[0].healthCheck.active.http.path: "/a?b c" is no path; write %20 for ' ' (upstream "pg")"#,
        ]),
        (upstream("healthCheck: {active: {type: HTTP, http: {path: /\u{e9}}}}"), &[
            r#"t.yaml:11: upstreams[0].healthCheck.active.http.path: "/é" is no path; write %C3%A9 for 'é' (upstream "pg")"#,
        ]),
        (upstream(&format!("healthCheck: {{active: {{type: HTTP, http: {{path: /{}}}}}}}", "a".repeat(4_096))), &[
            r#"t.yaml:11: upstreams[0].healthCheck.active.http.path: 4097 bytes are too many; write 4096 or fewer (upstream "pg")"#,
        ]),
        (upstream("healthCheck: {passive: {consecutiveFailures: 1001, baseEjectionTime: 0s, maxEjectionPercent: 0}}"), &[
            r#"t.yaml:11: upstreams[0].healthCheck.passive.consecutiveFailures: 1001 is out of range; write a whole number from 0 to 1000 (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].healthCheck.passive.maxEjectionPercent: 0 is out of range; write a whole number from 1 to 100 (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].healthCheck.passive.baseEjectionTime: who is ejected for no time never is; write how long, like 30s, or consecutiveFailures: 0 (upstream "pg")"#,
        ]),
        (upstream("healthCheck: {active: {http: {path: /healthz}}}"), &[
            r#"t.yaml:11: upstreams[0].healthCheck.active.http: only probes of type HTTP ask for this; write type: HTTP (upstream "pg")"#,
        ]),
        (upstream("healthCheck: {active: {type: TLS, grpc: {service: a}}}"), &[
            r#"t.yaml:11: upstreams[0].healthCheck.active.grpc: only probes of type GRPC ask for this; write type: GRPC (upstream "pg")"#,
        ]),
        (upstream("healthCheck: {active: {type: GRPC, grpc: {service: \"a\\nb\"}}}"), &[
            r#"t.yaml:11: upstreams[0].healthCheck.active.grpc.service: "a\nb" is no name of a service; write one like shop.v1.Cart, or "" for all of it (upstream "pg")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn numbers_are_whole_and_in_the_bounds_of_their_field() {
    check(&[
        (upstream("retry: {numRetries: -1, budget: {percent: 1.5, minRetriesPerSecond: many}}"), &[
            r#"t.yaml:11: upstreams[0].retry.numRetries: -1 is out of range; write a whole number from 0 to 100 (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].retry.budget.percent: 1.5 is not a whole number; write one from 0 to 10000 (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].retry.budget.minRetriesPerSecond: "many" is text; write a whole number from 0 to 1000000 (upstream "pg")"#,
        ]),
        (upstream("healthCheck: {active: {port: 70000, healthyThreshold: 99999999999}}"), &[
            r#"t.yaml:11: upstreams[0].healthCheck.active.port: 70000 is out of range; write a whole number from 1 to 65535 (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].healthCheck.active.healthyThreshold: 99999999999 is out of range; write a whole number from 1 to 100 (upstream "pg")"#,
        ]),
        (upstream("healthCheck: {active: {type: HTTP, http: {expectedStatuses: [-1, 200.5, 200]}}}"), &[
            r#"t.yaml:11: upstreams[0].healthCheck.active.http.expectedStatuses[0]: -1 is out of range; write a whole number from 200 to 599 (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].healthCheck.active.http.expectedStatuses[1]: 200.5 is not a whole number; write one from 200 to 599 (upstream "pg")"#,
        ]),
        (upstream("healthCheck: {active: {type: HTTP, http: {expectedStatuses: []}}}"), &[
            r#"t.yaml:11: upstreams[0].healthCheck.active.http.expectedStatuses: 0 statuses; write from 1 to 100 that mean healthy, like [200] (upstream "pg")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn durations_that_nobody_means() {
    check(&[
        (upstream("healthCheck: {active: {interval: 1h1ms, jitter: 10000h, timeout: 61m}, passive: {resetWithin: 10h, baseEjectionTime: 25h}}"), &[
            r#"t.yaml:11: upstreams[0].healthCheck.active.interval: 1h1ms is too long; write 1h or less (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].healthCheck.active.jitter: 10000h is too long; write 1h or less (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].healthCheck.active.timeout: 1h1m is too long; write 1h or less (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].healthCheck.passive.baseEjectionTime: 25h is too long; write 24h or less (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].healthCheck.passive.resetWithin: 10h is too long; write 1m or less (upstream "pg")"#,
        ]),
        (upstream("timeout: {tcp: {connectTimeout: 2h}}"), &[
            r#"t.yaml:11: upstreams[0].timeout.tcp.connectTimeout: 2h is too long; write 1h or less (upstream "pg")"#,
        ]),
        (upstream("retry: {perRetry: {timeout: 3h, backOff: {maxInterval: 4h}}}"), &[
            r#"t.yaml:11: upstreams[0].retry.perRetry.backOff.maxInterval: 4h is too long; write 1h or less (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].retry.perRetry.timeout: 3h is too long; write 1h or less (upstream "pg")"#,
        ]),
        (upstream("circuitBreaker: {pendingTimeout: 2h, perEndpoint: {openFor: {maxInterval: 2h}}}"), &[
            r#"t.yaml:11: upstreams[0].circuitBreaker.pendingTimeout: 2h is too long; write 1h or less (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].circuitBreaker.perEndpoint.openFor.maxInterval: 2h is too long; write 1h or less (upstream "pg")"#,
        ]),
        (edit("type: RoundRobin", "type: RoundRobin, slowStart: {window: 25h}"), &[
            r#"t.yaml:11: upstreams[0].loadBalancer.slowStart.window: 25h is too long; write 24h or less (upstream "pg")"#,
        ]),
        (upstream("drain: {timeout: 721h}"), &[
            r#"t.yaml:11: upstreams[0].drain.timeout: 721h is too long; write 720h or less (upstream "pg")"#,
        ]),
        (upstream("rebalance: {percentPerMinute: 5, minAge: 721h}"), &[
            r#"t.yaml:11: upstreams[0].rebalance.minAge: 721h is too long; write 720h or less (upstream "pg")"#,
        ]),
        (listener("timeout: {tcp: {tlsHandshakeTimeout: 2h}}"), &[
            r#"t.yaml:4: listeners[0].timeout.tcp.tlsHandshakeTimeout: 2h is too long; write 1h or less (listener "pg")"#,
        ]),
        (top("drain: {delay: 25h, timeout: 100h}"), &[
            "t.yaml:1: drain.delay: 25h is too long; write 24h or less",
            "t.yaml:1: drain.timeout: 100h is too long; write 24h or less",
        ]),
        (top("limits: {overload: {loopLag: 2m}}"), &[
            "t.yaml:1: limits.overload.loopLag: 2m is too long; write 1m or less",
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn lists_of_nothing() {
    check(&[
        (edit("listeners:\n  - name: pg\n    address", "listenerz:\n  - name: pg\n    address"), &[
            "t.yaml:1: listenerz: there is no such field; write listeners",
        ]),
        (edit("listeners:\n  - name: pg\n    address: \"[::]:5432\"\n", "listeners: []\n"), &[
            "t.yaml:1: listeners: the list is empty, so nothing would listen; write at least one listener",
            r#"t.yaml:4: routes[0].listener: there is no listener "pg"; add it under listeners (route "pg")"#,
        ]),
    ]);
}
