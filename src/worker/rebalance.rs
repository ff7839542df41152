//! Closes connections of endpoints that have more than their fair share, so that their clients connect to others.
//!
//! The pace is the upstream's and exact for the process, because all workers draw on one; which connection goes next is
//! each worker's choice among its own: the longest idle, and only for want of those one that is busy.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Rebalance;
use crate::connection::{CoarseTime, Live};
use crate::routing::{EndpointState, Upstream};
use crate::telemetry::Outcome;

use super::Worker;
use super::runtime;

/// How often the worker looks whether a closing is due.
const TICK: Duration = Duration::from_millis(250);
/// How often it looks whether any upstream is to be rebalanced.
const LOOK: Duration = Duration::from_secs(2);
/// How long a closing that is due waits for a worker that has an idle connection.
const DEFERENCE: Duration = Duration::from_millis(600);

/// Looks at the upstreams that are to be rebalanced, for ever.
pub(super) async fn follow(worker: &Rc<Worker>) {
    loop {
        let table = worker.subscriber.current();
        let mut is_any = false;
        for upstream in table.upstreams.values() {
            if let Some(rebalance) = upstream.rebalance {
                is_any = true;
                close_some(worker, upstream, rebalance);
            }
        }
        drop(table);
        runtime::sleep(if is_any { TICK } else { LOOK }).await;
    }
}

fn close_some(worker: &Worker, upstream: &Upstream, rebalance: Rebalance) {
    let (now, coarse) = (Instant::now(), CoarseTime::now());
    // By the endpoint itself: another of the same address may have been there before it.
    let mut excess: HashMap<*const EndpointState, usize> =
        upstream.excess(now).map(|(endpoint, excess)| (Arc::as_ptr(&endpoint.state), excess)).collect();
    if excess.is_empty() {
        return;
    }
    // Asked first, because most looks find nothing due, and looking at all connections is work.
    let due = upstream.rebalance_due(rebalance, now);
    if due == 0 {
        return;
    }
    let endpoint = |live: &Live| live.endpoint_state().map(std::ptr::from_ref);
    let candidates = worker.context.registry.matching(|live| {
        endpoint(live).is_some_and(|endpoint| excess.contains_key(&endpoint))
            && live.accepted.elapsed() >= rebalance.min_age
            && !live.is_ending()
    });
    for live in first(candidates, due, coarse) {
        let Some(left) = endpoint(&live).and_then(|endpoint| excess.get_mut(&endpoint)) else { continue };
        if *left == 0 {
            continue;
        }
        let deference = if live.is_busy(coarse) { DEFERENCE } else { Duration::ZERO };
        if !upstream.claim_rebalance(rebalance, now.checked_sub(deference).unwrap_or(now)) {
            return;
        }
        *left -= 1;
        if !rebalance.dry_run {
            live.end(Outcome::Rebalance);
        }
    }
}

/// So many of them, in the order in which they are to go.
fn first(candidates: Vec<Rc<Live>>, due: usize, now: CoarseTime) -> impl Iterator<Item = Rc<Live>> {
    let key = |live: &Live| (live.is_busy(now), Reverse(live.idle_for(now)));
    let mut keyed: Vec<_> = candidates.into_iter().map(|live| (key(&live), live)).collect();
    if due < keyed.len() {
        keyed.select_nth_unstable_by_key(due, |(key, _)| *key);
        keyed.truncate(due);
    }
    keyed.sort_unstable_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, live)| live)
}
