//! Since when each series counts.
//!
//! Series end with what they count (an endpoint that has left), and may begin anew, at zero. Who takes them tells that by the
//! start that goes with each number. A series that was not there at the last export began after it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::SystemTime;

use crate::telemetry::otlp::nanoseconds;

#[derive(Debug)]
pub struct Starts {
    /// What begins now has begun after this: nanoseconds since the epoch.
    since: u64,
    /// The series of the last export, by their hashes: with 64 bits, and 100 000 series, two of the same are a matter of
    /// 10^-9, and would share a start.
    last: HashMap<u64, Series>,
    /// Those of the one that is made.
    now: HashMap<u64, Series>,
}

#[derive(Clone, Copy, Debug)]
struct Series {
    start: u64,
    count: f64,
}

impl Starts {
    /// What counts now has counted since then.
    pub fn new(started: SystemTime) -> Self {
        Self { since: nanoseconds(started), last: HashMap::new(), now: HashMap::new() }
    }

    /// Of the series of this name with these values of labels, which counts this much.
    pub(super) fn of(&mut self, name: &str, values: &[&str], count: f64) -> u64 {
        let mut hasher = DefaultHasher::new();
        (name, values).hash(&mut hasher);
        let key = hasher.finish();
        let known = self.last.get(&key).filter(|known| known.count <= count);
        let start = known.map_or(self.since, |known| known.start);
        self.now.insert(key, Series { start, count });
        start
    }

    /// An export has all its series, as they were at `at`.
    pub(super) fn turn(&mut self, at: u64) {
        self.since = at;
        self.last = std::mem::take(&mut self.now);
        self.now.reserve(self.last.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_series_that_begins_anew_has_a_start_of_its_own() {
        let mut starts = Starts::new(UNIX_EPOCH + Duration::from_nanos(5));
        let mut export = |at: u64, counts: &[(&str, f64)]| {
            let found: Vec<u64> =
                counts.iter().map(|(label, count)| starts.of("things", &[label], *count)).collect();
            starts.turn(at);
            found
        };
        assert_eq!(export(10, &[("a", 1.0), ("b", 0.0)]), [5, 5], "since the process started");
        assert_eq!(export(20, &[("a", 1.0)]), [5]);
        assert_eq!(export(30, &[("a", 3.0), ("b", 7.0)]), [5, 20], "one that was away");
        assert_eq!(export(40, &[("a", 2.0), ("b", 7.0)]), [30, 20], "one that counts less than before");
        assert_eq!(export(50, &[("a", 2.0), ("b", 8.0)]), [30, 20]);
    }

    #[test]
    fn labels_and_names_tell_series_apart() {
        let mut starts = Starts::new(UNIX_EPOCH);
        starts.of("a", &["b", "c"], 9.0);
        starts.turn(1);
        for (name, values) in [("a", ["bc", ""]), ("a", ["", "bc"]), ("ab", ["", "c"]), ("a", ["c", "b"])] {
            assert_eq!(starts.of(name, &values, 9.0), 1, "{name} {values:?}");
        }
        assert_eq!(starts.of("a", &["b", "c"], 9.0), 0);
    }
}
