//! What a connection costs for what workers share: the counts that all of them write, and nothing else of it.
//!
//! It is the real code in the order of a connection, from its place in the process to its entry in the ledger, without sockets. Two
//! workers that share a table are held against two that have one each: the difference is what sharing costs, and all the rest is
//! what it is measured with. docs/performance.md lists what workers write.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use sheave::balance::{Pick, Tried, pick};
use sheave::routing::{Asked, EndpointState, Listener, Place, Places, RouteTable, Upstream, UpstreamPlace};
use sheave::telemetry::{ConnectionRecord, WorkerCounters};

use super::{cpu_nanos, records, tables};

/// Connections that one worker holds at a time.
const HELD: usize = 64;
const TIMES: usize = 100_000;
/// All three in turn, so many times: a machine drifts.
const ROUNDS: usize = 7;

/// What workers of one process share.
struct World {
    table: RouteTable,
    places: Arc<Places>,
    numbers: AtomicU64,
}

/// What one of them has for itself.
struct Worker {
    random: fastrand::Rng,
    counters: WorkerCounters,
    held: Vec<Option<Connection>>,
}

struct Connection {
    record: ConnectionRecord,
    /// Given back in this order.
    _endpoint: (Arc<EndpointState>, Pick),
    _place_of_upstream: UpstreamPlace,
    _upstream: Arc<Upstream>,
    _place_of_listener: Place,
    _listener: Arc<Listener>,
    _place: Place,
}

/// Nanoseconds of CPU time per connection: of one worker alone, of two that share nothing, of two that share all of it.
pub(super) fn nanos(kind: &str, endpoints: usize) -> Result<[f64; 3], Box<dyn Error>> {
    let cpus = two_cpus()?;
    let [one, other] = [World::of(kind, endpoints)?, World::of(kind, endpoints)?];
    let settings: [&[&World]; 3] = [&[&one], &[&one, &other], &[&one, &one]];
    let mut rounds: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (nanos, worlds) in rounds.iter_mut().zip(settings) {
            nanos.push(at_once(worlds, cpus)?);
        }
    }
    Ok(rounds.map(|mut nanos| {
        nanos.sort_by(f64::total_cmp);
        nanos[ROUNDS / 2]
    }))
}

fn two_cpus() -> Result<[usize; 2], Box<dyn Error>> {
    let allowed = sched_getaffinity(None)?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    match (cpus.next(), cpus.next()) {
        (Some(one), Some(other)) => Ok([one, other]),
        _ => Err("two workers at once need two CPUs".into()),
    }
}

/// The mean of a worker in each of these, all at once, each on a CPU of its own.
fn at_once(worlds: &[&World], cpus: [usize; 2]) -> Result<f64, Box<dyn Error>> {
    let ready = Barrier::new(worlds.len());
    let run = |world: &World, cpu| {
        let worker = Worker::on(cpu);
        // Also when there is none: the other one waits.
        ready.wait();
        worker.and_then(|mut worker| worker.serve(world)).map_err(|error| error.to_string())
    };
    let sum = thread::scope(|scope| {
        let workers: Vec<_> =
            worlds.iter().zip(cpus).map(|(world, cpu)| scope.spawn(move || run(world, cpu))).collect();
        let ended =
            workers.into_iter().map(|worker| worker.join().map_err(|_| "a worker panicked".to_owned())?);
        ended.sum::<Result<f64, String>>()
    })?;
    Ok(sum / worlds.len() as f64)
}

impl World {
    fn of(kind: &str, endpoints: usize) -> Result<Self, Box<dyn Error>> {
        let table = tables::of_endpoints(kind, endpoints)?;
        Ok(Self { table, places: Arc::default(), numbers: AtomicU64::default() })
    }

    /// As a worker does from accept until it is connected.
    fn open(&self, random: &mut fastrand::Rng, now: Instant) -> Option<Connection> {
        let client = IpAddr::from(Ipv4Addr::from_bits(random.u32(..)));
        let place = self.places.try_take(usize::MAX)?;
        let listener = Arc::clone(self.table.listeners.first()?);
        let place_of_listener = listener.take_place()?;
        let mut record = records::record(self.numbers.fetch_add(1, Ordering::Relaxed));
        record.listener = listener.name.clone();
        let route = listener.route_for(Asked { server_name: None, alpn: &[], client })?;
        record.route = Some(route.name.clone());
        let upstream = Arc::clone(route.upstream()?);
        record.upstream = Some(upstream.name.clone());
        upstream.state.begin(now);
        let picked = pick(&upstream, &mut Tried::none(client), random, now)?;
        let place_of_upstream = upstream.state.take_place()?;
        let endpoint = upstream.endpoints.get(picked.index)?;
        let state = Arc::clone(&endpoint.state);
        state.latency.connected(Duration::from_micros(330), now);
        state.latency.answered(Duration::from_micros(730), now);
        record.endpoint = Some(endpoint.address);
        record.attempts.first_mut()?.endpoint = endpoint.address;
        Some(Connection {
            record,
            _endpoint: (state, picked),
            _place_of_upstream: place_of_upstream,
            _upstream: upstream,
            _place_of_listener: place_of_listener,
            _listener: listener,
            _place: place,
        })
    }
}

impl Worker {
    /// This thread, from now on on this CPU.
    fn on(cpu: usize) -> Result<Self, Box<dyn Error>> {
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(None, &only)?;
        let held = (0..HELD).map(|_| None).collect();
        Ok(Self { random: fastrand::Rng::new(), counters: WorkerCounters::default(), held })
    }

    /// The nanoseconds that one connection took.
    fn serve(&mut self, world: &World) -> Result<f64, Box<dyn Error>> {
        let started = cpu_nanos()?;
        let now = Instant::now();
        for number in 0..TIMES {
            let connection = world.open(&mut self.random, now).ok_or("a connection got no place")?;
            if let Some(ended) = self.held[number % HELD].replace(connection) {
                self.counters.enter(&ended.record);
            }
        }
        Ok((cpu_nanos()? - started) / TIMES as f64)
    }
}
