//! A direction with TLS on one side or on both: decrypted where it comes from, encrypted where it goes.
//!
//! Small messages are read as the copying half reads them. Under bulk traffic a direction waits for readiness and takes up to
//! eight records at once, so that each system call is worth its price. A reader never waits for what its own engine
//! has to say.
//!
//! A side that is cut takes nothing back that it said: the other side gets all of it, and then hears of the cut.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use futures_util::future::join;

use crate::connection::secure::{Broken, Scratch, Secure};
use crate::telemetry::{Outcome, Side, WorkerCounters};
use crate::worker::runtime::{self, READ_BUFFER_LEN, Stream};

use super::copy::FULL_READS;
use super::{Context, Half, Live, Relay, Step, would_block};

/// After so many bytes in one go the worker's other connections get their turn. Encrypting makes them dear.
const TURN_BYTES: usize = 128 * 1024;
/// So much is read at once under bulk traffic.
const BULK_READ_LEN: usize = 128 * 1024;
/// How often it is looked whether a socket has sent what it has, before it is reset.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A side of the relay, and its TLS, if it speaks that.
#[derive(Clone, Copy)]
pub(in crate::connection) struct End<'a> {
    pub(in crate::connection) stream: &'a Stream,
    pub(in crate::connection) secure: Option<&'a Secure>,
}

/// As [`super::run_after`], where at least one side speaks TLS.
pub(in crate::connection) async fn run_secure(
    context: &Context,
    live: &Live,
    downstream: End<'_>,
    upstream: End<'_>,
    first: Vec<u8>,
) -> Outcome {
    let relay = Relay::new(context, live, downstream.stream, upstream.stream);
    let (received, sent) = relay.halves();
    let half = |half, from, to| SecureHalf { half, from, to, spoke_after_end: Cell::new(false) };
    let received = half(received, downstream.secure, upstream.secure);
    let sent = half(sent, upstream.secure, downstream.secure);
    join(received.run(first), sent.run(Vec::new())).await;
    relay.conclude()
}

struct SecureHalf<'a> {
    half: Half<'a>,
    from: Option<&'a Secure>,
    to: Option<&'a Secure>,
    /// Something was read after the other side's stream had ended.
    spoke_after_end: Cell<bool>,
}

/// What is left to do before the next read.
enum Next {
    /// Bytes of plaintext that a side without TLS did not take at once.
    Rest(Vec<u8>),
    /// Whatever waits in the queue of the other side's TLS.
    Queue,
}

impl SecureHalf<'_> {
    /// `first`: what was read already.
    async fn run(self, first: Vec<u8>) {
        let step = match self.hand_on_first(first).await {
            Ok(()) => self.copy().await,
            Err(step) => step,
        };
        match step {
            // Who ends it from outside has said so to both sides.
            _ if self.half.relay.live.is_ending() => {}
            Step::End => self.end().await,
            Step::Truncated => self.cut().await,
            Step::WornOut => self.wear_out().await,
            Step::ReadFailed => self.half.read_failed(),
            Step::WaitFailed => self.half.relay.live.end(Outcome::Internal),
            // As without TLS: what came from there before may still be read.
            _ => self.half.relay.broke(self.half.writing_side()),
        }
    }

    /// Hands on what was read already, or else what came with the end of the handshake.
    async fn hand_on_first(&self, mut first: Vec<u8>) -> Result<(), Step> {
        if let Some(from) = self.from {
            first = from.take_early();
        }
        if !first.is_empty() {
            let next = self.hand_on(&first, &mut Vec::new())?;
            drop(first);
            self.settle(next).await?;
        }
        self.look_for_end()
    }

    async fn copy(&self) -> Step {
        let mut full_reads = 0;
        let mut turn = 0;
        loop {
            let is_bulk = full_reads >= FULL_READS;
            let copied = if self.half.relay.context.completes_reads && !is_bulk {
                self.copy_completed().await
            } else {
                self.copy_ready().await
            };
            let length = match copied {
                Ok(length) => length,
                Err(step) => return step,
            };
            full_reads = if length < READ_BUFFER_LEN { 0 } else { full_reads + 1 };
            turn += length;
            if turn >= TURN_BYTES {
                turn = 0;
                runtime::yield_now().await;
            }
        }
    }

    async fn copy_completed(&self) -> Result<usize, Step> {
        let (length, next) = match self.half.from().read_managed().await {
            Ok(Some(mut buffer)) => (buffer.len(), self.take(&mut buffer)?),
            Ok(None) => return Err(self.ended()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                WorkerCounters::add(&self.half.relay.context.counters.buffer_fallbacks, 1);
                return self.copy_ready().await;
            }
            Err(_) => return Err(Step::ReadFailed),
        };
        self.settle(next).await?;
        self.look_for_end()?;
        Ok(length)
    }

    async fn copy_ready(&self) -> Result<usize, Step> {
        let (length, next) = loop {
            self.half.from().read_ready().await.map_err(|_| Step::WaitFailed)?;
            match self.take_now() {
                Err(Step::Calm) => {}
                taken => break taken?,
            }
        };
        self.settle(next).await?;
        self.look_for_end()?;
        Ok(length)
    }

    /// Reads what is there, without waiting. `Calm`: nothing was there after all.
    fn take_now(&self) -> Result<(usize, Next), Step> {
        let scratch = &mut *self.half.relay.context.secure_scratch.borrow_mut();
        let failed = |error: io::Error| if would_block(&error) { Step::Calm } else { Step::ReadFailed };
        let Some(from) = self.from else {
            let Scratch { wire, ciphertext, .. } = scratch;
            wire.resize(BULK_READ_LEN.max(wire.len()), 0);
            let length = self.half.from().try_read(wire).map_err(failed)?;
            let bytes = wire.get(..length).filter(|bytes| !bytes.is_empty());
            return Ok((length, self.hand_on(bytes.ok_or_else(|| self.ended())?, ciphertext)?));
        };
        match from.read(self.half.from(), BULK_READ_LEN, scratch).map_err(failed)? {
            (0, _) => Err(self.ended()),
            (length, result) => Ok((length, self.hand_on_taken(result, scratch)?)),
        }
    }

    /// Takes what was read, and hands on what is in it.
    fn take(&self, bytes: &mut [u8]) -> Result<Next, Step> {
        let scratch = &mut *self.half.relay.context.secure_scratch.borrow_mut();
        match self.from {
            Some(from) => {
                let result = from.receive(self.half.from(), bytes, scratch);
                self.hand_on_taken(result, scratch)
            }
            None => self.hand_on(bytes, &mut scratch.ciphertext),
        }
    }

    fn hand_on_taken(&self, result: Result<(), rustls::Error>, scratch: &mut Scratch) -> Result<Next, Step> {
        // What came before the error was in order.
        let next = self.hand_on(&scratch.plaintext, &mut scratch.ciphertext);
        if let Err(error) = result {
            self.failed(&error);
        }
        next
    }

    /// Writes plaintext to the other side, as far as that takes it at once.
    fn hand_on(&self, plaintext: &[u8], ciphertext: &mut Vec<u8>) -> Result<Next, Step> {
        if plaintext.is_empty() {
            return Ok(Next::Queue);
        }
        self.half.relay.live.arrived(self.half.direction);
        self.spoke_after_end.set(self.half.relay.first_end.get().is_some());
        let Some(to) = self.to else {
            let written = match self.half.to().try_write(plaintext) {
                Ok(written) => written,
                Err(error) if would_block(&error) => 0,
                Err(_) => return Err(Step::WriteFailed),
            };
            self.half.moved(written);
            return Ok(Next::Rest(plaintext.get(written..).unwrap_or_default().to_vec()));
        };
        match to.send(self.half.to(), plaintext, ciphertext) {
            Ok(()) => {
                self.half.moved(plaintext.len());
                Ok(Next::Queue)
            }
            Err(Broken::Tls(rustls::Error::EncryptError)) => Err(Step::WornOut),
            Err(Broken::Socket) => Err(Step::WriteFailed),
            Err(Broken::Tls(error)) => {
                tracing::debug!(%error, "nothing more can be encrypted");
                Err(Step::WriteFailed)
            }
        }
    }

    /// Waits until the other side has taken everything.
    async fn settle(&self, next: Next) -> Result<(), Step> {
        match (next, self.to) {
            (Next::Rest(rest), _) => self.half.write_rest(&rest).await,
            (Next::Queue, Some(to)) if !to.is_clear() => {
                let _until_taken = self.half.waiting();
                self.clear(to).await.map_err(|_| Step::WriteFailed)
            }
            (Next::Queue, _) => Ok(()),
        }
    }

    /// Waits until the socket of the other side has taken what its TLS has queued.
    async fn clear(&self, to: &Secure) -> io::Result<()> {
        while !to.is_clear() {
            self.half.to().write_ready().await?;
            if to.flush(self.half.to())? {
                // They were counted when they were encrypted, and are handed on only now.
                self.half.moved(0);
            }
        }
        Ok(())
    }

    /// Whether the other side of TLS has said that this was all, or something that it should not have said.
    fn look_for_end(&self) -> Result<(), Step> {
        match self.from {
            Some(from) if from.has_failed() => Err(Step::Truncated),
            Some(from) if from.has_ended() => Err(Step::End),
            _ => Ok(()),
        }
    }

    /// The socket has no more. Without TLS that is an end; with it, it is not known whether anything is missing.
    fn ended(&self) -> Step {
        let relay = self.half.relay;
        let side = self.half.reading_side();
        match (self.from, relay.live.broken.get()) {
            (None, _) => Step::End,
            // Which side broke is known already, or it was ended from here, which says why.
            (Some(_), Some(_)) => Step::ReadFailed,
            (Some(_), None) if relay.live.is_ending() => Step::ReadFailed,
            // To answer a goodbye by just leaving is usual in a client.
            (Some(_), None) if side == Side::Downstream && relay.first_end.get() == Some(Side::Upstream) => {
                Step::End
            }
            (Some(from), None) => {
                let what = format!("the {} ended its stream without close_notify", name(side));
                relay.live.note_tls(|tls| tls.failure = Some(what.into()));
                if side == Side::Upstream && self.just_left(from) {
                    return Step::End;
                }
                relay.explain(match side {
                    Side::Downstream => Outcome::DownstreamTruncated,
                    _ => Outcome::UpstreamTruncated,
                });
                Step::Truncated
            }
        }
    }

    /// Whether an endpoint that has not said goodbye has only answered the client's by leaving, as nginx does: it had answered
    /// before, and has said nothing since, not even the beginning of a record. Where it has, that may have been cut.
    fn just_left(&self, from: &Secure) -> bool {
        let relay = self.half.relay;
        let client_ended = relay.first_end.get() == Some(Side::Downstream);
        client_ended && !relay.live.awaits_answer() && !self.spoke_after_end.get() && from.held() == 0
    }

    /// What came is not TLS as it should be.
    fn failed(&self, error: &rustls::Error) {
        let relay = self.half.relay;
        relay.live.note_tls(|tls| tls.failure = Some(crate::tls::reason(error).into()));
        relay.explain(match self.half.reading_side() {
            Side::Downstream => Outcome::DownstreamTlsError,
            _ => Outcome::UpstreamTlsError,
        });
    }

    /// The end of the stream passes on, by the words of the other side.
    async fn end(&self) {
        // What was not said here is not said there.
        let is_told = self.from.is_none_or(Secure::has_ended);
        if let Some(to) = self.to.filter(|_| is_told)
            && self.half.relay.live.broken.get().is_none()
        {
            let finished = to.finish(self.half.to()).is_ok() && self.clear(to).await.is_ok();
            if !finished {
                return self.half.relay.broke(self.half.writing_side());
            }
        }
        self.half.end();
    }

    /// Ends both sides: no connection can do with what one of them cannot be told.
    async fn wear_out(&self) {
        if let Some(to) = self.to {
            // If it is gone, the end comes all the same.
            let _gone = self.clear(to).await;
        }
        self.half.relay.live.end(Outcome::TlsKeysWornOut);
    }

    /// The other side gets what came before the cut, however slowly it takes that, and is cut then: in TLS by FIN without a
    /// goodbye, otherwise by a reset.
    async fn cut(&self) {
        let half = &self.half;
        half.half_close();
        if let Some(to) = self.to
            && self.clear(to).await.is_err()
        {
            return half.relay.broke(half.writing_side());
        }
        // With one whose engine has failed there is nothing more to talk about.
        if self.to.is_some() && !self.from.is_some_and(Secure::has_failed) {
            return half.pass_end_on();
        }
        while !half.to().has_sent_all() && !half.relay.live.is_ending() {
            runtime::sleep(LOOK_INTERVAL).await;
        }
        half.read_failed();
    }
}

fn name(side: Side) -> &'static str {
    if side == Side::Downstream { "client" } else { "endpoint" }
}
