//! The clients: new connections at a steady rate that waits for nobody, each with one request and its answer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::error::{Context, Error, Result};

pub(super) const MESSAGE: usize = 64;
/// As long as nobody waits for a database.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ends with [`Load::end`].
pub(super) struct Load {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    tried: Arc<Mutex<Vec<Try>>>,
}

/// One connection.
#[derive(Clone, Copy)]
pub(super) struct Try {
    /// When it was due.
    pub(super) due: Instant,
    /// From then until its answer, or its failure.
    pub(super) took: Duration,
    pub(super) is_served: bool,
}

impl Load {
    pub(super) fn start(address: SocketAddr, rate: u32) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let tried: Arc<Mutex<Vec<Try>>> = Arc::default();
        let (runtime, noted) = (runtime()?, Arc::clone(&tried));
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = open(address, rate, noted) => {}
                    _ = stopped => {}
                }
                // Those under way, which is what outlives them at most.
                let metrics = tokio::runtime::Handle::current();
                let begun = Instant::now();
                while metrics.metrics().num_alive_tasks() > 0 && begun.elapsed() < PATIENCE {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        });
        Ok(Self { stop, thread, tried })
    }

    /// All of them, in the order in which they ended.
    pub(super) fn end(self) -> Result<Vec<Try>> {
        drop(self.stop);
        self.thread.join().map_err(|_| Error::new("the load panicked"))?;
        Ok(self.tried.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

pub(super) fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("start a runtime")
}

async fn open(address: SocketAddr, rate: u32, tried: Arc<Mutex<Vec<Try>>>) {
    let mut beats = interval(Duration::from_secs(1) / rate);
    beats.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        // Its own time, not when it was noticed: what this program is late counts, too.
        let due = beats.tick().await.into_std();
        let tried = Arc::clone(&tried);
        tokio::spawn(async move {
            let is_served = matches!(timeout(PATIENCE, exchange(address)).await, Ok(Ok(())));
            let one = Try { due, took: due.elapsed(), is_served };
            tried.lock().unwrap_or_else(PoisonError::into_inner).push(one);
        });
    }
}

async fn exchange(address: SocketAddr) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    // Of many clients: some balancing goes by it.
    let client = Ipv4Addr::new(127, 1, fastrand::u8(..), fastrand::u8(1..255));
    socket.bind(SocketAddr::new(IpAddr::V4(client), 0))?;
    let mut stream = socket.connect(address).await?;
    let mut message = [0; MESSAGE];
    fastrand::fill(&mut message);
    stream.write_all(&message).await?;
    let mut answer = [0; MESSAGE];
    stream.read_exact(&mut answer).await?;
    if answer == message { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

/// Milliseconds of those that were served, for percentiles.
pub(super) struct Latencies(Vec<f64>);

impl Latencies {
    pub(super) fn of<'a>(tries: impl Iterator<Item = &'a Try>) -> Self {
        let served = tries.filter(|one| one.is_served);
        let mut all: Vec<f64> = served.map(|one| one.took.as_secs_f64() * 1_000.0).collect();
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    pub(super) fn quantile(&self, q: f64) -> f64 {
        let place = (self.0.len() as f64 * q).ceil() as usize;
        self.0.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}
