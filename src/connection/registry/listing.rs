//! Which live connections somebody wants to see. Looking at all of them is work, so it is done in slices, between which the
//! worker serves its connections.

use std::fmt::Write;
use std::rc::Rc;

use crate::telemetry::{LiveConnection, LiveOrder, LiveShare, LiveWish};
use crate::worker::runtime;

use super::super::live::{CoarseTime, Direction, Live};
use super::Registry;

/// Connections that are looked at in one go: some hundred microseconds at most.
const SLICE: usize = 512;

impl Registry {
    /// The connections that are wished for.
    pub(crate) async fn list(&self, wish: &LiveWish) -> LiveShare {
        if wish.is_by_age() {
            let now = CoarseTime::now();
            let connections = self.connections.borrow();
            let oldest = connections.values().take(wish.limit).map(|live| live.snapshot(self.worker, now));
            return LiveShare { connections: oldest.collect(), matching: connections.len() };
        }
        let mut found = self.find(wish).await;
        let matching = found.len();
        if wish.limit < matching {
            found.select_nth_unstable(wish.limit);
            found.truncate(wish.limit);
        }
        LiveShare { connections: self.show(&found).await, matching }
    }

    /// The rank and the number of each that matches.
    async fn find(&self, wish: &LiveWish) -> Vec<(u64, u64)> {
        let now = CoarseTime::now();
        let (mut found, mut text, mut after) = (Vec::new(), String::new(), 0);
        loop {
            let slice = self.slice(after);
            let Some(last) = slice.last() else { return found };
            after = last.id;
            let matching = slice.iter().filter(|live| matches(live, &wish.filter, &mut text));
            found.extend(matching.map(|live| (wish.rank(amount(live, wish.order, now)), live.id)));
            runtime::yield_now().await;
        }
    }

    fn slice(&self, after: u64) -> Vec<Rc<Live>> {
        let connections = self.connections.borrow();
        connections.range(after.saturating_add(1)..).take(SLICE).map(|(_, live)| Rc::clone(live)).collect()
    }

    /// Those of these numbers that are still there.
    async fn show(&self, found: &[(u64, u64)]) -> Vec<LiveConnection> {
        let mut shown = Vec::with_capacity(found.len());
        for slice in found.chunks(SLICE) {
            self.show_slice(slice, &mut shown);
            runtime::yield_now().await;
        }
        shown
    }

    fn show_slice(&self, slice: &[(u64, u64)], shown: &mut Vec<LiveConnection>) {
        let (connections, now) = (self.connections.borrow(), CoarseTime::now());
        let there = slice.iter().filter_map(|(_, id)| connections.get(id));
        shown.extend(there.map(|live| live.snapshot(self.worker, now)));
    }
}

fn amount(live: &Live, order: LiveOrder, now: CoarseTime) -> u64 {
    match order {
        // Numbers grow with time.
        LiveOrder::Age => u64::MAX - live.id,
        LiveOrder::Idle => u64::try_from(live.idle_for(now).as_millis()).unwrap_or(u64::MAX),
        LiveOrder::Received => live.bytes(Direction::Received),
        LiveOrder::Sent => live.bytes(Direction::Sent),
    }
}

/// `text` is room to write in.
fn matches(live: &Live, filter: &str, text: &mut String) -> bool {
    if filter.is_empty() {
        return true;
    }
    text.clear();
    let upstream = live.upstream().map_or("", |upstream| &upstream.name);
    let server_name = live.server_name().unwrap_or_default();
    let _infallible = write!(text, "{}\n{}\n{upstream}\n{server_name}", live.client(), live.listener().name);
    if let Some(endpoint) = live.endpoint() {
        let _infallible = write!(text, "\n{endpoint}");
    }
    text.make_ascii_lowercase();
    text.contains(filter)
}
