//! Bytes between the two sides, each direction for itself.
//!
//! A direction copies; under bulk traffic it splices, and goes back when that calms down. Each read runs to its
//! end: nothing is raced against it. A direction that reaches the end of its stream passes the FIN on and is done, the
//! other goes on (half-close). A reset of one side becomes a reset of the other.

mod copy;
mod secure;
mod splice;
mod watch;

use std::cell::Cell;
use std::io;

use futures_util::future::join;

use crate::telemetry::{Outcome, Side};
use crate::worker::runtime::Stream;

use super::live::Direction;
use super::pipes::Pipe;
use super::{Context, Live};

pub(super) use secure::{End, run_secure};
pub(crate) use watch::watch;

/// Relays until both directions have ended; how the connection ended.
pub(super) fn run<'a>(
    context: &'a Context,
    live: &'a Live,
    downstream: &'a Stream,
    upstream: &'a Stream,
) -> impl Future<Output = Outcome> + use<'a> {
    // Outside: every idle connection would hold these references twice.
    let relay = Relay::new(context, live, downstream, upstream);
    async move {
        let (received, sent) = relay.halves();
        join(received.run(), sent.run()).await;
        relay.conclude()
    }
}

/// As [`run`], after these bytes of the client, which were read already.
pub(super) async fn run_after(
    context: &Context,
    live: &Live,
    downstream: &Stream,
    upstream: &Stream,
    first: Vec<u8>,
) -> Outcome {
    let relay = Relay::new(context, live, downstream, upstream);
    let (received, sent) = relay.halves();
    join(received.run_after(first), sent.run()).await;
    relay.conclude()
}

/// What the two directions share.
struct Relay<'a> {
    context: &'a Context,
    live: &'a Live,
    downstream: &'a Stream,
    upstream: &'a Stream,
    /// Whose stream ended first.
    first_end: Cell<Option<Side>>,
    /// What the side that broke first did, if that is known better than by its name.
    explained: Cell<Option<Outcome>>,
}

/// One direction.
struct Half<'a> {
    relay: &'a Relay<'a>,
    direction: Direction,
}

/// Why a direction stops what it was doing.
enum Step {
    /// Traffic is heavy and a pipe is free: splice.
    Bulk(Pipe),
    /// Traffic is light again, or pipes are short: copy.
    Calm,
    /// The worker's buffers are all in use: wait until there is something to read.
    Unbuffered,
    End,
    /// The same, where only TLS says what an end is, and it did not.
    Truncated,
    ReadFailed,
    WriteFailed,
    /// The writing side's TLS may encrypt no more.
    WornOut,
    /// This process cannot wait for the socket: nobody else's doing.
    WaitFailed,
}

impl<'a> Relay<'a> {
    fn new(context: &'a Context, live: &'a Live, downstream: &'a Stream, upstream: &'a Stream) -> Self {
        Self { context, live, downstream, upstream, first_end: Cell::new(None), explained: Cell::new(None) }
    }

    fn halves(&'a self) -> (Half<'a>, Half<'a>) {
        let half = |direction| Half { relay: self, direction };
        (half(Direction::Received), half(Direction::Sent))
    }

    /// Both directions have ended.
    fn conclude(&self) -> Outcome {
        match self.live.broken.get() {
            // Who was to hear of it has heard.
            _ if self.explained.get().is_some() => {}
            Some(Side::Downstream) => self.upstream.abort(),
            Some(_) => self.downstream.abort(),
            None => {}
        }
        self.outcome()
    }

    fn outcome(&self) -> Outcome {
        if let Some(outcome) = self.explained.get() {
            return outcome;
        }
        match (self.live.broken.get(), self.first_end.get()) {
            (Some(Side::Downstream), _) => Outcome::DownstreamReset,
            (Some(Side::Upstream), _) => Outcome::UpstreamReset,
            (None, Some(Side::Downstream)) => Outcome::DownstreamClosed,
            (None, Some(Side::Upstream)) => Outcome::UpstreamClosed,
            _ => Outcome::Internal,
        }
    }

    /// Says what the side is about to be called broken for, if none is yet.
    fn explain(&self, outcome: Outcome) {
        if self.live.broken.get().is_none() {
            self.explained.set(self.explained.get().or(Some(outcome)));
        }
    }

    fn broke(&self, side: Side) {
        self.live.broken.set(self.live.broken.get().or(Some(side)));
    }
}

impl<'a> Half<'a> {
    fn from(&self) -> &'a Stream {
        match self.direction {
            Direction::Received => self.relay.downstream,
            Direction::Sent => self.relay.upstream,
        }
    }

    fn to(&self) -> &'a Stream {
        match self.direction {
            Direction::Received => self.relay.upstream,
            Direction::Sent => self.relay.downstream,
        }
    }

    async fn run_after(&self, first: Vec<u8>) {
        self.relay.live.arrived(self.direction);
        match self.write_rest(&first).await {
            Ok(()) => {
                drop(first);
                self.run().await;
            }
            Err(Step::WaitFailed) => self.relay.live.end(Outcome::Internal),
            Err(_) => self.relay.broke(self.writing_side()),
        }
    }

    /// Not an async function, as [`Self::copy`] is none: each idle connection would hold the arguments twice.
    fn run(&self) -> impl Future<Output = ()> + use<'_> {
        async move {
            loop {
                let step = self.copy().await;
                let step = self.splice_bulk(step).await;
                if self.ends_with(step) {
                    return;
                }
            }
        }
    }

    /// Apart, so that while copying, which is where idle connections wait, no step is kept.
    async fn splice_bulk(&self, step: Step) -> Step {
        match step {
            // In a box, as few connections ever come to it.
            Step::Bulk(pipe) => Box::pin(self.splice(pipe)).await,
            step => step,
        }
    }

    /// Does what is left to do at the end of the direction. `false`: it goes on, by copying.
    fn ends_with(&self, step: Step) -> bool {
        match step {
            Step::Bulk(_) | Step::Calm | Step::Unbuffered => return false,
            Step::End => self.end(),
            Step::ReadFailed | Step::Truncated => self.read_failed(),
            Step::WaitFailed => self.relay.live.end(Outcome::Internal),
            // What the reader of our bytes has sent before it broke may still be read: that is the other direction's
            // to find out, and to end with.
            Step::WriteFailed | Step::WornOut => self.relay.broke(self.writing_side()),
        }
        true
    }

    fn end(&self) {
        // A socket that broke while being written to ends its stream without an error when read from.
        if self.relay.live.broken.get() == Some(self.reading_side()) {
            return self.read_failed();
        }
        if self.relay.first_end.get().is_none() {
            self.relay.first_end.set(Some(self.reading_side()));
            self.half_close();
        }
        self.pass_end_on();
    }

    fn pass_end_on(&self) {
        self.to().finish_writing();
        self.relay.live.passed_end_on(self.direction);
    }

    /// From now on the other direction has its time.
    fn half_close(&self) {
        self.relay.live.half_close(self.reading_side());
        self.relay.context.registry.schedule(self.relay.live);
    }

    fn read_failed(&self) {
        self.relay.broke(self.reading_side());
        self.to().abort();
    }

    fn reading_side(&self) -> Side {
        match self.direction {
            Direction::Received => Side::Downstream,
            Direction::Sent => Side::Upstream,
        }
    }

    fn writing_side(&self) -> Side {
        match self.direction {
            Direction::Received => Side::Upstream,
            Direction::Sent => Side::Downstream,
        }
    }
}

/// A non-blocking call that has to wait says so with an error.
pub(super) fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
