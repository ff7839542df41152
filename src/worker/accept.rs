//! The accept loop of one listening socket.
//!
//! A place first, then a connection: what cannot be served stays in the backlog, where its client waits, instead of
//! being accepted and dropped. The loop never dies of an error.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::config::WhenFull;
use crate::connection::{self, Accepted};
use crate::routing::{Listener, Place};
use crate::telemetry::{Pause, WorkerCounters};

use super::Worker;
use super::runtime;
use super::slots::Slot;

/// While accepting is paused, this is how often the loop looks whether it may go on. A freed place may be another
/// worker's doing, so it is looked for and not signalled.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two looks at the queue of a closing socket.
const SHORT_PAUSE: Duration = Duration::from_millis(1);
/// Connections to take before the worker's tasks get their turn.
const BATCH: u32 = 16;
/// A closing socket serves what waits in its queue, and handshakes that were under way this long after.
pub(super) const QUIET: Duration = Duration::from_millis(300);

/// Accepts until the socket is closed.
pub(super) async fn run(worker: &Rc<Worker>, slot: &Slot) {
    let mut batch = 0;
    let mut paused = None;
    loop {
        let listener = Arc::clone(&slot.listener.borrow());
        let (place, listener_place) = match take_places(worker, &listener) {
            Ok(places) => places,
            Err(why) => {
                // A closing socket that waits for places says nothing about the worker's others.
                if slot.closing.get() {
                    paused = None;
                    runtime::sleep(PAUSE).await;
                } else {
                    pause(worker, &mut paused, why).await;
                }
                continue;
            }
        };
        match slot.socket.try_accept() {
            Ok((socket, client)) => {
                paused = None;
                let listener_place = listener_place.or_else(|| listener.take_place());
                let accepted = Accepted { socket, client, listener, place, listener_place };
                WorkerCounters::add(&worker.counters.accepted, 1);
                share_or_admit(worker, slot, accepted);
                batch += 1;
                if batch == BATCH {
                    batch = 0;
                    runtime::yield_now().await;
                }
            }
            Err(error) => {
                drop((place, listener_place));
                batch = 0;
                match Reaction::to(&error, slot.closing.get()) {
                    Reaction::Wait => {
                        paused = None;
                        if slot.socket.ready().await.is_err() {
                            pause(worker, &mut paused, Pause::Error).await;
                        }
                    }
                    Reaction::Next => {}
                    Reaction::Pause => {
                        WorkerCounters::add(&worker.counters.accept_errors, 1);
                        tracing::debug!(listener = %listener.name, %error, "accepting is paused");
                        pause(worker, &mut paused, Pause::Error).await;
                    }
                    Reaction::Stop => return,
                }
            }
        }
    }
}

/// Closes a socket once nothing waits in its queue and no handshake can be under way any more, by `deadline` at the
/// latest. Whoever waits is accepted by the loop, as soon as there is a place.
pub(super) async fn close_when_quiet(slot: &Slot, deadline: Instant) {
    runtime::sleep(QUIET).await;
    close_when_empty(slot, deadline).await;
}

/// The same where new connections cannot be held off: closes at the first moment in which nobody waits.
pub(super) async fn close_when_empty(slot: &Slot, deadline: Instant) {
    while is_readable(slot) && Instant::now() < deadline {
        runtime::sleep(SHORT_PAUSE).await;
    }
    slot.socket.close();
}

fn is_readable(slot: &Slot) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::new(&slot.socket, PollFlags::IN)];
    matches!(poll(&mut polled, Some(&Timespec::default())), Ok(1))
}

/// The places that have to be there before a connection is taken. `Err`: it has to wait in the backlog, and why.
///
/// The place of a listener that refuses when it is full is taken with the connection and not before: while a loop
/// holds one only to find nobody waiting, another worker would refuse a client for whom there is a place.
fn take_places(worker: &Worker, listener: &Listener) -> Result<(Place, Option<Place>), Pause> {
    let place = worker.places.try_take(worker.places_max).ok_or(Pause::ProcessLimit)?;
    match listener.limit {
        Some(limit) if limit.when_full == WhenFull::Wait => {
            Ok((place, Some(listener.take_place().ok_or(Pause::ListenerLimit)?)))
        }
        _ => Ok((place, None)),
    }
}

fn share_or_admit(worker: &Worker, slot: &Slot, accepted: Accepted) {
    // Who is closing may be about to end, and so may the others.
    if slot.closing.get() {
        return admit(worker, accepted);
    }
    match worker.crew.give(accepted, worker.context.registry.len()) {
        Some(accepted) => admit(worker, accepted),
        None => WorkerCounters::add(&worker.counters.given_away, 1),
    }
}

pub(super) fn admit(worker: &Worker, accepted: Accepted) {
    #[cfg(feature = "faults")]
    crate::faults::panic_in_worker(accepted.client.ip());
    runtime::spawn(connection::serve(Rc::clone(&worker.context), accepted));
}

async fn pause<'a>(worker: &'a Worker, paused: &mut Option<Paused<'a>>, why: Pause) {
    if paused.as_ref().is_none_or(|paused| paused.why != why) {
        *paused = Some(Paused::begin(&worker.counters, why));
    }
    runtime::sleep(PAUSE).await;
}

/// A loop that does not accept, from its first pause until it may again.
struct Paused<'a> {
    counters: &'a WorkerCounters,
    why: Pause,
}

impl<'a> Paused<'a> {
    fn begin(counters: &'a WorkerCounters, why: Pause) -> Self {
        counters.pause_accept(why);
        Self { counters, why }
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.counters.accept_again(self.why);
    }
}

/// What the loop does about an error of accept.
#[derive(Debug, PartialEq, Eq)]
enum Reaction {
    /// Nothing is waiting.
    Wait,
    /// That connection is gone; there may be others.
    Next,
    /// Out of descriptors or memory, or an error nobody knows: connections stay in the backlog meanwhile.
    Pause,
    /// The socket was closed.
    Stop,
}

impl Reaction {
    fn to(error: &io::Error, closing: bool) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock => return Self::Wait,
            io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => return Self::Next,
            _ => {}
        }
        let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
        // Errors of the network that Linux reports for the connection it would have returned (accept(2)).
        let of_the_connection = [
            Errno::NETDOWN,
            Errno::PROTO,
            Errno::NOPROTOOPT,
            Errno::HOSTDOWN,
            Errno::HOSTUNREACH,
            Errno::OPNOTSUPP,
            Errno::NETUNREACH,
        ];
        if closing && is(Errno::INVAL) {
            Self::Stop
        } else if of_the_connection.into_iter().any(is) {
            Self::Next
        } else {
            Self::Pause
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_but_the_close_stops_the_loop() {
        let reaction = |errno: Errno, closing| Reaction::to(&io::Error::from(errno), closing);
        assert_eq!(reaction(Errno::AGAIN, false), Reaction::Wait);
        assert_eq!(reaction(Errno::CONNABORTED, false), Reaction::Next);
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::PERM, Errno::INVAL] {
            assert_eq!(reaction(errno, false), Reaction::Pause, "{errno:?}");
        }
        assert_eq!(reaction(Errno::INVAL, true), Reaction::Stop);
    }
}
