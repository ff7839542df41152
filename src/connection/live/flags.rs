//! What is so of a live connection, or is not: in one byte, as an entry has no room for one of each.

use std::cell::Cell;

use super::Live;

#[derive(Default)]
pub(super) struct Flags(Cell<u8>);

#[derive(Clone, Copy, Debug)]
pub(in crate::connection) enum Flag {
    /// Its client has not yet ended the TLS handshake, which has a deadline of its own.
    ShakesHands = 1,
    /// Bytes of its client were read that its endpoint is yet to get, and that client may have half-closed since.
    HoldsBytes = 2,
    /// Its trace is kept however it ends: it took more than one attempt, or too long for the first.
    IsNotable = 4,
    /// It is known who its client is, and that one was let in.
    IsAdmitted = 8,
}

impl Live {
    pub(in crate::connection) fn is(&self, flag: Flag) -> bool {
        self.flags.0.get() & flag as u8 != 0
    }

    pub(in crate::connection) fn set(&self, flag: Flag, is_so: bool) {
        let others = self.flags.0.get() & !(flag as u8);
        self.flags.0.set(if is_so { others | flag as u8 } else { others });
    }
}
