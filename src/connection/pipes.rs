//! Pipes for splice(2): a bounded number per worker, held only while bytes are on their way.
//!
//! Per worker and not per connection: an unprivileged user may hold some 1 000 pipes of the usual size before the kernel
//! shrinks new ones to a page or two, which makes splicing slower than copying.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::telemetry::WorkerCounters;

/// The most that one direction keeps in its pipe: enough to make a system call worth its price, little enough for a
/// stalled reader to cost less than 256 KiB.
pub(super) const PIPE_BYTES_MAX: usize = 192 * 1024;
/// A slot of a pipe holds up to a page of it, so this many bytes always fit.
const PIPE_CAPACITY: usize = 256 * 1024;

/// An empty pipe, in its pool or on loan. Dropped instead of put back, it is closed and makes room for a new one: what
/// bytes of a connection that failed may be in it must never reach another.
pub(super) struct Pipe {
    pub(super) reader: OwnedFd,
    pub(super) writer: OwnedFd,
    counters: Arc<WorkerCounters>,
}

pub(super) struct Pipes {
    idle: RefCell<Vec<Pipe>>,
    /// They say how many there are.
    counters: Arc<WorkerCounters>,
    max: u64,
}

impl Pipes {
    pub(super) fn new(max: usize, counters: Arc<WorkerCounters>) -> Self {
        Self { idle: RefCell::default(), counters, max: max as u64 }
    }

    /// An empty pipe. `None`: all are in use, or the process is short of descriptors; copying does as well.
    pub(super) fn take(&self) -> Option<Pipe> {
        if let Some(pipe) = self.idle.borrow_mut().pop() {
            return Some(pipe);
        }
        let may_make = self.counters.pipes.load(Ordering::Relaxed) < self.max;
        let made = may_make.then(|| Pipe::new(&self.counters).ok()).flatten();
        if made.is_none() {
            WorkerCounters::add(&self.counters.pipe_shortages, 1);
        }
        made
    }

    /// Takes an empty pipe back.
    pub(super) fn put_back(&self, pipe: Pipe) {
        self.idle.borrow_mut().push(pipe);
    }
}

impl Pipe {
    fn new(counters: &Arc<WorkerCounters>) -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A refusal (the user's share of pipe pages is used up) leaves the usual size, which works too.
        let _usual_size = fcntl_setpipe_size(&writer, PIPE_CAPACITY);
        WorkerCounters::add(&counters.pipes, 1);
        Ok(Self { reader, writer, counters: Arc::clone(counters) })
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let pipes = &self.counters.pipes;
        pipes.store(pipes.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_no_more_than_its_maximum_and_reuses_what_comes_back() {
        let counters = Arc::<WorkerCounters>::default();
        let pipes = Pipes::new(1, Arc::clone(&counters));
        let pipe = pipes.take().unwrap();
        assert!(pipes.take().is_none());
        let said = [&counters.pipes, &counters.pipe_shortages].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(said, [1, 1]);
        pipes.put_back(pipe);
        let pipe = pipes.take().unwrap();
        drop(pipe);
        assert!(pipes.take().is_some(), "a dropped pipe makes room for a new one");
    }
}
