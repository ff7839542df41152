//! Readiness on epoll: each socket is registered once, edge-triggered, for its whole life.
//!
//! compio's own readiness registers and removes a socket for every wait, two system calls per message. Here the sockets
//! are in an epoll instance of the worker's own, and the runtime waits only for that one: once per batch.
//!
//! Edge-triggered means: an event comes when something changes, not while something is so. A flag remembers it, and is
//! taken back only when a call has found the socket empty (or full), in the same breath.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use compio::driver::SharedFd;
use compio::driver::op::{Interest, PollOnce};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// After an error of the kernel's.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Events to take from the kernel at once.
const BATCH: usize = 256;

thread_local! {
    /// The reactor of this worker; none on io_uring, where the ring does it.
    static CURRENT: RefCell<Option<Rc<Reactor>>> = const { RefCell::new(None) };
    /// That of a worker on io_uring, for what a ring does not tell: that more arrives where something is. Started when it is
    /// first needed.
    static BESIDE_RING: RefCell<Option<Rc<Reactor>>> = const { RefCell::new(None) };
}

/// Whether this worker's readiness and connects are operations of a ring.
pub(super) fn on_ring() -> bool {
    CURRENT.with_borrow(Option::is_none)
}

/// One worker's sockets.
pub(super) struct Reactor {
    epoll: SharedFd<OwnedFd>,
    sockets: RefCell<HashMap<u64, Rc<Socket>>>,
    next_key: Cell<u64>,
}

/// A socket's place with the reactor; leaves it when dropped.
pub(super) struct Registration {
    reactor: Rc<Reactor>,
    key: u64,
    socket: Rc<Socket>,
}

#[derive(Default)]
struct Socket {
    read: Side,
    write: Side,
    /// Urgent data was seen: reads stop short of its mark though there is more behind.
    urgent: Cell<bool>,
}

#[derive(Default)]
struct Side {
    ready: Cell<bool>,
    /// An end or an error was seen, which never goes away again: there is always that to find.
    over: Cell<bool>,
    waiting: Cell<Option<Waker>>,
}

impl Reactor {
    /// Makes it the way in which this thread waits for its sockets.
    pub(super) fn start() -> io::Result<()> {
        CURRENT.set(Some(Self::spawn()?));
        Ok(())
    }

    /// The one of this thread, whichever way it waits for its sockets.
    fn any() -> io::Result<Rc<Self>> {
        let known = CURRENT.with_borrow(Option::clone).or_else(|| BESIDE_RING.with_borrow(Option::clone));
        if let Some(known) = known {
            return Ok(known);
        }
        let reactor = Self::spawn()?;
        BESIDE_RING.set(Some(Rc::clone(&reactor)));
        Ok(reactor)
    }

    /// Its task runs on the runtime that is current.
    fn spawn() -> io::Result<Rc<Self>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let reactor = Rc::new(Self {
            epoll: SharedFd::new(epoll),
            sockets: RefCell::default(),
            next_key: Cell::new(0),
        });
        let running = Rc::clone(&reactor);
        super::spawn(async move { running.run().await });
        Ok(reactor)
    }

    fn register(self: Rc<Self>, socket: impl AsFd) -> io::Result<Registration> {
        let key = self.next_key.get();
        self.next_key.set(key + 1);
        let interest =
            EventFlags::IN | EventFlags::PRI | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&*self.epoll, socket, EventData::new_u64(key), interest)?;
        let socket = Rc::new(Socket::default());
        self.sockets.borrow_mut().insert(key, Rc::clone(&socket));
        Ok(Registration { reactor: self, key, socket })
    }

    async fn run(&self) {
        let mut events: Vec<Event> = Vec::with_capacity(BATCH);
        loop {
            let waited = compio::runtime::submit(PollOnce::new(self.epoll.clone(), Interest::Readable)).await;
            if let Err(error) = waited.0 {
                tracing::error!(%error, "waiting for sockets failed; trying again (fs.epoll.max_user_watches?)");
                super::sleep(RETRY_INTERVAL).await;
            }
            loop {
                events.clear();
                let spare = rustix::buffer::spare_capacity(&mut events);
                let taken = epoll::wait(&*self.epoll, spare, Some(&Timespec::default())).unwrap_or(0);
                self.wake(&events);
                if taken < BATCH {
                    break;
                }
            }
        }
    }

    fn wake(&self, events: &[Event]) {
        for event in events {
            // A socket that left meanwhile may still be held open elsewhere, and have events. Nothing stays borrowed while
            // a waker runs.
            let socket = self.sockets.borrow().get(&event.data.u64()).cloned();
            let Some(socket) = socket else { continue };
            let flags = event.flags;
            let over = EventFlags::HUP | EventFlags::ERR;
            // RDHUP is an end for reading only: a peer that has finished writing may still read, and slowly.
            socket.urgent.set(socket.urgent.get() || flags.contains(EventFlags::PRI));
            socket.read.saw(flags, EventFlags::IN | EventFlags::PRI, over | EventFlags::RDHUP);
            socket.write.saw(flags, EventFlags::OUT, over);
        }
    }
}

impl Registration {
    /// Registers a socket. `None`: this worker has no reactor.
    pub(super) fn new(socket: impl AsFd) -> io::Result<Option<Self>> {
        let Some(reactor) = CURRENT.with_borrow(Option::clone) else { return Ok(None) };
        reactor.register(socket).map(Some)
    }

    /// Registers a socket for a while, also beside a ring; see [`Self::leave`].
    pub(super) fn for_a_while(socket: impl AsFd) -> io::Result<Self> {
        Reactor::any()?.register(socket)
    }

    /// To be called before a socket that lives on is let go of.
    pub(super) fn leave(&self, socket: impl AsFd) {
        let _not_there = epoll::delete(&*self.reactor.epoll, socket);
    }

    /// Waits until more arrives than there was when this was called, or the end.
    pub(super) async fn arrival(&self) {
        // What has arrived and was not told yet comes after this, on this thread.
        self.socket.read.drained();
        self.socket.read.ready().await;
    }

    /// There may be something to read, whatever was said before.
    pub(super) fn is_not_empty(&self) {
        self.socket.read.ready.set(true);
    }

    pub(super) async fn read_ready(&self) {
        self.socket.read.ready().await;
    }

    pub(super) async fn write_ready(&self) {
        self.socket.write.ready().await;
    }

    /// A read has found nothing.
    pub(super) fn is_empty(&self) {
        self.socket.read.drained();
    }

    /// A read has found less than it asked for: nothing is left, unless it stopped at urgent data.
    pub(super) fn fell_short(&self) {
        if !self.socket.urgent.get() {
            self.socket.read.drained();
        }
    }

    /// A write was not taken, or not whole.
    pub(super) fn is_full(&self) {
        self.socket.write.drained();
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.reactor.sockets.borrow_mut().remove(&self.key);
    }
}

impl Side {
    async fn ready(&self) {
        poll_fn(|context| {
            if self.ready.get() {
                return Poll::Ready(());
            }
            self.waiting.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn saw(&self, flags: EventFlags, ready: EventFlags, over: EventFlags) {
        if !flags.intersects(ready | over) {
            return;
        }
        self.over.set(self.over.get() || flags.intersects(over));
        self.ready.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    fn drained(&self) {
        if !self.over.get() {
            self.ready.set(false);
        }
    }
}
