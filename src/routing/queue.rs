//! Connections that wait for a place, in the order in which they came.
//!
//! Nothing is handed over: the first in line is called when something may have become free, looks for itself, and stays
//! first until it has a place or leaves. So no place is ever lost on the way, and none is given away twice.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One line for all workers.
#[derive(Debug, Default)]
pub struct Queue {
    /// As long as the line is, so that looking takes no lock.
    len: AtomicUsize,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    next_number: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    call: flume::Sender<()>,
}

/// A place in the line; left when dropped.
#[derive(Debug)]
pub struct Ticket {
    queue: Arc<Queue>,
    number: u64,
    called: flume::Receiver<()>,
}

impl Queue {
    /// Joins the line unless `limit` wait already.
    pub fn join(self: &Arc<Self>, limit: usize) -> Option<Ticket> {
        let mut line = self.line();
        if line.waiting.len() >= limit {
            return None;
        }
        let (call, called) = flume::bounded(1);
        let number = line.next_number;
        line.next_number += 1;
        line.waiting.push_back(Waiting { number, call });
        self.len.store(line.waiting.len(), Ordering::SeqCst);
        // What became free before it joined called nobody.
        line.call_first();
        drop(line);
        Some(Ticket { queue: Arc::clone(self), number, called })
    }

    /// Something may have become free: calls the first. To be told after it became free, with an ordering that
    /// everybody agrees on (`SeqCst`): either this sees who waits, or who joins sees what is free.
    pub fn call(&self) {
        if !self.is_empty() {
            self.line().call_first();
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::SeqCst)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn call_first(&self) {
        if let Some(first) = self.waiting.front() {
            let _already_called = first.call.try_send(());
        }
    }
}

impl Ticket {
    /// Whether nobody is before it.
    pub fn is_first(&self) -> bool {
        self.queue.line().waiting.front().is_some_and(|first| first.number == self.number)
    }

    /// Waits to be called. Dropping this loses no call.
    pub async fn called(&self) {
        let _never_disconnected = self.called.recv_async().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut line = self.queue.line();
        if let Ok(at) = line.waiting.binary_search_by_key(&self.number, |waiting| waiting.number) {
            line.waiting.remove(at);
        }
        self.queue.len.store(line.waiting.len(), Ordering::SeqCst);
        // There may be more than it took, or it left with a call that is now the next one's.
        line.call_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_called(ticket: &Ticket) -> bool {
        ticket.called.try_recv().is_ok()
    }

    #[test]
    fn first_come_first_called() {
        let queue = Arc::new(Queue::default());
        let first = queue.join(2).unwrap();
        assert!(is_called(&first), "it looks once more after it joined");
        let second = queue.join(2).unwrap();
        assert!(queue.join(2).is_none(), "the line is full");
        let _called_by_the_second = is_called(&first);
        queue.call();
        assert!(is_called(&first) && !is_called(&second));
        assert!(first.is_first() && !second.is_first());
        queue.call();
        drop(first);
        assert!(is_called(&second), "the call of who left is not lost");
        assert_eq!(queue.len(), 1);
        drop(second);
        assert!(queue.is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Join,
        Leave(usize),
        Free,
        /// Whoever was called looks, and takes what is free.
        Look,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![Just(Step::Join), (0..8_usize).prop_map(Step::Leave), Just(Step::Free), Just(Step::Look)]
    }

    proptest! {
        /// Nobody waits for what is free, nobody is overtaken, and the line never is longer than it may be.
        #[test]
        fn no_call_is_lost(steps in prop::collection::vec(step(), 1..200)) {
            let queue = Arc::new(Queue::default());
            let (mut free, mut line) = (0_usize, VecDeque::new());
            for step in steps {
                match step {
                    Step::Join => line.extend(queue.join(5)),
                    Step::Leave(at) if at < line.len() => drop(line.remove(at)),
                    Step::Free => {
                        free += 1;
                        queue.call();
                    }
                    Step::Leave(_) => {}
                    Step::Look => {
                        while let Some(at) = line.iter().position(is_called) {
                            prop_assert_eq!(at, 0, "only the first is called");
                            if free > 0 {
                                free -= 1;
                                line.pop_front();
                            }
                        }
                        prop_assert!(free == 0 || line.is_empty(), "{} wait for {free} free", line.len());
                    }
                }
                prop_assert_eq!(queue.len(), line.len());
                prop_assert!(line.len() <= 5);
            }
        }
    }
}
