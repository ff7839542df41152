//! The thread that sends spans, in batches, one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::http::Trouble;
use super::{SpanCounters, TraceSettings, client, resource};

/// How long spans gather before they are taken: being woken for those of each connection costs more than sending them.
const GATHER: Duration = Duration::from_millis(5);
/// The log says at most once in this time that spans are lost.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Exporter {
    pub(super) settings: TraceSettings,
    pub(super) queue: flume::Receiver<Vec<SpanData>>,
    pub(super) counters: Arc<SpanCounters>,
}

impl Exporter {
    /// Starts the thread. The receiver hears, by its end, that all is sent that can be.
    pub(super) fn start(self) -> Result<flume::Receiver<()>, String> {
        let (ready, started) = flume::bounded(1);
        let (finish, finished) = flume::bounded::<()>(1);
        let thread = thread::Builder::new().name("sheave-otlp".into());
        let thread = thread.spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _starter_waits = ready.send(Err(error.to_string()));
                    return;
                }
            };
            runtime.block_on(async {
                match client::spans(&self.settings) {
                    Ok((mut exporter, trouble)) => {
                        exporter.set_resource(&resource::of_this_process(&self.settings.resource));
                        let _starter_waits = ready.send(Ok(()));
                        self.run(&exporter, &trouble).await;
                    }
                    Err(error) => {
                        let _starter_waits = ready.send(Err(error));
                    }
                }
            });
            drop(finish);
        });
        thread.map_err(|error| format!("a thread cannot be started: {error}"))?;
        started.recv().map_err(|_| "the thread ended while it started".to_owned())??;
        Ok(finished)
    }

    /// Until nobody is left who makes spans, and all of them are sent.
    async fn run(&self, exporter: &SpanExporter, trouble: &Trouble) {
        let mut log = Log::default();
        while let Some(batch) = self.next().await {
            let count = batch.len() as u64;
            let result = match timeout(self.settings.batches.timeout, exporter.export(batch)).await {
                Ok(result) => result.map_err(|error| trouble.take().unwrap_or_else(|| error.to_string())),
                Err(_) => Err("it takes too long".to_owned()),
            };
            match &result {
                Ok(()) => self.counters.exported.fetch_add(count, Ordering::Relaxed),
                Err(_) => {
                    self.counters.failed_exports.fetch_add(1, Ordering::Relaxed);
                    self.counters.dropped_by_export.fetch_add(count, Ordering::Relaxed)
                }
            };
            log.tell(self, result);
        }
    }

    /// What there is to send, once something is; `None`: there will be nothing any more.
    async fn next(&self) -> Option<Vec<SpanData>> {
        let batches = &self.settings.batches;
        let mut batch = self.queue.recv_async().await.ok()?;
        let due = Instant::now() + batches.delay;
        while batch.len() < batches.batch_max {
            let before = batch.len();
            sleep_until(due.min(Instant::now() + GATHER)).await;
            while batch.len() < batches.batch_max
                && let Ok(spans) = self.queue.try_recv()
            {
                batch.extend(spans);
            }
            if batch.len() == before {
                // Nobody is left, or it is time.
                let Ok(Ok(spans)) = timeout_at(due, self.queue.recv_async()).await else { break };
                batch.extend(spans);
            }
        }
        self.counters.queued.fetch_sub(batch.len(), Ordering::Relaxed);
        Some(batch)
    }
}

/// What the log was told.
#[derive(Default)]
struct Log {
    complained: Option<Instant>,
    /// The last export failed.
    fails: bool,
    /// Spans that had been dropped when it was told last.
    dropped: u64,
}

impl Log {
    fn tell(&mut self, exporter: &Exporter, result: Result<(), String>) {
        let (receiver, counters) = (exporter.settings.receiver(), &exporter.counters);
        let dropped = counters.dropped_by_queue.load(Ordering::Relaxed)
            + counters.dropped_by_export.load(Ordering::Relaxed);
        if result.is_ok() && std::mem::take(&mut self.fails) {
            tracing::info!(receiver, "traces are sent again");
            return;
        }
        self.fails = result.is_err();
        let is_worth_it = self.fails || dropped > self.dropped;
        if !is_worth_it || self.complained.is_some_and(|at| at.elapsed() <= COMPLAINT_INTERVAL) {
            return;
        }
        self.complained = Some(Instant::now());
        let spans = dropped - std::mem::replace(&mut self.dropped, dropped);
        match result {
            Ok(()) => {
                tracing::warn!(
                    receiver,
                    spans,
                    "spans were dropped: their receiver is slower than they come"
                );
            }
            Err(error) => {
                tracing::warn!(receiver, spans, error, "traces cannot be sent, and their spans are dropped");
            }
        }
    }
}
