//! Whose turn it is to compute: a step of a handshake in each turn of the loop, for who came first.
//!
//! Only the first of those who wait is woken in each turn; the others sleep until they are the first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use crate::worker::runtime;

/// Steps of handshakes (most take 100 us to 500 us) between two looks at what the others of the worker have to do.
const STEPS_PER_TURN: u32 = 1;

#[derive(Default)]
pub(super) struct Turns {
    /// Who waits, in the order of their numbers. No more than there are connections, or twice that with hedged attempts.
    waiting: RefCell<VecDeque<(u64, Option<Waker>)>>,
    next: Cell<u64>,
    /// The turn of the loop in which the last step was made, and how many were made in it.
    turn: Cell<u64>,
    steps: Cell<u32>,
}

impl Turns {
    /// Waits for the turn to compute. Safe to drop.
    pub(super) async fn take(&self) {
        if self.waiting.borrow().is_empty() && self.try_step(runtime::turn()) {
            return;
        }
        let ticket = self.queue();
        poll_fn(|context| ticket.poll_first(context)).await;
        while !self.try_step(runtime::turn()) {
            runtime::yield_now().await;
        }
    }

    fn queue(&self) -> Ticket<'_> {
        let number = self.next.replace(self.next.get() + 1);
        self.waiting.borrow_mut().push_back((number, None));
        Ticket { turns: self, number }
    }

    fn try_step(&self, turn: u64) -> bool {
        if self.turn.replace(turn) != turn {
            self.steps.set(0);
        }
        let may = self.steps.get() < STEPS_PER_TURN;
        self.steps.set(self.steps.get() + u32::from(may));
        may
    }
}

/// A place in the queue, as long as this lives.
struct Ticket<'a> {
    turns: &'a Turns,
    number: u64,
}

impl Ticket<'_> {
    fn poll_first(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.turns.waiting.borrow_mut();
        let place = waiting.partition_point(|(number, _)| *number < self.number);
        match waiting.get_mut(place) {
            Some((_, waker)) if place > 0 => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut waiting = self.turns.waiting.borrow_mut();
        let place = waiting.partition_point(|(number, _)| *number < self.number);
        waiting.remove(place);
        let first = waiting.front_mut().filter(|_| place == 0).and_then(|(_, waker)| waker.take());
        drop(waiting);
        if let Some(waker) = first {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    #[test]
    fn a_turn_has_only_so_many_steps() {
        let turns = Turns::default();
        let steps = |turn| (0..10).filter(|_| turns.try_step(turn)).count();
        assert_eq!([steps(1), steps(1), steps(2)], [STEPS_PER_TURN as usize, 0, STEPS_PER_TURN as usize]);
    }

    #[derive(Default)]
    struct Calls(AtomicU32);

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_the_next_is_called_and_who_leaves_holds_up_nobody() {
        let turns = Turns::default();
        let calls: [Arc<Calls>; 4] = std::array::from_fn(|_| Arc::default());
        let mut tickets: Vec<_> = calls.iter().map(|_| Some(turns.queue())).collect();
        let is_first = |ticket: &Option<Ticket<'_>>, calls: &Arc<Calls>| {
            let waker = Waker::from(Arc::clone(calls));
            ticket.as_ref().unwrap().poll_first(&mut Context::from_waker(&waker)).is_ready()
        };
        let firsts: Vec<_> =
            tickets.iter().zip(&calls).map(|(ticket, calls)| is_first(ticket, calls)).collect();
        assert_eq!(firsts, [true, false, false, false]);
        let called = || calls.each_ref().map(|calls| calls.0.load(Ordering::Relaxed));
        tickets[1] = None;
        assert_eq!(called(), [0; 4], "it is still the turn of the first");
        tickets[0] = None;
        assert_eq!(called(), [0, 0, 1, 0]);
        assert!(is_first(&tickets[2], &calls[2]) && !is_first(&tickets[3], &calls[3]));
        tickets[2] = None;
        assert_eq!(called(), [0, 0, 1, 1]);
        drop(tickets);
        assert!(turns.waiting.borrow().is_empty());
    }
}
