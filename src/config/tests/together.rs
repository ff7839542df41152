//! Many mistakes in one file are reported together, in the order of its lines.

use super::*;

const TEXT: &str = r#"worker:
  count: 4
drain:
  delay: 30
  timeout: 60s
  timeout: 2m
listeners:
  - name: postgres
    address: "::1:5432"
    protocol: UDP
    allow: [10.0.0.7/8]
  - name: redis
    address: localhost:6379
routes:
  - name: postgres
    listener: postgre
    backendRefs:
      - {upstream: pg, weight: 0}
  - name: redis
    listener: redis
    backendRefs: [{upstrem: redis}]
upstreams:
  - name: pg
    endpoints: [{address: db.internal:5432}]
    loadBalancer: {type: leastconnections}
    circuitBreaker: {maxPendingConnections: 100}
"#;

#[test]
#[rustfmt::skip]
fn all_mistakes_are_reported_at_once() {
    let expected = [
        r#"t.yaml:1: worker: there is no such field; write workers"#,
        r#"t.yaml:4: drain.delay: 30 has no unit; write 30s for seconds, or use ms, m or h"#,
        r#"t.yaml:6: drain.timeout: written twice, first on line 5; keep one of them"#,
        r#"t.yaml:9: listeners[0].address: "::1:5432" needs brackets around its IPv6 address; write "[::1]:5432" (listener "postgres")"#,
        r#"t.yaml:10: listeners[0].protocol: UDP is not supported yet; write TCP or TLS (listener "postgres")"#,
        r#"t.yaml:11: listeners[0].allow[0]: 10.0.0.7/8 has bits set after its prefix; write 10.0.0.0/8 for the network, or 10.0.0.7/32 for the one address (listener "postgres")"#,
        r#"t.yaml:13: listeners[1].address: "localhost" is a host name, and listening takes an IP address; write 127.0.0.1 for this machine alone, or "[::]" for every address (listener "redis")"#,
        r#"t.yaml:16: routes[0].listener: there is no listener "postgre"; write postgres (route "postgres")"#,
        r#"t.yaml:17: routes[0].backendRefs: every weight is 0, so no connection could go anywhere; write a weight of at least 1 (route "postgres")"#,
        r#"t.yaml:21: routes[1].backendRefs[0].upstrem: there is no such field; write upstream (route "redis")"#,
        r#"t.yaml:21: routes[1].backendRefs[0].upstream: there is no upstream "redis"; write pg, or add it under upstreams (route "redis")"#,
        r#"t.yaml:24: upstreams[0].endpoints[0].address: "db.internal" is a host name, and static endpoints take IP addresses; write the address it resolves to (upstream "pg")"#,
        r#"t.yaml:25: upstreams[0].loadBalancer.type: "leastconnections" is not a known value; write LeastConnections (upstream "pg")"#,
        r#"t.yaml:26: upstreams[0].circuitBreaker.maxPendingConnections: without a limit there is no place to wait for; write maxConnections or perEndpoint.maxConnections too, or 0 (upstream "pg")"#,
    ];
    assert_eq!(lines(TEXT), expected);
    let errors = parse(TEXT).unwrap_err();
    assert_eq!((errors.len(), errors.is_empty()), (14, false));
    assert_eq!(errors.to_string(), expected.join("\n"));
}
