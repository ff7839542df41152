//! Tells of connections that live long, so that their traces show them before they end.
//!
//! A connection whose trace is kept already, because of the sample, its client's side, or what has become of it so far, is told of each
//! time that its age passes another multiple of five minutes. The work is bounded: so many are told of in one look, and those beyond it wait for their next multiple.

use std::time::{Duration, Instant};

use crate::telemetry::{Report, WorkerCounters};
use crate::worker::runtime;

use super::live::Flag;
use super::{Context, Live};

const INTERVAL: Duration = Duration::from_secs(300);
/// How often the worker looks whose age has passed a multiple.
const LOOK: Duration = Duration::from_secs(10);
/// Connections to look at before others get their turn.
const BATCH: usize = 1_024;
/// Connections to tell of in one look.
const REPORTS_MAX: usize = 200;

/// Looks after the connections of a worker, for ever.
pub(crate) async fn tell(context: &Context) {
    let interval = interval();
    let mut before = Instant::now();
    loop {
        runtime::sleep(LOOK.min(interval / 4)).await;
        let now = Instant::now();
        if context.sampling.trace.is_on() {
            look(context, interval, before, now).await;
        }
        before = now;
    }
}

async fn look(context: &Context, interval: Duration, before: Instant, now: Instant) {
    let (mut told, mut from) = (0, 0);
    while told < REPORTS_MAX {
        let batch = context.registry.beginning_with(from, BATCH);
        for live in &batch {
            if now.saturating_duration_since(live.accepted) < interval {
                // The others are younger.
                return;
            }
            let is_meant =
                is_due(live.accepted, interval, before, now) && told < REPORTS_MAX && keeps(context, live);
            if is_meant {
                told += 1;
                let report = Report::Lives(Box::new(live.long_lived(interval)));
                if context.records.try_send(report).is_err() {
                    WorkerCounters::add(&context.counters.records_dropped, 1);
                }
            }
        }
        let Some(last) = batch.last() else { return };
        from = last.id + 1;
        runtime::yield_now().await;
    }
}

/// Whether its trace is kept, as far as is known before its end.
fn keeps(context: &Context, live: &Live) -> bool {
    let sampling = &context.sampling;
    live.is(Flag::IsNotable)
        || sampling.keeps(live.trace(), live.parent())
        || sampling.is_slow(live.waits_for_answer())
}

/// Whether the age has passed another multiple of the interval between two looks.
fn is_due(accepted: Instant, interval: Duration, before: Instant, now: Instant) -> bool {
    let passed = |at: Instant| at.saturating_duration_since(accepted).as_nanos() / interval.as_nanos();
    passed(now) > passed(before)
}

fn interval() -> Duration {
    #[cfg(feature = "faults")]
    if let Some(interval) = crate::faults::long_lived() {
        return interval;
    }
    INTERVAL
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However often somebody looks, each multiple is due once.
        #[test]
        fn each_multiple_is_due_once(looks in prop::collection::vec(1_u64..400, 1..50), age in 0_u64..1_000) {
            let accepted = Instant::now();
            let mut before = accepted + Duration::from_secs(age);
            let first = before;
            let mut due = 0;
            for seconds in looks {
                let now = before + Duration::from_secs(seconds.min(299));
                due += u64::from(is_due(accepted, INTERVAL, before, now));
                before = now;
            }
            let multiples = |at: Instant| at.duration_since(accepted).as_secs() / 300;
            prop_assert_eq!(due, multiples(before) - multiples(first));
        }
    }
}
