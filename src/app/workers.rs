//! Starting the workers, and knowing that they serve.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, Name};
use crate::resilience::MemoryState;
use crate::routing::publish::{BoundListener, Publisher, Subscriber};
use crate::routing::{Places, RouteTable};
use crate::shutdown::Drain;
use crate::telemetry::{LiveInbox, Sinks, WorkerCounters};
use crate::worker::socket::BindError;
use crate::worker::{self, Crew, Ended, Parts};

use super::limits::{Capacity, TooFew};

/// Why an instance cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A line for each, with its place in the configuration.
    #[error("{0}")]
    Certificates(String),
    #[error("the cores that this process may use cannot be read: {0}")]
    Cores(io::Error),
    #[error("admin.address: cannot listen on {address}: {error}; write a free address, or one of this host")]
    Admin { address: SocketAddr, error: io::Error },
    #[error(transparent)]
    Descriptors(#[from] TooFew),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("a thread cannot be started: {0}; raise the limits on threads (ulimit -u, pids.max) or memory")]
    Thread(#[from] io::Error),
    #[error("worker {worker} cannot start: {reason}")]
    Worker { worker: usize, reason: String },
    #[error("the workers do not answer; see the log above")]
    NoAnswer,
    #[error("the control side cannot start: {0}")]
    Control(io::Error),
}

/// How long a worker may take from its thread to its first table.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// What all workers are started with.
pub(super) struct Team<'a> {
    pub(super) config: &'a Config,
    pub(super) cores: &'a [Option<usize>],
    pub(super) capacity: Capacity,
    pub(super) drain: &'a Drain,
    pub(super) sinks: &'a Sinks,
}

/// The workers, whose threads run from now on.
pub(super) struct Started {
    pub(super) counters: Vec<Arc<WorkerCounters>>,
    pub(super) places: Arc<Places>,
    pub(super) memory: Arc<MemoryState>,
    pub(super) ended: flume::Receiver<Ended>,
}

impl Team<'_> {
    pub(super) fn start(
        &self,
        subscribers: Vec<Subscriber>,
        inboxes: Vec<LiveInbox>,
    ) -> Result<Started, StartError> {
        let (ended_sender, ended) = flume::bounded(self.cores.len());
        let counters: Vec<Arc<WorkerCounters>> = self.cores.iter().map(|_| Arc::default()).collect();
        let places = Arc::new(Places::default());
        let memory = Arc::new(MemoryState::default());
        let crews = Crew::of(&counters);
        let each = self.cores.iter().zip(subscribers).zip(inboxes).zip(&counters).zip(crews).enumerate();
        for (index, ((((core, subscriber), live), counters), crew)) in each {
            let parts = Parts {
                index,
                core: *core,
                driver: self.config.workers.driver,
                busy_poll: self.config.workers.busy_poll,
                subscriber,
                drain: self.drain.watch(),
                live,
                counters: Arc::clone(counters),
                crew,
                places: Arc::clone(&places),
                places_max: self.capacity.places,
                pipes_max: self.capacity.pipes,
                records: self.sinks.sender(),
                sampling: Arc::clone(&self.sinks.views().sampling),
                memory: Arc::clone(&memory),
                loop_lag: self.config.limits.overload.loop_lag,
            };
            worker::spawn(parts, ended_sender.clone())?;
        }
        Ok(Started { counters, places, memory, ended })
    }
}

impl Started {
    /// Waits until all workers have the table and accept, or one of them has died.
    pub(super) fn wait_until_serving(
        &self,
        publisher: &Publisher,
        generation: u64,
    ) -> Result<(), StartError> {
        let deadline = Instant::now() + START_TIMEOUT;
        while publisher.acknowledged() < generation {
            match self.ended.recv_timeout(POLL_INTERVAL) {
                Ok(Ended { worker, result }) => {
                    let reason = result.err().unwrap_or_else(|| "it ended by itself".to_owned());
                    return Err(StartError::Worker { worker, reason });
                }
                Err(flume::RecvTimeoutError::Disconnected) => return Err(StartError::NoAnswer),
                Err(flume::RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                    return Err(StartError::NoAnswer);
                }
                Err(flume::RecvTimeoutError::Timeout) => {}
            }
        }
        Ok(())
    }
}

/// Where each listener is bound, as the first worker's sockets say.
pub(super) fn listener_addresses(
    table: &RouteTable,
    sockets: &[Vec<BoundListener>],
) -> BTreeMap<Name, SocketAddr> {
    let bound = sockets.first().into_iter().flatten();
    bound
        .filter_map(|bound| Some((bound.address, bound.socket.local_addr().ok()?)))
        .flat_map(|(address, bound)| {
            let there = table.listeners.iter().filter(move |listener| listener.address == address);
            there.map(move |listener| (listener.name.clone(), bound))
        })
        .collect()
}
