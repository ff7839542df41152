//! Patience: the one place of the tests that sleeps, between two looks.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous, because the machine may be busy; a test that passes
/// never waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Looks until `is_so` likes what `look` sees; what it saw last is in the failure.
pub(crate) fn eventually<T: Debug>(what: &str, mut look: impl FnMut() -> T, is_so: impl Fn(&T) -> bool) -> T {
    let mut last = None;
    let found = try_eventually(|| {
        let seen = look();
        if is_so(&seen) {
            return Some(seen);
        }
        last = Some(seen);
        None
    });
    found.unwrap_or_else(|| panic!("not within {DEADLINE:?}: {what}; last seen: {last:?}"))
}

/// Looks until there is something.
pub(crate) fn eventually_some<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    try_eventually(look).unwrap_or_else(|| panic!("not within {DEADLINE:?}: {what}"))
}

#[expect(clippy::disallowed_methods, reason = "between two looks")]
fn try_eventually<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(BETWEEN_LOOKS);
    }
}
