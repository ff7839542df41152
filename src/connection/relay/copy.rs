//! The copying half of a direction: the path of small messages.
//!
//! On io_uring reads complete: nothing is held while they wait. On epoll (and on io_uring while the worker's buffers
//! are all in use) a direction waits for readiness and copies through the worker's scratch memory in one turn of the
//! loop; only bytes that the other side does not take at once get memory of their own.

use std::io;

use futures_util::FutureExt;
use futures_util::future::{Either, ready};

use crate::telemetry::WorkerCounters;
use crate::worker::runtime::{self, Buffer, READ_BUFFER_LEN};

use super::{Half, Step, would_block};

/// So many full reads in a row make traffic bulk.
pub(super) const FULL_READS: u32 = 3;

impl Half<'_> {
    pub(super) fn copy(&self) -> impl Future<Output = Step> + use<'_> {
        async move {
            let mut full_reads = 0;
            let mut is_unbuffered = false;
            loop {
                let completes = self.relay.context.completes_reads && !is_unbuffered;
                is_unbuffered = false;
                // In a block, so that the result is gone before the next wait: each idle connection would have room for it.
                let length = {
                    let copied =
                        if completes { self.copy_completed().await } else { self.copy_ready().await };
                    match copied {
                        Ok(length) => length,
                        Err(Step::Unbuffered) => {
                            WorkerCounters::add(&self.relay.context.counters.buffer_fallbacks, 1);
                            is_unbuffered = true;
                            continue;
                        }
                        Err(step) => return step,
                    }
                };
                full_reads = if length < READ_BUFFER_LEN { 0 } else { full_reads + 1 };
                if full_reads >= FULL_READS {
                    full_reads = 0;
                    if let Some(pipe) = self.relay.context.pipes.take() {
                        return Step::Bulk(pipe);
                    }
                    // Copying may never have to wait, on epoll, when both sides keep up.
                    runtime::yield_now().await;
                }
            }
        }
    }

    /// One read that completes and the write of what it brought.
    fn copy_completed(&self) -> impl Future<Output = Result<usize, Step>> + use<'_> {
        async move {
            let buffer = match self.from().read_managed().await {
                Ok(Some(buffer)) => buffer,
                Ok(None) => return Err(Step::End),
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Err(Step::Unbuffered),
                Err(_) => return Err(Step::ReadFailed),
            };
            self.write_out(buffer).await
        }
    }

    /// Writes all that was read; how much that was. Not an async function: that would hold the buffer twice.
    fn write_out(&self, buffer: Buffer) -> impl Future<Output = Result<usize, Step>> + use<'_> {
        self.relay.live.arrived(self.direction);
        let (length, until_written) = (buffer.len(), self.waiting());
        self.to().write_managed(buffer).then(move |result| {
            let Ok((written, buffer)) = result else { return Either::Left(ready(Err(Step::WriteFailed))) };
            self.moved(written);
            if written == length {
                return Either::Left(ready(Ok(length)));
            }
            // In a box, as most writes take all at once.
            Either::Right(Box::pin(async move {
                self.write_rest(buffer.get(written..).unwrap_or_default()).await?;
                drop(until_written);
                Ok(length)
            }))
        })
    }

    /// Waits for bytes, and hands them on.
    async fn copy_ready(&self) -> Result<usize, Step> {
        loop {
            self.from().read_ready().await.map_err(|_| Step::WaitFailed)?;
            let (length, rest) = match self.copy_now() {
                Ok(copied) => copied,
                Err(Step::Calm) => continue,
                Err(step) => return Err(step),
            };
            self.moved(length - rest.len());
            if !rest.is_empty() {
                Box::pin(self.write_rest(&rest)).await?;
            }
            return Ok(length);
        }
    }

    /// Reads what is there and writes what is taken, without waiting: how much was read, and what is left of it.
    /// `Calm`: nothing was there after all.
    fn copy_now(&self) -> Result<(usize, Vec<u8>), Step> {
        let mut scratch = self.relay.context.scratch.borrow_mut();
        let length = match self.from().try_read(&mut scratch) {
            Ok(0) => return Err(Step::End),
            Ok(length) => length,
            Err(error) if would_block(&error) => return Err(Step::Calm),
            Err(_) => return Err(Step::ReadFailed),
        };
        self.relay.live.arrived(self.direction);
        let bytes = scratch.get(..length).ok_or(Step::ReadFailed)?;
        let written = match self.to().try_write(bytes) {
            Ok(written) => written,
            Err(error) if would_block(&error) => 0,
            Err(_) => return Err(Step::WriteFailed),
        };
        Ok((length, bytes.get(written..).unwrap_or_default().to_vec()))
    }

    pub(super) async fn write_rest(&self, mut rest: &[u8]) -> Result<(), Step> {
        while !rest.is_empty() {
            match self.to().try_write(rest) {
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    self.moved(written);
                }
                Err(error) if would_block(&error) => {
                    let _until_ready = self.waiting();
                    self.to().write_ready().await.map_err(|_| Step::WaitFailed)?;
                }
                Err(_) => return Err(Step::WriteFailed),
            }
        }
        Ok(())
    }

    /// Counts bytes that were handed on.
    pub(super) fn moved(&self, length: usize) {
        use crate::connection::live::Direction;
        let bytes = length as u64;
        let counters = &self.relay.context.counters;
        self.relay.live.moved(self.direction, bytes);
        match self.direction {
            Direction::Received => WorkerCounters::add(&counters.bytes_received, bytes),
            Direction::Sent => WorkerCounters::add(&counters.bytes_sent, bytes),
        }
    }
}
