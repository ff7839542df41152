//! What goes wrong, and what is measured of it.

use std::thread;
use std::time::{Duration, Instant};

use crate::args::Options;
use crate::endpoints::Endpoints;
use crate::error::{Error, Result};
use crate::load::{Latencies, Load, Try};
use crate::network::{ENDPOINTS, Network};
use crate::peer::{Kind, Peer};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Blackhole,
    Outage,
    SlowAnswer,
    LostSyns,
}

/// Of one round.
pub(super) type Values = Vec<(&'static str, f64)>;

const WARM_UP: Duration = Duration::from_secs(1);
const SECOND: Duration = Duration::from_secs(1);

impl Case {
    pub(super) const ALL: [Self; 4] = [Self::Blackhole, Self::Outage, Self::SlowAnswer, Self::LostSyns];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Blackhole => "blackhole",
            Self::Outage => "outage",
            Self::SlowAnswer => "slow-answer",
            Self::LostSyns => "lost-syns",
        }
    }
}

/// Connections that were due within this time.
fn within(tried: &[Try], from: Instant, time: Duration) -> impl Iterator<Item = &Try> {
    tried.iter().filter(move |one| one.due >= from && one.due < from + time)
}

fn failed<'a>(tried: impl Iterator<Item = &'a Try>) -> f64 {
    tried.filter(|one| !one.is_served).count() as f64
}

/// Before the fault all is well, or the measurement says nothing.
fn check_warm_up(tried: &[Try], until: Instant) -> Result<()> {
    let failed = tried.iter().filter(|one| one.due < until && !one.is_served).count();
    if failed == 0 {
        Ok(())
    } else {
        Err(Error::new(format!("{failed} connections failed before the fault")))
    }
}

pub(super) fn blackhole(kind: Kind, options: &Options) -> Result<Values> {
    const RATE: u32 = 300;
    /// By then all of them have ejected it.
    const SETTLED_AFTER: Duration = Duration::from_secs(6);
    const SETTLED: Duration = Duration::from_secs(6);
    let (network, _endpoints) = (Network::new()?, Endpoints::start()?);
    let peer = Peer::start(kind, options)?;
    let load = Load::start(peer.address, RATE)?;
    thread::sleep(WARM_UP);
    let begun = Instant::now();
    network.silence(ENDPOINTS[0])?;
    thread::sleep(SETTLED_AFTER + SETTLED);
    let tried = load.end()?;
    check_warm_up(&tried, begun - SECOND / 10)?;
    let all = || within(&tried, begun - SECOND / 10, Duration::MAX / 4);
    let first = Latencies::of(within(&tried, begun, SECOND));
    let settled = Latencies::of(within(&tried, begun + SETTLED_AFTER, SETTLED));
    Ok(vec![
        ("failed", failed(all())),
        ("first second: p50 ms", first.quantile(0.5)),
        ("p99", first.quantile(0.99)),
        ("max", first.quantile(1.0)),
        ("after 6 s: p50 ms", settled.quantile(0.5)),
        ("p99", settled.quantile(0.99)),
        ("max", settled.quantile(1.0)),
        ("over 100 ms, in all", all().filter(|one| one.took > SECOND / 10).count() as f64),
    ])
}

pub(super) fn outage(kind: Kind, options: &Options) -> Result<Values> {
    const RATE: u32 = 1_000;
    const DARK: Duration = Duration::from_secs(10);
    /// From the first that is back to the second.
    const ALONE: Duration = Duration::from_secs(3);
    const TOGETHER: Duration = Duration::from_secs(5);
    let (network, endpoints) = (Network::new()?, Endpoints::start()?);
    let peer = Peer::start(kind, options)?;
    let load = Load::start(peer.address, RATE)?;
    thread::sleep(WARM_UP);
    let dark = Instant::now();
    network.refuse(&ENDPOINTS)?;
    let before = network.syns()?;
    thread::sleep(DARK);
    let syns = network.syns()? - before;
    network.accept(ENDPOINTS[0])?;
    let first = Instant::now();
    thread::sleep(ALONE);
    network.accept(ENDPOINTS[1])?;
    let second = Instant::now();
    thread::sleep(TOGETHER);
    let tried = load.end()?;
    check_warm_up(&tried, dark - SECOND / 10)?;
    let refused_after: Vec<f64> = within(&tried, dark + SECOND, first - dark - SECOND)
        .filter(|one| !one.is_served)
        .map(|one| one.took.as_secs_f64() * 1_000.0)
        .collect();
    let last_failed = tried.iter().filter(|one| !one.is_served && one.due > first).map(|one| one.due).max();
    let recovery = last_failed.map_or(Duration::ZERO, |last| last - first);
    let steady = Latencies::of(within(&tried, first + 2 * SECOND, ALONE + TOGETHER - 2 * SECOND));
    // Of the hundred that are due in it, if all of them come to the only endpoint.
    let herd = (0..u32::try_from(ALONE.as_millis() / 10).unwrap_or_default())
        .map(|step| endpoints.accepted(0, first + step * SECOND / 100, SECOND / 10))
        .max();
    let share = |from: Instant| {
        let [old, new] = [0, 1].map(|index| endpoints.accepted(index, from, SECOND) as f64);
        100.0 * new / (old + new)
    };
    Ok(vec![
        ("SYNs a second in the dark", syns as f64 / (first - dark).as_secs_f64()),
        ("a client is refused after, ms", median(refused_after)),
        ("the last that failed, ms after the first is back", recovery.as_secs_f64() * 1_000.0),
        ("most in 100 ms at the first", herd.unwrap_or_default() as f64),
        ("p99 ms from 2 s on", steady.quantile(0.99)),
        ("share of the second in its 1st second, %", share(second)),
        ("in its 5th", share(second + 4 * SECOND)),
    ])
}

/// One of five is slow, in one way or the other.
pub(super) fn slow(case: Case, kind: Kind, options: &Options) -> Result<Values> {
    const RATE: u32 = 500;
    const MEASURED: Duration = Duration::from_secs(6);
    let (network, endpoints) = (Network::new()?, Endpoints::start()?);
    let peer = Peer::start(kind, options)?;
    match case {
        Case::LostSyns => network.lose(ENDPOINTS[0])?,
        _ => endpoints.answer_late(0, SECOND / 10),
    }
    let load = Load::start(peer.address, RATE)?;
    thread::sleep(2 * WARM_UP);
    let begun = Instant::now();
    thread::sleep(MEASURED);
    let tried = load.end()?;
    let measured = || within(&tried, begun, MEASURED);
    let latencies = Latencies::of(measured());
    let count = |index| endpoints.accepted(index, begun, MEASURED) as f64;
    let all: f64 = (0..ENDPOINTS.len()).map(count).sum();
    let slow = measured().filter(|one| one.took > SECOND / 20).count() as f64;
    Ok(vec![
        ("failed", failed(measured())),
        ("share of the slow one, %", 100.0 * count(0) / all),
        ("over 50 ms, %", 100.0 * slow / measured().count() as f64),
        ("p50 ms", latencies.quantile(0.5)),
        ("p95", latencies.quantile(0.95)),
        ("p99", latencies.quantile(0.99)),
        ("max", latencies.quantile(1.0)),
    ])
}

/// Of an even number the larger one in the middle.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
