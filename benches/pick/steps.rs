//! The steps, each ready to be done as often as asked for.

use std::error::Error;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sheave::balance::{Tried, pick};
use sheave::config::{AccessLog, LogFormat};
use sheave::resilience::{Breaker, BreakerPolicy};
use sheave::routing::{Asked, RouteTable};
use sheave::telemetry::{Report, Sampling, WorkerCounters, access_log};
use sheave::worker::Crew;

use super::records::record;
use super::tables;

pub(super) const TYPES: [&str; 5] =
    ["RoundRobin", "LeastConnections", "Random", "PeakEWMA", "ConsistentHash"];
/// Connections held while others are opened.
const HELD: usize = 1_000;

type Outcome = Result<(), Box<dyn Error>>;
/// Does a step so often.
pub(super) type Run = Box<dyn FnMut(usize) -> Outcome>;

#[derive(Clone, Copy)]
pub(super) enum Step {
    /// A route, by what the routes of its listener differ in.
    Find {
        by: &'static str,
        routes: usize,
    },
    /// An endpoint, by the type of load balancer.
    Pick {
        kind: &'static str,
        endpoints: usize,
    },
    /// Whether another of so many workers gets the connection: at every accept, and here it never does.
    Worker {
        of: usize,
    },
    /// Leave of a closed breaker for an attempt that succeeds.
    BreakerPasses,
    /// The same of an attempt that fails, and of the next, which makes up for it.
    BreakerFails,
    /// A record entered into the worker's counters, and its sample looked up.
    RecordEntered,
    /// A record handed over to the telemetry thread.
    RecordHandedOver,
    RecordAsJson,
    RecordAsText,
}

impl Step {
    /// All others whose instructions are counted.
    pub(super) const SMALL: [Self; 6] = [
        Self::BreakerPasses,
        Self::BreakerFails,
        Self::RecordEntered,
        Self::RecordHandedOver,
        Self::RecordAsJson,
        Self::RecordAsText,
    ];

    /// Of these only times are told: what they take is waiting for memory.
    pub(super) const TIMED: [Self; 2] = [Self::Worker { of: 2 }, Self::Worker { of: 64 }];

    /// Those whose instructions are counted.
    pub(super) fn counted() -> Vec<Self> {
        let finds = ["hostname", "wildcard", "source", "protocol"].map(|by| Self::Find { by, routes: 100 });
        let picks = TYPES.map(|kind| Self::Pick { kind, endpoints: 100 });
        finds.into_iter().chain(picks).chain(Self::SMALL).collect()
    }

    pub(super) fn name(self) -> String {
        match self {
            Self::Find { by, .. } => format!("find-by-{by}"),
            Self::Pick { kind, .. } => format!("pick-{kind}"),
            Self::Worker { of } => format!("worker-of-{of}"),
            Self::BreakerPasses => "breaker-passes".into(),
            Self::BreakerFails => "breaker-fails-once".into(),
            Self::RecordEntered => "record-entered".into(),
            Self::RecordHandedOver => "record-handed-over".into(),
            Self::RecordAsJson => "record-as-json".into(),
            Self::RecordAsText => "record-as-text".into(),
        }
    }

    /// Of those whose instructions are counted.
    pub(super) fn named(name: &str) -> Result<Self, Box<dyn Error>> {
        let found = Self::counted().into_iter().find(|step| step.name() == name);
        found.ok_or_else(|| format!("there is no step {name}").into())
    }

    pub(super) fn prepare(self) -> Result<Run, Box<dyn Error>> {
        match self {
            Self::Find { by, routes } => find(tables::of_routes(by, routes)?, by, routes),
            Self::Pick { kind, endpoints } => {
                let table = tables::of_endpoints(kind, endpoints)?;
                Ok(Box::new(move |times| pick_nanos(&table, times, || Ok(0.0)).map(drop)))
            }
            Self::Worker { of } => worker(of),
            Self::BreakerPasses => {
                breaker(|breaker, _| breaker.permit().is_some_and(|permit| !permit.succeeded()))
            }
            Self::BreakerFails => breaker(|breaker, now| {
                let failed = breaker.permit().is_some_and(|permit| !permit.failed(now));
                failed && breaker.permit().is_some_and(|permit| !permit.succeeded())
            }),
            Self::RecordEntered => Ok(entered()),
            Self::RecordHandedOver => Ok(handed_over()),
            Self::RecordAsJson => Ok(written(LogFormat::Json)),
            Self::RecordAsText => Ok(written(LogFormat::Text)),
        }
    }
}

/// Each route is asked for as often as every other, and one time in ten nothing is there.
fn find(table: RouteTable, by: &str, routes: usize) -> Result<Run, Box<dyn Error>> {
    let listener = table.listeners.first().cloned().ok_or("no listener")?;
    let (network, unasked) = (tables::network, if by == "hostname" { "" } else { "a." });
    let asked: Vec<(String, IpAddr)> = (0..routes + routes.div_ceil(9))
        .map(|number| (format!("{unasked}tenant-{number}.db.example.com"), network(number).into()))
        .collect();
    let offered: [Box<[u8]>; 2] = [b"h2".as_slice().into(), b"http/1.1".as_slice().into()];
    Ok(Box::new(move |times| {
        let mut found = 0;
        for (name, client) in asked.iter().cycle().take(times) {
            let asked =
                Asked { server_name: Some(black_box(name)), alpn: &offered, client: black_box(*client) };
            found += usize::from(listener.route_for(asked).is_some());
        }
        expect(found > 0 && found < times, "it finds all, or nothing")
    }))
}

/// In batches, each held until the next is chosen. The time is that of the choices with their counting: taking a place, reading
/// the clock, and giving the endpoint back is not part of it.
pub(super) fn pick_nanos(
    table: &RouteTable,
    times: usize,
    clock: fn() -> Result<f64, Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let upstream = table.upstreams.get("main").ok_or("no upstream")?;
    let mut random = fastrand::Rng::with_seed(7);
    let mut held = Vec::new();
    let mut spent = 0.0;
    for _ in 0..times / HELD {
        let mut batch = Vec::with_capacity(HELD);
        let places: Option<Vec<_>> = (0..HELD).map(|_| upstream.state.take_place()).collect();
        let now = Instant::now();
        let started = clock()?;
        for place in places.ok_or("no place")? {
            let mut tried = Tried::none(Ipv4Addr::from_bits(random.u32(..)).into());
            let picked = pick(upstream, &mut tried, &mut random, now).ok_or("nothing to choose")?;
            batch.push((picked, place));
        }
        spent += clock()? - started;
        held = batch;
    }
    drop(held);
    Ok(spent / times as f64)
}

/// All have as many, so that each is looked at and none is given anything, as it is nearly always.
fn worker(of: usize) -> Result<Run, Box<dyn Error>> {
    let counters: Vec<Arc<WorkerCounters>> = (0..of).map(|_| Arc::default()).collect();
    counters.iter().for_each(|worker| worker.shown.active.store(HELD as u64, Ordering::Relaxed));
    let crew = Crew::of(&counters).into_iter().next().ok_or("no worker")?;
    Ok(Box::new(move |times| {
        let given = (0..times).filter(|_| crew.gives(black_box(HELD))).count();
        expect(given == 0, "as many are fewer")
    }))
}

fn breaker(attempt: impl Fn(&Breaker, Instant) -> bool + 'static) -> Result<Run, Box<dyn Error>> {
    let policy = BreakerPolicy {
        consecutive_failures: NonZeroU32::new(5).ok_or("no failures")?,
        base_interval: Duration::from_secs(10),
        max_interval: Duration::from_secs(300),
    };
    let now = Instant::now();
    let breaker = Breaker::new(policy, now);
    Ok(Box::new(move |times| {
        let passed = (0..times).filter(|_| attempt(black_box(&breaker), now)).count();
        expect(passed == times, "the breaker opened")
    }))
}

fn entered() -> Run {
    let counters = WorkerCounters::default();
    let sampling = Sampling::new(&log(), None);
    let mut record = record(1);
    Box::new(move |times| {
        for _ in 0..times {
            record.wants = sampling.wants(black_box(&record));
            counters.enter(black_box(&record));
        }
        expect(record.wants.log, "nobody wants the record")
    })
}

/// With the copy of it that is handed over, as it is gone then.
fn handed_over() -> Run {
    let (give, given) = flume::bounded(1);
    let record = record(1);
    Box::new(move |times| {
        for _ in 0..times {
            give.try_send(Report::Ended(black_box(&record).clone()))?;
            black_box(given.try_recv()?);
        }
        expect(given.is_empty(), "a record is left")
    })
}

fn written(format: LogFormat) -> Run {
    let record = record(1);
    let mut output = Vec::new();
    Box::new(move |times| {
        for _ in 0..times {
            output.clear();
            access_log::write_line(black_box(&record), format, &mut output)?;
        }
        expect(output.ends_with(b"\n"), "no line")
    })
}

fn log() -> AccessLog {
    AccessLog { enabled: true, sample: 1.0, format: LogFormat::Json }
}

fn expect(holds: bool, else_what: &str) -> Outcome {
    if holds { Ok(()) } else { Err(else_what.into()) }
}
