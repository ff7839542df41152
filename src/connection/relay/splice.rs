//! The splicing half of a direction: bulk bytes go from socket to socket through a pipe, inside the kernel.
//!
//! Readiness and non-blocking splice(2), never the ring's splice operation, which takes a kernel thread for each one that
//! waits. The pipe is given back whenever there is nothing in it and nothing to read.

use std::io;

use crate::connection::pipes::{PIPE_BYTES_MAX, Pipe};
use crate::telemetry::WorkerCounters;
use crate::worker::runtime;

use super::{Half, Step, would_block};

/// A round that moves less than this is cheaper to copy.
const SMALL_ROUND: usize = 4 * 1024;
/// So many small rounds in a row end the splicing.
const SMALL_ROUNDS: u32 = 2;
/// After so many bytes in one go the worker's other connections get their turn: two fills of a pipe, as more saved no CPU time and made others wait.
const TURN_BYTES: usize = 256 * 1024;

impl Half<'_> {
    pub(super) async fn splice(&self, mut pipe: Pipe) -> Step {
        let pipes = &self.relay.context.pipes;
        let mut small_rounds = 0;
        let mut turn = 0;
        let mut woken = false;
        loop {
            match self.from().try_splice_into(&pipe.writer, PIPE_BYTES_MAX) {
                // The end of the stream, or urgent data, which splice(2) cannot pass: only a read can tell.
                Ok(0) => {
                    pipes.put_back(pipe);
                    return Step::Calm;
                }
                Ok(length) => {
                    if self.flush(&pipe, length).await.is_err() {
                        return Step::WriteFailed;
                    }
                    turn += length;
                    woken = false;
                    small_rounds = if length < SMALL_ROUND { small_rounds + 1 } else { 0 };
                }
                // Ready and yet nothing to splice: urgent data again. Waiting once more would return at once, for ever.
                Err(error) if would_block(&error) && woken => {
                    pipes.put_back(pipe);
                    return Step::Calm;
                }
                Err(error) if would_block(&error) => {
                    pipes.put_back(pipe);
                    if self.from().read_ready().await.is_err() {
                        return Step::WaitFailed;
                    }
                    woken = true;
                    turn = 0;
                    pipe = match pipes.take() {
                        Some(pipe) => pipe,
                        None => return Step::Calm,
                    };
                    continue;
                }
                Err(_) => {
                    pipes.put_back(pipe);
                    return Step::ReadFailed;
                }
            }
            if small_rounds >= SMALL_ROUNDS {
                pipes.put_back(pipe);
                return Step::Calm;
            }
            if turn >= TURN_BYTES {
                turn = 0;
                runtime::yield_now().await;
            }
        }
    }

    /// Empties the pipe into the other side.
    async fn flush(&self, pipe: &Pipe, mut length: usize) -> io::Result<()> {
        while length > 0 {
            match self.to().try_splice_from(&pipe.reader, length) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(moved) => {
                    length = length.saturating_sub(moved);
                    self.moved(moved);
                    WorkerCounters::add(&self.relay.context.counters.bytes_spliced, moved as u64);
                }
                Err(error) if would_block(&error) => {
                    let _until_ready = self.waiting();
                    self.to().write_ready().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
