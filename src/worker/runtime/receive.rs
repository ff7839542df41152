//! Receiving into a buffer of the worker's pool, as one operation of the ring.
//!
//! compio's `read_managed` does the same, in four futures one within the other that take 272 bytes; an idle connection holds it
//! twice for as long as it lives.
#![expect(unsafe_code, reason = "compio marks as unsafe to say how much of a buffer was filled")]

use std::cell::Cell;
use std::io;

use compio::driver::op::{RecvFlags, RecvManaged, ResultTakeBuffer};
use compio::driver::{BufferRef, Extra, PollFirst, SharedFd};
use compio::runtime::{Runtime, Submit};
use futures_util::FutureExt;
use futures_util::future::{Either, ready};
use socket2::Socket;

type Receiving = Submit<RecvManaged<SharedFd<Socket>>, Extra>;

/// `None` at the end of the stream. `was_emptied`: whether the last call left nothing, so that the next need not look before
/// it waits.
pub(super) fn receive<'a>(
    socket: &SharedFd<Socket>,
    was_emptied: &'a Cell<bool>,
) -> impl Future<Output = io::Result<Option<BufferRef>>> + use<'a> {
    let receiving = match begin(socket, was_emptied.get()) {
        Ok(receiving) => receiving,
        Err(error) => return Either::Left(ready(Err(error))),
    };
    Either::Right(receiving.map(|(result, extra)| {
        if let Ok(is_left) = extra.sock_nonempty() {
            was_emptied.set(!is_left);
        }
        // SAFETY: the length is the one with which the operation that filled this very buffer completed.
        unsafe { result.take_buffer() }
    }))
}

fn begin(socket: &SharedFd<Socket>, was_emptied: bool) -> io::Result<Receiving> {
    Runtime::with_current(|runtime| {
        let pool = runtime.buffer_pool()?;
        let mut receive = RecvManaged::new(socket.clone(), &pool, 0, RecvFlags::empty())?;
        if was_emptied {
            receive.poll_first();
        }
        Ok(runtime.submit(receive).with_extra())
    })
}
