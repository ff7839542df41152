//! Who is connected now: a question put to every worker, answered from its own list.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};

use crate::config::Name;

/// One connection that is live, as `/connections` shows it.
#[derive(Debug, Clone)]
pub struct LiveConnection {
    pub id: u64,
    pub worker: usize,
    pub client: SocketAddr,
    pub listener: Name,
    pub upstream: Option<Name>,
    pub endpoint: Option<SocketAddr>,
    pub age: Duration,
    pub idle: Duration,
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

/// The answer of all workers, oldest first.
#[derive(Debug, Clone)]
pub struct Oldest {
    pub connections: Vec<LiveConnection>,
    /// Whether every worker answered.
    pub complete: bool,
}

/// A question to one worker: its oldest `limit` connections.
#[derive(Debug)]
pub struct LiveQuery {
    pub limit: usize,
    pub reply: flume::Sender<Vec<LiveConnection>>,
}

/// Where a worker hears questions.
pub type LiveInbox = flume::Receiver<LiveQuery>;

/// The asking end.
#[derive(Debug, Clone)]
pub struct LiveDirectory {
    inboxes: Vec<flume::Sender<LiveQuery>>,
}

/// Questions that may wait at one worker.
const QUERIES_MAX: usize = 16;

impl LiveDirectory {
    pub fn new(workers: usize) -> (Self, Vec<LiveInbox>) {
        let (inboxes, receivers) = (0..workers).map(|_| flume::bounded(QUERIES_MAX)).unzip();
        (Self { inboxes }, receivers)
    }

    /// Asks all workers and waits for their answers, but not beyond `deadline`: any future, so that the
    /// caller's runtime keeps the time.
    pub async fn oldest(&self, limit: usize, deadline: impl Future<Output = ()>) -> Oldest {
        let (reply, answers) = flume::bounded(self.inboxes.len().max(1));
        for inbox in &self.inboxes {
            // A full inbox means a worker that does not keep up; its part is missing from the answer.
            let _missing = inbox.try_send(LiveQuery { limit, reply: reply.clone() });
        }
        drop(reply);
        let mut connections = Vec::new();
        let mut answered = 0;
        let mut deadline = pin!(deadline);
        while let Either::Left((Ok(answer), _)) = select(answers.recv_async(), deadline.as_mut()).await {
            connections.extend(answer);
            answered += 1;
        }
        connections.sort_by_key(|connection: &LiveConnection| std::cmp::Reverse(connection.age));
        connections.truncate(limit);
        Oldest { connections, complete: answered == self.inboxes.len() }
    }
}

/// Milliseconds since this process first asked: a clock that all threads share and that fits an atomic.
pub fn process_clock_ms() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}
