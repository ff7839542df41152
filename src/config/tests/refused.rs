//! What is known but not supported yet is refused by name.

use super::*;

#[test]
#[rustfmt::skip]
fn listeners_and_routes() {
    check(&[
        (listener("protocol: UDP"), &[
            r#"t.yaml:4: listeners[0].protocol: UDP is not supported yet; write TCP or TLS (listener "pg")"#,
        ]),
        (listener("protocol: HTTP"), &[
            r#"t.yaml:4: listeners[0].protocol: "HTTP" is not a known value; write TCP, TLS or UDP (listener "pg")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn waiting_where_nothing_is_ever_full() {
    let message = r#"t.yaml:4: listeners[0].connection.whenFull: without limit it is never full, and who is above another limit is reset; write limit too, or Reset (listener "pg")"#;
    check(&[
        (listener("connection: {limitPerSource: 5, whenFull: Wait}"), &[message]),
        (listener("connection: {limit: 0, whenFull: Wait}"), &[message]),
        (listener("connection: {limit: 1.5, whenFull: Wait}"), &[
            r#"t.yaml:4: listeners[0].connection.limit: 1.5 is not a whole number; write one from 0 to 4294967295 (listener "pg")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn upstreams() {
    check(&[
        (edit("type: RoundRobin", "type: RoundRobin, zoneAware: {minEndpointsPerZone: 0}"), &[
            r#"t.yaml:11: upstreams[0].loadBalancer.zoneAware.minEndpointsPerZone: 0 is out of range; write a whole number from 1 to 1000000 (upstream "pg")"#,
        ]),
        (endpoint("{address: 10.0.0.7:1, zone: [a], priority: 101}"), &[
            r#"t.yaml:10: upstreams[0].endpoints[0].zone: this is a list; write text in quotes (upstream "pg")"#,
            r#"t.yaml:10: upstreams[0].endpoints[0].priority: 101 is out of range; write a whole number from 0 to 100 (upstream "pg")"#,
        ]),
        (upstream("retry: {hedgeAfter: 10}"), &[
            r#"t.yaml:11: upstreams[0].retry.hedgeAfter: 10 has no unit; write 10s for seconds, or use ms, m or h (upstream "pg")"#,
        ]),
        (upstream("timeout: {tcp: {connectTimeout: 2s}}\n    retry: {hedgeAfter: 2s, perRetry: {timeout: 0s}}"), &[
            r#"t.yaml:12: upstreams[0].retry.hedgeAfter: no attempt lasts longer than connectTimeout, 2s; write less than that, or 0s (upstream "pg")"#,
        ]),
        (upstream("retry: {hedgeAfter: 1s}"), &[
            r#"t.yaml:11: upstreams[0].retry.hedgeAfter: no attempt lasts longer than perRetry.timeout, 1s; write less than that, or 0s (upstream "pg")"#,
        ]),
        (upstream("retry: {hedgeAfter: 20ms, triggers: [tls-failure]}"), &[
            r#"t.yaml:11: upstreams[0].retry.hedgeAfter: nothing is hedged that is not retried on connect-failure; add that to triggers, or write 0s (upstream "pg")"#,
        ]),
        (upstream("retry: {hedgeAfter: 20ms, triggers: [connect-failur]}"), &[
            r#"t.yaml:11: upstreams[0].retry.triggers[0]: "connect-failur" is not a known value; write connect-failure (upstream "pg")"#,
        ]),
        (upstream("retry: {hedgeAfter: 20ms, budget: {percent: 0, minRetriesPerSecond: 0}}"), &[
            r#"t.yaml:11: upstreams[0].retry.hedgeAfter: nothing is hedged without a budget; write budget.percent or budget.minRetriesPerSecond above 0, or 0s here (upstream "pg")"#,
        ]),
        (upstream("retry: {hedgeAfter: 20ms, budget: {percent: some, minRetriesPerSecond: 0}}"), &[
            r#"t.yaml:11: upstreams[0].retry.budget.percent: "some" is text; write a whole number from 0 to 10000 (upstream "pg")"#,
        ]),
        (upstream("circuitBreaker: {maxConnections: many}"), &[
            r#"t.yaml:11: upstreams[0].circuitBreaker.maxConnections: "many" is text; write a whole number from 0 to 4294967295 (upstream "pg")"#,
        ]),
        (upstream("circuitBreaker: {maxPendingConnections: 5, perEndpoint: {consecutiveFailures: 1}}"), &[
            r#"t.yaml:11: upstreams[0].circuitBreaker.maxPendingConnections: without a limit there is no place to wait for; write maxConnections or perEndpoint.maxConnections too, or 0 (upstream "pg")"#,
        ]),
        (upstream("circuitBreaker: {maxConnections: 5, maxPendingConnections: 2000000, pendingTimeout: 0s}"), &[
            r#"t.yaml:11: upstreams[0].circuitBreaker.maxPendingConnections: 2000000 is out of range; write a whole number from 0 to 1000000 (upstream "pg")"#,
            r#"t.yaml:11: upstreams[0].circuitBreaker.pendingTimeout: waiting for no time is no waiting; write how long, like 1s, or maxPendingConnections: 0 (upstream "pg")"#,
        ]),
        (upstream("circuitBreaker: {maxConections: 5}"), &[
            r#"t.yaml:11: upstreams[0].circuitBreaker.maxConections: there is no such field; write maxConnections (upstream "pg")"#,
        ]),
        (upstream("loadBalancer: {type: ConsistentHash}\n    rebalance: {percentPerMinute: 1}"), &[
            r#"t.yaml:12: upstreams[0].rebalance: with type ConsistentHash clients come back to the endpoint that they belong to; remove it, or write another type (upstream "pg")"#,
        ]),
        (upstream("loadBalancer: {type: PeakEWMA}\n    rebalance: {percentPerMinute: 1}"), &[
            r#"t.yaml:12: upstreams[0].rebalance: with type PeakEWMA slow endpoints have fewer connections on purpose; remove it, or write another type (upstream "pg")"#,
        ]),
        (upstream("rebalance: {dryRun: true}"), &[
            r#"t.yaml:11: upstreams[0].rebalance.percentPerMinute: missing, so that nothing would be counted; write how much may be closed, like 5, or 0 for none (upstream "pg")"#,
        ]),
        (upstream("rebalance: {percentPerMinute: -0.0}"), &[
            r#"t.yaml:11: upstreams[0].rebalance.percentPerMinute: -0 is out of range; write a number from 0 (never) to 6000 (upstream "pg")"#,
        ]),
        (upstream("rebalance: {percentPerMinute: -1}"), &[
            r#"t.yaml:11: upstreams[0].rebalance.percentPerMinute: -1 is out of range; write a number from 0 (never) to 6000 (upstream "pg")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn the_process() {
    check(&[
        (top("accessLog: {format: xml}"), &[
            r#"t.yaml:1: accessLog.format: "xml" is not a known value; write json or text"#,
        ]),
    ]);
}
