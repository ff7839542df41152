//! A bounded number of places, counted exactly for the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is taken; how many there may be is said at each attempt, because a new table may say
/// something else than the one before.
#[derive(Debug, Default)]
pub struct Places {
    taken: AtomicUsize,
}

/// One taken place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
}

impl Places {
    /// Takes a place unless `limit` are taken already.
    pub fn try_take(self: &Arc<Self>, limit: usize) -> Option<Place> {
        let take = |taken: usize| (taken < limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, take).ok()?;
        Some(Place { places: Arc::clone(self) })
    }

    /// How many are taken now.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_gives_more_than_the_limit_and_takes_places_back() {
        let places = Arc::new(Places::default());
        let first = places.try_take(2).unwrap();
        let second = places.try_take(2);
        assert!(second.is_some());
        assert!(places.try_take(2).is_none());
        drop(first);
        assert_eq!(places.taken(), 1);
        assert!(places.try_take(2).is_some());
    }
}
