//! How many handshakes a worker has under way with clients, and how much it holds of what clients say first.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::turns::Turns;

/// Handshakes with clients that a worker has under way at once, each from its whole ClientHello on. With 100 ms for each these
/// are 10 000 a second, far more than a core can compute. (Those with endpoints are no more than the limits of connections
/// allow: who has few endpoints that say nothing must not keep others from theirs.)
const HANDSHAKES_MAX: usize = 1_024;
/// When all places are taken, a client that had more time than this to go on with its handshake makes room for another.
const PATIENCE: Duration = Duration::from_secs(1);
/// What a connection may hold of its client's words in any case, in bytes; nearly all ClientHellos are shorter. As it is with
/// clients that say nothing, how many there are of them is for the limits of connections.
const ORDINARY: usize = 4 * 1024;
/// What all connections of a worker together may hold beyond that, in bytes: some 200 of the longest ClientHellos.
const ROOM: usize = 16 * 1024 * 1024;

#[derive(Default)]
pub(in crate::connection) struct Handshakes {
    /// By connection, the oldest first; with the time since when its client is to go on, if it is.
    under_way: RefCell<BTreeMap<u64, Option<Instant>>>,
    held: Cell<usize>,
    turns: Turns,
}

/// The place of a handshake that is under way, as long as this lives.
pub(super) struct UnderWay<'a> {
    handshakes: &'a Handshakes,
    id: u64,
}

/// What a connection holds of its client's words, as long as this lives.
pub(in crate::connection) struct Room<'a> {
    held: &'a Cell<usize>,
    mine: usize,
}

impl Handshakes {
    /// A place for the handshake of this connection; `None`: there are enough. Who has to make room for it is to be ended.
    pub(super) fn begin(&self, id: u64, now: Instant, end: impl FnOnce(u64)) -> Option<UnderWay<'_>> {
        let mut under_way = self.under_way.borrow_mut();
        if under_way.len() >= HANDSHAKES_MAX {
            let is_late = |since: &Instant| now.saturating_duration_since(*since) >= PATIENCE;
            let late = under_way.iter().find(|(_, since)| since.as_ref().is_some_and(is_late));
            let late = *late?.0;
            under_way.remove(&late);
            end(late);
        }
        under_way.insert(id, None);
        Some(UnderWay { handshakes: self, id })
    }

    pub(in crate::connection) fn room(&self) -> Room<'_> {
        Room { held: &self.held, mine: 0 }
    }

    /// Waits for the turn to compute.
    pub(super) async fn turn(&self) {
        self.turns.take().await;
    }
}

impl UnderWay<'_> {
    /// Since when its client is to go on; `None`: it is not.
    pub(super) fn waits(&self, since: Option<Instant>) {
        if let Some(waits) = self.handshakes.under_way.borrow_mut().get_mut(&self.id) {
            *waits = since;
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.handshakes.under_way.borrow_mut().remove(&self.id);
    }
}

impl Room<'_> {
    /// Whether there is room for so many bytes instead of those that were held before.
    pub(super) fn hold(&mut self, bytes: usize) -> bool {
        let mine = bytes.saturating_sub(ORDINARY);
        let all = self.held.get().saturating_sub(self.mine) + mine;
        let fits = mine == 0 || all <= ROOM;
        if fits {
            self.held.set(all);
            self.mine = mine;
        }
        fits
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.held.set(self.held.get().saturating_sub(self.mine));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_only_so_many_at_once_and_who_dawdles_makes_room() {
        let handshakes = Handshakes::default();
        let now = Instant::now();
        let max = HANDSHAKES_MAX as u64;
        let begin = |id, now, expected: Option<u64>| {
            let mut ended = None;
            let place = handshakes.begin(id, now, |id| ended = Some(id));
            assert_eq!(ended, expected, "to make room for {id}");
            place
        };
        let mut all: Vec<_> = (0..max).map(|id| begin(id, now, None).unwrap()).collect();
        all[1].waits(Some(now));
        all[2].waits(Some(now));
        assert!(begin(max, now, None).is_none());
        drop(all.pop());
        all.push(begin(max, now, None).expect("one has ended"));
        let later = now + PATIENCE;
        all[1].waits(None);
        all.push(begin(max + 1, later, Some(2)).unwrap());
        assert!(begin(max + 2, later, None).is_none(), "all others compute");
        drop(all);
        assert!(handshakes.under_way.borrow().is_empty());
    }

    #[test]
    fn what_is_ordinary_always_fits_and_the_rest_only_together() {
        let handshakes = Handshakes::default();
        let long = 64 * 1024;
        let mut rooms = Vec::new();
        loop {
            let mut room = handshakes.room();
            if !room.hold(long) {
                break;
            }
            rooms.push(room);
        }
        assert_eq!(rooms.len(), ROOM / (long - ORDINARY));
        let mut another = handshakes.room();
        assert!(another.hold(ORDINARY) && !another.hold(long));
        rooms.pop();
        assert!(another.hold(long) && another.hold(0));
        drop((rooms, another));
        assert_eq!(handshakes.held.get(), 0);
    }
}
