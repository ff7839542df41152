//! From what may have changed to a published table: the file, or the cluster.
//!
//! One reload at a time, in the order in which they were asked for; changes of the cluster go on meanwhile. Whatever
//! fails, nothing has changed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::config::Config;
use crate::shutdown::Phase;

use super::Load;
use super::certificates::Delivery;
use super::kubernetes::Observation;
use super::shared::Shared;
use super::tables::{Published, Refused, Tables};

/// Why to reload.
#[derive(Debug)]
pub(super) enum Trigger {
    /// The file may have changed; what says the same as before is no reload.
    File,
    Signal,
    /// Files that the configuration names could not be used, and may be good by now.
    Files,
    Asked(flume::Sender<Result<Reloaded, String>>),
}

/// A reload that published a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    pub generation: u64,
    /// Whether all workers had the table in time; those that had not will still take it.
    pub acknowledged: bool,
    /// Sections of the file that differ from what runs, and need a restart.
    pub restart_needed: Vec<&'static str>,
}

pub(super) struct Reloader {
    shared: Arc<Shared>,
    load: Load,
    tables: Tables,
    /// When to try again after a reload that failed for files that the configuration names.
    retry_at: Option<Instant>,
}

/// A reload whose table the workers are about to take.
type Settling = Pin<Box<dyn Future<Output = ()>>>;

impl Reloader {
    pub(super) fn new(shared: Arc<Shared>, load: Load, tables: Tables) -> Self {
        Self { shared, load, tables, retry_at: None }
    }

    /// Reloads whenever asked to, and publishes what the watches have seen.
    pub(super) async fn run(
        mut self,
        triggers: flume::Receiver<Trigger>,
        observations: flume::Receiver<Observation>,
        deliveries: flume::Receiver<Delivery>,
    ) {
        let verdicts = Arc::clone(self.shared.publisher.verdicts());
        let mut settling: FuturesUnordered<Settling> = FuturesUnordered::new();
        loop {
            let due = self.tables.due();
            tokio::select! {
                trigger = triggers.recv_async(), if settling.is_empty() => match trigger {
                    Ok(trigger) => settling.extend(self.heed(trigger)),
                    Err(_) => return,
                },
                Some(()) = settling.next() => {}
                () = sleep_until(self.retry_at), if self.retry_at.is_some() && settling.is_empty() => {
                    settling.extend(self.heed(Trigger::Files));
                }
                Ok(observation) = observations.recv_async() => {
                    self.tables.observe(observation);
                    observations.try_iter().for_each(|observation| self.tables.observe(observation));
                }
                Ok(delivery) = deliveries.recv_async() => self.tables.deliver(delivery),
                upstreams = verdicts.told() => self.tables.judge(upstreams),
                () = sleep_until(due), if due.is_some() => self.tables.refresh(),
            }
        }
    }

    /// What is still to be waited for.
    fn heed(&mut self, trigger: Trigger) -> Option<Settling> {
        self.retry_at = None;
        if let Phase::Draining { .. } = self.shared.drain.phase() {
            let error = "not reloaded: the process is draining and takes no new table";
            tracing::warn!("{error}");
            answer(trigger, Err(error.into()));
            return None;
        }
        let loaded = (self.load)();
        if matches!(trigger, Trigger::File) && self.shared.status.knows(&loaded) {
            tracing::debug!("the configuration file says what it said before");
            return None;
        }
        match self.reload(loaded) {
            Ok(settling) => Some(Box::pin(async move { answer(trigger, Ok(settling.await)) })),
            Err(Refused { error, is_for_files }) => {
                self.retry_at = is_for_files.then(|| Instant::now() + self.shared.tuning.poll);
                if matches!(trigger, Trigger::Files) && self.shared.status.has_failed_with(&error) {
                    return None;
                }
                self.shared.status.failed(&error);
                tracing::error!(
                    generation = self.shared.publisher.current().generation,
                    errors = %one_line(&error),
                    "reload failed; the table before it keeps serving",
                );
                answer(trigger, Err(error));
                None
            }
        }
    }

    fn reload(
        &mut self,
        loaded: Result<Config, String>,
    ) -> Result<impl Future<Output = Reloaded> + use<>, Refused> {
        let config = Arc::new(loaded?);
        let started = Instant::now();
        let restart_needed = restart_needed(&self.shared.started_with, &config);
        let published = self.tables.reconfigure(Arc::clone(&config))?;
        self.shared.status.succeeded(config, restart_needed.clone());
        Ok(settle(Arc::clone(&self.shared), published, started, restart_needed))
    }
}

/// Waits for the workers, and says how it went.
async fn settle(
    shared: Arc<Shared>,
    published: Published,
    started: Instant,
    restart_needed: Vec<&'static str>,
) -> Reloaded {
    // Until everything else on this thread has had a turn: whoever follows the cluster must see every configuration,
    // so that a Service that is dropped and named again is listed again.
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    let Published { generation, listeners, endpoints, at } = published;
    let acknowledged = acknowledged(&shared, generation).await;
    if acknowledged {
        shared.status.propagated(at.elapsed());
    }
    tracing::info!(
        generation,
        listeners,
        endpoints,
        milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        acknowledged,
        "table published",
    );
    if !restart_needed.is_empty() {
        tracing::warn!(
            sections = restart_needed.join(", "),
            "these sections of the configuration changed and take effect with a restart; the rest is in effect",
        );
    }
    Reloaded { generation, acknowledged, restart_needed }
}

/// Waits until all workers have the table, and says so if one has not in time.
async fn acknowledged(shared: &Shared, generation: u64) -> bool {
    let bound = shared.tuning.acknowledge;
    let _in_time = tokio::time::timeout(bound, shared.propagation.reaches(generation)).await;
    let behind: Vec<String> = shared
        .publisher
        .acknowledged_by_worker()
        .iter()
        .enumerate()
        .filter(|(_, acknowledged)| **acknowledged < generation)
        .map(|(worker, _)| worker.to_string())
        .collect();
    if !behind.is_empty() {
        tracing::warn!(
            generation,
            workers = behind.join(", "),
            waited_seconds = bound.as_secs_f64(),
            "these workers have not taken the table yet and route by an older one; /livez says whether they are stuck",
        );
    }
    behind.is_empty()
}

fn answer(trigger: Trigger, result: Result<Reloaded, String>) {
    if let Trigger::Asked(reply) = trigger {
        let _nobody_waits = reply.send(result);
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// The sections that are read at the start only, and differ; by their names in the file.
fn restart_needed(running: &Config, next: &Config) -> Vec<&'static str> {
    [
        ("workers", running.workers != next.workers),
        ("admin", running.admin != next.admin),
        ("limits", running.limits != next.limits),
        ("log", running.log != next.log),
        ("accessLog", running.access_log != next.access_log),
        ("metrics.otlp", running.metrics.otlp != next.metrics.otlp),
        ("tracing", running.tracing != next.tracing),
        ("kubernetes", running.kubernetes != next.kubernetes),
    ]
    .into_iter()
    .filter_map(|(section, differs)| differs.then_some(section))
    .collect()
}

fn one_line(errors: &str) -> String {
    errors.lines().collect::<Vec<_>>().join("; ")
}
