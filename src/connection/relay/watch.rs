//! Notices a client that resets its connection while its bytes wait for an endpoint that takes none.
//!
//! Nobody reads from the client then, so no read fails, and the connection would last until the endpoint moves or a
//! timeout is over. The other way round there is nothing to notice: what an endpoint sent before it reset is an
//! answer, and a slow client still gets it.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::connection::live::Direction;
use crate::telemetry::Side;
use crate::worker::runtime::{self, Stream};

use super::{Half, Relay};

/// How long the client's bytes wait before it is looked after. A connection costs at most one timer in this time,
/// and an idle one none.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Says, as long as it lives, that bytes wait for their other side to take them.
pub(super) struct Waiting<'a>(Option<&'a Cell<bool>>);

impl<'a> Half<'a> {
    pub(super) fn waiting(&self) -> Waiting<'a> {
        let of_client = self.direction == Direction::Received;
        Waiting(of_client.then_some(&self.relay.client_waits).inspect(|waits| waits.set(true)))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(waits) = self.0 {
            waits.set(false);
        }
    }
}

impl Relay<'_> {
    /// To be polled after the two directions whenever they are. Aborts the endpoint's connection, which ends both.
    pub(super) async fn watch(&self, downstream: &Stream, upstream: &Stream) -> Infallible {
        loop {
            poll_fn(|_| if self.client_waits.get() { Poll::Ready(()) } else { Poll::Pending }).await;
            let before = self.live.bytes(Direction::Received);
            runtime::sleep(LOOK_INTERVAL).await;
            let is_stuck = self.client_waits.get() && self.live.bytes(Direction::Received) == before;
            // The other direction may have met the error, and taken it off the socket.
            if is_stuck && (self.broken.get() == Some(Side::Downstream) || has_failed(downstream)) {
                self.broke(Side::Downstream);
                upstream.abort();
            }
        }
    }
}

fn has_failed(stream: &Stream) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::empty())];
    let _nothing_happened = poll(&mut polled, Some(&Timespec::default()));
    polled[0].revents().contains(PollFlags::ERR)
}
