//! Workers that even out: the kernel spreads connections over their sockets by chance, and long ones pile up.
//!
//! A worker that has clearly more connections than another gives it what it accepts. That costs a look at the others'
//! counts for each connection, and a wake-up of another core only where one is given.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::connection::Accepted;
use crate::routing::RouteTable;
use crate::telemetry::{WorkerCounters, process_clock_ms};

use super::{Worker, accept};

/// A lead of so many connections is chance and no pile.
const LEAD: usize = 8;
/// With many connections, it may be this part of what the other has: 1 000 on two workers stay within 4 %.
const LEAD_PART: usize = 32;
/// So many that were given and not yet taken: more are not given to a worker that does not come to it.
const WAITING_MAX: usize = 64;

/// A worker whose last heartbeat is older has stood still for several of them.
const STANDS_STILL_MS: u64 = 1_000;

/// A worker among all of them.
pub struct Crew {
    me: usize,
    all: Arc<[Member]>,
    given: flume::Receiver<Accepted>,
}

/// What a worker shows the others.
struct Member {
    counters: Arc<WorkerCounters>,
    /// Given to it, and not yet taken; the queue knows it too, but behind a lock that every accept would take.
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

    /// Gives the connection to another worker, if one has clearly fewer than `mine`; else it comes back.
    pub(super) fn give(&self, accepted: Accepted, mine: usize) -> Option<Accepted> {
        let Some(member) = self.with_fewer(mine) else { return Some(accepted) };
        member.waiting.fetch_add(1, Ordering::Relaxed);
        match member.give.try_send(accepted) {
            Ok(()) => None,
            Err(refused) => {
                member.waiting.fetch_sub(1, Ordering::Relaxed);
                Some(refused.into_inner())
            }
        }
    }

    /// Whether a worker with so many connections gives the next one away: what is asked at each accept.
    pub fn gives(&self, mine: usize) -> bool {
        self.with_fewer(mine).is_some()
    }

    /// Who has the fewest, if they are clearly fewer than `mine`.
    fn with_fewer(&self, mine: usize) -> Option<&Member> {
        let others = self.all.iter().enumerate().filter(|(index, _)| *index != self.me);
        // One that refuses new connections always has the fewest.
        let ready = others.filter(|(_, member)| !member.counters.shown.runs_late.load(Ordering::Relaxed));
        let counted = ready.map(|(_, member)| (member.load(), member));
        let (least, member) = counted.min_by_key(|(load, _)| *load)?;
        (leads(mine, least) && member.comes_to_it()).then_some(member)
    }

    /// Whether nothing waits here that was given.
    pub(super) fn has_nothing_waiting(&self) -> bool {
        self.given.is_empty()
    }

    fn taken(&self) {
        if let Some(member) = self.all.get(self.me) {
            member.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Member {
    fn load(&self) -> usize {
        let active =
            usize::try_from(self.counters.shown.active.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        active.saturating_add(self.waiting.load(Ordering::Relaxed))
    }

    /// Whether it will serve soon what it is given.
    fn comes_to_it(&self) -> bool {
        let beat = self.counters.shown.heartbeat.load(Ordering::Relaxed);
        self.waiting.load(Ordering::Relaxed) < WAITING_MAX
            && process_clock_ms().saturating_sub(beat) < STANDS_STILL_MS
    }
}

/// Whether a worker with `mine` connections has clearly more than one with `other`.
fn leads(mine: usize, other: usize) -> bool {
    mine > other + LEAD + other / LEAD_PART
}

/// Serves what the others give, for ever.
pub(super) async fn follow(worker: &Rc<Worker>) {
    while let Ok(accepted) = worker.crew.given.recv_async().await {
        take(worker, accepted);
    }
}

/// Takes what is left at the end, so that it ends like the rest and is recorded.
pub(super) fn take_rest(worker: &Worker) {
    while let Ok(accepted) = worker.crew.given.try_recv() {
        take(worker, accepted);
    }
}

fn take(worker: &Worker, accepted: Accepted) {
    accept::admit(worker, by_own_table(accepted, &worker.subscriber.current()));
    worker.crew.taken();
}

/// As if it had been accepted here: whoever is told of what a later table forbids knows nothing of the giver's.
fn by_own_table(mut accepted: Accepted, table: &RouteTable) -> Accepted {
    let Some(listener) = table.listener_at(accepted.listener.address) else { return accepted };
    if !Arc::ptr_eq(&listener.state, &accepted.listener.state) {
        accepted.listener_place = listener.take_place();
    }
    accepted.listener = Arc::clone(listener);
    accepted
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::TcpListener;

    use crate::config::Config;
    use crate::routing::{Findings, Places, compile};

    const CONFIG: &str = "listeners: [{name: a, address: \"127.0.0.1:1\"}]\n\
                          routes: [{name: a, listener: a, backendRefs: [{upstream: a}]}]\n\
                          upstreams: [{name: a, endpoints: [{address: \"127.0.0.1:2\"}]}]\n";

    fn table(config: &str, previous: &RouteTable) -> RouteTable {
        let config = Config::parse(config, "test").unwrap();
        compile(&config, &Findings::default(), previous, std::time::Instant::now())
    }

    fn accepted(table: &RouteTable) -> Accepted {
        Accepted {
            socket: TcpListener::bind("127.0.0.1:0").unwrap().into(),
            client: "127.0.0.1:3".parse().unwrap(),
            listener: Arc::clone(&table.listeners[0]),
            place: Arc::new(Places::default()).try_take(1).unwrap(),
            listener_place: table.listeners[0].state.places.try_take(9),
        }
    }

    fn crews(count: usize) -> (Vec<Arc<WorkerCounters>>, Vec<Crew>) {
        let counters: Vec<Arc<WorkerCounters>> = (0..count).map(|_| Arc::default()).collect();
        counters.iter().for_each(|one| one.shown.heartbeat.store(process_clock_ms(), Ordering::Relaxed));
        let crews = Crew::of(&counters);
        (counters, crews)
    }

    #[test]
    fn a_small_lead_is_chance() {
        assert!(!leads(16, 8) && leads(17, 8));
        assert!(!leads(523, 500) && leads(524, 500), "{}", 500 / LEAD_PART);
    }

    #[test]
    fn the_one_with_the_fewest_gets_it() {
        let (counters, crews) = crews(3);
        counters[1].shown.active.store(20, Ordering::Relaxed);
        counters[2].shown.active.store(10, Ordering::Relaxed);
        let table = table(CONFIG, &RouteTable::empty());
        assert!(crews[0].give(accepted(&table), 18).is_some(), "18 is no clear lead on 10");
        assert!(crews[0].give(accepted(&table), 30).is_none());
        assert_eq!((crews[1].given.len(), crews[2].given.len()), (0, 1));
        assert!(!crews[2].has_nothing_waiting() && crews[1].has_nothing_waiting());
    }

    #[test]
    fn who_refuses_or_stands_still_gets_none() {
        let (counters, crews) = crews(2);
        let table = table(CONFIG, &RouteTable::empty());
        counters[1].shown.runs_late.store(true, Ordering::Relaxed);
        assert!(crews[0].give(accepted(&table), 100).is_some());
        counters[1].shown.runs_late.store(false, Ordering::Relaxed);
        for _ in 0..WAITING_MAX {
            assert!(crews[0].give(accepted(&table), 1_000).is_none());
        }
        assert!(crews[0].give(accepted(&table), 1_000).is_some(), "it does not come to it");
    }

    #[test]
    fn what_is_given_is_served_by_the_table_of_who_serves_it() {
        let old = table(CONFIG, &RouteTable::empty());
        let renamed =
            CONFIG.replace("{name: a, address", "{name: b, address").replace("listener: a", "listener: b");
        let new = table(&renamed, &old);
        let taken = by_own_table(accepted(&old), &new);
        assert!(Arc::ptr_eq(&taken.listener, &new.listeners[0]));
        assert_eq!((old.listeners[0].state.places.taken(), new.listeners[0].state.places.taken()), (0, 1));
        drop(taken);
        let gone = by_own_table(accepted(&old), &RouteTable::empty());
        assert!(Arc::ptr_eq(&gone.listener, &old.listeners[0]), "its listener has left");
    }
}
