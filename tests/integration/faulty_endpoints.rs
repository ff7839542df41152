//! One of three endpoints fails, in every way that endpoints do, under the defaults: what clients see, what is written and
//! counted of it, and that it is used again once it is well.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Authority, DEADLINE, Driver, Endpoint, Fault, FaultyEndpoint, Load, Proxy, Settings, admin_get, command,
    echo_securely, eventually, in_namespace, on_both_drivers, secure_endpoint,
};

on_both_drivers!(
    a_refusal_costs_nothing,
    a_black_hole_costs_the_time_of_an_attempt,
    a_reset_at_accept_is_retried_or_handed_on,
    a_reset_amid_an_answer_is_handed_on,
    a_slow_accept_is_waited_for,
    a_slow_first_byte_is_waited_for,
    a_stall_ends_as_idle,
    an_endpoint_that_vanished_is_found_out_by_keepalive,
    a_certificate_of_another_host_is_no_endpoint,
    flapping_fails_only_whom_it_had,
);

const REQUEST: &[u8] = b"hello";
const SLOW: Duration = Duration::from_millis(300);
/// Of the defaults.
const OPENS_AFTER: usize = 5;

/// What a connection came to that met the fault.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fate {
    /// Result of the attempt at the faulty endpoint.
    attempt: &'static str,
    /// How many bytes of its request the client got back, and how that ended; `None`: as it wanted it.
    received: usize,
    error: Option<ErrorKind>,
    outcome: &'static str,
    side: &'static str,
}

const SERVED: Fate =
    Fate { attempt: "connected", received: 5, error: None, outcome: "downstream_closed", side: "downstream" };
const RESET: Fate = Fate {
    received: 0,
    error: Some(ErrorKind::ConnectionReset),
    outcome: "upstream_reset",
    side: "upstream",
    ..SERVED
};

/// A row of the table.
struct Scenario {
    fault: Fault,
    /// Beside the defaults.
    upstream: String,
    /// One of these.
    fates: Vec<Fate>,
    /// What the connection takes at least.
    takes: Duration,
    /// How many connections meet it.
    hits: usize,
    /// The client waits for the end, and does not leave when it has its answer.
    stays: bool,
}

impl Scenario {
    fn new(fault: Fault, fates: &[Fate]) -> Self {
        let (upstream, takes) = (String::new(), Duration::ZERO);
        Self { fault, upstream, fates: fates.to_vec(), takes, hits: OPENS_AFTER, stays: false }
    }

    fn run(self, driver: Driver) {
        let others = [Endpoint::echo(), Endpoint::echo()];
        self.run_beside(driver, &others, &Fault::None);
    }

    /// Connections one after the other until enough have met the fault; then what was counted; then without it.
    fn run_beside(self, driver: Driver, others: &[Endpoint; 2], well: &Fault) {
        let faulty = FaultyEndpoint::start(self.fault.clone());
        let endpoints = [faulty.address, others[0].address, others[1].address];
        let proxy = Proxy::start(&Settings::new(driver, &endpoints).upstream(&self.upstream));
        let mut attempts = Vec::new();
        let mut connections = 0;
        while attempts.len() < self.hits {
            let on_it = || proxy.wait_for_live(1)[0]["endpoint"] == faulty.address.to_string();
            let (received, error) = converse(proxy.address, || self.stays && on_it());
            connections += 1;
            let record = proxy.records(connections).pop().unwrap();
            let Some(attempt) = attempt_at(&record, faulty.address) else {
                assert_eq!((received, error), (REQUEST.len(), None), "{record}");
                assert_eq!(record["outcome"], "downstream_closed", "{record}");
                continue;
            };
            let fate = self.fates.iter().find(|fate| {
                (fate.attempt, fate.received, fate.error) == (attempt.as_str(), received, error)
                    && (&record["outcome"], &record["side"]) == (&fate.outcome.into(), &fate.side.into())
            });
            assert!(fate.is_some(), "{received} bytes, {error:?}, {record:#}; not {:#?}", self.fates);
            let took = record["duration_ms"].as_f64().unwrap() / 1_000.0;
            // The clock of timeouts is a few milliseconds coarse.
            assert!(took >= self.takes.as_secs_f64() - 0.02, "{record:#}");
            attempts.push(attempt);
        }
        assert_counted(&proxy, &attempts, &endpoints);
        self.recovers(&proxy, &faulty, well, connections);
    }

    /// Told by nobody, it is used again.
    fn recovers(&self, proxy: &Proxy, faulty: &FaultyEndpoint, well: &Fault, connections: usize) {
        if matches!(self.fault, Fault::VanishAfter(_)) {
            command("nft", &["delete table inet faulty"]);
        }
        faulty.set(well.clone());
        let mut connections = connections;
        let again = || {
            assert_eq!(converse(proxy.address, || false), (REQUEST.len(), None));
            connections += 1;
            attempt_at(&proxy.records(connections)[connections - 1], faulty.address)
        };
        eventually("a connection to the endpoint that is well", again, |attempt| {
            attempt.as_deref() == Some("connected")
        });
        assert_eq!(table(proxy)[0]["breaker"], "closed");
    }
}

/// The same in every place where it can be seen.
fn assert_counted(proxy: &Proxy, attempts: &[String], endpoints: &[SocketAddr; 3]) {
    let is_failed = |attempt: &&String| *attempt != "connected";
    let failed = attempts.iter().filter(is_failed).count();
    let [faulty, others @ ..] = endpoints.map(|address| format!("endpoint=\"{address}\""));
    let metric = |name: &str, labels: &[&str]| proxy.metric(name, labels) as usize;
    for result in attempts.iter().filter(is_failed) {
        let label = format!("outcome=\"{result}\"");
        let count = attempts.iter().filter(|attempt| *attempt == result).count();
        assert_eq!(metric("sheave_endpoint_failures_total", &[&faulty, &label]), count, "{result}");
    }
    assert_eq!(metric("sheave_endpoint_failures_total", &[&faulty]), failed);
    assert_eq!(metric("sheave_upstream_retries_total", &[]), failed, "each failure is followed by another");
    assert_eq!(metric("sheave_upstream_retries_refused_total", &[]), 0);
    assert_eq!(metric("sheave_endpoint_connections_total", &[&faulty]), attempts.len() - failed);
    for other in others {
        assert_eq!(metric("sheave_endpoint_failures_total", &[&other]), 0, "{other}");
    }
    let opened = failed == OPENS_AFTER;
    assert_eq!(metric("sheave_endpoint_breaker_openings_total", &[]), usize::from(opened));
    assert_eq!(metric("sheave_upstream_open_breakers", &[]), usize::from(opened));
    let shown = table(proxy);
    let states = if opened { ["open", "closed", "closed"] } else { ["closed"; 3] };
    for (endpoint, state) in shown.iter().zip(states) {
        assert_eq!((&endpoint["breaker"], &endpoint["active"]), (&state.into(), &0.into()), "{endpoint:#}");
    }
    let mut outcomes: BTreeMap<_, usize> = BTreeMap::new();
    for record in proxy.lines.all() {
        let text = |field: &str| record[field].as_str().unwrap().to_owned();
        *outcomes.entry((text("outcome"), text("side"))).or_default() += 1;
    }
    for ((outcome, side), count) in outcomes {
        let labels = [format!("outcome=\"{outcome}\""), format!("side=\"{side}\"")];
        let counted = metric("sheave_upstream_connections_total", &[&labels[0], &labels[1]]);
        assert_eq!(counted, count, "{outcome} {side}");
    }
}

fn a_refusal_costs_nothing(driver: Driver) {
    Scenario::new(Fault::Refuse, &[Fate { attempt: "connect_refused", ..SERVED }]).run(driver);
}

fn a_black_hole_costs_the_time_of_an_attempt(driver: Driver) {
    let fate = Fate { attempt: "connect_timeout", ..SERVED };
    let scenario = Scenario::new(Fault::Blackhole, &[fate]);
    Scenario { takes: Duration::from_secs(1), hits: 1, ..scenario }.run(driver);
}

/// Which of both is a race that the endpoint decides; an empty answer is none of them.
fn a_reset_at_accept_is_retried_or_handed_on(driver: Driver) {
    let fates = [Fate { attempt: "connect_failed", ..SERVED }, RESET];
    Scenario::new(Fault::ResetOnAccept, &fates).run(driver);
}

/// What was relayed is never asked for again.
fn a_reset_amid_an_answer_is_handed_on(driver: Driver) {
    Scenario::new(Fault::ResetAfter(3), &[Fate { received: 3, ..RESET }]).run(driver);
}

fn a_slow_accept_is_waited_for(driver: Driver) {
    let scenario = Scenario::new(Fault::SlowAccept(SLOW), &[SERVED]);
    Scenario { takes: SLOW, hits: 2, ..scenario }.run(driver);
}

fn a_slow_first_byte_is_waited_for(driver: Driver) {
    let scenario = Scenario::new(Fault::SlowFirstByte(SLOW), &[SERVED]);
    Scenario { takes: SLOW, hits: 2, ..scenario }.run(driver);
}

fn a_stall_ends_as_idle(driver: Driver) {
    let fate = Fate { received: 3, outcome: "idle_timeout", side: "sheave", ..SERVED };
    let scenario = Scenario::new(Fault::StallAfter(3), &[fate]);
    // Long enough that nobody else is idle on a busy machine.
    let upstream = "timeout: {tcp: {idleTimeout: 2s}}".to_owned();
    Scenario { upstream, takes: Duration::from_secs(2), hits: 1, ..scenario }.run(driver);
}

fn an_endpoint_that_vanished_is_found_out_by_keepalive(driver: Driver) {
    in_namespace(move || {
        let fate = Fate { received: REQUEST.len(), ..RESET };
        let scenario = Scenario::new(Fault::VanishAfter(REQUEST.len()), &[fate]);
        let upstream = "tcpKeepalive: {idleTime: 1s, interval: 1s, probes: 1}".to_owned();
        Scenario { upstream, takes: Duration::from_secs(2), hits: 1, stays: true, ..scenario }.run(driver);
    });
}

fn a_certificate_of_another_host_is_no_endpoint(driver: Driver) {
    let authority = Authority::new();
    let (own, other) = (authority.certify(&["pg.test"]), authority.certify(&["other.test"]));
    let others = [(); 2].map(|()| secure_endpoint(own.server(), echo_securely));
    let (fault, well) = (Fault::Certificate(other.server().into()), Fault::Certificate(own.server().into()));
    let upstream = format!(
        "tls: {{validation: {{caCertificateRefs: [{{file: {}}}], hostname: pg.test}}}}",
        authority.file().display()
    );
    let scenario = Scenario::new(fault, &[Fate { attempt: "tls_upstream_failed", ..SERVED }]);
    Scenario { upstream, ..scenario }.run_beside(driver, &others, &well);
}

/// Well and not, again and again under load. Who was in its queue when it closed is reset, as it is without anything between.
fn flapping_fails_only_whom_it_had(driver: Driver) {
    const CLIENTS: usize = 4;
    const FLAPS: usize = 5;
    let (flapping, others) = (FaultyEndpoint::start(Fault::None), [Endpoint::echo(), Endpoint::echo()]);
    let endpoints = [flapping.address, others[0].address, others[1].address];
    let proxy = Proxy::start(&Settings::new(driver, &endpoints).upstream(
        "circuitBreaker: {perEndpoint: {consecutiveFailures: 2, openFor: {baseInterval: 20ms, maxInterval: 20ms}}}, \
         retry: {budget: {percent: 100}}",
    ));
    let (address, resets) = (proxy.address, Arc::new(AtomicUsize::new(0)));
    let client = |resets: Arc<AtomicUsize>| {
        Load::start(move || match converse(address, || false) {
            (5, None) => Ok(()),
            (0, Some(ErrorKind::ConnectionReset)) => {
                resets.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            (_, error) => Err(error.unwrap_or(ErrorKind::UnexpectedEof).into()),
        })
    };
    let clients: Vec<Load> = (0..CLIENTS).map(|_| client(Arc::clone(&resets))).collect();
    let openings = || proxy.metric("sheave_endpoint_breaker_openings_total", &[]);
    for _ in 0..FLAPS {
        let (before, accepted) = (openings(), flapping.accepted());
        eventually("its share", || flapping.accepted(), |now| *now > accepted + 3);
        flapping.set(Fault::Refuse);
        eventually("an open breaker", openings, |now| *now > before);
        flapping.set(Fault::None);
    }
    let exchanges: usize = clients.into_iter().map(|client| client.stop().unwrap()).sum();
    let records = proxy.records(exchanges);
    let resets = resets.load(Ordering::Relaxed);
    let (reset, clean): (Vec<&Value>, Vec<&Value>) =
        records.iter().partition(|record| record["outcome"] == "upstream_reset");
    assert!(reset.len() == resets && resets <= FLAPS * CLIENTS, "{resets} clients were reset: {reset:#?}");
    for record in &reset {
        assert_eq!(record["endpoint"], flapping.address.to_string(), "{record:#}");
    }
    for record in &clean {
        assert_eq!(record["outcome"], "downstream_closed", "{record:#}");
    }
    let retried = clean.iter().filter(|record| record["attempts"].as_array().unwrap().len() > 1).count();
    assert!(retried >= FLAPS, "each flap fails attempts: {retried}");
    assert_eq!(proxy.metric("sheave_upstream_retries_refused_total", &[]), 0.0);
}

/// Sends the request and takes what comes, at most all of it, unless it stays then.
fn converse(address: SocketAddr, stays: impl FnOnce() -> bool) -> (usize, Option<ErrorKind>) {
    let mut received = 0;
    let error = converse_until(address, stays, &mut received).err();
    (received, error.map(|error| error.kind()))
}

fn converse_until(address: SocketAddr, stays: impl FnOnce() -> bool, received: &mut usize) -> io::Result<()> {
    // A reset may be there before connect(2) returns, which then reports it.
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut buffer = [0; REQUEST.len()];
    stream.write_all(REQUEST)?;
    while *received < REQUEST.len() {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => *received += length,
        }
    }
    if stays() {
        *received += stream.read(&mut buffer)?;
    }
    Ok(())
}

/// The result of the attempt at this endpoint, if there was one.
fn attempt_at(record: &Value, endpoint: SocketAddr) -> Option<String> {
    let endpoint = endpoint.to_string();
    let attempts = record["attempts"].as_array().unwrap().iter();
    let mut results = attempts.filter(|attempt| attempt["endpoint"] == endpoint);
    Some(results.next()?["result"].as_str().unwrap().to_owned())
}

/// The endpoints of the table.
fn table(proxy: &Proxy) -> Vec<Value> {
    let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
    table["upstreams"][0]["endpoints"].as_array().unwrap().clone()
}
