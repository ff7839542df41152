//! One series per worker: its runtime, its accepting, its bytes, and whether it keeps up.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::telemetry::{Pause, WorkerCounters};

use super::{Family, Kind, Number, Samples, Scrape, Unit};

pub(super) static FAMILIES: &[Family] = &[
    Family {
        name: "worker_runtime",
        kind: Kind::Info,
        unit: None,
        labels: &["worker", "driver", "rung", "core"],
        help: "The runtime that the worker got: `driver` is `io_uring` or `epoll`, `rung` the step of the ladder (`defer`, `coop`, `plain`, `epoll`), `core` empty when the worker is not pinned.",
        samples: runtime,
    },
    Family {
        name: "accepted_connections",
        kind: Kind::Counter,
        unit: None,
        labels: &["worker"],
        help: "Connections accepted, whatever became of them.",
        samples: |scrape, samples| each(scrape, samples, |worker| &worker.accepted),
    },
    Family {
        name: "worker_given_away_connections",
        kind: Kind::Counter,
        unit: None,
        labels: &["worker"],
        help: "Connections that the worker accepted and another one serves, because that had clearly fewer.",
        samples: |scrape, samples| each(scrape, samples, |worker| &worker.given_away),
    },
    Family {
        name: "accept_errors",
        kind: Kind::Counter,
        unit: None,
        labels: &["worker"],
        help: "Errors of accepting.",
        samples: |scrape, samples| each(scrape, samples, |worker| &worker.accept_errors),
    },
    Family {
        name: "accept_paused",
        kind: Kind::Gauge,
        unit: None,
        labels: &["worker", "reason"],
        help: "1 while the worker does not accept, and clients wait in the backlog: for want of places of the process (`process_limit`: `limits.maxConnections`), at a listener for want of its own (`listener_limit`: `connection.limit` with `whenFull: Wait`), or because accepting failed (`error`: file descriptors or memory).",
        samples: |scrape, samples| {
            pauses(scrape, samples, |worker, why| {
                u64::from(worker.accept_paused[why as usize].load(Ordering::Relaxed) > 0)
            })
        },
    },
    Family {
        name: "accept_pauses",
        kind: Kind::Counter,
        unit: None,
        labels: &["worker", "reason"],
        help: "How often the worker stopped accepting, by the same reasons.",
        samples: |scrape, samples| {
            pauses(scrape, samples, |worker, why| worker.accept_pauses[why as usize].load(Ordering::Relaxed))
        },
    },
    Family {
        name: "worker_active_connections",
        kind: Kind::Gauge,
        unit: None,
        labels: &["worker"],
        help: "Live connections of the worker.",
        samples: |scrape, samples| each(scrape, samples, |worker| &worker.shown.active),
    },
    Family {
        name: "worker",
        kind: Kind::Counter,
        unit: Some(Unit::Bytes),
        labels: &["worker", "direction"],
        help: "Bytes relayed, while they are.",
        samples: bytes,
    },
    Family {
        name: "worker_spliced",
        kind: Kind::Counter,
        unit: Some(Unit::Bytes),
        labels: &["worker"],
        help: "Those of both directions that never entered the process (splice).",
        samples: |scrape, samples| each(scrape, samples, |worker| &worker.bytes_spliced),
    },
    Family {
        name: "worker_buffer_fallbacks",
        kind: Kind::Counter,
        unit: None,
        labels: &["worker"],
        help: "Reads that found the worker's buffer pool empty and used the heap.",
        samples: |scrape, samples| each(scrape, samples, |worker| &worker.buffer_fallbacks),
    },
    Family {
        name: "worker_records_dropped",
        kind: Kind::Counter,
        unit: None,
        labels: &["worker"],
        help: "Records of connections lost (for the access log, the traces and the list of failures) because standard output was not written fast enough.",
        samples: |scrape, samples| each(scrape, samples, |worker| &worker.records_dropped),
    },
    Family {
        name: "worker_pipes",
        kind: Kind::Gauge,
        unit: None,
        labels: &["worker"],
        help: "Pipes that the worker has made for splicing, and keeps for more of it.",
        samples: |scrape, samples| each(scrape, samples, |worker| &worker.pipes),
    },
    Family {
        name: "worker_pipe_shortages",
        kind: Kind::Counter,
        unit: None,
        labels: &["worker"],
        help: "Times that all pipes were in use, or none could be made, and bytes were copied instead.",
        samples: |scrape, samples| each(scrape, samples, |worker| &worker.pipe_shortages),
    },
    Family {
        name: "worker_cpu",
        kind: Kind::Counter,
        unit: Some(Unit::Seconds),
        labels: &["worker"],
        help: "Processor time of the worker's thread without what it spins for (workers.busyPoll); its rate is the share of a core that the worker is busy for.",
        samples: |scrape, samples| {
            numbers(scrape, samples, |worker| Duration::from_micros(worker.cpu_us.load(Ordering::Relaxed)))
        },
    },
    Family {
        name: "worker_loop_lag",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: &["worker"],
        help: "How much later than asked for the worker's heartbeats came: what everything on it had to wait.",
        samples: |scrape, samples| {
            let mut workers = scrape.shared.counters.iter().enumerate();
            workers.try_for_each(|(worker, counters)| {
                samples.histogram(&[&worker.to_string()], &counters.loop_lag())
            })
        },
    },
    Family {
        name: "worker_heartbeat_age",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &["worker"],
        help: "How long ago the worker's last heartbeat was; one is due every fifth of a second, and `/livez` fails at five.",
        samples: |scrape, samples| {
            let ages = scrape.shared.heartbeat_ages();
            let mut ages = ages.into_iter().enumerate();
            ages.try_for_each(|(worker, age)| samples.put(&[&worker.to_string()], age))
        },
    },
];

fn numbers<N: Into<Number>>(
    scrape: &Scrape<'_>,
    samples: &mut Samples<'_>,
    read: impl Fn(&WorkerCounters) -> N,
) -> fmt::Result {
    let mut workers = scrape.shared.counters.iter().enumerate();
    workers.try_for_each(|(worker, counters)| samples.put(&[&worker.to_string()], read(counters)))
}

fn each(
    scrape: &Scrape<'_>,
    samples: &mut Samples<'_>,
    counter: impl Fn(&WorkerCounters) -> &AtomicU64,
) -> fmt::Result {
    numbers(scrape, samples, |worker| counter(worker).load(Ordering::Relaxed))
}

fn pauses(
    scrape: &Scrape<'_>,
    samples: &mut Samples<'_>,
    read: impl Fn(&WorkerCounters, Pause) -> u64,
) -> fmt::Result {
    for (worker, counters) in scrape.shared.counters.iter().enumerate() {
        for why in Pause::ALL {
            samples.put(&[&worker.to_string(), why.label()], read(counters, why))?;
        }
    }
    Ok(())
}

fn runtime(scrape: &Scrape<'_>, samples: &mut Samples<'_>) -> fmt::Result {
    for (worker, counters) in scrape.shared.counters.iter().enumerate() {
        if let Some(runtime) = counters.runtime.get() {
            let core = runtime.core.map(|core| core.to_string());
            samples.info(&[
                &worker.to_string(),
                runtime.driver,
                runtime.rung,
                core.as_deref().unwrap_or_default(),
            ])?;
        }
    }
    Ok(())
}

fn bytes(scrape: &Scrape<'_>, samples: &mut Samples<'_>) -> fmt::Result {
    for (worker, counters) in scrape.shared.counters.iter().enumerate() {
        let worker = worker.to_string();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        samples.put(&[&worker, "received"], load(&counters.bytes_received))?;
        samples.put(&[&worker, "sent"], load(&counters.bytes_sent))?;
    }
    Ok(())
}
