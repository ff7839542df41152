//! The runtime ladder: the fastest ring that the kernel grants, else a simpler one, else epoll.
//!
//! compio's default ring costs about twice the CPU per message of the top rung. Kernels before 6.1 lack it,
//! and container runtimes commonly forbid io_uring as a whole, so every rung is a first-class way to run.

use std::future::{Future, poll_fn};
use std::io;
use std::num::NonZeroU16;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use compio::driver::{DriverType, ProactorBuilder};
use compio::runtime::{Runtime, RuntimeBuilder};

use crate::config::Driver;

/// One read takes at most this many bytes.
pub(crate) const READ_BUFFER_LEN: usize = 16 * 1024;
/// Read buffers per worker. Only reads that completed hold one, until their bytes are written.
const READ_BUFFERS: NonZeroU16 = NonZeroU16::new(256).unwrap();
/// Far above what one task can submit in a turn: a full queue would delay cancellations.
const RING_ENTRIES: u32 = 4096;
/// Tasks to run between two looks at the ring.
const EVENT_INTERVAL: usize = 61;

type Configure = fn(&mut ProactorBuilder);

/// The rungs of io_uring, best first, and what sets them apart.
const RINGS: [(&str, Configure); 3] = [
    // Completions run when this thread asks for them (6.1). All three flags or none: without the task-run flag the
    // loop never sees that work is waiting, and starves (docs/architecture.md).
    ("defer", |ring| {
        ring.single_issuer(true).defer_taskrun(true).taskrun_flag(true);
    }),
    // Completions run at the next system call instead of interrupting (5.19).
    ("coop", |ring| {
        ring.coop_taskrun(true).taskrun_flag(true);
    }),
    ("plain", |_| {}),
];

/// The first rung that stands, and its name.
pub(super) fn build(driver: Driver) -> io::Result<(Runtime, &'static str)> {
    let mut refused = None;
    if driver != Driver::Epoll {
        for (name, configure) in RINGS {
            match build_ring(configure) {
                Ok(runtime) => return Ok((runtime, name)),
                Err(error) => {
                    tracing::info!(rung = name, %error, "not available here, trying the next way to run");
                    refused = Some(error);
                }
            }
        }
    }
    match refused {
        Some(error) if driver == Driver::IoUring => Err(io::Error::new(
            error.kind(),
            format!(
                "io_uring is not available here ({error}); allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the seccomp profile and kernel.io_uring_disabled=0, or set \
                 workers.driver: auto"
            ),
        )),
        _ => Ok((build_epoll()?, "epoll")),
    }
}

fn build_ring(configure: Configure) -> io::Result<Runtime> {
    let mut ring = base();
    ring.capacity(RING_ENTRIES).driver_type(DriverType::IoUring);
    configure(&mut ring);
    let runtime = runtime(&ring)?;
    if runtime.block_on(makes_progress()) {
        Ok(runtime)
    } else {
        Err(io::Error::other("I/O starves beside a busy task"))
    }
}

fn build_epoll() -> io::Result<Runtime> {
    let mut epoll = base();
    epoll.driver_type(DriverType::Poll);
    runtime(&epoll)
}

fn base() -> ProactorBuilder {
    let mut proactor = ProactorBuilder::new();
    proactor.buffer_pool_size(READ_BUFFERS).buffer_pool_buffer_len(READ_BUFFER_LEN);
    proactor
}

fn runtime(proactor: &ProactorBuilder) -> io::Result<Runtime> {
    let mut builder = RuntimeBuilder::new();
    builder.with_proactor(proactor.clone()).event_interval(EVENT_INTERVAL);
    builder.build()
}

/// Whether I/O completes beside a task that always wants to run: the one combination in which a ring with
/// deferred task work is known to starve with the wrong flags or crate versions.
async fn makes_progress() -> bool {
    let deadline = Instant::now() + Duration::from_millis(500);
    let mut timer = pin!(compio::time::sleep(Duration::from_millis(1)));
    let mut completion = pin!(compio::runtime::submit(compio::driver::op::PollOnce::new(
        match readable_pipe() {
            Ok(pipe) => pipe,
            Err(_) => return false,
        },
        compio::driver::op::Interest::Readable,
    )));
    let mut done = (false, false);
    poll_fn(|context| {
        context.waker().wake_by_ref();
        done.0 = done.0 || timer.as_mut().poll(context).is_ready();
        done.1 = done.1 || completion.as_mut().poll(context).is_ready();
        if done == (true, true) || Instant::now() > deadline { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done == (true, true)
}

/// The reading end of a pipe whose writing end is closed: it is readable (end of file) at once.
fn readable_pipe() -> io::Result<std::fs::File> {
    let (reader, _writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok(std::fs::File::from(reader))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_always_stands_and_is_taken_when_asked_for() {
        let (runtime, rung) = build(Driver::Epoll).unwrap();
        assert_eq!((rung, runtime.driver_type().is_polling()), ("epoll", true));
        assert!(runtime.block_on(makes_progress()));
    }

    #[test]
    fn every_ring_that_stands_makes_progress() {
        for (name, configure) in RINGS {
            if let Err(error) = build_ring(configure) {
                // Only a kernel that lacks or forbids it may refuse a rung.
                assert!(matches!(error.raw_os_error(), Some(1 | 22 | 38)), "{name}: {error}");
            }
        }
    }
}
