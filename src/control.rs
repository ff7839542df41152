//! The control side: reloads, signals, probes, and the admin port, on one thread of its own.
//!
//! It reads the file, compiles and publishes tables, answers probes and scrapes, and tells the main thread
//! what it was asked for. It never carries a connection's bytes, never waits for a worker without a bound,
//! and never takes a working table away: whatever fails here, the last good table keeps serving.

mod admin;
mod certificates;
mod ejector;
mod generations;
mod history;
mod kubernetes;
mod loops;
mod memory;
pub mod metrics;
mod probes;
mod propagation;
mod reload;
mod shared;
mod signals;
mod status;
mod tables;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::config::Config;
use crate::resilience::MemoryState;
use crate::routing::publish::{BoundListener, Publisher};
use crate::routing::{Places, RouteTable};
use crate::shutdown::Drain;
use crate::telemetry::logging::Level;
use crate::telemetry::otlp::MetricSettings;
use crate::telemetry::{LiveDirectory, Views, WorkerCounters};
use crate::tls::Credentials;

use certificates::{Delivery, Files};
use ejector::Ejector;
use kubernetes::{Discovery, Observation};
use probes::Prober;
use reload::{Reloader, Trigger};
use shared::{Shared, Tuning};
use signals::Signals;
use tables::Tables;
use watch::FileWatch;

pub use reload::Reloaded;

/// Reads the configuration anew. The error has one line for each thing that is wrong.
pub type Load = Box<dyn Fn() -> Result<Config, String> + Send>;

/// Binds what the second table has and the first lacks: for each worker a socket of each new listener.
/// The error is one line that says which address, and what to do.
pub type Bind = Box<dyn Fn(&RouteTable, &RouteTable) -> Result<Vec<Vec<BoundListener>>, String> + Send>;

/// Reloads that may wait for the one under way.
const TRIGGERS_MAX: usize = 16;
/// What watches have seen and nobody has taken in yet; then they wait, and the API server with them.
const OBSERVATIONS_MAX: usize = 256;
/// How long [`Handle::stop`] waits for the thread.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it then waits for the last metrics to be sent.
const PUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// What the control side works with.
pub struct Parts {
    /// The configuration of the table that is published already.
    pub config: Config,
    pub load: Load,
    /// Watched for changes; `None`: never.
    pub config_file: Option<PathBuf>,
    /// What that table was made with.
    pub credentials: Credentials,
    pub publisher: Publisher,
    pub bind: Bind,
    /// Bound, so that an address in use stops the start and not the control side.
    pub admin: std::net::TcpListener,
    /// One for each worker, in the workers' order.
    pub counters: Vec<Arc<WorkerCounters>>,
    pub live: LiveDirectory,
    /// What the telemetry thread keeps, and by what.
    pub telemetry: Views,
    /// How metrics are sent by OTLP, if they are.
    pub metrics: Option<MetricSettings>,
    /// Of the process's own log.
    pub log: Level,
    pub drain: Drain,
    /// To the main thread. Give it room: a SIGTERM that does not fit waits here.
    pub events: flume::Sender<Event>,
    /// Whether SIGTERM, SIGINT and SIGHUP are this process's to handle.
    pub handle_signals: bool,
    pub limits: ConnectionLimits,
}

/// How many connections there may be.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// The process's places for connections, for the gauges.
    pub places: Arc<Places>,
    pub max: usize,
    /// Connections to the admin port; more descriptors are not kept for them.
    pub admin: usize,
    /// Where workers read whether the process is short of memory.
    pub memory: Arc<MemoryState>,
}

/// What the main thread has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// SIGTERM or SIGINT; one for each.
    Terminate,
    /// `POST /drain`.
    DrainRequested,
    /// The control side is gone, and why; connections go on without it.
    Failed(String),
}

/// The running control side. Dropping it stops the thread without waiting for it.
#[derive(Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    triggers: flume::Sender<Trigger>,
    stop: flume::Sender<()>,
    finished: flume::Receiver<()>,
    /// Of the thread that sends metrics.
    pushed: Option<flume::Receiver<()>>,
    admin: SocketAddr,
}

/// Starts the control thread; signals are handled and the admin port answers once this returns.
///
/// # Errors
/// When the thread, its runtime, the signal handlers or the admin socket cannot be set up.
pub fn start(parts: Parts) -> io::Result<Handle> {
    start_with(parts, Tuning::default())
}

fn start_with(mut parts: Parts, tuning: Tuning) -> io::Result<Handle> {
    let metrics = parts.metrics.take();
    let (ticks, ticked) = flume::bounded(1);
    let ticker = metrics::tick(metrics.as_ref().map(|settings| settings.interval), ticks);
    let admin = parts.admin.local_addr()?;
    let (triggers, triggered) = flume::bounded(TRIGGERS_MAX);
    let (stop, stopped) = flume::bounded(1);
    let (finish, finished) = flume::bounded(1);
    let (ready, started) = flume::bounded(1);
    let events = parts.events.clone();
    let again = triggers.clone();
    thread::Builder::new().name("sheave-control".into()).spawn(move || {
        let mut alarm = Alarm::new(events);
        match Side::new(parts, tuning) {
            Ok((runtime, side)) => {
                let _starter_waits = ready.send(Ok(Arc::clone(&side.shared)));
                runtime.block_on(side.run(again, triggered, stopped, ticker));
            }
            Err(error) => {
                let _starter_waits = ready.send(Err(error));
            }
        }
        alarm.disarm();
        drop(finish);
    })?;
    let shared = started.recv().map_err(|_| {
        io::Error::other("the control thread ended while it started; the log above says why")
    })??;
    let push = |settings| metrics::push(Arc::clone(&shared), settings, ticked);
    let pushed = metrics.map(push).transpose()?;
    Ok(Handle { shared, triggers, stop, finished, pushed, admin })
}

impl Handle {
    /// Where the admin port listens.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The configuration of the table that is published now. What needs a restart is in it, but not in effect.
    pub fn config(&self) -> Arc<Config> {
        self.shared.status.report().config
    }

    /// Reloads as SIGHUP does, and waits for the result.
    ///
    /// # Errors
    /// What SIGHUP would log, one line for each thing that is wrong; the table before it keeps serving.
    pub fn reload(&self) -> Result<Reloaded, String> {
        let (reply, answer) = flume::bounded(1);
        let gone = "the control side has ended; restart the process to reload";
        self.triggers.send(Trigger::Asked(reply)).map_err(|_| gone)?;
        answer.recv().map_err(|_| gone)?
    }

    /// Ends the control side; waits for it, but never longer than a second, and two for the last metrics to be sent.
    pub fn stop(self) {
        let _ended_already = self.stop.try_send(());
        let _disconnected_or_too_slow = self.finished.recv_timeout(STOP_TIMEOUT);
        if let Some(pushed) = self.pushed {
            let _disconnected_or_too_slow = pushed.recv_timeout(PUSH_TIMEOUT);
        }
    }
}

/// Everything that runs on the control thread.
struct Side {
    shared: Arc<Shared>,
    reloader: Reloader,
    discovery: Discovery,
    observations: flume::Receiver<Observation>,
    files: Files,
    deliveries: flume::Receiver<Delivery>,
    signals: Option<Signals>,
    config_file: Option<PathBuf>,
    admin: tokio::net::TcpListener,
}

impl Side {
    fn new(parts: Parts, tuning: Tuning) -> io::Result<(tokio::runtime::Runtime, Self)> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        // Scrapes, and looking up the API server's name.
        let runtime = runtime.thread_name("sheave-helper").enable_all().build()?;
        let context = runtime.enter();
        parts.admin.set_nonblocking(true)?;
        let admin = tokio::net::TcpListener::from_std(parts.admin)?;
        let signals = parts.handle_signals.then(Signals::new).transpose()?;
        drop(context);
        let shared = Arc::new(Shared::new(
            shared::Sources {
                publisher: parts.publisher,
                counters: parts.counters,
                live: parts.live,
                telemetry: parts.telemetry,
                log: parts.log,
                drain: parts.drain,
                events: parts.events,
                limits: parts.limits,
            },
            parts.config,
            tuning,
        ));
        let (observed, observations) = flume::bounded(OBSERVATIONS_MAX);
        let (delivered, deliveries) = flume::bounded(OBSERVATIONS_MAX);
        let tables =
            Tables::new(Arc::clone(&shared), parts.bind, Arc::clone(&shared.started_with), parts.credentials);
        let side = Self {
            reloader: Reloader::new(Arc::clone(&shared), parts.load, tables),
            discovery: Discovery::new(
                shared.started_with.kubernetes.kubeconfig.clone(),
                Arc::clone(&shared.watches),
                shared.configs.subscribe(),
                observed,
            ),
            observations,
            files: Files::new(shared.configs.subscribe(), delivered, shared.tuning.clone()),
            deliveries,
            shared,
            signals,
            config_file: parts.config_file,
            admin,
        };
        Ok((runtime, side))
    }

    /// Runs until stopped. All of it is one task but for the admin connections, so that nothing here can
    /// end unnoticed: a panic ends the thread, and the main thread hears of that.
    async fn run(
        self,
        triggers: flume::Sender<Trigger>,
        triggered: flume::Receiver<Trigger>,
        stopped: flume::Receiver<()>,
        ticker: impl Future<Output = ()>,
    ) {
        let events = &self.shared.events;
        tokio::select! {
            _dropped_or_told = stopped.recv_async() => {}
            () = self.reloader.run(triggered, self.observations, self.deliveries) => {}
            () = self.files.run() => {}
            () = self.discovery.run() => {}
            () = Prober::new(Arc::clone(&self.shared)).run() => {}
            () = Ejector::new(Arc::clone(&self.shared)).run() => {}
            () = self.shared.propagation.follow(&self.shared.publisher, &self.shared.generations) => {}
            () = history::follow(&self.shared) => {}
            () = memory::watch(&self.shared) => {}
            () = ticker => {}
            () = signals::forward(self.signals, events, &triggers) => {}
            () = watch_file(self.config_file, &self.shared.tuning, &triggers) => {}
            () = admin::serve(self.admin, Arc::clone(&self.shared)) => {}
        }
    }
}

async fn watch_file(file: Option<PathBuf>, tuning: &Tuning, triggers: &flume::Sender<Trigger>) {
    let Some(file) = file else {
        return std::future::pending().await;
    };
    let mut watch = FileWatch::start(file, tuning.clone());
    loop {
        // The first look is for a change between the start's reading of the file and the watch.
        if triggers.send_async(Trigger::File).await.is_err() {
            return;
        }
        watch.changed().await;
    }
}

/// Tells the main thread when the control thread unwinds.
struct Alarm {
    events: Option<flume::Sender<Event>>,
}

impl Alarm {
    fn new(events: flume::Sender<Event>) -> Self {
        Self { events: Some(events) }
    }

    fn disarm(&mut self) {
        self.events = None;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(events) = self.events.take() {
            let what = "the control thread panicked: no reloads, probes or metrics any more";
            let _main_is_gone = events.try_send(Event::Failed(what.into()));
        }
    }
}

#[cfg(test)]
mod tests;
