//! Two readings made into rows: what is, and what came since the one before.

mod endpoints;
mod process;
mod traffic;

use super::counts::Counts;
use super::reading::Reading;
use super::sheet::{Column, Sheet};

pub(super) use endpoints::usable;
pub(super) use process::process;

/// What can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    Upstreams,
    Endpoints,
    Connections,
    Listeners,
    Workers,
}

impl View {
    /// In the order of their tabs.
    pub const ALL: [Self; 5] =
        [Self::Upstreams, Self::Endpoints, Self::Connections, Self::Listeners, Self::Workers];

    pub fn label(self) -> &'static str {
        match self {
            Self::Upstreams => "upstreams",
            Self::Endpoints => "endpoints",
            Self::Connections => "connections",
            Self::Listeners => "listeners",
            Self::Workers => "workers",
        }
    }

    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Upstreams => traffic::UPSTREAMS,
            Self::Endpoints => endpoints::ENDPOINTS,
            Self::Connections => traffic::CONNECTIONS,
            Self::Listeners => traffic::LISTENERS,
            Self::Workers => traffic::WORKERS,
        }
    }

    /// How many of the first columns tell one row from the others.
    pub(super) fn keys(self) -> usize {
        if self == Self::Endpoints { 2 } else { 1 }
    }

    pub(super) fn sheet(self, since: &Since<'_>) -> Sheet {
        let (rows, note) = match self {
            Self::Upstreams => (traffic::upstreams(since), None),
            Self::Endpoints => (endpoints::endpoints(since), None),
            Self::Connections => traffic::connections(since),
            Self::Listeners => (traffic::listeners(since), None),
            Self::Workers => (traffic::workers(since), None),
        };
        Sheet { columns: self.columns(), rows, note }
    }
}

/// A reading, and the one before where there is one of the same process.
#[derive(Clone, Copy)]
pub(super) struct Since<'a> {
    pub(super) now: &'a Reading,
    before: Option<&'a Reading>,
    /// By the clock of the process, so that slow answers make no wrong rates.
    seconds: f64,
}

impl<'a> Since<'a> {
    pub(super) fn new(now: &'a Reading, before: Option<&'a Reading>) -> Self {
        let seconds = before.map_or(0.0, |before| now.counts.uptime - before.counts.uptime);
        let is_same = |before: &&Reading| before.counts.started_at == now.counts.started_at && seconds > 0.0;
        Self { now, before: before.filter(is_same), seconds }
    }

    /// By how much a counter grew in a second; `None` before there are two readings. One that was not there before
    /// began at 0, and one that fell began anew.
    pub(super) fn rate(&self, counter: impl Fn(&Counts) -> Option<f64>) -> Option<f64> {
        let before = self.before?;
        let (now, before) = (counter(&self.now.counts)?, counter(&before.counts).unwrap_or(0.0));
        Some((now - before).max(0.0) / self.seconds)
    }
}
