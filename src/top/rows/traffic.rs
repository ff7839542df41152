//! Upstreams, connections, listeners and workers.

use std::collections::{BTreeMap, HashMap};

use crate::top::counts::{Counts, ListenerCounts, UpstreamCounts, WorkerCounts};
use crate::top::reading::{Connection, Connections, Listener, Upstream};
use crate::top::sheet::{Cell, Column, Row, Tone, Unit, column};
use crate::top::text::Text;

use super::{Since, usable};

pub(super) const UPSTREAMS: &[Column] = &[
    column("upstream", Unit::Text, 0),
    column("state", Unit::Text, 0),
    column("usable", Unit::Count, 0),
    column("endpoints", Unit::Count, 1),
    column("live", Unit::Count, 0),
    column("waiting", Unit::Count, 6),
    column("conn", Unit::PerSecond, 1),
    column("errors", Unit::PerSecond, 1),
    column("failed", Unit::PerSecond, 5),
    column("retried", Unit::PerSecond, 6),
    column("connect p50", Unit::Seconds, 4),
    column("connect p99", Unit::Seconds, 2),
    column("balancer", Unit::Text, 7),
    column("why", Unit::Text, 3),
];

pub(super) const CONNECTIONS: &[Column] = &[
    column("connection", Unit::Id, 6),
    column("client", Unit::Text, 0),
    column("listener", Unit::Text, 4),
    column("upstream", Unit::Text, 2),
    column("endpoint", Unit::Text, 1),
    column("age", Unit::Seconds, 0),
    column("idle", Unit::Seconds, 1),
    column("received", Unit::Bytes, 2),
    column("sent", Unit::Bytes, 2),
    column("in", Unit::BytesPerSecond, 3),
    column("out", Unit::BytesPerSecond, 3),
    column("worker", Unit::Id, 5),
    column("server name", Unit::Text, 4),
];

pub(super) const LISTENERS: &[Column] = &[
    column("listener", Unit::Text, 0),
    column("address", Unit::Text, 1),
    column("protocol", Unit::Text, 3),
    column("routes", Unit::Count, 5),
    column("live", Unit::Count, 0),
    column("limit", Unit::Count, 4),
    column("conn", Unit::PerSecond, 0),
    column("errors", Unit::PerSecond, 0),
    column("received", Unit::BytesPerSecond, 2),
    column("sent", Unit::BytesPerSecond, 2),
];

pub(super) const WORKERS: &[Column] = &[
    column("worker", Unit::Text, 0),
    column("live", Unit::Count, 0),
    column("new", Unit::PerSecond, 0),
    column("busy", Unit::Share, 1),
    column("lag p99", Unit::Seconds, 0),
    column("heartbeat", Unit::Seconds, 5),
    column("in", Unit::BytesPerSecond, 2),
    column("out", Unit::BytesPerSecond, 2),
    column("driver", Unit::Text, 4),
    column("rung", Unit::Text, 6),
    column("core", Unit::Text, 7),
    column("generation", Unit::Id, 3),
    column("why", Unit::Text, 3),
];

/// A loop that turns later than this is worth a look; the heartbeat is due every fifth of a second.
const LAG_WARN: f64 = 0.05;
const BUSY_WARN: f64 = 0.9;

pub(super) fn upstreams(since: &Since<'_>) -> Vec<Row> {
    since.now.table.upstreams.iter().map(|upstream| upstream_row(since, upstream)).collect()
}

fn upstream_row(since: &Since<'_>, upstream: &Upstream) -> Row {
    let rate = |count: fn(&UpstreamCounts) -> f64| {
        since.rate(|counts| counts.upstreams.get(&upstream.name).map(count))
    };
    let failed = |counts: &Counts| {
        let endpoints = counts.endpoints.get(&upstream.name)?;
        Some(endpoints.values().map(|endpoint| endpoint.failures).sum())
    };
    let connect = |share| {
        let connect =
            |counts: &Counts| counts.upstreams.get(&upstream.name).map(|known| known.connect.clone());
        let before = connect(&since.before?.counts);
        connect(&since.now.counts)?.quantile(share, before.as_ref())
    };
    let leaving = upstream.leaving.iter();
    let live: u64 = upstream.endpoints.iter().chain(leaving).map(|endpoint| endpoint.active).sum();
    let (state, tone, usable, why) = upstream_state(upstream, live);
    vec![
        (&upstream.name).into(),
        Cell::from(state).tone(tone),
        usable.into(),
        Cell::from(upstream.endpoints.len() as u64),
        live.into(),
        Cell::from(upstream.pending).tone_if_any(Tone::Warn),
        rate(|counts| counts.ended).into(),
        Cell::from(rate(|counts| counts.errors)).tone_if_any(Tone::Bad),
        Cell::from(since.rate(failed)).tone_if_any(Tone::Warn),
        Cell::from(rate(|counts| counts.retries)).tone_if_any(Tone::Warn),
        connect(0.5).into(),
        connect(0.99).into(),
        (&upstream.load_balancer).into(),
        Cell::from(&why).tone(Tone::Faint),
    ]
}

/// A word, what to think of it, how many endpoints can be used, and what keeps the others.
fn upstream_state(upstream: &Upstream, live: u64) -> (&'static str, Tone, u64, Text) {
    let (usable, others) = usable(upstream);
    let mut why: Vec<String> = Vec::new();
    if let Some(problem) = &upstream.problem {
        why.push(format!("{}: {}", problem.reason, problem.text));
    }
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for state in &others {
        *counts.entry(state.label()).or_default() += 1;
    }
    why.extend(counts.into_iter().map(|(state, count)| format!("{count} {state}")));
    if upstream.panics {
        why.push("too few are healthy, so health is ignored".to_owned());
    }
    let full = upstream.limit.filter(|limit| live >= *limit);
    why.extend(full.map(|limit| format!("full: {live} of {limit}")));
    let (state, tone) = match usable {
        0 if upstream.endpoints.is_empty() => ("empty", Tone::Bad),
        0 => ("down", Tone::Bad),
        _ if upstream.panics => ("panics", Tone::Bad),
        _ if full.is_some() => ("full", Tone::Warn),
        _ if upstream.problem.is_some() => ("problem", Tone::Warn),
        _ if !others.is_empty() => ("degraded", Tone::Warn),
        _ => ("ok", Tone::Good),
    };
    (state, tone, usable, why.join("; ").into())
}

pub(super) fn connections(since: &Since<'_>) -> (Vec<Row>, Option<Text>) {
    let Some(now) = &since.now.connections else { return (Vec::new(), None) };
    let before = since.before.and_then(|before| before.connections.as_ref());
    let before: HashMap<u64, &Connection> =
        before.iter().flat_map(|before| &before.connections).map(|known| (known.id, known)).collect();
    let rows = now.connections.iter().map(|connection| {
        // What is new has had no full interval.
        let rate = |bytes: fn(&Connection) -> u64| {
            let grown = bytes(connection).saturating_sub(bytes(before.get(&connection.id)?));
            Some(grown as f64 / since.seconds)
        };
        vec![
            connection.id.into(),
            (&connection.client).into(),
            (&connection.listener).into(),
            connection.upstream.as_ref().into(),
            connection.endpoint.as_ref().into(),
            connection.age_seconds.into(),
            connection.idle_seconds.into(),
            connection.bytes_received.into(),
            connection.bytes_sent.into(),
            rate(|connection| connection.bytes_received).into(),
            rate(|connection| connection.bytes_sent).into(),
            connection.worker.into(),
            connection.server_name.as_ref().into(),
        ]
    });
    (rows.collect(), missing(now, since.now.counts.workers.values().map(|worker| worker.active).sum()))
}

/// What the list leaves out.
fn missing(shown: &Connections, live: f64) -> Option<Text> {
    let count = shown.connections.len();
    if !shown.complete {
        Some("a worker did not answer in time; its connections are missing".into())
    } else if count >= 1_000 && live > count as f64 {
        Some(format!("the oldest {count} of {live}").into())
    } else {
        None
    }
}

pub(super) fn listeners(since: &Since<'_>) -> Vec<Row> {
    let row = |listener: &Listener| {
        let known = |counts: &Counts, count: fn(&ListenerCounts) -> f64| {
            counts.listeners.get(&listener.name).map(count)
        };
        let rate = |count: fn(&ListenerCounts) -> f64| since.rate(|counts| known(counts, count));
        vec![
            (&listener.name).into(),
            (&listener.address).into(),
            (&listener.protocol).into(),
            Cell::from(listener.routes.len() as u64),
            known(&since.now.counts, |counts| counts.active).into(),
            listener.limit.into(),
            rate(|counts| counts.ended).into(),
            Cell::from(rate(|counts| counts.errors)).tone_if_any(Tone::Bad),
            rate(|counts| counts.received).into(),
            rate(|counts| counts.sent).into(),
        ]
    };
    since.now.table.listeners.iter().map(row).collect()
}

pub(super) fn workers(since: &Since<'_>) -> Vec<Row> {
    let workers = since.now.counts.workers.iter();
    workers.map(|(number, worker)| worker_row(since, *number, worker)).collect()
}

fn worker_row(since: &Since<'_>, number: u32, worker: &WorkerCounts) -> Row {
    let known = |counts: &Counts, count: fn(&WorkerCounts) -> Option<f64>| {
        counts.workers.get(&number).and_then(count)
    };
    let rate = |count: fn(&WorkerCounts) -> Option<f64>| since.rate(|counts| known(counts, count));
    let busy = rate(|worker| worker.busy);
    let before = since.before.and_then(|before| before.counts.workers.get(&number));
    let lag = before.and_then(|before| worker.lag.quantile(0.99, Some(&before.lag)));
    let table = &since.now.table;
    let generation = table.acknowledged_generations.get(number as usize).copied();
    let is_behind = generation.is_some_and(|generation| generation < table.generation);
    let warn = |is_so: bool| if is_so { Tone::Warn } else { Tone::Plain };
    let mut why = Vec::new();
    if worker.paused {
        why.push("does not accept: no places or file descriptors".to_owned());
    }
    if is_behind {
        why.push("has not taken the newest table yet".to_owned());
    }
    if let Some(dropped) = rate(|worker| Some(worker.dropped)).filter(|dropped| *dropped > 0.0) {
        why.push(format!("{dropped:.0} records dropped per second"));
    }
    vec![
        Cell::from(number.to_string().as_str()),
        worker.active.into(),
        rate(|worker| Some(worker.accepted)).into(),
        Cell::from(busy).tone(warn(busy.is_some_and(|busy| busy > BUSY_WARN))),
        Cell::from(lag).tone(warn(lag.is_some_and(|lag| lag > LAG_WARN))),
        Cell::from(worker.heartbeat_age).tone(warn(worker.heartbeat_age > 1.0)),
        rate(|worker| Some(worker.received)).into(),
        rate(|worker| Some(worker.sent)).into(),
        (&worker.driver).into(),
        (&worker.rung).into(),
        Some(&worker.core).filter(|core| !core.as_str().is_empty()).into(),
        Cell::from(generation).tone(warn(is_behind)),
        Cell::from(&Text::from(why.join("; "))).tone(Tone::Warn),
    ]
}
