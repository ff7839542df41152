//! Looks at the first bytes of a connection where they are, in the socket: what is looked at is not taken.
//!
//! So there is nothing to give back when they turn out to be somebody else's. Bytes that do not suffice stay, and the socket
//! is readable with them: what is waited for from then on is that more arrives. So who sends a byte and falls silent costs no
//! more than who says nothing.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::telemetry::Outcome;
use crate::worker::runtime::{self, Stream};

use super::{Context, Live};

/// What came of it.
pub(super) enum Peeked<T> {
    /// The judge has seen enough.
    Enough(T),
    /// The client will send no more, and the judge has not seen enough.
    Ended,
    TimedOut,
}

/// Shows the judge all bytes that are there, up to `most`, again whenever there may be more, until it has seen enough.
///
/// # Errors
/// The client left, or the connection was ended from outside.
pub(super) async fn peek<T>(
    context: &Context,
    live: &Live,
    downstream: &Stream,
    deadline: Instant,
    most: usize,
    mut judge: impl FnMut(&[u8]) -> Option<T>,
) -> Result<Peeked<T>, Outcome> {
    let mut arrivals = None;
    loop {
        // Before the look: what was sent before the end is then there to be seen.
        let has_ended = has_ended(downstream);
        if let Some(outcome) = live.verdict() {
            return Err(outcome);
        }
        match look(context, downstream, most, &mut judge) {
            Ok(None) => return Err(Outcome::DownstreamClosed),
            Ok(Some(Some(seen))) => return Ok(Peeked::Enough(seen)),
            Ok(Some(None)) if has_ended => return Ok(Peeked::Ended),
            Ok(Some(None)) => {
                let known = match arrivals.take() {
                    Some(known) => known,
                    None => downstream.arrivals().map_err(|_| Outcome::Internal)?,
                };
                // Whatever arrives, its time is not put off.
                if Instant::now() >= deadline
                    || runtime::timeout_at(deadline, arrivals.insert(known).next()).await.is_none()
                {
                    return Ok(Peeked::TimedOut);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match runtime::timeout_at(deadline, downstream.read_ready()).await {
                    None => return Ok(Peeked::TimedOut),
                    Some(Err(_)) => return Err(Outcome::Internal),
                    Some(Ok(())) => {}
                }
            }
            Err(_) => return Err(live.verdict().unwrap_or(Outcome::DownstreamReset)),
        }
    }
}

/// What the judge says of what is there; `None`: the client has sent nothing, and its end.
fn look<T>(
    context: &Context,
    downstream: &Stream,
    most: usize,
    judge: impl FnOnce(&[u8]) -> Option<T>,
) -> io::Result<Option<Option<T>>> {
    let mut scratch = context.scratch.borrow_mut();
    let most = most.min(scratch.len());
    let bytes = scratch.get_mut(..most).unwrap_or_default();
    let length = downstream.try_peek(bytes)?;
    Ok((length > 0).then(|| judge(bytes.get(..length).unwrap_or_default())))
}

/// Takes off what was looked at.
pub(super) fn take(context: &Context, downstream: &Stream, length: usize) -> Result<(), Outcome> {
    let mut scratch = context.scratch.borrow_mut();
    let taken = scratch.get_mut(..length).map(|bytes| downstream.try_read(bytes));
    match taken {
        Some(Ok(taken)) if taken == length => Ok(()),
        Some(Err(_)) => Err(Outcome::DownstreamReset),
        // It was all there a moment ago.
        _ => Err(Outcome::Internal),
    }
}

fn has_ended(socket: impl AsFd) -> bool {
    let mut polled = [PollFd::new(&socket, PollFlags::RDHUP)];
    let _nothing_happened = poll(&mut polled, Some(&Timespec::default()));
    polled[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}
