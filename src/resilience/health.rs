//! The verdict on an endpoint: one atomic, written on the control side, read by every pick.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether an endpoint is well. A new one is, until something says otherwise.
#[derive(Debug, Default)]
pub struct Health {
    unhealthy: AtomicBool,
}

impl Health {
    pub fn is_healthy(&self) -> bool {
        !self.unhealthy.load(Ordering::Relaxed)
    }

    /// States the verdict; `true` if that changed it.
    pub fn set(&self, healthy: bool) -> bool {
        self.unhealthy.swap(!healthy, Ordering::Relaxed) == healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_healthy_and_tells_a_change_from_a_repetition() {
        let health = Health::default();
        assert!(health.is_healthy());
        assert!(health.set(false));
        assert!(!health.set(false));
        assert!(!health.is_healthy());
        assert!(health.set(true));
    }
}
