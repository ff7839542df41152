//! From the file to a published table: load, compile, bind, publish, and hear from every worker.
//!
//! One reload at a time, in the order in which they were asked for. Whatever fails, nothing has changed.

use std::sync::Arc;
use std::time::Instant;

use crate::config::Config;
use crate::routing::RouteTable;
use crate::shutdown::Phase;

use super::shared::Shared;
use super::{Bind, Load, metrics};

/// Why to reload.
#[derive(Debug)]
pub(super) enum Trigger {
    /// The file may have changed; what says the same as before is no reload.
    File,
    Signal,
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
    bind: Bind,
}

impl Reloader {
    pub(super) fn new(shared: Arc<Shared>, load: Load, bind: Bind) -> Self {
        Self { shared, load, bind }
    }

    /// Reloads whenever asked to.
    pub(super) async fn run(self, triggers: flume::Receiver<Trigger>) {
        while let Ok(trigger) = triggers.recv_async().await {
            if let Phase::Draining { .. } = self.shared.drain.phase() {
                let error = "not reloaded: the process is draining and takes no new table";
                tracing::warn!("{error}");
                if let Trigger::Asked(reply) = trigger {
                    let _nobody_waits = reply.send(Err(error.into()));
                }
                continue;
            }
            let loaded = (self.load)();
            match trigger {
                Trigger::File if self.shared.status.knows(&loaded) => {
                    tracing::debug!("the configuration file says what it said before");
                }
                Trigger::File | Trigger::Signal => {
                    let _logged_and_counted = self.reload(loaded).await;
                }
                Trigger::Asked(reply) => {
                    let _nobody_waits = reply.send(self.reload(loaded).await);
                }
            }
        }
    }

    async fn reload(&self, loaded: Result<Config, String>) -> Result<Reloaded, String> {
        let result = match loaded {
            Ok(config) => self.publish(config).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            self.shared.status.failed(error);
            tracing::error!(
                generation = self.shared.publisher.current().generation,
                errors = %one_line(error),
                "reload failed; the table before it keeps serving",
            );
        }
        result
    }

    async fn publish(&self, config: Config) -> Result<Reloaded, String> {
        let Shared { publisher, status, .. } = &*self.shared;
        let started = Instant::now();
        let current = publisher.current();
        let next = crate::routing::compile(&config, &current);
        let sockets = (self.bind)(&current, &next)?;
        let restart_needed = restart_needed(&self.shared.started_with, &config);
        let (generation, listeners, endpoints) = (next.generation, next.listeners.len(), endpoints(&next));
        let published = Instant::now();
        publisher.publish(Arc::new(next), sockets);
        status.succeeded(config, restart_needed.clone());
        drop(metrics::collect(&self.shared)); // Forgets what left the table.
        let acknowledged = self.acknowledged(generation).await;
        if acknowledged {
            status.propagated(published.elapsed());
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
        Ok(Reloaded { generation, acknowledged, restart_needed })
    }

    /// Waits until all workers have the table, and says so if one has not in time.
    async fn acknowledged(&self, generation: u64) -> bool {
        let publisher = &self.shared.publisher;
        let bound = self.shared.tuning.acknowledge;
        let _in_time = tokio::time::timeout(bound, publisher.acknowledged_by_all(generation)).await;
        let behind: Vec<String> = publisher
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
}

/// The sections that are read at the start only, and differ; by their names in the file.
fn restart_needed(running: &Config, next: &Config) -> Vec<&'static str> {
    [
        ("workers", running.workers != next.workers),
        ("admin", running.admin != next.admin),
        ("limits", running.limits != next.limits),
        ("log", running.log != next.log),
        ("accessLog", running.access_log != next.access_log),
    ]
    .into_iter()
    .filter_map(|(section, differs)| differs.then_some(section))
    .collect()
}

fn endpoints(table: &RouteTable) -> usize {
    table.upstreams.values().map(|upstream| upstream.endpoints.len()).sum()
}

fn one_line(errors: &str) -> String {
    errors.lines().collect::<Vec<_>>().join("; ")
}
