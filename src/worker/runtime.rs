//! Everything that knows the runtime: building it, its timers, its sockets.
//!
//! A new version of compio touches this module and nothing else. The rest of a worker sees [`Runtime`],
//! [`Stream`], [`ListenSocket`] and the few functions here.

mod arrivals;
mod ladder;
mod listen;
mod reactor;
mod readiness;
mod receive;
mod spin;
mod stream;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::config::Driver;
use crate::telemetry::WorkerRuntime;

use spin::{Counted, Spin};

pub(crate) use ladder::READ_BUFFER_LEN;
pub(crate) use listen::ListenSocket;
pub(crate) use spin::{spent as spun, thread_cpu};
pub(crate) use stream::{SocketHandle, Stream};

/// Bytes that were received, in one of the worker's buffers, which it gets back.
pub(crate) type Buffer = compio::driver::BufferRef;

/// One thread's runtime.
#[derive(Debug)]
pub(crate) struct Runtime {
    inner: compio::runtime::Runtime,
    busy_poll: Option<Duration>,
}

impl Runtime {
    /// The best runtime that this kernel and `driver` allow, and which one that is. `core` is only reported.
    pub(crate) fn build(driver: Driver, core: Option<usize>) -> io::Result<(Self, WorkerRuntime)> {
        let (inner, rung) = ladder::build(driver)?;
        let driver = if inner.driver_type().is_iouring() { "io_uring" } else { "epoll" };
        Ok((Self { inner, busy_poll: None }, WorkerRuntime { driver, rung, core }))
    }

    /// For how long it looks for more after an event before it sleeps; `None`: it sleeps at once.
    pub(crate) fn spinning(self, busy_poll: Option<Duration>) -> Self {
        Self { busy_poll, ..self }
    }

    /// Runs `future`, and all that it spawns, until it is done. It is polled on every turn of the loop, so it
    /// has to be cheap to poll.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.inner.block_on(async {
            if self.inner.driver_type().is_polling()
                && let Err(error) = reactor::Reactor::start()
            {
                tracing::error!(%error, "no epoll instance; waits cost more system calls");
            }
            let mut future = pin!(future);
            let mut spin = self.busy_poll.map(Spin::new);
            poll_fn(|context| {
                resume_yielded();
                if spin.as_mut().is_some_and(Spin::turn) {
                    // So that the next look at the I/O does not wait.
                    context.waker().wake_by_ref();
                }
                future.as_mut().poll(context)
            })
            .await
        })
    }
}

/// Spawns a task that runs to its end by itself. A panic in it ends it and nothing else.
pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) {
    compio::runtime::spawn(Counted::new(future)).detach();
}

pub(crate) async fn sleep(duration: Duration) {
    compio::time::sleep(duration).await;
}

/// `None`: the time was over first, and the future is dropped. Never for a read whose bytes still matter:
/// bytes that arrived meanwhile would be lost.
pub(crate) async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    compio::time::timeout_at(deadline, future).await.ok()
}

thread_local! {
    /// Tasks that gave way until the next turn of this thread's loop.
    static YIELDED: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
    static TURN: Cell<u64> = const { Cell::new(0) };
}

/// Gives way until the next turn of the loop: all other tasks that can run do, and I/O is submitted and reaped.
///
/// Waking oneself would not do. The runtime runs up to 61 tasks between two looks at its I/O, and two tasks that
/// wake themselves would take all of these turns.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        YIELDED.with_borrow_mut(|tasks| tasks.push(context.waker().clone()));
        // So that the next look at the I/O does not wait.
        compio::runtime::Runtime::with_current(|runtime| runtime.waker().wake());
        Poll::Pending
    })
    .await;
}

/// The number of this turn of the loop.
pub(crate) fn turn() -> u64 {
    TURN.get()
}

/// To be called once per turn.
fn resume_yielded() {
    TURN.set(TURN.get().wrapping_add(1));
    for task in YIELDED.take() {
        task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    /// How often two tasks that always give way run between two turns of the loop.
    fn turns_per_look(driver: Driver) -> u32 {
        let (runtime, _) = Runtime::build(driver, None).unwrap();
        let (turns, done) = (Rc::new(Cell::new(0_u32)), Rc::new(Cell::new(false)));
        let looks = Rc::new(Cell::new(0_u32));
        let (counted, ended, looked) = (Rc::clone(&turns), Rc::clone(&done), Rc::clone(&looks));
        runtime.block_on(async move {
            for _ in 0..2 {
                let (turns, done) = (Rc::clone(&counted), Rc::clone(&ended));
                spawn(async move {
                    while !done.get() {
                        turns.set(turns.get() + 1);
                        yield_now().await;
                    }
                });
            }
            // Polled once per turn of the loop, as the future that the loop runs for.
            poll_fn(|_| {
                looked.set(looked.get() + 1);
                if looked.get() == 100 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            ended.set(true);
        });
        turns.get() / looks.get()
    }

    #[test]
    fn giving_way_lasts_for_a_whole_turn() {
        for driver in [Driver::Auto, Driver::Epoll] {
            let turns = turns_per_look(driver);
            assert!(turns <= 3, "{driver:?}: two tasks took {turns} turns between two looks at the I/O");
        }
    }
}
