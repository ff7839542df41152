//! Connections that do nothing: what each costs a fresh proxy in memory, and all of them in CPU time.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use crate::backend::Backend;
use crate::cases::{self, Measurement, Target, Value};
use crate::error::{Context, Error, Result};
use crate::link::Link;
use crate::machine;
use crate::peer::Peer;
use crate::process;
use crate::round_trips::{PATIENCE, RoundTrips};
use crate::wire::{self, MESSAGE};

const MOST: u64 = 10_000;
/// Connections opened before their answers are awaited: well below any backlog.
const BATCH: usize = 64;

pub(super) struct Plan {
    pub(super) connections: usize,
    pub(super) watch: Duration,
}

impl Plan {
    pub(super) fn new(quick: bool) -> Self {
        let most = machine::max_connections().min(MOST) as usize;
        if quick {
            Self { connections: most.min(500), watch: Duration::from_secs(1) }
        } else {
            Self { connections: most, watch: Duration::from_secs(5) }
        }
    }
}

/// `peer` must be fresh: memory that an earlier case grew and kept would hide what connections need.
pub(super) fn measure(
    peer: &mut Peer,
    target: &Target<'_>,
    backend: &Backend,
    plan: &Plan,
) -> Result<Measurement> {
    RoundTrips::open(target, 1)?.run(Duration::from_millis(100))?;
    target.settle(backend)?;
    thread::sleep(Duration::from_millis(500));
    let before = process::memory(peer.pid)?;
    let slabs_before = process::kernel_slabs()?;
    let mut connections = Vec::with_capacity(plan.connections);
    while connections.len() < plan.connections {
        let count = BATCH.min(plan.connections - connections.len());
        open(target, count, &mut connections)?;
    }
    thread::sleep(Duration::from_secs(1));
    let after = process::memory(peer.pid)?;
    let slabs = process::kernel_slabs()?;
    let ((), cpu) = cases::timed(peer, || {
        thread::sleep(plan.watch);
        Ok(())
    })?;
    for link in &mut connections {
        check_alive(link)?;
    }
    drop(connections);
    target.settle(backend)?;
    let each = |before: u64, after: u64| (after as f64 - before as f64) / plan.connections as f64;
    let values = vec![
        Value { metric: "anonymous bytes/connection", value: each(before.anonymous, after.anonymous) },
        Value { metric: "resident bytes/connection", value: each(before.resident, after.resident) },
        Value { metric: "machine's slab bytes/connection", value: each(slabs_before, slabs) },
        Value { metric: "resident KiB before", value: before.resident as f64 / 1024.0 },
        Value {
            metric: "CPU us/s while idle",
            value: cpu.ran.as_secs_f64() * 1e6 / plan.watch.as_secs_f64(),
        },
    ];
    Ok(Measurement { values, disturbed: cpu.disturbed, coarse: cpu.coarse })
}

fn open(target: &Target<'_>, count: usize, connections: &mut Vec<Link>) -> Result<()> {
    let first = connections.len();
    for key in first..first + count {
        let mut link = Link::open(target)?;
        link.socket().set_read_timeout(Some(PATIENCE)).context("client")?;
        link.write_all(&wire::request(key, 0)).context("send a request")?;
        connections.push(link);
    }
    for (key, link) in connections.iter_mut().enumerate().skip(first) {
        let mut answer = [0; MESSAGE];
        link.read_exact(&mut answer).context(format_args!("answer on connection {key}"))?;
        if answer != wire::request(key, 0) {
            return Err(Error::new(format!("the answer on connection {key} is not what was sent")));
        }
    }
    Ok(())
}

/// An idle connection that the proxy dropped would make it look frugal.
fn check_alive(link: &mut Link) -> Result<()> {
    link.socket().set_nonblocking(true).context("client")?;
    match link.read(&mut [0]) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error).context("an idle connection"),
        Ok(_) => Err(Error::new("an idle connection was closed or received something")),
    }
}
