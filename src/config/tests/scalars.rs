//! Durations, networks, addresses.

use super::*;

#[test]
#[rustfmt::skip]
fn times_to_spin() {
    check(&[
        (top("workers: {busyPoll: 50ms}"), &[
            "t.yaml:1: workers.busyPoll: 50ms is longer than spinning can help; write at most 10ms, 0s not to spin",
        ]),
        (top("workers: {busyPoll: 10001us}"), &[
            "t.yaml:1: workers.busyPoll: 10001us is longer than spinning can help; write at most 10ms, 0s not to spin",
        ]),
        (top("workers: {busyPoll: us}"), &[
            r#"t.yaml:1: workers.busyPoll: "us" is not a time; write one like 50us or 1ms"#,
        ]),
        (top("workers: {busyPoll: 100000us}"), &[
            r#"t.yaml:1: workers.busyPoll: "100000us" is not a time; write one like 50us or 1ms"#,
        ]),
        (top("workers: {busyPoll: 0.5ms}"), &[
            r#"t.yaml:1: workers.busyPoll: "0.5ms" is not a time; write one like 50us or 1ms"#,
        ]),
        (top("workers: {busyPoll: 50}"), &[
            r#"t.yaml:1: workers.busyPoll: "50" is not a time; write one like 50us or 1ms"#,
        ]),
        (top("workers: {busyPoll: true}"), &[
            r#"t.yaml:1: workers.busyPoll: "true" is not a time; write one like 50us or 1ms"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn durations() {
    check(&[
        (top("drain: {delay: 30}"), &[
            "t.yaml:1: drain.delay: 30 has no unit; write 30s for seconds, or use ms, m or h",
        ]),
        (top(r#"drain: {delay: "30"}"#), &[
            "t.yaml:1: drain.delay: 30 has no unit; write 30s for seconds, or use ms, m or h",
        ]),
        (top("drain: {delay: 1.5s}"), &[
            r#"t.yaml:1: drain.delay: "1.5s" has a fraction; write 1500ms"#,
        ]),
        (top("drain: {delay: 2d}"), &[
            r#"t.yaml:1: drain.delay: "2d" is in days; write 48h"#,
        ]),
        (top("drain: {delay: 1 h}"), &[
            r#"t.yaml:1: drain.delay: "1 h" is not a duration; write 1h"#,
        ]),
        (top("drain: {delay: 5M}"), &[
            r#"t.yaml:1: drain.delay: "5M" is not a duration; write 5m"#,
        ]),
        (top("drain: {delay: soon}"), &[
            r#"t.yaml:1: drain.delay: "soon" is not a duration; write one to four whole numbers with a unit each: 250ms, 30s or 1h30m"#,
        ]),
        (top("drain: {delay: 1h2m3s4ms5s}"), &[
            r#"t.yaml:1: drain.delay: "1h2m3s4ms5s" is not a duration; write one to four whole numbers with a unit each: 250ms, 30s or 1h30m"#,
        ]),
        (top("drain: {delay: 100000s}"), &[
            r#"t.yaml:1: drain.delay: "100000s" is not a duration; write one to four whole numbers with a unit each: 250ms, 30s or 1h30m"#,
        ]),
        (top("drain: {delay: -5s}"), &[
            r#"t.yaml:1: drain.delay: "-5s" is not a duration; write one to four whole numbers with a unit each: 250ms, 30s or 1h30m"#,
        ]),
        (top(r#"drain: {delay: ""}"#), &[
            r#"t.yaml:1: drain.delay: "" is not a duration; write one to four whole numbers with a unit each: 250ms, 30s or 1h30m"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn networks() {
    check(&[
        (listener("allow: [10.0.0.7/8]"), &[
            r#"t.yaml:4: listeners[0].allow[0]: 10.0.0.7/8 has bits set after its prefix; write 10.0.0.0/8 for the network, or 10.0.0.7/32 for the one address (listener "pg")"#,
        ]),
        (listener("allow: [10.0.0.7]"), &[
            r#"t.yaml:4: listeners[0].allow[0]: 10.0.0.7 has no prefix length; write 10.0.0.7/32 for this one address (listener "pg")"#,
        ]),
        (listener("deny: [fd00::/8, fd00::1]"), &[
            r#"t.yaml:4: listeners[0].deny[1]: fd00::1 has no prefix length; write fd00::1/128 for this one address (listener "pg")"#,
        ]),
        (listener("deny: [10.0.0.0/33]"), &[
            r#"t.yaml:4: listeners[0].deny[0]: "10.0.0.0/33" is not a network; write an address and a prefix length, like 10.0.0.0/8 or fd00::/8 (listener "pg")"#,
        ]),
        (listener("deny: [everyone]"), &[
            r#"t.yaml:4: listeners[0].deny[0]: "everyone" is not a network; write an address and a prefix length, like 10.0.0.0/8 or fd00::/8 (listener "pg")"#,
        ]),
        (listener(r#"deny: ["::ffff:10.0.0.0/104"]"#), &[
            r#"t.yaml:4: listeners[0].deny[0]: ::ffff:10.0.0.0/104 is an IPv4 network in IPv6 clothes, which no client matches; write 10.0.0.0/8 (listener "pg")"#,
        ]),
        (route("sources: [10.1.2.3/16]"), &[
            r#"t.yaml:7: routes[0].sources[0]: 10.1.2.3/16 has bits set after its prefix; write 10.1.0.0/16 for the network, or 10.1.2.3/32 for the one address (route "pg")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn listen_addresses() {
    check(&[
        (address("localhost:5432"), &[
            r#"t.yaml:3: listeners[0].address: "localhost" is a host name, and listening takes an IP address; write 127.0.0.1 for this machine alone, or "[::]" for every address (listener "pg")"#,
        ]),
        (address("5432"), &[
            r#"t.yaml:3: listeners[0].address: 5432 is only a port; write "[::]:5432" for every address (listener "pg")"#,
        ]),
        (address(r#"":5432""#), &[
            r#"t.yaml:3: listeners[0].address: :5432 has no IP address; write "[::]:5432" for every address (listener "pg")"#,
        ]),
        (address(r#""[::]""#), &[
            r#"t.yaml:3: listeners[0].address: "[::]" has no port; write it after the brackets, like "[::]:5432" (listener "pg")"#,
        ]),
        (address(r#""[::]:0""#), &[
            r#"t.yaml:3: listeners[0].address: port 0 is a different port at every start; write the port clients connect to (listener "pg")"#,
        ]),
        (address(r#""::1:5432""#), &[
            r#"t.yaml:3: listeners[0].address: "::1:5432" needs brackets around its IPv6 address; write "[::1]:5432" (listener "pg")"#,
        ]),
        (address("0.0.0.0:99999"), &[
            r#"t.yaml:3: listeners[0].address: "99999" is not a port; write a number from 1 to 65535 after the last colon (listener "pg")"#,
        ]),
        (address("tcp://0.0.0.0:80"), &[
            r#"t.yaml:3: listeners[0].address: "tcp://0.0.0.0:80" is not an IP address with a port; write one, like 10.0.0.7:5432 or "[fd00::7]:5432" (listener "pg")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn endpoint_addresses() {
    check(&[
        (address("[80]"), &[
            r#"t.yaml:3: listeners[0].address: this is a list; write an IP address with a port, like "[::]:5432" (listener "pg")"#,
        ]),
        (endpoint("{address: pg.db.svc:5432}"), &[
            r#"t.yaml:10: upstreams[0].endpoints[0].address: "pg.db.svc" is a host name, and static endpoints take IP addresses; write the address it resolves to (upstream "pg")"#,
        ]),
        (endpoint("{address: 10.0.0.7}"), &[
            r#"t.yaml:10: upstreams[0].endpoints[0].address: "10.0.0.7" has no port; write it after a colon, like 10.0.0.7:5432 (upstream "pg")"#,
        ]),
        (endpoint(r#"{address: "fd00::7"}"#), &[
            r#"t.yaml:10: upstreams[0].endpoints[0].address: "fd00::7" has no port; write the address in brackets and a port, like "[fd00::7]:5432" (upstream "pg")"#,
        ]),
        (endpoint(r#"{address: "fd00::7:5432"}"#), &[
            r#"t.yaml:10: upstreams[0].endpoints[0].address: "fd00::7:5432" needs brackets around its IPv6 address; write "[fd00::7]:5432" (upstream "pg")"#,
        ]),
        (endpoint(r#"{address: "[fd00::7]"}"#), &[
            r#"t.yaml:10: upstreams[0].endpoints[0].address: "[fd00::7]" has no port; write it after the brackets, like "[fd00::7]:5432" (upstream "pg")"#,
        ]),
        (endpoint(r#"{address: "[10.0.0.7]:5432"}"#), &[
            r#"t.yaml:10: upstreams[0].endpoints[0].address: "[10.0.0.7]:5432" has brackets around an IPv4 address; write 10.0.0.7:5432 (upstream "pg")"#,
        ]),
        (endpoint("{address: 10.0.0.7:0}"), &[
            r#"t.yaml:10: upstreams[0].endpoints[0].address: port 0 cannot be connected to; write the port the endpoint listens on (upstream "pg")"#,
        ]),
        (endpoint("{address: 0.0.0.0:80}"), &[
            r#"t.yaml:10: upstreams[0].endpoints[0].address: 0.0.0.0 is every address of a machine, not one endpoint; write 127.0.0.1:80 for this machine (upstream "pg")"#,
        ]),
        (endpoint("{address: 224.0.0.1:80}"), &[
            r#"t.yaml:10: upstreams[0].endpoints[0].address: 224.0.0.1 is a multicast address, which TCP cannot connect to; write a unicast address (upstream "pg")"#,
        ]),
        (endpoint(r#"{address: ":80"}"#), &[
            r#"t.yaml:10: upstreams[0].endpoints[0].address: :80 has no IP address; write one before the port, like 10.0.0.7:80 (upstream "pg")"#,
        ]),
        (endpoint("{address: pg}"), &[
            r#"t.yaml:10: upstreams[0].endpoints[0].address: "pg" is not an IP address with a port; write one, like 10.0.0.7:5432 (upstream "pg")"#,
        ]),
        (endpoint("{address: 10.0.0.7:http}"), &[
            r#"t.yaml:10: upstreams[0].endpoints[0].address: "http" is not a port; write a number from 1 to 65535 after the last colon (upstream "pg")"#,
        ]),
        (endpoint("10.0.0.7:5432"), &[
            r#"t.yaml:10: upstreams[0].endpoints[0]: "10.0.0.7:5432" is text; write its fields below it, indented, or in braces {} (upstream "pg")"#,
        ]),
        (top("admin: {address: localhost:9901}"), &[
            r#"t.yaml:1: admin.address: "localhost" is a host name, and listening takes an IP address; write 127.0.0.1 for this machine alone, or "[::]" for every address"#,
        ]),
    ]);
}
