//! Everything that knows the runtime: building it, its timers, its sockets.
//!
//! A new version of compio touches this module and nothing else. The rest of a worker sees [`Runtime`],
//! [`Stream`], [`ListenSocket`] and the few functions here.

mod ladder;
mod listen;
mod reactor;
mod readiness;
mod stream;

use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use crate::config::Driver;
use crate::telemetry::WorkerRuntime;

pub(crate) use ladder::READ_BUFFER_LEN;
pub(crate) use listen::ListenSocket;
pub(crate) use stream::{SocketHandle, Stream};

/// One thread's runtime.
#[derive(Debug)]
pub(crate) struct Runtime {
    inner: compio::runtime::Runtime,
}

impl Runtime {
    /// The best runtime that this kernel and `driver` allow, and which one that is. `core` is only reported.
    pub(crate) fn build(driver: Driver, core: Option<usize>) -> io::Result<(Self, WorkerRuntime)> {
        let (inner, rung) = ladder::build(driver)?;
        let driver = if inner.driver_type().is_iouring() { "io_uring" } else { "epoll" };
        Ok((Self { inner }, WorkerRuntime { driver, rung, core }))
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
            future.await
        })
    }
}

/// Spawns a task that runs to its end by itself. A panic in it ends it and nothing else.
pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) {
    compio::runtime::spawn(future).detach();
}

pub(crate) async fn sleep(duration: Duration) {
    compio::time::sleep(duration).await;
}

/// `None`: the time was over first, and the future is dropped. Never for a read whose bytes still matter:
/// bytes that arrived meanwhile would be lost.
pub(crate) async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    compio::time::timeout_at(deadline, future).await.ok()
}

/// Lets the other tasks run, and I/O be submitted and reaped.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if yielded {
            return std::task::Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
