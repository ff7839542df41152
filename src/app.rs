//! The composition root: the order of starting and of stopping.
//!
//! Table, sockets, workers, then the control side; on the way out the control side goes last, so that its probes answer
//! until the last connection is gone. The same [`Instance`] serves `sheave run`, the demo and the tests.

mod demo;
mod limits;
mod workers;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::config::{Config, Name};
use crate::control::{self, ConnectionLimits, Event};
use crate::routing::publish::Publisher;
use crate::routing::{Findings, RouteTable, compile};
use crate::shutdown::{Drain, Phase};
use crate::telemetry::logging::Level;
use crate::telemetry::otlp::Settings;
use crate::telemetry::{LiveDirectory, Sinks};
use crate::worker::socket;
use crate::worker::{Ended, cores};

pub use demo::demo;
pub use workers::StartError;

/// Reads the configuration anew, for a reload.
pub type Load = control::Load;

/// What an instance is started with.
pub struct Options {
    pub config: Config,
    pub load: Load,
    /// Watched for changes; `None`: never.
    pub config_file: Option<PathBuf>,
    /// Whether SIGTERM, SIGINT and SIGHUP are this instance's to handle.
    pub handle_signals: bool,
    /// Where the access log goes.
    pub access_log: Box<dyn Write + Send>,
    /// Of the log of the process, for whoever changes it.
    pub log: Level,
}

/// A running Sheave.
pub struct Instance {
    control: control::Handle,
    drain: Drain,
    listeners: BTreeMap<Name, SocketAddr>,
    workers: usize,
    events: flume::Receiver<Event>,
    terminate: flume::Sender<Event>,
    ended: flume::Receiver<Ended>,
    sinks: Sinks,
    /// Whether a signal has asked for the end.
    signalled: Cell<bool>,
}

/// Why an instance ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("worker {worker} died: {reason}; the process ends so that it is started anew")]
    WorkerDied { worker: usize, reason: String },
    #[error("the control side died: {0}; the process ends so that it is started anew")]
    ControlDied(String),
}

/// How long after the last deadline workers may take to say that they have ended.
const WORKER_GRACE: Duration = Duration::from_secs(3);
const EVENTS_MAX: usize = 16;

impl Instance {
    /// Starts everything; listeners accept once this returns.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let drain = Drain::default();
        // Workers that run by then must not outlive a start that fails.
        Self::start_with(options, drain.clone()).inspect_err(|_| drain.drain(Duration::ZERO))
    }

    fn start_with(options: Options, drain: Drain) -> Result<Self, StartError> {
        let config = &options.config;
        let cores = cores::plan(config.workers.count, config.workers.pin).map_err(StartError::Cores)?;
        let admin = TcpListener::bind(config.admin.address)
            .map_err(|error| StartError::Admin { address: config.admin.address, error })?;
        let empty = RouteTable::empty();
        let mut findings = Findings::default();
        findings.credentials.read_new(config, SystemTime::now()).map_err(StartError::Certificates)?;
        let table = Arc::new(compile(config, &findings, &empty, Instant::now()));
        let sockets = socket::bind(&empty, &table, cores.len())?;
        let listeners = workers::listener_addresses(&table, &sockets);
        let otlp = Settings::new(&config.tracing, &config.metrics.otlp, std::env::vars_os());
        for complaint in &otlp.complaints {
            tracing::warn!("OTLP: {complaint}");
        }
        let sinks = Sinks::start(&config.access_log, otlp.traces, options.access_log)?;
        let capacity = limits::plan(config.limits.max_connections, cores.len(), limits::watches(config))?;
        let (publisher, subscribers) = Publisher::new(cores.len());
        let (live, inboxes) = LiveDirectory::new(cores.len());
        let team = workers::Team { config, cores: &cores, capacity, drain: &drain, sinks: &sinks };
        let started = team.start(subscribers, inboxes)?;
        publisher.publish(Arc::clone(&table), sockets);
        started.wait_until_serving(&publisher, table.generation)?;
        let (events_sender, events) = flume::bounded(EVENTS_MAX);
        let workers = cores.len();
        let parts = control::Parts {
            config: config.clone(),
            load: options.load,
            config_file: options.config_file,
            credentials: findings.credentials,
            publisher,
            bind: Box::new(move |current, next| {
                socket::bind(current, next, workers).map_err(|error| error.to_string())
            }),
            admin,
            counters: started.counters,
            live,
            telemetry: sinks.views().clone(),
            metrics: otlp.metrics,
            log: options.log,
            drain: drain.clone(),
            events: events_sender.clone(),
            handle_signals: options.handle_signals,
            limits: ConnectionLimits {
                places: started.places,
                max: capacity.places,
                admin: capacity.admin_connections,
                memory: started.memory,
            },
        };
        let control = control::start(parts).map_err(StartError::Control)?;
        for (name, address) in &listeners {
            tracing::info!(listener = %name, %address, "listening");
        }
        tracing::info!(address = %control.admin_address(), "admin listening");
        Ok(Self {
            control,
            drain,
            listeners,
            workers,
            events,
            terminate: events_sender,
            ended: started.ended,
            sinks,
            signalled: Cell::new(false),
        })
    }

    /// Where a listener of the first table is bound; differs from its configuration when that names port 0.
    pub fn listener_address(&self, name: &str) -> Option<SocketAddr> {
        self.listeners.get(name).copied()
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.control.admin_address()
    }

    /// Reloads as SIGHUP does, and waits for the result.
    pub fn reload(&self) -> Result<control::Reloaded, String> {
        self.control.reload()
    }

    /// Asks for the end, as SIGTERM does; for whoever does not own the instance.
    pub fn terminator(&self) -> impl Fn() + Send + use<> {
        let terminate = self.terminate.clone();
        move || {
            let _ended_already = terminate.try_send(Event::Terminate);
        }
    }

    /// Whether its end has not begun yet; for whoever does not own the instance.
    pub fn is_serving(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let drain = self.drain.clone();
        move || drain.phase() == Phase::Serving
    }

    /// Runs until it is asked to end, then drains, then is gone.
    pub fn run(self) -> Result<(), RunError> {
        let result = self.serve().and_then(|()| self.leave());
        self.stop();
        result
    }

    /// Ends it now: no delay, no time for connections.
    pub fn abort(self) {
        let _what_died = self.end_now();
        self.stop();
    }

    /// Until somebody asks for the end.
    fn serve(&self) -> Result<(), RunError> {
        self.next(None).map(|_asked| ())
    }

    /// The drain, from the delay to the cut; a second signal ends it at once.
    fn leave(&self) -> Result<(), RunError> {
        // As the newest table has it, not the first.
        let times = &self.control.config().drain;
        tracing::info!(delay = ?times.delay, timeout = ?times.timeout, "leaving: still accepting for the delay");
        self.drain.leave();
        if self.next(Some(Instant::now() + times.delay))? {
            tracing::warn!("asked again: ending now");
            return self.end_now();
        }
        tracing::info!(timeout = ?times.timeout, "draining: listeners close, idle connections go first");
        self.drain.drain(times.timeout);
        self.workers_ended(Instant::now() + times.timeout + WORKER_GRACE)
    }

    /// Cuts all connections, which still get their records.
    fn end_now(&self) -> Result<(), RunError> {
        self.drain.drain(Duration::ZERO);
        self.workers_ended(Instant::now() + WORKER_GRACE)
    }

    /// Waits for all workers to end by themselves, for the second signal, or for the deadline.
    fn workers_ended(&self, mut deadline: Instant) -> Result<(), RunError> {
        let mut left = self.workers;
        while left > 0 {
            match self.wait(Some(deadline)) {
                Happening::Worker(Ended { result: Ok(()), .. }) => left -= 1,
                Happening::Worker(Ended { worker, result: Err(reason) }) => {
                    return Err(RunError::WorkerDied { worker, reason });
                }
                Happening::Event(Event::Terminate) if !self.is_second_signal() => {}
                Happening::Event(Event::Terminate) if deadline > Instant::now() + WORKER_GRACE => {
                    tracing::warn!("asked again: ending now");
                    self.drain.drain(Duration::ZERO);
                    deadline = Instant::now() + WORKER_GRACE;
                }
                // That late the cut is under way already.
                Happening::Event(_) => {}
                Happening::Deadline => {
                    tracing::error!(workers = left, "workers did not end in time; ending without them");
                    return Ok(());
                }
            }
        }
        tracing::info!("drained");
        Ok(())
    }

    /// Waits until the end is asked for (`true`) or the deadline is reached (`false`).
    fn next(&self, deadline: Option<Instant>) -> Result<bool, RunError> {
        loop {
            match self.wait(deadline) {
                // The SIGTERM that follows a `POST /drain` (a preStop hook) is the first signal.
                Happening::Event(Event::Terminate) if self.is_second_signal() || deadline.is_none() => {
                    return Ok(true);
                }
                Happening::Event(Event::Terminate) => {}
                // Asking for a drain that is under way is no second signal.
                Happening::Event(Event::DrainRequested) if deadline.is_none() => return Ok(true),
                Happening::Event(Event::DrainRequested) => {}
                Happening::Event(Event::Failed(reason)) => return Err(RunError::ControlDied(reason)),
                Happening::Worker(Ended { worker, result }) => {
                    let reason = result.err().unwrap_or_else(|| "it ended by itself".to_owned());
                    return Err(RunError::WorkerDied { worker, reason });
                }
                Happening::Deadline => return Ok(false),
            }
        }
    }

    /// To be asked once for each signal.
    fn is_second_signal(&self) -> bool {
        self.signalled.replace(true)
    }

    fn wait(&self, deadline: Option<Instant>) -> Happening {
        let event = |event: Result<Event, flume::RecvError>| {
            let gone = || Event::Failed("its thread has ended".to_owned());
            Happening::Event(event.unwrap_or_else(|_| gone()))
        };
        let worker = |ended: Result<Ended, flume::RecvError>| match ended {
            Ok(ended) => Happening::Worker(ended),
            Err(_) => Happening::Worker(Ended { worker: 0, result: Err("its thread is gone".to_owned()) }),
        };
        let selector = flume::Selector::new().recv(&self.events, event).recv(&self.ended, worker);
        match deadline {
            Some(deadline) => selector.wait_deadline(deadline).unwrap_or(Happening::Deadline),
            None => selector.wait(),
        }
    }

    /// The last steps; each is bounded, so that nothing slow holds the exit.
    fn stop(self) {
        self.control.stop();
        self.sinks.finish();
    }
}

enum Happening {
    Event(Event),
    Worker(Ended),
    Deadline,
}
