//! Closes connections of endpoints that have left the table, at the pace that their upstream asks for.
//!
//! The pace is the endpoint's and exact for the process, because all workers draw on one count; which connection goes
//! next is each worker's choice among its own: the longest idle, and last those that wait for an answer.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::connection::{CoarseTime, Live};
use crate::routing::EndpointState;
use crate::telemetry::Outcome;

use super::Worker;
use super::runtime;

/// How often the worker looks whether a closing is due.
const TICK: Duration = Duration::from_millis(100);
/// How long a closing that is due waits for a worker that has an idle connection.
const DEFERENCE: Duration = Duration::from_millis(300);

/// Waits for endpoints to leave, and closes their connections one by one.
pub(super) async fn follow(worker: &Rc<Worker>) {
    loop {
        worker.context.departures.told().await;
        loop {
            let leaving = worker
                .context
                .registry
                .matching(|live| live.endpoint_state().is_some_and(EndpointState::leaves_paced));
            if leaving.is_empty() {
                break;
            }
            close(leaving);
            runtime::sleep(TICK).await;
        }
    }
}

fn close(mut leaving: Vec<Rc<Live>>) {
    let coarse = CoarseTime::now();
    leaving.sort_by_cached_key(|live| (live.awaits_answer(), std::cmp::Reverse(live.idle_for(coarse))));
    for live in leaving {
        // What is due goes to the first worker that asks. One with an idle connection asks at once, one whose
        // connections are all busy asks only for what nobody has taken for a while.
        let now = Instant::now();
        let by = if live.is_busy(coarse) { now.checked_sub(DEFERENCE).unwrap_or(now) } else { now };
        if live.endpoint_state().is_some_and(|state| state.claim_close(by, now)) {
            live.end(Outcome::TableRemoved);
        }
    }
}
