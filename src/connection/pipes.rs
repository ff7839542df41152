//! Pipes for splice(2): a bounded number per worker, held only while bytes are on their way.
//!
//! Per worker and not per connection: an unprivileged user may have so many pages in pipes (`fs.pipe-user-pages-soft`, on the whole
//! machine; 256 pipes of this size) before new ones get two pages and stay so, which makes splicing slower than copying.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use crate::telemetry::WorkerCounters;

use super::live::CoarseTime;

/// The most that one direction keeps in its pipe: enough to make a system call worth its price, little enough for a
/// stalled reader to cost less than 256 KiB.
pub(super) const PIPE_BYTES_MAX: usize = 192 * 1024;
/// A slot of a pipe holds up to a page of it, so this many bytes always fit.
const PIPE_CAPACITY: usize = 256 * 1024;
/// The usual size of a pipe, and the least that is worth a splice.
const PIPE_CAPACITY_MIN: usize = 64 * 1024;
/// When none was to be had, the kernel is not asked again for so long: traffic that stays bulk would ask after every few reads.
const PATIENCE: Duration = Duration::from_secs(1);

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
    /// Until when the kernel is not asked for another.
    patient_until: Cell<Option<CoarseTime>>,
}

impl Pipes {
    pub(super) fn new(max: usize, counters: Arc<WorkerCounters>) -> Self {
        Self { idle: RefCell::default(), counters, max: max as u64, patient_until: Cell::new(None) }
    }

    /// An empty pipe. `None`: all are in use, or the process is short of descriptors, or its user of pages in pipes; copying
    /// does as well.
    pub(super) fn take(&self) -> Option<Pipe> {
        if let Some(pipe) = self.idle.borrow_mut().pop() {
            return Some(pipe);
        }
        let made = self.make();
        if made.is_none() {
            WorkerCounters::add(&self.counters.pipe_shortages, 1);
        }
        made
    }

    fn make(&self) -> Option<Pipe> {
        let is_patient = || self.patient_until.get().is_some_and(|until| CoarseTime::now() < until);
        if self.counters.pipes.load(Ordering::Relaxed) >= self.max || is_patient() {
            return None;
        }
        let made = Pipe::new(&self.counters).ok();
        self.patient_until.set(made.is_none().then(|| CoarseTime::now() + PATIENCE));
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
        // A refusal leaves the size that the pipe came with.
        let capacity = fcntl_setpipe_size(&writer, PIPE_CAPACITY).or_else(|_| fcntl_getpipe_size(&writer))?;
        if capacity < PIPE_CAPACITY_MIN {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
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
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    use std::sync::{Mutex, PoisonError};

    /// What is left for pipes is the same for the whole user.
    static PAGES: Mutex<()> = Mutex::new(());

    /// Pipes until no new one has the usual size, made by a thread that may have no more than others.
    fn use_up_pages() -> Vec<(OwnedFd, OwnedFd)> {
        let mut may = capabilities(None).unwrap();
        may.effective.remove(CapabilitySet::SYS_RESOURCE | CapabilitySet::SYS_ADMIN);
        set_capabilities(None, may).unwrap();
        let mut made = Vec::new();
        loop {
            let pipe = pipe_with(PipeFlags::CLOEXEC).unwrap();
            let _as_large_as_may_be = fcntl_setpipe_size(&pipe.1, 1024 * 1024);
            let capacity = fcntl_getpipe_size(&pipe.1).unwrap();
            made.push(pipe);
            if capacity < PIPE_CAPACITY_MIN {
                return made;
            }
            assert!(made.len() < 400, "fs.pipe-user-pages-soft bounds nothing on this machine");
        }
    }

    #[test]
    fn one_too_small_to_pay_is_none_at_all() {
        let _alone = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
        // In a thread, whose capabilities go with it.
        let test = std::thread::spawn(|| {
            let others = use_up_pages();
            let counters = Arc::<WorkerCounters>::default();
            let pipes = Pipes::new(9, Arc::clone(&counters));
            assert!(pipes.take().is_none());
            drop(others);
            assert!(pipes.take().is_none(), "the kernel is not asked again so soon");
            let said = [&counters.pipes, &counters.pipe_shortages].map(|count| count.load(Ordering::Relaxed));
            assert_eq!(said, [0, 2]);
            pipes.patient_until.set(Some(CoarseTime::now()));
            let pipe = pipes.take().unwrap();
            assert!(fcntl_getpipe_size(&pipe.writer).unwrap() >= PIPE_CAPACITY_MIN);
        });
        test.join().unwrap();
    }

    #[test]
    fn gives_no_more_than_its_maximum_and_reuses_what_comes_back() {
        let _alone = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
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
