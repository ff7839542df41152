//! Sheaves with every fault there is an alert for.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::discovery::{nowhere, service, slice};
use crate::support::{
    ApiServer, Authority, Certificate, Driver, Endpoint, Process, Settings, ask, closed_port, connect,
    eventually, metric, round_trip,
};

use super::traffic::Traffic;
use super::{Several, endpoints};

pub(super) struct Sick {
    process: Process,
    api: ApiServer,
    broken: Certificate,
    /// Where the fault looks.
    faults: tempfile::TempDir,
    _authority: Authority,
    _echo: Endpoint,
}

const NO_BREAKER: &str = "perEndpoint: {consecutiveFailures: 0}";
/// Longer than a scrape takes to come.
const STALL_MS: &str = "1500";

impl Sick {
    pub(super) fn start(driver: Driver) -> Self {
        let (api, authority, echo) = (ApiServer::start(), Authority::new(), Endpoint::echo());
        api.put_all([service("db", "empty"), service("db", "pg")]);
        let soon = authority.certify_for(&["soon.test"], Duration::from_secs(86_400));
        let broken = authority.certify(&["broken.test"]);
        let settings = Self::settings(driver, &api, [&soon, &broken], echo.address);
        let faults = tempfile::tempdir().unwrap();
        let process = Process::start(&settings, |command| {
            command.env("SHEAVE_FAULT", format!("worker-stall={}", faults.path().display()));
            // A log that nobody can write.
            command.stdout(File::create("/dev/full").unwrap());
        });
        Self { process, api, broken, faults, _authority: authority, _echo: echo }
    }

    /// Upstreams with a fault each, and certificates of which one ends soon and one will be no good.
    fn settings(
        driver: Driver,
        api: &ApiServer,
        certificates: [&Certificate; 2],
        echo: SocketAddr,
    ) -> Settings {
        let dead = closed_port();
        // Nobody is there to take traces and metrics.
        let top = format!(
            "{}\nlimits: {{overload: {{memoryPercent: 0, loopLag: 1s}}}}\n\
             tracing: {{enabled: true, endpoint: \"http://{dead}\"}}\n\
             metrics: {{otlp: {{enabled: true, interval: 1s, endpoint: \"http://{dead}\"}}}}",
            api.top()
        );
        let mut several =
            Several(Settings::new(driver, &[dead]).upstream("retry: {numRetries: 0}").top(&top));
        let ejects = "loadBalancer: {type: RoundRobin}, retry: {numRetries: 1}, \
            healthCheck: {passive: {consecutiveFailures: 3, baseEjectionTime: 1h}}";
        let fails = "healthCheck: {active: {type: TCP, interval: 100ms, jitter: 0s, unhealthyThreshold: 2}}";
        let no_breaker = format!("circuitBreaker: {{{NO_BREAKER}}}");
        several.add("ejects", "", &format!("{}, {no_breaker}, {ejects}", endpoints(&[dead, echo])));
        several.add("panics", "", &format!("{}, {no_breaker}, {fails}", endpoints(&[dead])));
        let full = format!("circuitBreaker: {{maxConnections: 1, {NO_BREAKER}}}");
        several.add("full", "", &format!("{}, {full}", endpoints(&[echo])));
        for name in ["empty", "missing", "pg"] {
            several.add(name, "", &format!("service: {{namespace: db, name: {name}, port: 5432}}"));
        }
        let [soon, broken] = certificates.map(Certificate::reference);
        let tls = format!("protocol: TLS, tls: {{mode: Terminate, certificateRefs: [{soon}, {broken}]}}");
        several.add("tls", &tls, &endpoints(&[echo]));
        several.0
    }

    pub(super) fn admin(&self) -> SocketAddr {
        self.process.admin()
    }

    /// Clients of all that fails, and endpoints that come and go whether workers see it or not.
    pub(super) fn traffic(self: &Arc<Self>) -> [Traffic; 2] {
        let failing = ["main", "ejects", "full", "empty"].map(|name| self.process.listener(name));
        let clients = Traffic::start(move || {
            for address in failing {
                ask(address, "hello").ok();
            }
        });
        let (sick, mut number) = (Arc::clone(self), 0);
        let endpoints = Traffic::start(move || {
            number += 1;
            sick.api.put(slice("db", "pg", "one", nowhere(number % 100)));
        });
        [clients, endpoints]
    }

    /// Takes the only place.
    pub(super) fn fill(&self) -> TcpStream {
        let mut stream = connect(self.process.listener("full"));
        round_trip(&mut stream);
        stream
    }

    /// Breaks what can be broken by a file: a certificate, and then the configuration.
    pub(super) fn break_files(&self) {
        std::fs::write(&self.broken.certificate, "no certificate").unwrap();
        let problems = || metric(self.admin(), "sheave_certificate_problem", &[]);
        eventually("a certificate that is no good", problems, |problems| *problems == 1.0);
        std::fs::write(&self.process.config, "listeners: none").unwrap();
        self.process.signal(Signal::HUP);
    }

    /// From now on each heartbeat of each worker blocks it.
    pub(super) fn stall(&self) {
        std::fs::write(self.faults.path().join("stall"), STALL_MS).unwrap();
    }

    pub(super) fn lose_the_cluster(&self) {
        self.api.stop();
    }
}

/// A Sheave that has as many connections as it may, and then is gone.
pub(super) struct Packed {
    process: Process,
    _clients: Vec<TcpStream>,
    _echo: Endpoint,
}

impl Packed {
    pub(super) fn start(driver: Driver) -> Self {
        let echo = Endpoint::echo();
        let settings = Settings::new(driver, &[echo.address]).top("limits: {maxConnections: 2}");
        let process = Process::start(&settings, |_| {});
        let clients = (0..3).map(|_| connect(process.listener("main"))).collect();
        Self { process, _clients: clients, _echo: echo }
    }

    pub(super) fn admin(&self) -> SocketAddr {
        self.process.admin()
    }

    pub(super) fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }
}
