//! Active health checks: who fails its probes gets no connections, and gets them again when it is well.

mod kinds;
mod secured;
mod turns;

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::{
    Bound, Driver, Endpoint, FullEndpoint, Proxy, Settings, admin_get, ask, eventually, eventually_some,
    on_both_drivers, until_still,
};

on_both_drivers!(
    who_refuses_is_left_alone_until_it_listens,
    an_answer_decides,
    silence_is_a_failure,
    health_is_ignored_when_nearly_all_are_unhealthy,
    who_starts_unhealthy_waits_for_its_first_success,
    a_reload_without_the_check_forgets_it,
    another_pace_keeps_what_was_found,
    who_leaves_is_not_probed_any_more,
    who_left_unhealthy_is_back_as_new,
);

/// Attempts that fail say nothing here.
const NO_BREAKER: &str = "circuitBreaker: {perEndpoint: {consecutiveFailures: 0}}";

fn check(kind: &str) -> String {
    format!(
        "active: {{{kind}, interval: 20ms, jitter: 0s, timeout: 10s, unhealthyThreshold: 2, healthyThreshold: 2}}"
    )
}

fn who_refuses_is_left_alone_until_it_listens(driver: Driver) {
    let (echo, absent) = (Endpoint::echo(), Bound::new());
    let settings = Settings::new(driver, &[absent.address, echo.address]).upstream(&format!(
        "loadBalancer: {{type: RoundRobin}}, {NO_BREAKER}, healthCheck: {{{}}}",
        check("type: TCP")
    ));
    let proxy = Proxy::start(&settings);
    await_health(&proxy, &["unhealthy", "healthy"]);
    let shown = upstream(&proxy);
    let failure = shown["endpoints"][0]["probeFailure"].as_str().unwrap();
    assert!(failure.contains("refused"), "{shown:#}");
    assert!(shown["endpoints"][1].get("probeFailure").is_none(), "{shown:#}");
    assert_eq!(proxy.metric("sheave_endpoint_unhealthy", &[&absent.address.to_string()]), 1.0);
    assert!(proxy.metric("sheave_upstream_probes_total", &["result=\"failure\""]) >= 2.0);
    for _ in 0..10 {
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
    }
    for record in proxy.records(10) {
        assert_eq!(
            record["attempts"].as_array().unwrap().len(),
            1,
            "nobody tried who is unhealthy: {record}"
        );
    }

    let address = absent.address;
    let _back = absent.listen();
    await_health(&proxy, &["healthy", "healthy"]);
    let is_served = || {
        ask(proxy.address, "hello").unwrap();
        proxy.lines.all().iter().any(|record| record["endpoint"] == address.to_string())
    };
    eventually("a connection to who is back", is_served, |is_so| *is_so);
}

fn an_answer_decides(driver: Driver) {
    let (echo, answers) = (Endpoint::echo(), Answers::start(200));
    let kind = format!(
        "type: HTTP, port: {}, http: {{path: \"/healthz?deep=1\", hostname: pg.test, expectedStatuses: [200, 204]}}",
        answers.port()
    );
    let settings = Settings::new(driver, &[echo.address])
        .upstream(&format!("healthCheck: {{panicThreshold: 0, {}}}", check(&kind)));
    let proxy = Proxy::start(&settings);
    let probed =
        |result: &str| proxy.metric("sheave_upstream_probes_total", &[&format!("result=\"{result}\"")]);
    eventually("probes that succeed", || probed("success"), |count| *count >= 3.0);
    let request = answers.last.lock().unwrap().clone();
    assert!(request.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.to_ascii_lowercase().contains("\r\nhost: pg.test\r\n"), "{request}");
    assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));

    answers.status.store(503, Ordering::Relaxed);
    await_health(&proxy, &["unhealthy"]);
    let shown = upstream(&proxy);
    assert_eq!(shown["endpoints"][0]["probeFailure"], "status 503, expected 200 or 204", "{shown:#}");
    reset_with_no_endpoint(&proxy);

    answers.status.store(204, Ordering::Relaxed);
    await_health(&proxy, &["healthy"]);
    await_answer(&proxy);
}

fn silence_is_a_failure(driver: Driver) {
    let (echo, full) = (Endpoint::echo(), FullEndpoint::start());
    let check =
        check(&format!("type: TCP, port: {}", full.address.port())).replace("timeout: 10s", "timeout: 50ms");
    let settings = Settings::new(driver, &[echo.address]).upstream(&format!("healthCheck: {{{check}}}"));
    let proxy = Proxy::start(&settings);
    await_health(&proxy, &["unhealthy"]);
    assert_eq!(upstream(&proxy)["endpoints"][0]["probeFailure"], "no answer within 50ms");
}

fn health_is_ignored_when_nearly_all_are_unhealthy(driver: Driver) {
    let (one, other, answers) = (Endpoint::echo(), Endpoint::echo(), Answers::start(503));
    let kind = format!("type: HTTP, port: {}", answers.port());
    let settings = Settings::new(driver, &[one.address, other.address])
        .upstream(&format!("healthCheck: {{{}}}", check(&kind)));
    let proxy = Proxy::start(&settings);
    await_health(&proxy, &["unhealthy", "unhealthy"]);
    eventually("panic", || upstream(&proxy)["panics"].clone(), |panics| *panics == true);
    assert_eq!(proxy.metric("sheave_upstream_panics", &["upstream=\"main\""]), 1.0);
    for _ in 0..10 {
        assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
    }
    answers.status.store(200, Ordering::Relaxed);
    await_health(&proxy, &["healthy", "healthy"]);
    eventually("calm", || upstream(&proxy)["panics"].clone(), |panics| *panics == false);
    assert_eq!(proxy.metric("sheave_upstream_panics", &[]), 0.0);
}

fn who_starts_unhealthy_waits_for_its_first_success(driver: Driver) {
    let (echo, answers) = (Endpoint::echo(), Answers::start(503));
    let kind = format!("type: HTTP, port: {}, initialState: Unhealthy", answers.port());
    let settings =
        Settings::new(driver, &[echo.address]).upstream(&format!("healthCheck: {{{}}}", check(&kind)));
    let proxy = Proxy::start(&settings);
    assert_eq!(health(&proxy), ["unhealthy"]);
    reset_with_no_endpoint(&proxy);
    eventually("a probe", || answers.endpoint.accepted(), |probes| *probes >= 5);
    assert_eq!(ask(proxy.address, "hello"), Err(ErrorKind::ConnectionReset), "its failures are no panic");
    answers.status.store(200, Ordering::Relaxed);
    await_health(&proxy, &["healthy"]);
    await_answer(&proxy);
}

fn a_reload_without_the_check_forgets_it(driver: Driver) {
    let (echo, answers) = (Endpoint::echo(), Answers::start(503));
    let plain = Settings::new(driver, &[echo.address]);
    let kind = format!("type: HTTP, port: {}", answers.port());
    let checked = plain.clone().upstream(&format!("healthCheck: {{panicThreshold: 0, {}}}", check(&kind)));
    let proxy = Proxy::start(&checked);
    await_health(&proxy, &["unhealthy"]);
    proxy.reload(&plain).unwrap();
    await_health(&proxy, &["healthy"]);
    await_answer(&proxy);
    until_still("probes", || answers.endpoint.accepted());
    assert!(!admin_get(proxy.admin, "/metrics").contains("sheave_upstream_probes_total{"));
    proxy.reload(&checked).unwrap();
    await_health(&proxy, &["unhealthy"]);
}

fn another_pace_keeps_what_was_found(driver: Driver) {
    let (echo, answers) = (Endpoint::echo(), Answers::start(200));
    let kind = format!("type: HTTP, port: {}, initialState: Unhealthy", answers.port());
    let settings = |check: &str| {
        let health = format!("healthCheck: {{panicThreshold: 0, {check}}}");
        Settings::new(driver, &[echo.address]).upstream(&health)
    };
    // So many failures take 20 seconds.
    let slow =
        check(&kind).replace("20ms", "200ms").replace("unhealthyThreshold: 2", "unhealthyThreshold: 100");
    let proxy = Proxy::start(&settings(&slow));
    await_health(&proxy, &["healthy"]);
    // Nothing but what is known speaks for it now.
    answers.status.store(503, Ordering::Relaxed);
    proxy.reload(&settings(&slow.replace("200ms", "100ms"))).unwrap();
    let probed = answers.endpoint.accepted();
    eventually("probes", || answers.endpoint.accepted(), |probes| *probes >= probed + 5);
    assert_eq!(health(&proxy), ["healthy"]);
    assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
}

fn who_leaves_is_not_probed_any_more(driver: Driver) {
    let (stays, leaves) = (Endpoint::echo(), Endpoint::echo());
    let both = Settings::new(driver, &[stays.address, leaves.address])
        .upstream(&format!("healthCheck: {{{}}}", check("type: TCP")));
    let proxy = Proxy::start(&both);
    eventually("probes of both", || stays.accepted().min(leaves.accepted()), |probes| *probes >= 3);
    let one = Settings { endpoints: vec![stays.address], ..both };
    proxy.reload(&one).unwrap();
    until_still("probes of who left", || leaves.accepted());
    let before = stays.accepted();
    eventually("more probes of who stays", || stays.accepted(), |probes| *probes >= before + 3);
}

fn who_left_unhealthy_is_back_as_new(driver: Driver) {
    let (stays, leaves, answers) = (Endpoint::echo(), Endpoint::echo(), Answers::start(503));
    let health_check = |keys: &str| format!("healthCheck: {{panicThreshold: 0{keys}}}");
    let kind = check(&format!("type: HTTP, port: {}", answers.port()));
    let plain = Settings::new(driver, &[stays.address, leaves.address]);
    let both = plain.clone().upstream(&health_check(&format!(", {kind}")));
    let proxy = Proxy::start(&both);
    await_health(&proxy, &["unhealthy", "unhealthy"]);
    proxy.reload(&Settings { endpoints: vec![stays.address], ..both.clone() }).unwrap();
    await_health(&proxy, &["unhealthy"]);
    // Nobody would find out that it is well.
    proxy.reload(&plain.clone().upstream(&health_check(""))).unwrap();
    await_health(&proxy, &["healthy", "healthy"]);
    proxy.reload(&both).unwrap();
    await_health(&proxy, &["unhealthy", "unhealthy"]);
    // The check goes at the same moment.
    let only = Settings { endpoints: vec![stays.address], ..plain.clone() };
    proxy.reload(&only.upstream(&health_check(""))).unwrap();
    await_health(&proxy, &["healthy"]);
    proxy.reload(&plain).unwrap();
    await_health(&proxy, &["healthy", "healthy"]);
}

/// Of the endpoints of the upstream `main`, in the table's order.
fn health(proxy: &Proxy) -> Vec<String> {
    let shown = upstream(proxy);
    let endpoints = shown["endpoints"].as_array().unwrap().iter();
    endpoints.map(|endpoint| endpoint["health"].as_str().unwrap().to_owned()).collect()
}

fn await_health(proxy: &Proxy, expected: &[&str]) {
    eventually(&format!("{expected:?}"), || health(proxy), |health| *health == expected);
}

fn await_answer(proxy: &Proxy) {
    let answer = || ask(proxy.address, "hello");
    eventually("an answer", answer, |answer| *answer == Ok("hello".to_owned())).unwrap();
}

/// The verdict is there a moment before the table that heeds it.
fn reset_with_no_endpoint(proxy: &Proxy) {
    let answer = || ask(proxy.address, "hello");
    eventually("a reset", answer, |answer| *answer == Err(ErrorKind::ConnectionReset)).unwrap_err();
    let is_so = |record: &&Value| record["outcome"] == "no_endpoint";
    let record = || proxy.lines.all().iter().find(is_so).cloned();
    let record = eventually_some("its outcome", record);
    assert!(record["duration_ms"].as_f64().unwrap() < 1_000.0, "there is nobody to wait for: {record:#}");
}

fn upstream(proxy: &Proxy) -> Value {
    let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
    table["upstreams"][0].clone()
}

/// Answers HTTP requests with a status that may change, and remembers the last of them.
struct Answers {
    endpoint: Endpoint,
    status: Arc<AtomicU16>,
    last: Arc<Mutex<String>>,
}

impl Answers {
    fn start(status: u16) -> Self {
        let (status, last) = (Arc::new(AtomicU16::new(status)), Arc::new(Mutex::new(String::new())));
        let (now, heard) = (Arc::clone(&status), Arc::clone(&last));
        let endpoint = Endpoint::start(move |mut stream| {
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_exact(&mut byte).is_err() {
                    return;
                }
                request.push(byte[0]);
            }
            *heard.lock().unwrap() = String::from_utf8(request).unwrap();
            let status = now.load(Ordering::Relaxed);
            // Who has gone already hears nothing.
            write!(stream, "HTTP/1.1 {status} As Told\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                .ok();
        });
        Self { endpoint, status, last }
    }

    fn port(&self) -> u16 {
        self.endpoint.address.port()
    }
}
