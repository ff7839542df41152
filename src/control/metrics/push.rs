//! Metrics that are sent by OTLP: read as for a scrape, in an interval, on a thread of its own.
//!
//! What cannot be sent is gone; the next time says what has become of it, because all numbers are since their start.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::control::shared::{Count, Shared};
use crate::telemetry::otlp::{MetricSender, MetricSettings, Starts};

use super::otlp::Points;
use super::{Family, Kind, read, thread_cpu};

pub(super) static FAMILIES: &[Family] = &[
    Family {
        name: "metrics_exports",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Times that all metrics were sent by OTLP (`metrics.otlp`).",
        samples: |scrape, samples| samples.put(&[], scrape.shared.pushes.sent.get()),
    },
    Family {
        name: "metrics_export_failures",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Times that they could not be sent, or not all of them; the log says why.",
        samples: |scrape, samples| samples.put(&[], scrape.shared.pushes.failed.get()),
    },
];

/// How sending them went.
#[derive(Debug, Default)]
pub(in crate::control) struct Pushes {
    sent: Count,
    failed: Count,
}

/// On the control thread: says when, and what [`thread_cpu`] says then.
pub(in crate::control) async fn tick(interval: Option<Duration>, ticks: flume::Sender<Duration>) {
    let Some(interval) = interval else {
        return std::future::pending().await;
    };
    let mut due = tokio::time::interval(interval);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        // One that still waits is enough.
        let _busy_or_gone = ticks.try_send(thread_cpu());
    }
}

/// Starts the thread, which sends at each tick and once more when there will be none. The receiver hears when it has ended.
pub(in crate::control) fn push(
    shared: Arc<Shared>,
    settings: MetricSettings,
    ticks: flume::Receiver<Duration>,
) -> io::Result<flume::Receiver<()>> {
    let (finish, finished) = flume::bounded::<()>(1);
    thread::Builder::new().name("sheave-metrics".into()).spawn(move || {
        let receiver = settings.receiver();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let ended = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
            runtime.block_on(async {
                let sender = MetricSender::new(settings)?;
                tracing::info!(receiver, "metrics are sent");
                let starts = Starts::new(shared.started_at);
                Pusher { shared: &shared, sender, starts, receiver: &receiver, fails: false }
                    .run(&ticks)
                    .await;
                Ok(())
            })
        });
        if let Err(error) = ended {
            tracing::error!(receiver, error, "no metrics are sent");
        }
        drop(finish);
    })?;
    Ok(finished)
}

struct Pusher<'a> {
    shared: &'a Shared,
    sender: MetricSender,
    starts: Starts,
    receiver: &'a str,
    /// The last time failed, and the log says so.
    fails: bool,
}

impl Pusher<'_> {
    async fn run(mut self, ticks: &flume::Receiver<Duration>) {
        let mut control_cpu = Duration::ZERO;
        while let Ok(tick) = ticks.recv_async().await {
            control_cpu = tick;
            self.push(control_cpu).await;
        }
        self.push(control_cpu).await;
    }

    async fn push(&mut self, control_cpu: Duration) {
        let mut points = Points(self.sender.requests(&mut self.starts));
        // Points are not written, which could fail, but kept.
        let _infallible = read(self.shared, control_cpu, &mut points);
        let requests = points.0.finish();
        match self.sender.send(requests).await {
            Ok(()) => {
                self.shared.pushes.sent.add(1);
                if std::mem::take(&mut self.fails) {
                    tracing::info!(receiver = self.receiver, "metrics are sent again");
                }
            }
            Err(error) => {
                self.shared.pushes.failed.add(1);
                if !std::mem::replace(&mut self.fails, true) {
                    tracing::warn!(receiver = self.receiver, error, "metrics cannot be sent");
                }
            }
        }
    }
}
