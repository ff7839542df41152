//! A Sheave that is well, uses everything there is, and has clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rustix::process::Signal;

use crate::discovery::{dated, nowhere, service, slice};
use crate::support::{
    ApiServer, Authority, Driver, Endpoint, Process, Settings, ask, ask_securely, closed_port, echo_securely,
    secure_endpoint, shake_hands,
};

use super::traffic::Traffic;
use super::{Several, endpoints};

pub(super) struct Well {
    process: Process,
    settings: Settings,
    api: ApiServer,
    authority: Authority,
    _cgroup: tempfile::TempDir,
    _endpoints: [Endpoint; 2],
}

/// A memory that has a limit, far away.
const CGROUP: [(&str, &str); 3] =
    [("memory.max", "1000000\n"), ("memory.current", "1000\n"), ("memory.stat", "file 0\n")];

impl Well {
    pub(super) fn start(driver: Driver) -> Self {
        let (api, authority) = (ApiServer::start(), Authority::new());
        api.put(service("db", "pg"));
        let certificate = authority.certify(&["web.test"]);
        let echo = Endpoint::echo();
        let secure = secure_endpoint(authority.certify(&["pg.test"]).server(), echo_securely);
        let mut several = Several(Self::settings(driver, &api, &echo));
        let terminate = format!(
            "protocol: TLS, tls: {{mode: Terminate, certificateRefs: [{}]}}",
            certificate.reference()
        );
        let tls = format!(
            "tls: {{validation: {{caCertificateRefs: [{{file: {}}}], hostname: pg.test}}}}",
            authority.file().display()
        );
        several.add("tls", &terminate, &format!("{}, {tls}", endpoints(&[secure.address])));
        several.add("pg", "", "service: {namespace: db, name: pg, port: 5432}");
        let settings = several.0;
        let cgroup = tempfile::tempdir().unwrap();
        for (file, text) in CGROUP {
            std::fs::write(cgroup.path().join(file), text).unwrap();
        }
        let process = Process::start(&settings, |command| {
            command.env("SHEAVE_FAULT", format!("cgroup={}", cgroup.path().display()));
        });
        Self { process, settings, api, authority, _cgroup: cgroup, _endpoints: [echo, secure] }
    }

    /// Whose first upstream has a policy of each kind.
    fn settings(driver: Driver, api: &ApiServer, echo: &Endpoint) -> Settings {
        let policies = "retry: {numRetries: 2}, loadBalancer: {type: RoundRobin}, \
            circuitBreaker: {maxConnections: 100, maxPendingConnections: 10, \
                perEndpoint: {maxConnections: 50, consecutiveFailures: 0}}, \
            healthCheck: {panicThreshold: 0, active: {type: TCP, interval: 200ms, jitter: 0s}}, \
            rebalance: {percentPerMinute: 10, minAge: 0s}";
        Settings::new(driver, &[echo.address, closed_port()])
            .listener("connection: {limit: 100, limitPerSource: 50}")
            .upstream(policies)
            .top(&format!("{}\nlimits: {{overload: {{memoryPercent: 80, loopLag: 0s}}}}", api.top()))
    }

    pub(super) fn admin(&self) -> SocketAddr {
        self.process.admin()
    }

    /// Connections in plain text and in TLS, and endpoints that come and go, with a date and without.
    pub(super) fn traffic(self: &Arc<Self>) -> Traffic {
        let well = Arc::clone(self);
        let (plain, tls) = (well.process.listener("main"), well.process.listener("tls"));
        let mut number = 0;
        Traffic::start(move || {
            ask(plain, "hello").ok();
            let client = shake_hands(tls, "web.test", well.authority.client());
            client.and_then(|mut client| ask_securely(&mut client, "hello")).ok();
            number += 1;
            let slice = slice("db", "pg", "one", nowhere(number % 100));
            well.api.put(if number % 4 == 0 { slice } else { dated(slice, SystemTime::now()) });
        })
    }

    /// Has a new table, and a section that would need a restart.
    pub(super) fn reload(&self) {
        let mut settings = self.settings.clone();
        settings.workers = 1;
        std::fs::write(&self.process.config, settings.yaml()).unwrap();
        self.process.signal(Signal::HUP);
    }
}
