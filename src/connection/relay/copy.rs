//! The copying half of a direction: the path of small messages.
//!
//! On io_uring reads complete: nothing is held while they wait. On epoll (and on io_uring while the worker's buffers
//! are all in use) a direction waits for readiness and copies through the worker's scratch memory in one turn of the
//! loop; only bytes that the other side does not take at once get memory of their own.

use std::io;
use std::pin::Pin;

use crate::telemetry::WorkerCounters;
use crate::worker::runtime::{self, Buffer, READ_BUFFER_LEN};

use super::{Half, Step, would_block};

/// So many full reads in a row make traffic bulk.
pub(super) const FULL_READS: u32 = 3;

impl Half<'_> {
    pub(super) async fn copy(&self) -> Step {
        let mut full_reads = 0;
        let mut is_unbuffered = false;
        loop {
            let copied = if self.relay.context.completes_reads && !is_unbuffered {
                self.copy_completed().await
            } else {
                self.copy_ready().await
            };
            is_unbuffered = false;
            match copied {
                Ok(length) if length < READ_BUFFER_LEN => full_reads = 0,
                Ok(_) => full_reads += 1,
                Err(Step::Unbuffered) => {
                    WorkerCounters::add(&self.relay.context.counters.buffer_fallbacks, 1);
                    is_unbuffered = true;
                }
                Err(step) => return step,
            }
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

    /// One read that completes and the write of what it brought.
    async fn copy_completed(&self) -> Result<usize, Step> {
        let buffer = match self.from.read_managed().await {
            Ok(Some(buffer)) => buffer,
            Ok(None) => return Err(Step::End),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Err(Step::Unbuffered),
            Err(_) => return Err(Step::ReadFailed),
        };
        self.relay.live.arrived(self.direction);
        let _until_written = self.waiting();
        let (length, writing) = self.write(buffer);
        let (written, buffer) = writing.await.map_err(|_| Step::WriteFailed)?;
        self.moved(written);
        if written < length {
            self.write_rest_of(buffer, written).await?;
        }
        Ok(length)
    }

    /// How much is to be written, and the writing of it. Apart, as whoever looks into the buffer keeps its place until the end.
    fn write(&self, buffer: Buffer) -> (usize, impl Future<Output = io::Result<(usize, Buffer)>> + use<>) {
        (buffer.len(), self.to.write_managed(buffer))
    }

    /// In a box, as most writes take all at once.
    fn write_rest_of(
        &self,
        buffer: Buffer,
        written: usize,
    ) -> Pin<Box<impl Future<Output = Result<(), Step>>>> {
        Box::pin(async move { self.write_rest(buffer.get(written..).unwrap_or_default()).await })
    }

    /// Waits for bytes, and hands them on.
    async fn copy_ready(&self) -> Result<usize, Step> {
        loop {
            self.from.read_ready().await.map_err(|_| Step::WaitFailed)?;
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
        let length = match self.from.try_read(&mut scratch) {
            Ok(0) => return Err(Step::End),
            Ok(length) => length,
            Err(error) if would_block(&error) => return Err(Step::Calm),
            Err(_) => return Err(Step::ReadFailed),
        };
        self.relay.live.arrived(self.direction);
        let bytes = scratch.get(..length).ok_or(Step::ReadFailed)?;
        let written = match self.to.try_write(bytes) {
            Ok(written) => written,
            Err(error) if would_block(&error) => 0,
            Err(_) => return Err(Step::WriteFailed),
        };
        Ok((length, bytes.get(written..).unwrap_or_default().to_vec()))
    }

    pub(super) async fn write_rest(&self, mut rest: &[u8]) -> Result<(), Step> {
        while !rest.is_empty() {
            match self.to.try_write(rest) {
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    self.moved(written);
                }
                Err(error) if would_block(&error) => {
                    let _until_ready = self.waiting();
                    self.to.write_ready().await.map_err(|_| Step::WaitFailed)?;
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
