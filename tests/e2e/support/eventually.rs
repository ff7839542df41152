//! Patience: the one place of these tests that sleeps, between two looks.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Looks until `is_so` likes what `look` sees; what it saw last is in the failure.
pub(crate) fn eventually<T: Debug>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> T,
    is_so: impl Fn(&T) -> bool,
) -> T {
    let mut last = None;
    let found = glimpse(deadline, || {
        let seen = look();
        if is_so(&seen) {
            return Some(seen);
        }
        last = Some(seen);
        None
    });
    found.unwrap_or_else(|| panic!("not within {deadline:?}: {what}; last seen: {last:#?}"))
}

/// Looks until there is something.
pub(crate) fn eventually_some<T>(what: &str, deadline: Duration, look: impl FnMut() -> Option<T>) -> T {
    glimpse(deadline, look).unwrap_or_else(|| panic!("not within {deadline:?}: {what}"))
}

/// As [`eventually_some`], for those who can go on without it.
#[expect(clippy::disallowed_methods, reason = "between two looks")]
pub(crate) fn glimpse<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + deadline;
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

/// How long it took, and what came of it.
pub(crate) fn within<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let begin = Instant::now();
    let value = what();
    (begin.elapsed(), value)
}
