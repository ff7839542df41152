//! A configuration file for a test, as text, so that tests go the way that users go.

use std::fmt::Write;
use std::net::SocketAddr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    IoUring,
    Epoll,
}

/// One listener (`main`), one route, one upstream (`main`); the extra texts are YAML flow mappings' inner parts, such as
/// `timeout: {tcp: {idleTimeout: 1s}}`.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) driver: Driver,
    pub(crate) workers: usize,
    pub(crate) busy_poll: &'static str,
    pub(crate) listen: String,
    pub(crate) admin: String,
    pub(crate) endpoints: Vec<SocketAddr>,
    /// Of the endpoints; those beyond its end have 1.
    pub(crate) weights: Vec<u32>,
    /// Of the route `main`, in place of all of the upstream `main`.
    pub(crate) route: String,
    /// Of the listener `main`.
    pub(crate) listener: String,
    /// Of the upstream `main`.
    pub(crate) upstream: String,
    /// More top-level lines.
    pub(crate) top: String,
    /// More items of `listeners`, `routes` and `upstreams`, each one flow mapping without its dash.
    pub(crate) more_listeners: Vec<String>,
    pub(crate) more_routes: Vec<String>,
    pub(crate) more_upstreams: Vec<String>,
}

impl Settings {
    pub(crate) fn new(driver: Driver, endpoints: &[SocketAddr]) -> Self {
        Self {
            driver,
            workers: 2,
            busy_poll: "0s",
            listen: "127.0.0.1:0".to_owned(),
            admin: "127.0.0.1:0".to_owned(),
            endpoints: endpoints.to_vec(),
            weights: Vec::new(),
            route: "backendRefs: [{upstream: main}]".to_owned(),
            listener: String::new(),
            upstream: String::new(),
            top: String::new(),
            more_listeners: Vec::new(),
            more_routes: Vec::new(),
            more_upstreams: Vec::new(),
        }
    }

    pub(crate) fn listener(mut self, extra: &str) -> Self {
        self.listener = extra.to_owned();
        self
    }

    /// Such as `sources: [10.0.0.0/8], backendRefs: [{upstream: main}]`.
    pub(crate) fn route(mut self, all: &str) -> Self {
        self.route = all.to_owned();
        self
    }

    pub(crate) fn upstream(mut self, extra: &str) -> Self {
        self.upstream = extra.to_owned();
        self
    }

    /// Lines such as `drain: {delay: 0s}`.
    pub(crate) fn top(mut self, lines: &str) -> Self {
        self.top = lines.to_owned();
        self
    }

    /// The admin port takes requests that change something.
    pub(crate) fn with_changes(self) -> Self {
        self.top("admin: {address: \"127.0.0.1:0\", allowChanges: true}")
    }

    pub(crate) fn yaml(&self) -> String {
        let driver = match self.driver {
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        };
        let weights = self.weights.iter().copied().chain(std::iter::repeat(1));
        let endpoint = |(address, weight)| format!("{{address: \"{address}\", weight: {weight}}}");
        let endpoints: Vec<String> = self.endpoints.iter().zip(weights).map(endpoint).collect();
        let mut yaml = format!(
            "workers: {{count: {}, pin: false, driver: {driver}, busyPoll: {}}}\n{}\n",
            self.workers,
            self.busy_poll,
            self.top_without_overload()
        );
        if !self.top.contains("admin:") {
            writeln!(yaml, "admin: {{address: \"{}\"}}", self.admin).unwrap();
        }
        if !self.top.contains("drain:") {
            yaml.push_str("drain: {delay: 0s, timeout: 5s}\n");
        }
        let main = format!("{{name: main, address: \"{}\", {}}}", self.listen, self.listener);
        list(&mut yaml, "listeners", main, &self.more_listeners);
        let main = format!("{{name: main, listener: main, {}}}", self.route);
        list(&mut yaml, "routes", main, &self.more_routes);
        let main = format!("{{name: main, endpoints: [{}], {}}}", endpoints.join(", "), self.upstream);
        list(&mut yaml, "upstreams", main, &self.more_upstreams);
        yaml
    }

    /// Who tests something else wants no refusals because the machine is busy.
    fn top_without_overload(&self) -> String {
        const OFF: &str = "overload: {memoryPercent: 0, loopLag: 0s}";
        if self.top.contains("overload:") {
            return self.top.clone();
        }
        match self.top.split_once("limits: {") {
            Some((before, limits)) => format!("{before}limits: {{{OFF}, {limits}"),
            None => format!("{}\nlimits: {{{OFF}}}", self.top),
        }
    }
}

fn list(yaml: &mut String, key: &str, first: String, more: &[String]) {
    writeln!(yaml, "{key}:").unwrap();
    for item in std::iter::once(&first).chain(more) {
        writeln!(yaml, "  - {item}").unwrap();
    }
}
