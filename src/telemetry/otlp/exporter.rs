//! The thread that sends spans, in batches, one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use opentelemetry_http::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::request::Template;
use super::sender::{Again, Answer, Sender};
use super::span::Spans;
use super::{SpanCounters, TraceSettings, resource};

/// How long spans gather before they are taken: being woken for those of each connection costs more than sending them.
const GATHER: Duration = Duration::from_millis(20);
/// The log says at most once in this time that spans are lost.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Exporter {
    pub(super) settings: TraceSettings,
    pub(super) queue: flume::Receiver<Spans>,
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
                match Sender::new(self.settings.receiver.clone()) {
                    Ok(sender) => {
                        let _starter_waits = ready.send(Ok(()));
                        self.run(sender).await;
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
    async fn run(&self, mut sender: Sender) {
        let template = Template::new(&resource::of_this_process(&self.settings.resource));
        let mut log = Log::default();
        while let Some(batch) = self.next().await {
            let request = template.request(batch.traces.iter());
            let all = batch.count as u64;
            let sent = send(&mut sender, request, self.settings.batches.timeout).await;
            let (lost, result) = match sent.map(Answer::rejected) {
                Ok(None) => (0, Ok(())),
                Ok(Some((lost, why))) => {
                    let why =
                        format!("{} rejects {lost} spans: {:?}", sender.receiver(), sender.redacted(&why));
                    (lost.min(all), Err(why))
                }
                Err(why) => (all, Err(why)),
            };
            self.counters.exported.fetch_add(all - lost, Ordering::Relaxed);
            self.counters.dropped_by_export.fetch_add(lost, Ordering::Relaxed);
            self.counters.failed_exports.fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
            log.tell(self, result);
        }
    }

    /// What there is to send, once something is; `None`: there will be nothing any more.
    async fn next(&self) -> Option<Batch> {
        let batches = &self.settings.batches;
        let mut batch = Batch::default();
        batch.add(self.queue.recv_async().await.ok()?);
        let due = Instant::now() + batches.delay;
        loop {
            let before = batch.count;
            while batch.count < batches.batch_max
                && let Ok(spans) = self.queue.try_recv()
            {
                batch.add(spans);
            }
            if batch.count >= batches.batch_max || Instant::now() >= due {
                break;
            }
            if batch.count == before {
                // Nobody is left, or it is time.
                let Ok(Ok(spans)) = timeout_at(due, self.queue.recv_async()).await else { break };
                batch.add(spans);
            }
            sleep_until(due.min(Instant::now() + GATHER)).await;
        }
        self.counters.queued.fetch_sub(batch.count, Ordering::Relaxed);
        Some(batch)
    }
}

/// Spans that are sent together.
#[derive(Default)]
struct Batch {
    traces: Vec<Spans>,
    /// Spans in all of them.
    count: usize,
}

impl Batch {
    fn add(&mut self, spans: Spans) {
        self.count += spans.count();
        self.traces.push(spans);
    }
}

/// Tries again where the receiver may take it then, for as long as `limit`.
async fn send(
    sender: &mut Sender,
    request: Bytes,
    limit: Duration,
) -> Result<ExportTraceServiceResponse, String> {
    let until = Instant::now() + limit;
    let mut waits = again();
    let mut why = None;
    loop {
        let refusal = match timeout_at(until, sender.send(request.clone())).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(refusal)) => refusal,
            Err(_) => {
                let late = || format!("{}: no answer after {limit:?}", sender.receiver());
                return Err(why.unwrap_or_else(late));
            }
        };
        let wait = match (refusal.again, waits.next()) {
            (Again::Never, _) | (_, None) => return Err(refusal.why),
            (Again::Soon, Some(wait)) => wait,
            (Again::After(wait), Some(_)) => wait,
        };
        if wait >= until.saturating_duration_since(Instant::now()) {
            return Err(refusal.why);
        }
        why = Some(refusal.why);
        sleep(wait).await;
    }
}

/// As often, and after such waits, as OpenTelemetry's exporters do.
fn again() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_millis(1_600))
        .with_max_times(3)
        .with_jitter()
        .build()
}

/// What the log was told.
#[derive(Default)]
struct Log {
    complained: Option<Instant>,
    /// It was told that exports fail, and not yet that they do no more.
    fails: bool,
    /// Spans that had been dropped when it was told last.
    dropped: u64,
    /// The same, of those that the queue had no room for.
    dropped_by_queue: u64,
}

impl Log {
    fn tell(&mut self, exporter: &Exporter, result: Result<(), String>) {
        let (receiver, counters) = (exporter.settings.receiver(), &exporter.counters);
        let dropped_by_queue = counters.dropped_by_queue.load(Ordering::Relaxed);
        let dropped = dropped_by_queue + counters.dropped_by_export.load(Ordering::Relaxed);
        if result.is_ok() && std::mem::take(&mut self.fails) {
            tracing::info!(receiver, "traces are sent again");
        }
        let is_slow = dropped_by_queue > self.dropped_by_queue;
        let is_worth_it = result.is_err() || is_slow;
        if !is_worth_it || self.complained.is_some_and(|at| at.elapsed() <= COMPLAINT_INTERVAL) {
            return;
        }
        self.complained = Some(Instant::now());
        let spans = dropped - std::mem::replace(&mut self.dropped, dropped);
        let by_queue = dropped_by_queue - std::mem::replace(&mut self.dropped_by_queue, dropped_by_queue);
        match result {
            Ok(()) => {
                tracing::warn!(
                    receiver,
                    spans = by_queue,
                    "spans were dropped: their receiver is slower than they come"
                );
            }
            Err(error) => {
                self.fails = true;
                tracing::warn!(
                    receiver,
                    spans,
                    error,
                    "spans are dropped, as their receiver does not take them"
                );
            }
        }
    }
}
