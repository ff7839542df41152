//! Probes have only so many turns, and an upstream whose endpoints are all silent does not take those of the others.

use std::net::SocketAddr;

use crate::support::{
    Driver, Fault, FaultyEndpoint, FullEndpoint, Proxy, Settings, eventually, on_both_drivers,
};

use super::{NO_BREAKER, await_health, check};

on_both_drivers!(the_silent_leave_turns_to_others);

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
