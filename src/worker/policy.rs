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

/// A connection that a table does not permit.
struct Forbidden {
    live: Rc<Live>,
    /// What is wrong with its client's certificate, if that is why.
    distrust: Option<Box<str>>,
    /// When it is to be closed at the latest.
    by: Instant,
}

/// Waits for tables that permit other connections, and closes what they do not.
pub(super) async fn follow(worker: &Rc<Worker>) {
    loop {
        worker.context.restrictions.told().await;
        let (mut looked_at, mut by) = (worker.subscriber.current().restrictions, Instant::now() + WINDOW);
        close(worker, &mut looked_at, &mut by).await;
        // Again: of who was on the way in by the table before, more is known by now.
        runtime::sleep(TICK).await;
        close(worker, &mut looked_at, &mut by).await;
    }
}

/// Closes what is not permitted: `by` then by the table with so many restrictions, and later by later ones. What a later one forbids
/// has a whole window: at the end of the one before, all would be closed at once.
async fn close(worker: &Worker, looked_at: &mut u64, by: &mut Instant) {
    let mut forbidden: Option<Vec<Forbidden>> = None;
    loop {
        let table = worker.subscriber.current();
        if *looked_at != table.restrictions {
            *by = Instant::now() + WINDOW;
        }
        let mut left = match forbidden.take() {
            Some(left) if *looked_at == table.restrictions => left,
            before => look(worker, &table, before.unwrap_or_default(), *by).await,
        };
        *looked_at = table.restrictions;
        drop(table);
        if left.is_empty() {
            return;
        }
        let now = Instant::now();
        let times = left.iter().map(|forbidden| forbidden.by.saturating_duration_since(now));
        for Forbidden { live, distrust, .. } in left.drain(..share(times)) {
            live.forbid(distrust);
        }
        forbidden = Some(left);
        runtime::sleep(TICK).await;
    }
}

/// The connections that this table does not permit, in the order in which they are to be closed. Those of `before` keep their time,
/// the others have until `by`.
async fn look(worker: &Worker, table: &RouteTable, before: Vec<Forbidden>, by: Instant) -> Vec<Forbidden> {
    let known: HashMap<u64, Instant> =
        before.into_iter().map(|forbidden| (forbidden.live.id, forbidden.by)).collect();
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
            let by = known.get(&live.id).copied().unwrap_or(by);
            forbidden.push(Forbidden { live, distrust, by });
        }
        if looked_at >= BATCH {
            looked_at = 0;
            runtime::yield_now().await;
        }
    }
    forbidden.sort_by_key(|forbidden| forbidden.by);
    forbidden
}

/// How many connections to close in this tick, of some with so much time left, the least first.
fn share(times: impl ExactSizeIterator<Item = Duration>) -> usize {
    let ticks = |left: Duration| usize::try_from(left.as_millis() / TICK.as_millis()).unwrap_or(usize::MAX);
    let count = times.len();
    let needed = (1_usize..).zip(times).map(|(upto, left)| upto.div_ceil(ticks(left).max(1))).max();
    needed.unwrap_or(0).max(LEAST).min(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are closed in each tick.
    fn closings(mut count: usize) -> Vec<usize> {
        let mut left = WINDOW;
        let mut closings = Vec::new();
        while count > 0 {
            let share = share(std::iter::repeat_n(left, count));
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
        let all = |left| share(std::iter::repeat_n(left, 5_000));
        assert_eq!((all(Duration::from_millis(99)), all(Duration::ZERO)), (5_000, 5_000));
    }

    #[test]
    fn what_is_forbidden_later_has_its_own_time() {
        let times =
            |late, count| std::iter::repeat_n(Duration::ZERO, late).chain(std::iter::repeat_n(WINDOW, count));
        let share = |late, count| share(times(late, count).collect::<Vec<_>>().into_iter());
        assert_eq!([share(100, 1_000), share(10, 1_000), share(0, 1_000)], [100, 26, 25]);
    }
}
