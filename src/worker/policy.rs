//! Closes connections that the table no longer permits: those of clients that it turns away now, or leads elsewhere.
//!
//! Soon, because somebody wants them gone; spread over some seconds, so that clients that come back do not all do so at
//! once. The table is looked at until the last one is closed: what it permits again by then stays.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connection::Live;
use crate::routing::{Listener, ListenerState, RouteTable};

use super::Worker;
use super::runtime;

/// They are closed in this time.
const WINDOW: Duration = Duration::from_secs(4);
const TICK: Duration = Duration::from_millis(100);
/// So few at once are no crowd.
const LEAST: usize = 8;
/// Connections to look at before the worker's tasks get their turn: there may be thousands of networks to compare with.
const BATCH: usize = 64;
/// As many others cost what one costs whose client's certificate has to be verified.
const CERTIFICATE: usize = 16;

/// Waits for tables that permit other connections, and closes what they do not.
pub(super) async fn follow(worker: &Rc<Worker>) {
    loop {
        worker.context.restrictions.told().await;
        let by = Instant::now() + WINDOW;
        close(worker, by).await;
        // Again: who was on the way in by the table before is through by now.
        runtime::sleep(TICK).await;
        close(worker, by).await;
    }
}

async fn close(worker: &Worker, by: Instant) {
    let mut looked_at = None;
    let mut forbidden = Vec::new();
    loop {
        let table = worker.subscriber.current();
        if looked_at.replace(table.restrictions) != Some(table.restrictions) {
            forbidden = look(worker, &table).await;
        }
        drop(table);
        if forbidden.is_empty() {
            return;
        }
        let left = by.saturating_duration_since(Instant::now());
        for (live, distrust) in forbidden.drain(..share(forbidden.len(), left)) {
            live.forbid(distrust);
        }
        runtime::sleep(TICK).await;
    }
}

/// The connections that this table does not permit, with what is wrong with their clients' certificates, if that is why.
async fn look(worker: &Worker, table: &RouteTable) -> Vec<(Rc<Live>, Option<Box<str>>)> {
    // By its state: a listener may have another address, and another one its name.
    let listeners: HashMap<*const ListenerState, &Arc<Listener>> =
        table.listeners.iter().map(|listener| (Arc::as_ptr(&listener.state), listener)).collect();
    // What left with its listener has its time to drain.
    let forbids = |live: &Rc<Live>| {
        let listener = listeners.get(&Arc::as_ptr(&live.listener().state));
        listener.copied().filter(|listener| !live.is_permitted(listener))
    };
    let mut forbidden = Vec::new();
    let mut looked_at = 0;
    for live in worker.context.registry.all() {
        looked_at += if live.has_chain() { CERTIFICATE } else { 1 };
        let forbidding = forbids(&live);
        live.note_permission(forbidding.is_none());
        if let Some(listener) = forbidding {
            let distrust = live.distrust(listener);
            forbidden.push((live, distrust));
        }
        if looked_at >= BATCH {
            looked_at = 0;
            runtime::yield_now().await;
        }
    }
    forbidden
}

/// How many of `count` connections to close in this tick, with `left` of the time to close them in.
fn share(count: usize, left: Duration) -> usize {
    let ticks = usize::try_from(left.as_millis() / TICK.as_millis()).unwrap_or(usize::MAX);
    count.div_ceil(ticks.max(1)).max(LEAST).min(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are closed in each tick.
    fn closings(mut count: usize) -> Vec<usize> {
        let mut left = WINDOW;
        let mut closings = Vec::new();
        while count > 0 {
            let share = share(count, left);
            assert!((1..=count).contains(&share));
            count -= share;
            closings.push(share);
            left = left.saturating_sub(TICK);
        }
        closings
    }

    #[test]
    fn many_are_spread_evenly_and_all_are_closed_in_time() {
        for count in [400, 1_000, 4_321, 100_000] {
            let closings = closings(count);
            assert!(closings.len() <= 40, "{closings:?}");
            let (least, most) = (closings.iter().min().unwrap(), closings.iter().max().unwrap());
            assert!(most - least <= 1 + most / 10, "{closings:?}");
        }
    }

    #[test]
    fn a_few_are_closed_at_once() {
        assert_eq!(closings(1), [1]);
        assert_eq!(closings(20), [8, 8, 4]);
    }

    #[test]
    fn late_all_are_closed() {
        assert_eq!(share(5_000, Duration::from_millis(99)), 5_000);
        assert_eq!(share(5_000, Duration::ZERO), 5_000);
    }
}
