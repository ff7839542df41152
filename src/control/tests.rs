//! A control side with real sockets and files, and workers that only acknowledge.

mod admin;
mod certificates;
mod log;
mod metrics;
mod page;
mod probes;
mod reload;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{self, Config};
use crate::routing::publish::Subscriber;
use crate::telemetry::{LiveInbox, Sampling};

use super::*;

const WORKERS: usize = 2;
const DEADLINE: Duration = Duration::from_secs(20);

const BREAKER: config::Breaker = config::Breaker {
    consecutive_failures: NonZeroU32::new(5).unwrap(),
    base_interval: Duration::from_secs(1),
    max_interval: Duration::from_secs(30),
};

/// What a test starts from, and what it may change before [`Builder::start`].
struct Builder {
    config: Config,
    load: Load,
    config_file: Option<PathBuf>,
    bind: Bind,
    tuning: Tuning,
    acknowledging: bool,
}

/// A running control side.
struct Control {
    handle: Handle,
    events: flume::Receiver<Event>,
    drain: Drain,
    counters: Vec<Arc<WorkerCounters>>,
    inboxes: Vec<LiveInbox>,
    acknowledging: Arc<AtomicBool>,
}

struct Reply {
    status: u16,
    head: String,
    body: String,
}

fn builder() -> Builder {
    Builder {
        config: config(&["127.0.0.1:1"]),
        load: Box::new(|| Err("nothing to load in this test".into())),
        config_file: None,
        bind: Box::new(|_, _| Ok(Vec::new())),
        tuning: Tuning {
            debounce: Duration::from_millis(5),
            poll: Duration::from_secs(3_600),
            ..Tuning::default()
        },
        acknowledging: true,
    }
}

impl Builder {
    fn start(self) -> Control {
        let (publisher, subscribers) = Publisher::new(WORKERS);
        let first =
            crate::routing::compile(&self.config, &Default::default(), &publisher.current(), Instant::now());
        publisher.publish(Arc::new(first), Vec::new());
        let acknowledging = Arc::new(AtomicBool::new(self.acknowledging));
        for subscriber in subscribers {
            let acknowledging = Arc::clone(&acknowledging);
            thread::spawn(move || acknowledge(&subscriber, &acknowledging));
        }
        let counters: Vec<Arc<WorkerCounters>> = (0..WORKERS).map(|_| Arc::default()).collect();
        for worker in &counters {
            worker.shown.heartbeat.store(crate::telemetry::process_clock_ms(), Ordering::Relaxed);
        }
        let (live, inboxes) = LiveDirectory::new(WORKERS);
        let telemetry = Views {
            sampling: Arc::new(Sampling::new(&self.config.access_log, None)),
            failures: Default::default(),
            spans: Default::default(),
        };
        let (to_main, events) = flume::bounded(1024);
        let drain = Drain::default();
        let parts = Parts {
            log: Level::unheard(self.config.log.level),
            config: self.config,
            load: self.load,
            config_file: self.config_file,
            credentials: Default::default(),
            publisher,
            bind: self.bind,
            admin: TcpListener::bind("127.0.0.1:0").unwrap(),
            counters: counters.clone(),
            live,
            telemetry,
            metrics: None,
            drain: drain.clone(),
            events: to_main,
            handle_signals: false,
            limits: ConnectionLimits {
                places: Arc::default(),
                max: 1_000,
                admin: 64,
                memory: Arc::default(),
            },
        };
        Control {
            handle: start_with(parts, self.tuning).unwrap(),
            events,
            drain,
            counters,
            inboxes,
            acknowledging,
        }
    }
}

/// A worker as the publisher sees it.
fn acknowledge(subscriber: &Subscriber, acknowledging: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    while runtime.block_on(subscriber.published()) {
        while !acknowledging.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        subscriber.acknowledge(subscriber.current().generation);
    }
}

impl Control {
    fn get(&self, path: &str) -> Reply {
        self.ask("GET", path)
    }

    fn ask(&self, method: &str, path: &str) -> Reply {
        request(self.handle.admin_address(), method, path)
    }

    fn generation(&self) -> u64 {
        self.handle.shared.publisher.current().generation
    }

    /// The value of a sample, by its name and labels as they are exposed.
    fn metric(&self, sample: &str) -> Option<f64> {
        let text = self.get("/metrics").body;
        let mut values = text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            (name == sample).then(|| value.parse().unwrap())
        });
        values.next()
    }
}

fn request(address: SocketAddr, method: &str, path: &str) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: sheave\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_lowercase(),
        body: body.into(),
    }
}

/// Asks again until the answer is right.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::yield_now();
    }
}

/// One listener, one route, and one upstream of these endpoints.
fn config(endpoints: &[&str]) -> Config {
    let keepalive = config::Keepalive {
        idle_time: Duration::from_secs(120),
        interval: Duration::from_secs(15),
        probes: 4,
    };
    Config {
        workers: config::Workers { count: None, pin: true, driver: config::Driver::Auto, busy_poll: None },
        admin: config::Admin { address: "127.0.0.1:0".parse().unwrap(), allow_changes: false },
        drain: config::Drain { delay: Duration::ZERO, timeout: Duration::from_secs(60) },
        limits: config::Limits {
            max_connections: None,
            overload: config::Overload { memory_percent: None, loop_lag: None },
        },
        log: config::Log { level: config::LogLevel::Info, format: config::LogFormat::Json },
        access_log: config::AccessLog { enabled: true, sample: 1.0, format: config::LogFormat::Json },
        metrics: config::Metrics { per_endpoint: true, otlp: config::MetricsOtlp::off() },
        tracing: config::Tracing::off(),
        kubernetes: config::Kubernetes { kubeconfig: None },
        listeners: vec![config::Listener {
            name: "front".into(),
            address: "127.0.0.1:5432".parse().unwrap(),
            protocol: config::Protocol::Tcp,
            proxy: None,
            tls: None,
            allow: Vec::new(),
            deny: Vec::new(),
            limit: Some(config::ConnectionLimit {
                limit: 7.try_into().unwrap(),
                when_full: config::WhenFull::Reset,
            }),
            sources: None,
            timeouts: config::ListenerTimeouts {
                idle: None,
                max_duration: None,
                half_close: None,
                tls_handshake: Duration::from_secs(10),
            },
            keepalive,
        }],
        routes: vec![config::Route {
            name: "all".into(),
            listener: "front".into(),
            hostnames: Vec::new(),
            sources: vec!["10.0.0.0/8".parse().unwrap()],
            alpn: Vec::new(),
            tls_mode: None,
            backends: vec![config::BackendRef { upstream: "pg".into(), weight: 3 }],
        }],
        upstreams: vec![upstream(endpoints, keepalive)],
    }
}

fn many_endpoints(count: u32) -> Config {
    let address = |number: u32| SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + number), 80)).to_string();
    let addresses: Vec<String> = (0..count).map(address).collect();
    config(&addresses.iter().map(|address| &**address).collect::<Vec<_>>())
}

fn upstream(endpoints: &[&str], keepalive: config::Keepalive) -> config::Upstream {
    let endpoint = |address: &&str| config::Endpoint {
        address: address.parse().unwrap(),
        weight: 1,
        zone: None,
        priority: 0,
    };
    config::Upstream {
        name: "pg".into(),
        members: config::Members::Listed(endpoints.iter().map(endpoint).collect()),
        load_balancer: config::LoadBalancer::LeastConnections,
        zone_aware: None,
        slow_start: None,
        timeouts: config::UpstreamTimeouts {
            connect: Duration::from_secs(5),
            idle: None,
            max_duration: None,
        },
        keepalive,
        retry: config::Retry {
            num_retries: 2,
            triggers: config::RetryTriggers { connect_failure: true, tls_failure: true },
            hedge_after: None,
            per_retry_timeout: None,
            base_interval: Duration::from_millis(25),
            max_interval: Duration::from_secs(1),
            budget_percent: 20,
            budget_floor: 10,
        },
        rebalance: None,
        limits: config::UpstreamLimits::default(),
        breaker: Some(BREAKER),
        health: config::HealthCheck { panic_threshold: 50, active: None, passive: None },
        proxy: None,
        tls: None,
        drain: config::UpstreamDrain { timeout: Duration::from_secs(300), close_per_second: None },
    }
}
