//! A thin layer over epoll: one thread can carry every connection, as the load shares one core.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

pub(super) use rustix::event::epoll::EventFlags;

pub(super) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(256) })
    }

    pub(super) fn add(&self, source: impl AsFd, key: usize, flags: EventFlags) -> io::Result<()> {
        let data = epoll::EventData::new_u64(key as u64);
        Ok(epoll::add(&self.epoll, source, data, flags)?)
    }

    pub(super) fn modify(&self, source: impl AsFd, key: usize, flags: EventFlags) -> io::Result<()> {
        let data = epoll::EventData::new_u64(key as u64);
        Ok(epoll::modify(&self.epoll, source, data, flags)?)
    }

    /// The keys that are ready; empty after `timeout`.
    pub(super) fn wait(
        &mut self,
        timeout: Duration,
    ) -> io::Result<impl Iterator<Item = (usize, EventFlags)>> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.events.drain(..).map(|event| (event.data.u64() as usize, event.flags)))
    }
}
