//! The verdict of its probes on an endpoint: one atomic, written on the control side, read when a table is made; and how
//! probes come to one.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether an endpoint is well. A new one is, until something says otherwise.
#[derive(Debug, Default)]
pub struct Health {
    unhealthy: AtomicBool,
    /// It is to wait for its first success, and has had none.
    awaited: AtomicBool,
}

impl Health {
    pub fn new(healthy: bool) -> Self {
        Self { unhealthy: AtomicBool::new(!healthy), awaited: AtomicBool::new(!healthy) }
    }

    /// It is as new as one that has just been made.
    pub fn reset(&self, healthy: bool) {
        self.unhealthy.store(!healthy, Ordering::Relaxed);
        self.awaited.store(!healthy, Ordering::Relaxed);
    }

    pub fn is_healthy(&self) -> bool {
        !self.unhealthy.load(Ordering::Relaxed)
    }

    /// Whether it was never well, and is not to be used before that: not a verdict that may be wrong.
    pub fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    /// States the verdict; `true` if that changed it.
    pub fn set(&self, healthy: bool) -> bool {
        if healthy {
            self.awaited.store(false, Ordering::Relaxed);
        }
        self.unhealthy.swap(!healthy, Ordering::Relaxed) == healthy
    }
}

/// The probes of one endpoint in a row, and what they come to. The verdict changes after so many that speak against
/// it, one after the other; an endpoint that starts unhealthy is healthy after its first success.
#[derive(Debug, Clone)]
pub struct Streak {
    healthy: bool,
    is_first: bool,
    against: u32,
}

impl Streak {
    pub fn new(healthy: bool) -> Self {
        Self { healthy, is_first: true, against: 0 }
    }

    pub fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// Takes in a probe; the verdict, if this changed it.
    pub fn enter(
        &mut self,
        succeeded: bool,
        healthy_threshold: u32,
        unhealthy_threshold: u32,
    ) -> Option<bool> {
        let needed = match succeeded {
            true if self.is_first => 1,
            true => healthy_threshold,
            false => unhealthy_threshold,
        };
        self.is_first = false;
        if succeeded == self.healthy {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.healthy = succeeded;
        Some(succeeded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn starts_healthy_and_tells_a_change_from_a_repetition() {
        let health = Health::default();
        assert!(health.is_healthy());
        assert!(health.set(false));
        assert!(!health.set(false));
        assert!(!health.is_healthy());
        assert!(health.set(true));
    }

    #[test]
    fn a_first_success_is_awaited_until_it_comes() {
        let health = Health::new(false);
        assert!(!health.set(false) && health.is_awaited(), "a failure is no success");
        assert!(health.set(true) && !health.is_awaited());
        assert!(health.set(false) && !health.is_awaited(), "it was well once");
        health.reset(false);
        assert!(health.is_awaited() && !health.is_healthy());
        health.reset(true);
        assert!(!health.is_awaited() && health.is_healthy());
    }

    #[test]
    fn the_first_success_is_enough_and_later_ones_are_counted() {
        let mut streak = Streak::new(false);
        assert_eq!(streak.enter(true, 2, 3), Some(true));
        assert_eq!([false, false].map(|probe| streak.enter(probe, 2, 3)), [None, None]);
        assert_eq!(streak.enter(false, 2, 3), Some(false));
        assert_eq!(streak.enter(true, 2, 3), None);
        assert_eq!(streak.enter(true, 2, 3), Some(true));
        let mut unlucky = Streak::new(false);
        assert_eq!(
            [false, true].map(|probe| unlucky.enter(probe, 2, 3)),
            [None, None],
            "only the very first"
        );
    }

    proptest! {
        /// The verdict turns exactly when the last `threshold` probes all say the contrary.
        #[test]
        fn it_turns_after_a_row_and_not_before(
            probes in prop::collection::vec(any::<bool>(), 1..100),
            healthy_threshold in 1..4_u32,
            unhealthy_threshold in 1..4_u32,
        ) {
            let mut streak = Streak::new(true);
            let mut since_change = 0;
            for (number, probe) in probes.iter().enumerate() {
                since_change += 1;
                let before = streak.is_healthy();
                let threshold = if before { unhealthy_threshold } else { healthy_threshold } as usize;
                let last = &probes[(number + 1).saturating_sub(threshold)..=number];
                let row = last.len() == threshold && last.iter().all(|probe| *probe != before);
                let changed = streak.enter(*probe, healthy_threshold, unhealthy_threshold);
                prop_assert_eq!(changed, (row && since_change >= threshold).then_some(!before));
                if changed.is_some() {
                    since_change = 0;
                }
            }
        }
    }
}
