//! Facts of the runtime that the design rests on, pinned for its version.
//!
//! Sheave never races a read against anything while its connection lives on, because a read that is dropped may have its
//! bytes already; they are gone with it. It ends a connection by shutting its sockets down, or aborting them, and lets
//! what waits on them return. Should a new version of compio change one of these facts, this is where it shows.

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Instant;

use compio::BufResult;
use compio::driver::{DriverType, ProactorBuilder};
use compio::io::{AsyncRead, AsyncReadManaged, AsyncWriteExt};
use compio::net::TcpStream;
use compio::runtime::RuntimeBuilder;
use futures_util::future::join;
use socket2::SockRef;

use crate::support::{DEADLINE, Driver, connect, on_both_drivers};

on_both_drivers!(
    a_dropped_read_loses_its_bytes,
    a_dropped_managed_read_loses_its_bytes,
    dropped_readiness_loses_nothing,
    shutting_down_ends_what_waits,
    aborting_ends_what_waits,
);

fn a_dropped_read_loses_its_bytes(driver: Driver) {
    run(driver, async {
        let (near, far) = pair();
        assert_takes_bytes_along(&near, far, read(&near)).await;
    });
}

fn a_dropped_managed_read_loses_its_bytes(driver: Driver) {
    run(driver, async {
        let (near, far) = pair();
        assert_takes_bytes_along(&near, far, read_managed(&near)).await;
    });
}

/// Readiness takes nothing, so waiting for it may be given up at any moment: that is what Sheave does where it has to.
fn dropped_readiness_loses_nothing(driver: Driver) {
    run(driver, async {
        let (near, mut far) = pair();
        let readiness = near.to_poll_fd().unwrap();
        let mut ready = Box::pin(readiness.read_ready());
        start(ready.as_mut()).await;
        far.write_all(b"kept").unwrap();
        turns().await;
        drop(ready);
        assert_eq!(read(&near).await.unwrap(), b"kept");
    });
}

fn shutting_down_ends_what_waits(driver: Driver) {
    run(driver, async {
        let shut_down = |near: &TcpStream| SockRef::from(near).shutdown(Shutdown::Both).unwrap();
        let seen = end_what_waits(shut_down).await;
        let end_of_stream = Ok(Vec::new());
        assert_eq!((&seen.read, &seen.read_managed), (&end_of_stream, &end_of_stream), "{seen:?}");
        assert_eq!((&seen.readiness, &seen.write), (&Ok(()), &Err(ErrorKind::BrokenPipe)), "{seen:?}");
    });
}

/// connect(2) to AF_UNSPEC sends RST. Unlike closing with SO_LINGER 0 it does so at once, while others hold the socket.
fn aborting_ends_what_waits(driver: Driver) {
    run(driver, async {
        let seen = end_what_waits(|near| rustix::net::connect_unspec(near).unwrap()).await;
        let reset = Err(ErrorKind::ConnectionReset);
        assert_eq!((&seen.read, &seen.read_managed), (&reset, &reset), "{seen:?}");
        assert_eq!((&seen.readiness, &seen.write), (&Ok(()), &Err(ErrorKind::ConnectionReset)), "{seen:?}");
    });
}

/// On both drivers: on io_uring the kernel completes a read that waits, on epoll compio's driver does so as soon as it
/// sees that the socket is readable. In both cases whether anybody polls the read has nothing to do with it.
async fn assert_takes_bytes_along(
    near: &TcpStream,
    mut far: std::net::TcpStream,
    read_that_waits: impl Future<Output = io::Result<Vec<u8>>>,
) {
    let mut read_that_waits = Box::pin(read_that_waits);
    start(read_that_waits.as_mut()).await;
    far.write_all(b"lost").unwrap();
    // Without a look at the read: its bytes leave the socket all the same.
    let deadline = Instant::now() + DEADLINE;
    while rustix::io::ioctl_fionread(near).unwrap() > 0 {
        assert!(Instant::now() < deadline, "the bytes are still in the socket");
        turn().await;
    }
    drop(read_that_waits);
    turns().await;
    far.write_all(b"kept").unwrap();
    assert_eq!(read(near).await.unwrap(), b"kept");
}

/// What came of each kind of operation that waited when its connection was ended.
#[derive(Debug)]
struct Ended {
    read: Result<Vec<u8>, ErrorKind>,
    read_managed: Result<Vec<u8>, ErrorKind>,
    readiness: Result<(), ErrorKind>,
    write: Result<(), ErrorKind>,
}

async fn end_what_waits(end: impl Fn(&TcpStream)) -> Ended {
    let (near, far) = pair();
    let read = ended_by("a read", read(&near), || end(&near)).await;
    assert_end_arrived(far, &read);
    let (near, far) = pair();
    let read_managed = ended_by("a managed read", read_managed(&near), || end(&near)).await;
    assert_end_arrived(far, &read_managed);
    let (near, _far) = pair();
    let polled = near.to_poll_fd().unwrap();
    let readiness = ended_by("readiness", polled.read_ready(), || end(&near)).await;
    let (near, _far) = pair();
    // More than all buffers on the way hold.
    let write = async {
        let BufResult(result, _) = (&near).write_all(vec![0_u8; 64 * 1024 * 1024]).await;
        result
    };
    let write = ended_by("a write", write, || end(&near)).await;
    Ended { read, read_managed, readiness, write }
}

/// The other end sees FIN or RST, as the waiting read did, although both it and its socket are still held.
fn assert_end_arrived(mut far: std::net::TcpStream, read: &Result<Vec<u8>, ErrorKind>) {
    let mut bytes = Vec::new();
    let end = far.read_to_end(&mut bytes).map(|_| bytes).map_err(|error| error.kind());
    assert_eq!(end, *read);
}

/// Starts an operation that has to wait, ends its connection, and waits for what comes of it.
async fn ended_by<T>(
    what: &str,
    operation: impl Future<Output = io::Result<T>>,
    end: impl Fn(),
) -> Result<T, ErrorKind> {
    let mut operation = pin!(operation);
    start(operation.as_mut()).await;
    let ended = compio::time::timeout(DEADLINE, operation);
    let (result, ()) = join(ended, async { end() }).await;
    let result = result.unwrap_or_else(|_| panic!("{what} still waits"));
    result.map_err(|error| error.kind())
}

async fn read(mut near: &TcpStream) -> io::Result<Vec<u8>> {
    let BufResult(length, bytes) = near.read(Vec::with_capacity(64)).await;
    length.map(|_| bytes)
}

async fn read_managed(mut near: &TcpStream) -> io::Result<Vec<u8>> {
    let bytes = near.read_managed(0).await?;
    Ok(bytes.map_or_else(Vec::new, |bytes| bytes.to_vec()))
}

/// Makes an operation wait in the driver.
async fn start<F: Future>(mut operation: Pin<&mut F>) {
    let is_ready = poll_fn(|context| Poll::Ready(operation.as_mut().poll(context).is_ready())).await;
    assert!(!is_ready, "nothing has happened yet that it could return for");
    turns().await;
}

/// Enough turns of the loop for what was submitted to be seen, and what has completed to be noticed.
async fn turns() {
    for _ in 0..4 {
        turn().await;
    }
}

async fn turn() {
    let mut turned = false;
    poll_fn(|context| {
        if turned {
            return Poll::Ready(());
        }
        turned = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A connection: one end on the runtime, the other not.
fn pair() -> (TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = connect(listener.local_addr().unwrap());
    let near = listener.accept().unwrap().0;
    near.set_nonblocking(true).unwrap();
    (TcpStream::from_std(near).unwrap(), far)
}

fn run(driver: Driver, test: impl Future<Output = ()>) {
    let mut proactor = ProactorBuilder::new();
    match driver {
        Driver::IoUring => {
            proactor.driver_type(DriverType::IoUring);
        }
        Driver::Epoll => {
            proactor.driver_type(DriverType::Poll);
        }
    }
    let runtime = RuntimeBuilder::new().with_proactor(proactor).build().unwrap();
    runtime.block_on(test);
}
