//! The endpoints: they send back what they get, and remember when they were connected to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::error::{Context, Error, Result};
use crate::load::{self, MESSAGE};
use crate::network::ENDPOINTS;

/// They end with their value.
pub(super) struct Endpoints {
    each: Arc<[Endpoint; ENDPOINTS.len()]>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Endpoint {
    accepted: Mutex<Vec<Instant>>,
    /// How long it waits before it answers, in milliseconds.
    lateness: AtomicU64,
}

impl Endpoints {
    pub(super) fn start() -> Result<Self> {
        let each: Arc<[Endpoint; ENDPOINTS.len()]> = Arc::default();
        let (end, ended) = oneshot::channel();
        let mut listeners = Vec::new();
        for address in ENDPOINTS {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).context("socket")?;
            socket.set_reuse_address(true).context("socket")?;
            socket.bind(&SocketAddr::into(address)).context("bind an endpoint")?;
            socket.listen(4096).context("listen")?;
            socket.set_nonblocking(true).context("socket")?;
            listeners.push(std::net::TcpListener::from(socket));
        }
        let seen = Arc::clone(&each);
        let runtime = load::runtime()?;
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                for (index, listener) in listeners.into_iter().enumerate() {
                    tokio::spawn(accept(listener, Arc::clone(&seen), index));
                }
                // An error is an end as well.
                ended.await.ok();
            });
        });
        Ok(Self { each, end: Some(end), thread: Some(thread) })
    }

    pub(super) fn answer_late(&self, index: usize, by: Duration) {
        self.each[index].lateness.store(by.as_millis() as u64, Ordering::Relaxed);
    }

    /// How many connections this one had from `from` on for so long.
    pub(super) fn accepted(&self, index: usize, from: Instant, time: Duration) -> usize {
        let accepted = self.each[index].accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.iter().filter(|at| **at >= from && **at < from + time).count()
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        drop(self.end.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("faults: {}", Error::new("the endpoints panicked"));
        }
    }
}

async fn accept(listener: std::net::TcpListener, each: Arc<[Endpoint; ENDPOINTS.len()]>, index: usize) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        each[index].accepted.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        let late = Duration::from_millis(each[index].lateness.load(Ordering::Relaxed));
        tokio::spawn(serve(stream, late));
    }
}

/// How a client leaves is the client's report.
async fn serve(mut stream: TcpStream, late: Duration) {
    let mut message = [0; MESSAGE];
    while stream.read_exact(&mut message).await.is_ok() {
        if !late.is_zero() {
            tokio::time::sleep(late).await;
        }
        if stream.write_all(&message).await.is_err() {
            return;
        }
    }
}
