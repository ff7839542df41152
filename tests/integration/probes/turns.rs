//! When probes come: spread, and an upstream whose endpoints are all silent does not take the turns of the others.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::{
    DEADLINE, Driver, Endpoint, Fault, FaultyEndpoint, FullEndpoint, Proxy, Settings, eventually,
    on_both_drivers,
};

use super::{NO_BREAKER, await_health, check};

on_both_drivers!(the_silent_leave_turns_to_others, they_are_spread_and_jittered);

const SILENT: u16 = 2_000;

/// With all turns taken by the silent, a probe of another upstream would come once in 2000 / 256 x 2 s.
fn the_silent_leave_turns_to_others(driver: Driver) {
    let (full, endpoint) =
        (FullEndpoint::start_on("0.0.0.0:0".parse().unwrap()), FaultyEndpoint::start(Fault::None));
    let port = full.address.port();
    let silent =
        |number: u16| SocketAddr::from(([127, 9, number.to_be_bytes()[0], number.to_be_bytes()[1]], port));
    let mut settings = Settings::new(driver, &[endpoint.address])
        .upstream(&format!("{NO_BREAKER}, healthCheck: {{panicThreshold: 0, {}}}", check("type: TCP")));
    let endpoints: Vec<String> =
        (0..SILENT).map(|number| format!("{{address: \"{}\"}}", silent(number))).collect();
    settings.more_upstreams.push(format!(
        "{{name: silent, endpoints: [{}], healthCheck: {{{}}}}}",
        endpoints.join(", "),
        check("type: TCP").replace("timeout: 10s", "timeout: 2s")
    ));
    let proxy = Proxy::start(&settings);
    let probes = |upstream: &str, result: &str| {
        let labels = [format!("upstream=\"{upstream}\""), format!("result=\"{result}\"")];
        proxy.metric("sheave_upstream_probes_total", &labels.each_ref().map(String::as_str))
    };
    eventually("probes of the silent", || probes("silent", "failure"), |failed| *failed > 0.0);
    let before = probes("main", "success");
    eventually("probes of the other", || probes("main", "success"), |count| *count >= before + 20.0);
    endpoint.set(Fault::Refuse);
    await_health(&proxy, &["unhealthy"]);
    endpoint.set(Fault::None);
    await_health(&proxy, &["healthy"]);
    assert_eq!(probes("silent", "success"), 0.0);
}

/// The first ones of an upstream over the interval, and those of an endpoint by up to the jitter.
fn they_are_spread_and_jittered(driver: Driver) {
    const INTERVAL: Duration = Duration::from_millis(1_000);
    let (came, times) = flume::bounded(1_024);
    let probed = Endpoint::start_on("0.0.0.0:0".parse().unwrap(), move |_| _ = came.try_send(Instant::now()));
    let probes = |count: usize| -> Vec<Instant> {
        (0..count).map(|_| times.recv_timeout(DEADLINE).unwrap()).collect()
    };
    let port = probed.address.port();
    let start = |endpoints: u8, interval: Duration, jitter: Duration| {
        let addresses: Vec<SocketAddr> =
            (1..=endpoints).map(|number| ([127, 0, 2, number], 9).into()).collect();
        let (interval, jitter) = (interval.as_millis(), jitter.as_millis());
        Proxy::start(&Settings::new(driver, &addresses).upstream(&format!(
            "healthCheck: {{active: {{type: TCP, port: {port}, interval: {interval}ms, jitter: {jitter}ms}}}}"
        )))
    };
    let many = start(40, INTERVAL, Duration::ZERO);
    let first = probes(40);
    drop(many);
    let spread = *first.last().unwrap() - first[0];
    assert!(spread >= INTERVAL / 2, "40 first probes within {spread:?}");
    times.drain();
    let (interval, jitter) = (Duration::from_millis(50), Duration::from_millis(200));
    let _one = start(1, interval, jitter);
    let probes = probes(21);
    let took = *probes.last().unwrap() - probes[0];
    // 50 ms each and half of the jitter on average: half of that is far from chance.
    assert!(took >= (interval + jitter / 4) * 20, "20 intervals took {took:?}");
}
