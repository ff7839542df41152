//! The connections that failed last, for whoever looks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ConnectionRecord;

/// So many are kept.
const FAILURES_MAX: usize = 256;

/// Written by the telemetry thread alone, and read by the control side: no worker waits for either.
#[derive(Debug, Clone, Default)]
pub struct Failures(Arc<Mutex<VecDeque<Arc<ConnectionRecord>>>>);

impl Failures {
    /// The newest first.
    pub fn newest(&self) -> Vec<Arc<ConnectionRecord>> {
        self.lock().iter().rev().cloned().collect()
    }

    pub(super) fn push(&self, record: ConnectionRecord) {
        let mut records = self.lock();
        if records.len() == FAILURES_MAX {
            records.pop_front();
        }
        records.push_back(Arc::new(record));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<ConnectionRecord>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_for_the_newest() {
        let failures = Failures::default();
        for id in 0..300 {
            failures.push(ConnectionRecord { id, ..ConnectionRecord::example() });
        }
        let ids: Vec<u64> = failures.newest().iter().map(|record| record.id).collect();
        assert_eq!(ids, (44..300).rev().collect::<Vec<_>>());
    }
}
