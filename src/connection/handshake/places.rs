//! How many handshakes a worker has under way, and whose turn it is to compute.

use std::cell::Cell;

use crate::worker::runtime;

/// Handshakes that a worker has under way at once, from the wait for the ClientHello on. With 100 ms for each these are 10 000 a
/// second, far more than a core can compute; and what they hold, up to 20 KiB each, stays within some 20 MiB.
const HANDSHAKES_MAX: usize = 1_024;
/// Steps of handshakes (most take 100 us to 500 us) between two looks at what the others of the worker have to do.
const STEPS_PER_TURN: u32 = 1;

#[derive(Default)]
pub(in crate::connection) struct Handshakes {
    under_way: Cell<usize>,
    /// The turn of the loop in which the last step was made, and how many were made in it.
    turn: Cell<u64>,
    steps: Cell<u32>,
}

/// A handshake that is under way as long as this lives.
pub(in crate::connection) struct UnderWay<'a>(&'a Cell<usize>);

impl Handshakes {
    /// `None`: there are enough.
    pub(in crate::connection) fn begin(&self) -> Option<UnderWay<'_>> {
        if self.under_way.get() >= HANDSHAKES_MAX {
            return None;
        }
        self.under_way.set(self.under_way.get() + 1);
        Some(UnderWay(&self.under_way))
    }

    /// Waits for the turn to compute.
    pub(super) async fn turn(&self) {
        while !self.try_step(runtime::turn()) {
            runtime::yield_now().await;
        }
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

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_only_so_many_at_once() {
        let handshakes = Handshakes::default();
        let mut all: Vec<_> = std::iter::from_fn(|| handshakes.begin()).take(HANDSHAKES_MAX + 1).collect();
        assert_eq!(all.len(), HANDSHAKES_MAX);
        all.pop();
        assert!(handshakes.begin().is_some(), "one has ended");
    }

    #[test]
    fn a_turn_has_only_so_many_steps() {
        let handshakes = Handshakes::default();
        let steps = |turn| (0..10).filter(|_| handshakes.try_step(turn)).count();
        assert_eq!([steps(1), steps(1), steps(2)], [STEPS_PER_TURN as usize, 0, STEPS_PER_TURN as usize]);
    }
}
