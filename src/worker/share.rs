//! Workers that even out: the kernel spreads connections over their sockets by chance, and long ones pile up.
//!
//! A worker that has clearly more connections than another gives it what it accepts. That costs a look at the others'
//! counts for each connection, and a wake-up of another core only where one is given.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::connection::Accepted;
use crate::telemetry::WorkerCounters;

use super::{Worker, accept};

/// A lead of so many connections is chance and no pile.
const LEAD: usize = 8;
/// With many connections, it may be this part of what the other has: 1 000 on two workers stay within 4 %.
const LEAD_PART: usize = 32;
/// So many that were given and not yet taken: more are not given to a worker that does not come to it.
const WAITING_MAX: usize = 64;

/// A worker among all of them.
pub struct Crew {
    me: usize,
    all: Arc<[Member]>,
    given: flume::Receiver<Accepted>,
}

/// What a worker shows the others.
struct Member {
    counters: Arc<WorkerCounters>,
    /// Given to it, and not yet taken.
    waiting: AtomicUsize,
    give: flume::Sender<Accepted>,
}

impl Crew {
    /// One for each worker, in their order.
    pub fn of(counters: &[Arc<WorkerCounters>]) -> Vec<Self> {
        let (members, inboxes): (Vec<_>, Vec<_>) = counters
            .iter()
            .map(|counters| {
                let (give, given) = flume::bounded(WAITING_MAX);
                (Member { counters: Arc::clone(counters), waiting: AtomicUsize::new(0), give }, given)
            })
            .unzip();
        let all: Arc<[Member]> = members.into();
        let each = inboxes.into_iter().enumerate();
        each.map(|(me, given)| Self { me, all: Arc::clone(&all), given }).collect()
    }

    /// Gives the connection to the worker with the fewest, if it has clearly fewer than `mine`; else it comes back.
    pub(super) fn give(&self, accepted: Accepted, mine: usize) -> Option<Accepted> {
        let others = self.all.iter().enumerate().filter(|(index, _)| *index != self.me);
        let counted = others.map(|(_, member)| (member.load(), member));
        let Some((least, member)) = counted.min_by_key(|(load, _)| *load) else { return Some(accepted) };
        if !leads(mine, least) || member.waiting.load(Ordering::Relaxed) >= WAITING_MAX {
            return Some(accepted);
        }
        member.waiting.fetch_add(1, Ordering::Relaxed);
        match member.give.try_send(accepted) {
            Ok(()) => None,
            Err(refused) => {
                member.waiting.fetch_sub(1, Ordering::Relaxed);
                Some(refused.into_inner())
            }
        }
    }

    /// Whether nothing waits here that was given.
    pub(super) fn has_nothing_waiting(&self) -> bool {
        self.given.is_empty()
    }

    async fn take(&self) -> Option<Accepted> {
        self.given.recv_async().await.ok()
    }

    fn taken(&self) {
        if let Some(member) = self.all.get(self.me) {
            member.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Member {
    fn load(&self) -> usize {
        let active = usize::try_from(self.counters.active.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        active.saturating_add(self.waiting.load(Ordering::Relaxed))
    }
}

/// Whether a worker with `mine` connections has clearly more than one with `other`.
fn leads(mine: usize, other: usize) -> bool {
    mine > other + LEAD + other / LEAD_PART
}

/// Serves what the others give, for ever.
pub(super) async fn follow(worker: &Rc<Worker>) {
    while let Some(accepted) = worker.crew.take().await {
        accept::admit(worker, accepted);
        worker.crew.taken();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_lead_is_chance() {
        assert!(!leads(16, 8) && leads(17, 8));
        assert!(!leads(523, 500) && leads(524, 500), "{}", 500 / LEAD_PART);
    }
}
