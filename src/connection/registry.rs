//! The live connections of one worker, oldest first, and the one timer that serves all their timeouts.
//!
//! A connection has one entry among the deadlines, for the earliest moment at which a timeout of it may be over. Activity
//! only stamps the connection; the entry is moved when it comes up. So a byte costs a stamp and no timer.

mod listing;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::routing::Listener;
use crate::telemetry::{Outcome, WorkerCounters};
use crate::worker::runtime;

use super::Live;
use super::live::CoarseTime;

pub(crate) struct Registry {
    worker: usize,
    counters: Arc<WorkerCounters>,
    connections: RefCell<BTreeMap<u64, Rc<Live>>>,
    deadlines: RefCell<BTreeSet<(CoarseTime, u64)>>,
    /// What the timer sleeps towards, and how to wake it when something comes before that.
    sleeping_until: Cell<Option<CoarseTime>>,
    sleeper: Cell<Option<Waker>>,
}

/// Timeouts are at most this late, so that many of one moment are served at once.
const RESOLUTION: Duration = Duration::from_millis(20);
/// A timer that is this late did not run in between.
const STOOD_STILL: Duration = Duration::from_millis(250);

impl Registry {
    pub(super) fn new(worker: usize, counters: Arc<WorkerCounters>) -> Self {
        Self {
            worker,
            counters,
            connections: RefCell::default(),
            deadlines: RefCell::default(),
            sleeping_until: Cell::new(None),
            sleeper: Cell::new(None),
        }
    }

    /// Enters a connection that was just accepted.
    pub(super) fn open(&self, client: SocketAddr, listener: Arc<Listener>) -> Rc<Live> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let live = Rc::new(Live::new(id, client, listener));
        self.connections.borrow_mut().insert(id, Rc::clone(&live));
        self.count_active();
        live
    }

    /// Counts the connections of a listener whose clients are told apart from now on, as if they had been all along.
    pub(crate) fn count_sources(&self, listener: &Listener) {
        if listener.sources.is_none() {
            return;
        }
        let is_its = |live: &Live| Arc::ptr_eq(&live.accepted_by.state, &listener.state);
        self.matching(is_its).iter().for_each(|live| live.count_source(listener));
    }

    /// Forgets a connection that ended.
    pub(super) fn close(&self, live: &Live) {
        self.connections.borrow_mut().remove(&live.id);
        if let Some(deadline) = live.scheduled.take() {
            self.deadlines.borrow_mut().remove(&(deadline, live.id));
        }
        live.detach();
        self.count_active();
    }

    /// Ends the one with this number from outside its task. `false`: it is not there any more.
    pub(crate) fn end(&self, id: u64, outcome: Outcome) -> bool {
        let live = self.connections.borrow().get(&id).cloned();
        live.map(|live| live.end(outcome)).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.connections.borrow().len()
    }

    /// All of them; the list is the caller's own, so that ending some while walking it is fine.
    pub(crate) fn all(&self) -> Vec<Rc<Live>> {
        self.connections.borrow().values().cloned().collect()
    }

    /// Those that are meant; whoever looks opens and closes none.
    pub(crate) fn matching(&self, is_meant: impl Fn(&Live) -> bool) -> Vec<Rc<Live>> {
        self.connections.borrow().values().filter(|live| is_meant(live)).cloned().collect()
    }

    /// Looks at each; whoever looks opens and closes none.
    pub(super) fn for_each(&self, look: impl Fn(&Live)) {
        self.connections.borrow().values().for_each(|live| look(live));
    }

    /// So many of them from this number on.
    pub(super) fn beginning_with(&self, id: u64, limit: usize) -> Vec<Rc<Live>> {
        self.connections.borrow().range(id..).take(limit).map(|(_, live)| Rc::clone(live)).collect()
    }

    /// To be called when something may have brought a timeout of this connection forward.
    pub(crate) fn schedule(&self, live: &Live) {
        let Some((deadline, _)) = live.deadline() else { return };
        let mut deadlines = self.deadlines.borrow_mut();
        if let Some(before) = live.scheduled.replace(Some(deadline)) {
            deadlines.remove(&(before, live.id));
        }
        deadlines.insert((deadline, live.id));
        if self.sleeping_until.get().is_none_or(|until| deadline < until)
            && let Some(waker) = self.sleeper.take()
        {
            waker.wake();
        }
    }

    /// Ends connections whose timeouts are over, for ever.
    pub(crate) async fn run_timeouts(&self) {
        loop {
            self.end_overdue(CoarseTime::now());
            let next = self.deadlines.borrow().first().map(|(deadline, _)| *deadline);
            self.sleeping_until.set(next);
            match next {
                Some(next) => {
                    let wait = next.since(CoarseTime::now()).max(RESOLUTION);
                    let mut timer = pin!(runtime::sleep(wait));
                    self.woken_or(|context| timer.as_mut().poll(context)).await;
                    // The whole process stood still (a paused machine, a throttled cgroup): what arrived meanwhile
                    // waits in the sockets, and must count before anything counts as idle.
                    if CoarseTime::now().since(next) > STOOD_STILL {
                        runtime::sleep(RESOLUTION).await;
                    }
                }
                None => self.woken_or(|_| Poll::Pending).await,
            }
        }
    }

    /// Waits for `done` or for [`Self::schedule`] to call.
    async fn woken_or(&self, mut done: impl FnMut(&mut std::task::Context<'_>) -> Poll<()>) {
        let mut polled = false;
        poll_fn(|context| {
            // Polled again by a call of the waker that `schedule` took, or because `done` is.
            let called = polled && self.sleeper.take().is_none();
            polled = true;
            if called || done(context).is_ready() {
                return Poll::Ready(());
            }
            self.sleeper.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn end_overdue(&self, now: CoarseTime) {
        loop {
            let first = self.deadlines.borrow().first().copied();
            let Some((deadline, id)) = first.filter(|(deadline, _)| *deadline <= now) else { return };
            self.deadlines.borrow_mut().remove(&(deadline, id));
            let live = self.connections.borrow().get(&id).cloned();
            let Some(live) = live else { continue };
            live.scheduled.set(None);
            match live.deadline() {
                Some((deadline, outcome)) if deadline <= now => live.end(outcome),
                _ => self.schedule(&live),
            }
        }
    }

    fn count_active(&self) {
        self.counters.shown.active.store(self.connections.borrow().len() as u64, Ordering::Relaxed);
    }
}
