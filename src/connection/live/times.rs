//! When what happened to a live connection, and by which sockets: what only its trace and its line in the access log ask for.

use std::cell::Cell;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use crate::routing::EndpointState;
use crate::telemetry::wait_for_answer;
use crate::worker::runtime::SocketHandle;

use super::{Direction, Live};

/// Nanoseconds since its connection was accepted. (And one more, so that none at all takes no more room.)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::connection) struct Elapsed(NonZeroU64);

/// Of each connection a few words, so as small as can be.
#[derive(Default)]
pub(super) struct Times {
    /// The first byte, each way.
    first_bytes: [Cell<Option<Elapsed>>; 2],
    /// When the end of a stream was passed on, each way.
    ends: [Cell<Option<Elapsed>>; 2],
    /// Since when no table permits it.
    forbidden: Cell<Option<Elapsed>>,
    /// Where it was accepted, if somebody looked.
    local: Cell<Option<SocketAddr>>,
}

impl Elapsed {
    fn since(accepted: Instant) -> Self {
        Self::of(accepted.elapsed())
    }

    fn of(duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(NonZeroU64::MIN.saturating_add(nanoseconds))
    }

    pub(in crate::connection) fn get(self) -> Duration {
        Duration::from_nanos(self.0.get() - 1)
    }
}

impl Live {
    /// So long after it was accepted.
    pub(in crate::connection) fn elapsed_at(&self, instant: Instant) -> Elapsed {
        Elapsed::of(instant.saturating_duration_since(self.accepted))
    }

    /// Bytes were read that go this way. Whether these are the first ones.
    pub(super) fn note_bytes(&self, direction: Direction) -> bool {
        let first = &self.times.first_bytes[direction as usize];
        let is_first = first.get().is_none();
        if is_first {
            first.set(Some(Elapsed::since(self.accepted)));
        }
        is_first
    }

    /// Since accept.
    pub(in crate::connection) fn first_byte(&self, direction: Direction) -> Option<Duration> {
        self.times.first_bytes[direction as usize].get().map(Elapsed::get)
    }

    /// From the client's first byte to the endpoint's. `None`: the endpoint has not spoken yet, or spoke first.
    pub(super) fn waited_for_answer(&self) -> Option<Duration> {
        let asked = self.first_byte(Direction::Received)?;
        self.first_byte(Direction::Sent)?.checked_sub(asked)
    }

    /// How long its client has waited for the first answer, rather less than more.
    pub(in crate::connection) fn waits_for_answer(&self) -> Duration {
        /// Of either of two readings of the coarse clock.
        const COARSE: Duration = Duration::from_millis(20);
        if self.endpoint.get().is_none() {
            return Duration::ZERO;
        }
        let connected = self.connected.get().since(self.opened) + COARSE;
        let first_bytes = [Direction::Received, Direction::Sent].map(|direction| self.first_byte(direction));
        wait_for_answer(connected, first_bytes, self.accepted.elapsed())
    }

    /// The end of the stream that goes this way was passed on. Where somebody has ended both, or one of them broke, that is
    /// nobody's end.
    pub(in crate::connection) fn passed_end_on(&self, direction: Direction) {
        if !self.is_ending() && self.broken.get().is_none() {
            self.times.ends[direction as usize].set(Some(Elapsed::since(self.accepted)));
        }
    }

    /// When the end of the stream that goes this way was passed on, since accept.
    pub(in crate::connection) fn end_passed_on(&self, direction: Direction) -> Option<Duration> {
        self.times.ends[direction as usize].get().map(Elapsed::get)
    }

    /// Remembers whether the table permits it.
    pub(crate) fn note_permission(&self, is_permitted: bool) {
        let since = self.times.forbidden.get().unwrap_or_else(|| Elapsed::since(self.accepted));
        self.times.forbidden.set((!is_permitted).then_some(since));
    }

    /// From when on it was to end, since accept: its listener or its endpoint left the table, a table does not permit it, or
    /// what it is in drains since then.
    pub(in crate::connection) fn to_end_since(&self, draining: Option<Instant>) -> Option<Duration> {
        let listener = self.listener().state.left_at();
        let endpoint = self.endpoint_state().and_then(EndpointState::left_at);
        let left = [draining, listener, endpoint].into_iter().flatten();
        let left = left.map(|since| since.saturating_duration_since(self.accepted));
        left.chain(self.times.forbidden.get().map(Elapsed::get)).min()
    }

    /// Looks where it was accepted: a socket that was reset does not know any more.
    pub(in crate::connection) fn look_at_local(&self) {
        self.times.local.set(self.with_downstream(SocketHandle::local_address).flatten());
    }

    /// Where it was accepted, if somebody looked.
    pub(in crate::connection) fn local(&self) -> Option<SocketAddr> {
        self.times.local.get()
    }
}
