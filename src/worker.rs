//! One pinned thread per core: its runtime, its listening sockets, its connections.
//!
//! A worker follows three things from outside: tables (`routing::publish`), the phase of the process (`shutdown`)
//! and questions about live connections (`telemetry`). It never names the control side.

mod accept;
pub mod cores;
mod drain;
mod leave;
mod policy;
mod rebalance;
pub(crate) mod runtime;
mod share;
mod slots;
pub mod socket;

use std::any::Any;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use crate::config::Driver;
use crate::connection::{Context, Live, Outside};
use crate::resilience::{MemoryState, Watermark};
use crate::routing::Places;
use crate::routing::publish::Subscriber;
use crate::shutdown::DrainWatch;
use crate::telemetry::{LiveInbox, LiveQuery, Outcome, Report, Sampling, WorkerCounters, process_clock_ms};

use runtime::Runtime;
pub use share::Crew;
use slots::Slots;

/// What a worker is given.
pub struct Parts {
    pub index: usize,
    /// The core to stay on; `None`: wherever the kernel likes.
    pub core: Option<usize>,
    pub driver: Driver,
    /// How long to look for more after an event before sleeping; `None`: not at all.
    pub busy_poll: Option<Duration>,
    pub subscriber: Subscriber,
    pub drain: DrainWatch,
    pub live: LiveInbox,
    pub counters: Arc<WorkerCounters>,
    /// The other workers.
    pub crew: Crew,
    /// The connections of all workers.
    pub places: Arc<Places>,
    pub places_max: usize,
    pub pipes_max: usize,
    pub records: flume::Sender<Report>,
    /// Which of them are wanted.
    pub sampling: Arc<Sampling>,
    /// What the control side says of the memory.
    pub memory: Arc<MemoryState>,
    /// How late the loop may run before new connections are refused; `None`: as late as it likes.
    pub loop_lag: Option<Duration>,
}

/// How a worker's thread ended.
#[derive(Debug)]
pub struct Ended {
    pub worker: usize,
    /// `Err`: it died, and why.
    pub result: Result<(), String>,
}

/// Starts a worker's thread; `ended` hears of its end, however it comes.
pub fn spawn(parts: Parts, ended: flume::Sender<Ended>) -> io::Result<thread::JoinHandle<()>> {
    let worker = parts.index;
    thread::Builder::new().name(format!("sheave-worker-{worker}")).spawn(move || {
        let result = match catch_unwind(AssertUnwindSafe(|| run(parts))) {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(panic) => Err(panic_message(&*panic)),
        };
        let _nobody_listens = ended.send(Ended { worker, result });
    })
}

fn run(parts: Parts) -> io::Result<()> {
    if let Some(core) = parts.core {
        cores::pin(core)?;
    }
    let (runtime, kind) = Runtime::build(parts.driver, parts.core)?;
    let runtime = runtime.spinning(parts.busy_poll);
    tracing::info!(
        worker = parts.index,
        driver = kind.driver,
        rung = kind.rung,
        core = kind.core,
        "worker started"
    );
    let completes_reads = kind.driver == "io_uring";
    let _built_once = parts.counters.runtime.set(kind);
    runtime.block_on(async move {
        let worker = Worker::new(parts, completes_reads);
        worker.start();
        worker.ended().await
    })
}

/// What the tasks of a worker share.
pub(crate) struct Worker {
    pub(crate) context: Rc<Context>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) places: Arc<Places>,
    pub(crate) places_max: usize,
    slots: Slots,
    crew: Crew,
    subscriber: Subscriber,
    drain: DrainWatch,
    live: LiveInbox,
    loop_lag: Option<Duration>,
    end: RefCell<Option<io::Result<()>>>,
}

/// Short beside the stalls that it is to notice: what begins before a timer is due adds to it only from then on.
const HEARTBEAT: Duration = Duration::from_millis(200);

impl Worker {
    fn new(parts: Parts, completes_reads: bool) -> Rc<Self> {
        let context = Context::new(
            parts.index,
            completes_reads,
            parts.pipes_max,
            Arc::clone(&parts.counters),
            Outside {
                records: parts.records,
                sampling: parts.sampling,
                verdicts: Arc::clone(parts.subscriber.verdicts()),
                memory: parts.memory,
                tables: parts.subscriber.tables().clone(),
            },
        );
        Rc::new(Self {
            context: Rc::new(context),
            counters: parts.counters,
            places: parts.places,
            places_max: parts.places_max,
            slots: Slots::default(),
            crew: parts.crew,
            subscriber: parts.subscriber,
            drain: parts.drain,
            live: parts.live,
            loop_lag: parts.loop_lag,
            end: RefCell::new(None),
        })
    }

    fn start(self: &Rc<Self>) {
        self.spawn_vital(|worker| async move { worker.beat().await });
        self.spawn_vital(|worker| async move { worker.follow_tables().await });
        self.spawn_vital(|worker| async move { worker.answer_queries().await });
        self.spawn_vital(|worker| async move { worker.context.registry.run_timeouts().await });
        self.spawn_vital(|worker| async move { crate::connection::watch(&worker.context.registry).await });
        self.spawn_vital(
            |worker| async move { crate::connection::tell_of_long_lived(&worker.context).await },
        );
        self.spawn_vital(|worker| async move { drain::follow(&worker).await });
        self.spawn_vital(|worker| async move { leave::follow(&worker).await });
        self.spawn_vital(|worker| async move { policy::follow(&worker).await });
        self.spawn_vital(|worker| async move { rebalance::follow(&worker).await });
        self.spawn_vital(|worker| async move { share::follow(&worker).await });
    }

    /// Waits for the end. Polled on every turn of the loop, so a look at a cell has to do.
    async fn ended(&self) -> io::Result<()> {
        poll_fn(|_| self.end.borrow_mut().take().map_or(Poll::Pending, Poll::Ready)).await
    }

    /// Ends the worker. The first reason stands.
    pub(crate) fn end(&self, result: io::Result<()>) {
        self.end.borrow_mut().get_or_insert(result);
    }

    /// Spawns a task that the worker cannot do without: if it panics, the worker ends. (The runtime catches panics
    /// of tasks, which is right for connections and would leave a worker that looks alive and does nothing.)
    pub(crate) fn spawn_vital<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        task: impl FnOnce(Rc<Self>) -> F,
    ) {
        let task = task(Rc::clone(self));
        let guard = PanicGuard(Rc::clone(self));
        runtime::spawn(async move {
            let _guard = guard;
            task.await;
        });
    }

    async fn beat(&self) {
        let mut watermark = self.loop_lag.map(Watermark::of_lag);
        loop {
            self.counters.shown.heartbeat.store(process_clock_ms(), Ordering::Relaxed);
            let due = Instant::now() + HEARTBEAT;
            runtime::sleep(HEARTBEAT).await;
            #[cfg(feature = "faults")]
            crate::faults::stall_worker();
            let lag = Instant::now().saturating_duration_since(due);
            self.counters.beat(lag, runtime::thread_cpu().saturating_sub(runtime::spun()));
            if let Some(is_late) = watermark.as_mut().and_then(|watermark| watermark.enter(lag)) {
                self.run_late(is_late, lag);
            }
        }
    }

    /// Says that the loop runs too late for new connections, or no longer does.
    fn run_late(&self, is_late: bool, lag: Duration) {
        self.counters.shown.runs_late.store(is_late, Ordering::Relaxed);
        let (worker, bound) = (self.context.worker, self.loop_lag.unwrap_or_default());
        if is_late {
            tracing::warn!(
                worker,
                ?lag,
                ?bound,
                "overload: the worker's loop runs late; new connections are refused until it keeps up"
            );
        } else {
            tracing::info!(worker, ?lag, ?bound, "overload is over: the worker's loop keeps up");
        }
    }

    async fn answer_queries(&self) {
        while let Ok(query) = self.live.recv_async().await {
            let registry = &self.context.registry;
            match query {
                LiveQuery::List { wish, reply } => {
                    let _asker_gave_up = reply.try_send(registry.list(&wish).await);
                }
                LiveQuery::Close { id, reply } => {
                    let _asker_gave_up = reply.try_send(registry.end(id, Outcome::AdminClosed));
                }
            }
        }
    }

    async fn follow_tables(self: &Rc<Self>) {
        let current = self.subscriber.current();
        let (mut departures, mut restrictions) = (current.departures, current.restrictions);
        drop(current);
        while self.subscriber.published().await {
            let sockets = self.subscriber.take_sockets();
            let next = self.subscriber.current();
            self.slots.apply(self, &next, sockets);
            if next.departures != departures {
                // Connections that are accepted or get their endpoint only after this see it by themselves.
                let leaving = self.context.registry.matching(Live::has_to_leave);
                leaving.iter().for_each(|live| self.context.registry.schedule(live));
                self.context.departures.tell();
            }
            if next.restrictions != restrictions {
                self.context.restrictions.tell();
            }
            self.subscriber.acknowledge(next.generation);
            (departures, restrictions) = (next.departures, next.restrictions);
        }
    }
}

struct PanicGuard(Rc<Worker>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end(Err(io::Error::other("a task that the worker cannot do without has panicked")));
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".to_owned())
}
