//! What is measured: each case does one kind of work through a peer and says what it cost.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::bulk::{Bulk, VOLUME};
use crate::churn::Publisher;
use crate::connections;
use crate::error::{Error, Result};
use crate::peer::Peer;
use crate::process::CpuTime;
use crate::receiver::Arrived;
use crate::round_trips::{RoundTrips, Trips};
use crate::secure::Speech;
use crate::stats;
use crate::storm;

/// What is done, and in which language.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) work: Work,
    pub(super) layer: Layer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Rr64,
    Rr1,
    Conn,
    Bulk1,
    Bulk16,
    Idle,
    /// Small messages on a few of many connections, beside a bulk stream.
    Mixed,
    /// Small messages on established connections, while others begin handshakes and never end them.
    Storm,
    /// Short connections while the table is republished.
    Churn,
}

/// What the client speaks with the proxy; the backend is always spoken to in plain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    Plain,
    /// TLS that the proxy terminates, with a full handshake each time.
    Tls,
    /// The same, and sessions are resumed.
    TlsResumed,
    /// A ClientHello that the proxy routes by and passes on.
    Sni,
    /// Plain, through a table of 10 000 endpoints and 5 000 routes.
    Many,
}

/// Where the client connects to, and what it speaks there.
pub(super) struct Target<'a> {
    pub(super) address: SocketAddr,
    pub(super) speech: &'a Speech,
    /// What the proxy sends of its traces.
    pub(super) traces: Option<&'a Arrived>,
}

impl Target<'_> {
    /// Waits until all that was begun is over, at the backend and at who takes the proxy's traces.
    pub(super) fn settle(&self, backend: &Backend) -> Result<()> {
        backend.settle()?;
        self.traces.map_or(Ok(()), Arrived::settle)
    }
}

/// One number of a measurement.
pub(super) struct Value {
    pub(super) metric: &'static str,
    pub(super) value: f64,
}

/// What one measurement of one peer gave.
pub(super) struct Measurement {
    pub(super) values: Vec<Value>,
    /// Share of the time in which the proxy was ready to run and something else had its core.
    pub(super) disturbed: f64,
    /// CPU time came from the coarse clock.
    pub(super) coarse: bool,
}

const RR_CONNECTIONS: usize = 32;
const CONN_LOOPS: usize = 16;
const MIXED_ACTIVE: usize = 50;
const MIXED_IDLE: usize = 950;
/// A proxy that has answered may still have a little to do; the CPU time of that belongs to the request.
const TAIL: Duration = Duration::from_millis(5);

/// How a case compares with `conn` of the same peer, measured beside it.
pub(super) const RATIO_TO_CONN: &str = "ratio to conn";

const fn case(layer: Layer, work: Work) -> Case {
    Case { work, layer }
}

impl Case {
    /// Idle first: the sockets that the other cases leave in TIME_WAIT would blur the kernel's memory.
    pub(super) const ALL: [Self; 17] = [
        case(Layer::Plain, Work::Idle),
        case(Layer::Tls, Work::Idle),
        case(Layer::Plain, Work::Rr64),
        case(Layer::Plain, Work::Rr1),
        case(Layer::Plain, Work::Conn),
        case(Layer::Plain, Work::Bulk1),
        case(Layer::Plain, Work::Bulk16),
        case(Layer::Plain, Work::Mixed),
        case(Layer::Many, Work::Conn),
        case(Layer::Plain, Work::Churn),
        case(Layer::Tls, Work::Rr64),
        case(Layer::Tls, Work::Conn),
        case(Layer::TlsResumed, Work::Conn),
        case(Layer::Tls, Work::Bulk1),
        case(Layer::Tls, Work::Storm),
        case(Layer::Sni, Work::Rr64),
        case(Layer::Sni, Work::Conn),
    ];

    pub(super) fn name(self) -> &'static str {
        match (self.layer, self.work) {
            (Layer::Plain, Work::Rr64) => "rr64",
            (Layer::Plain, Work::Rr1) => "rr1",
            (Layer::Plain, Work::Conn) => "conn",
            (Layer::Plain, Work::Bulk1) => "bulk1",
            (Layer::Plain, Work::Bulk16) => "bulk16",
            (Layer::Plain, Work::Idle) => "idle",
            (Layer::Plain, Work::Mixed) => "mixed",
            (Layer::Many, Work::Conn) => "many",
            (Layer::Plain, Work::Churn) => "churn",
            (Layer::Tls, Work::Rr64) => "tls-rr64",
            (Layer::Tls, Work::Conn) => "tls-conn",
            (Layer::Tls, Work::Bulk1) => "tls-bulk1",
            (Layer::Tls, Work::Idle) => "tls-idle",
            (Layer::Tls, Work::Storm) => "tls-storm",
            (Layer::TlsResumed, Work::Conn) => "tls-resumed",
            (Layer::Sni, Work::Rr64) => "sni-rr64",
            (Layer::Sni, Work::Conn) => "sni-conn",
            _ => "not measured",
        }
    }

    pub(super) fn title(self) -> String {
        let work = match self.work {
            Work::Rr64 => "64-byte round trips over 32 connections",
            Work::Rr1 => "64-byte round trips over one connection",
            Work::Conn => "connect, one 64-byte round trip, close; 16 at a time",
            Work::Bulk1 => "64 MiB up, then 64 MiB down, over one connection",
            Work::Bulk16 => "64 MiB up, then 64 MiB down, over 16 connections",
            Work::Idle => "idle connections that have each carried one round trip",
            Work::Mixed => "64-byte round trips on 50 of 1 000 connections, beside one bulk stream",
            Work::Churn => "conn, while the table is republished 50 times a second",
            Work::Storm => {
                "64-byte round trips over 32 connections, without and with 5 000 handshakes a second beside them that \
                 are never ended"
            }
        };
        let layer = match self.layer {
            Layer::Plain => "",
            Layer::Many => "10 000 endpoints and 5 000 routes: ",
            Layer::Tls => "TLS 1.3 ended by the proxy: ",
            Layer::TlsResumed => "TLS 1.3 ended by the proxy, sessions resumed: ",
            Layer::Sni => "routed by the ClientHello, which is passed on: ",
        };
        format!("{layer}{work}")
    }
}

/// Round trips over `RR_CONNECTIONS` or one connection that stay open.
pub(super) fn round_trips(
    work: Work,
    peer: &mut Peer,
    target: &Target<'_>,
    backend: &Backend,
    time: Duration,
) -> Result<Measurement> {
    let count = if work == Work::Rr1 { 1 } else { RR_CONNECTIONS };
    let mut client = RoundTrips::open(target, count)?;
    client.run(time / 8)?;
    let (trips, cpu) = timed(peer, || client.run(time))?;
    drop(client);
    target.settle(backend)?;
    Ok(from_trips(trips, &cpu, ["CPU us/request", "requests/s"]))
}

pub(super) fn short_connections(
    peer: &mut Peer,
    target: &Target<'_>,
    backend: &Backend,
    time: Duration,
) -> Result<Measurement> {
    connections::run(target, CONN_LOOPS, time / 8)?;
    target.settle(backend)?;
    let (trips, cpu) = connect_for(peer, target, backend, time)?;
    Ok(from_trips(trips, &cpu, ["CPU us/connection", "connections/s"]))
}

fn connect_for(
    peer: &mut Peer,
    target: &Target<'_>,
    backend: &Backend,
    time: Duration,
) -> Result<(Trips, CpuTime)> {
    let before = backend.seen.accepted.load(Ordering::Acquire);
    let (trips, cpu) = timed(peer, || {
        let trips = connections::run(target, CONN_LOOPS, time)?;
        // The proxy's part of closing belongs to the connection, and so does what it tells of it.
        target.settle(backend)?;
        Ok(trips)
    })?;
    let accepted = backend.seen.accepted.load(Ordering::Acquire) - before;
    if accepted != trips.count {
        return Err(Error::new(format!(
            "{accepted} connections reached the backend for {} of the client",
            trips.count
        )));
    }
    Ok((trips, cpu))
}

/// Short connections to `target`, and in turns with them some to `conn`, of the same process.
pub(super) fn beside_conn(
    peer: &mut Peer,
    target: &Target<'_>,
    conn: &Target<'_>,
    backend: &Backend,
    time: Duration,
) -> Result<Measurement> {
    connections::run(target, CONN_LOOPS, time / 8)?;
    target.settle(backend)?;
    let [calm, measured] = in_turns(|is_measured| {
        let target = if is_measured { target } else { conn };
        connect_for(peer, target, backend, time)
    })?;
    Ok(against_conn(&calm, measured))
}

/// Short connections while the table is republished, and in turns with them some while it is not.
pub(super) fn churn(
    peer: &mut Peer,
    target: &Target<'_>,
    backend: &Backend,
    time: Duration,
) -> Result<Measurement> {
    connections::run(target, CONN_LOOPS, time / 8)?;
    target.settle(backend)?;
    let publisher = Publisher::of(peer)?;
    let mut published = 0;
    let [calm, measured] = in_turns(|is_measured| {
        if !is_measured {
            return connect_for(peer, target, backend, time);
        }
        let connect = || connect_for(peer, target, backend, time);
        let (measured, count) = publisher.during(connect)?;
        published = count;
        Ok(measured)
    })?;
    let rate = published as f64 / measured.0.elapsed.as_secs_f64();
    let without = calm.1.ran.div_f64(calm.0.count as f64).mul_f64(measured.0.count as f64);
    let more = measured.1.ran.as_secs_f64() - without.as_secs_f64();
    let mut measurement = against_conn(&calm, measured);
    measurement.values.push(Value { metric: "published/s", value: rate });
    measurement.values.push(Value { metric: "CPU us more/published", value: more * 1e6 / published as f64 });
    Ok(measurement)
}

/// Does the one and the other, in either order, so that what drifts is on no side. The one comes first in the answer.
fn in_turns<T>(mut measure: impl FnMut(bool) -> Result<T>) -> Result<[T; 2]> {
    let begins = fastrand::bool();
    let pair = [measure(begins)?, measure(!begins)?];
    let [first, second] = pair;
    Ok(if begins { [second, first] } else { [first, second] })
}

fn against_conn(calm: &(Trips, CpuTime), (trips, cpu): (Trips, CpuTime)) -> Measurement {
    let each = |trips: &Trips, cpu: &CpuTime| cpu.ran.as_secs_f64() * 1e6 / trips.count as f64;
    let without = each(&calm.0, &calm.1);
    let ratio = each(&trips, &cpu) / without;
    let mut measurement = from_trips(trips, &cpu, ["CPU us/connection", "connections/s"]);
    measurement.values.push(Value { metric: "conn beside it: CPU us/connection", value: without });
    measurement.values.push(Value { metric: RATIO_TO_CONN, value: ratio });
    measurement.disturbed = measurement.disturbed.max(calm.1.disturbed);
    measurement.coarse |= calm.1.coarse;
    measurement
}

/// As many passes as fit into `time`, one at least.
pub(super) fn bulk(
    work: Work,
    peer: &mut Peer,
    target: &Target<'_>,
    backend: &Backend,
    time: Duration,
) -> Result<Measurement> {
    let mut client = Bulk::open(target, if work == Work::Bulk1 { 1 } else { 16 })?;
    client.pass()?;
    let before = backend.seen.uploaded.load(Ordering::Acquire);
    let ((passes, elapsed), cpu) = timed(peer, || {
        let started = Instant::now();
        let mut passes = 0;
        while passes == 0 || started.elapsed() < time {
            client.pass()?;
            passes += 1;
        }
        Ok((passes, started.elapsed()))
    })?;
    let uploaded = backend.seen.uploaded.load(Ordering::Acquire) - before;
    if uploaded != passes * VOLUME {
        return Err(Error::new(format!("{uploaded} bytes reached the backend in {passes} passes")));
    }
    drop(client);
    target.settle(backend)?;
    // One pass relays the volume twice, once in each direction.
    let volumes = (passes * 2) as f64;
    let mebibytes = volumes * (VOLUME >> 20) as f64;
    let values = vec![
        Value { metric: "CPU ms/64 MiB", value: cpu.ran.as_secs_f64() * 1e3 / volumes },
        Value { metric: "MiB/s", value: mebibytes / elapsed.as_secs_f64() },
    ];
    Ok(Measurement { values, disturbed: cpu.disturbed, coarse: cpu.coarse })
}

/// What a bulk stream costs the small messages beside it. CPU time per request would count the bulk in, so there is none.
pub(super) fn mixed(
    peer: &mut Peer,
    target: &Target<'_>,
    backend: &Backend,
    time: Duration,
) -> Result<Measurement> {
    let idle = RoundTrips::open(target, MIXED_IDLE)?;
    let mut active = RoundTrips::open(target, MIXED_ACTIVE)?;
    let is_over = AtomicBool::new(false);
    let measured = thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let mut bulk = Bulk::open(target, 1)?;
            let mut passes = 0;
            while !is_over.load(Ordering::Relaxed) {
                bulk.pass()?;
                passes += 1;
            }
            Ok::<_, Error>(passes)
        });
        let measured = active.run(time / 8).and_then(|_| timed(peer, || active.run(time)));
        is_over.store(true, Ordering::Relaxed);
        let passes = stream.join().map_err(|_| Error::new("the bulk stream panicked"))??;
        measured.map(|(trips, cpu)| (trips, cpu, passes))
    });
    let (trips, cpu, passes) = measured?;
    if passes == 0 {
        return Err(Error::new("the bulk stream did not end one pass"));
    }
    drop((idle, active));
    target.settle(backend)?;
    let mut measurement = from_trips(trips, &cpu, ["", "requests/s"]);
    measurement.values.retain(|value| !value.metric.is_empty());
    Ok(measurement)
}

/// What handshakes that are never ended cost the established connections. The same connections are measured twice, so that what
/// is compared has only the storm between it.
pub(super) fn storm(
    peer: &mut Peer,
    target: &Target<'_>,
    hello: &[u8],
    backend: &Backend,
    time: Duration,
) -> Result<Measurement> {
    let mut active = RoundTrips::open(target, RR_CONNECTIONS)?;
    active.run(time / 8)?;
    let calm = active.run(time)?;
    let is_over = AtomicBool::new(false);
    let (trips, storm) = thread::scope(|scope| {
        let storm = scope.spawn(|| storm::rage(target.address, hello, &is_over));
        let trips = active.run(time / 4).and_then(|_| active.run(time));
        is_over.store(true, Ordering::Relaxed);
        let storm = storm.join().map_err(|_| Error::new("the storm panicked"))?;
        Ok::<_, Error>((trips?, storm?))
    })?;
    drop(active);
    target.settle(backend)?;
    calm_down(peer)?;
    let rate = |trips: &Trips| trips.count as f64 / trips.elapsed.as_secs_f64();
    let p99 = |trips: &Trips| {
        let latencies: Vec<f64> = trips.latencies.iter().map(|time| time.as_secs_f64() * 1e6).collect();
        stats::quantile(&latencies, 0.99)
    };
    let values = vec![
        Value { metric: "calm p99 us", value: p99(&calm) },
        Value { metric: "storm p99 us", value: p99(&trips) },
        Value { metric: "storm/calm p99", value: p99(&trips) / p99(&calm) },
        Value { metric: "storm/calm requests", value: rate(&trips) / rate(&calm) },
        Value { metric: "begun/s", value: storm.begun as f64 / storm.elapsed.as_secs_f64() },
    ];
    Ok(Measurement { values, disturbed: 0.0, coarse: false })
}

/// Waits until a peer has done what is left of a storm, which would be in the way of the next peer.
fn calm_down(peer: &mut Peer) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(50);
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let ((), cpu) = timed(peer, || {
            thread::sleep(LOOK);
            Ok(())
        })?;
        if cpu.ran < LOOK / 20 {
            return Ok(());
        }
        if Instant::now() > patience {
            return Err(Error::new("it was still busy 30 seconds after the storm"));
        }
    }
}

/// Does `work` and says what CPU time the peer took for it.
pub(super) fn timed<T>(peer: &mut Peer, work: impl FnOnce() -> Result<T>) -> Result<(T, CpuTime)> {
    thread::sleep(TAIL);
    let before = peer.clock.read()?;
    let done = work()?;
    thread::sleep(TAIL);
    let after = peer.clock.read()?;
    Ok((done, before.until(after)))
}

fn from_trips(trips: Trips, cpu: &CpuTime, names: [&'static str; 2]) -> Measurement {
    let latencies: Vec<f64> = trips.latencies.iter().map(|time| time.as_secs_f64() * 1e6).collect();
    let values = vec![
        Value { metric: names[0], value: cpu.ran.as_secs_f64() * 1e6 / trips.count as f64 },
        Value { metric: names[1], value: trips.count as f64 / trips.elapsed.as_secs_f64() },
        Value { metric: "p50 us", value: stats::quantile(&latencies, 0.5) },
        Value { metric: "p99 us", value: stats::quantile(&latencies, 0.99) },
    ];
    Measurement { values, disturbed: cpu.disturbed, coarse: cpu.coarse }
}
