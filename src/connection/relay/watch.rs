//! Notices a client that resets its connection while its bytes wait for an endpoint that takes none.
//!
//! Nobody reads from the client then, so no read fails, and the connection would last until the endpoint moves or a
//! timeout is over. The other way round there is nothing to notice: what an endpoint sent before it reset is an
//! answer, and what this process has read of it is still handed to a slow client.

use std::cell::Cell;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::connection::Registry;
use crate::connection::live::{Direction, Live};
use crate::telemetry::Side;
use crate::worker::runtime::{self, SocketHandle};

use super::Half;

/// How often the worker looks for connections that are stuck: one timer for all of them.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Says, as long as it lives, that bytes wait for their other side to take them.
pub(super) struct Waiting<'a>(Option<&'a Cell<bool>>);

impl<'a> Half<'a> {
    pub(super) fn waiting(&self) -> Waiting<'a> {
        let of_client = self.direction == Direction::Received;
        Waiting(of_client.then_some(&self.relay.live.client_waits).inspect(|waits| waits.set(true)))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(waits) = self.0 {
            waits.set(false);
        }
    }
}

/// Looks after the connections of a worker, for ever.
pub(crate) async fn watch(registry: &Registry) {
    loop {
        runtime::sleep(LOOK_INTERVAL).await;
        registry.for_each(look_after);
    }
}

/// Aborts the endpoint's side, which ends both directions, if nothing has moved since the last look and the client
/// is gone.
fn look_after(live: &Live) {
    let before = live.received_at_look.replace(live.bytes(Direction::Received));
    if !live.client_waits.get() || live.bytes(Direction::Received) != before {
        return;
    }
    // The other direction may have met the error, and taken it off the socket.
    let is_gone =
        live.broken.get() == Some(Side::Downstream) || live.with_downstream(has_failed).unwrap_or_default();
    if is_gone {
        live.broken.set(live.broken.get().or(Some(Side::Downstream)));
        live.abort_upstream();
    }
}

fn has_failed(socket: &SocketHandle) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::empty())];
    let _nothing_happened = poll(&mut polled, Some(&Timespec::default()));
    polled[0].revents().contains(PollFlags::ERR)
}
