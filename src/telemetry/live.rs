//! Who is connected now: a question put to every worker, answered from its own list, and the request to close one of them.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
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
    /// The name that the client asked for, as far as it was seen.
    pub server_name: Option<Box<str>>,
    pub upstream: Option<Name>,
    pub endpoint: Option<SocketAddr>,
    pub age: Duration,
    pub idle: Duration,
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

/// Which connections somebody wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveWish {
    pub limit: usize,
    /// Which come first.
    pub order: LiveOrder,
    /// Whether the least of them come first, and not the most.
    pub ascending: bool,
    /// In lower case: a part of the client's or the endpoint's address, of the name of the listener or the upstream, or of the
    /// name that the client asked for. Empty: any.
    pub filter: String,
}

/// By what connections are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveOrder {
    Age,
    Idle,
    Received,
    Sent,
}

/// What one worker has of what is wished for, in no order.
#[derive(Debug, Default)]
pub struct LiveShare {
    /// The first ones.
    pub connections: Vec<LiveConnection>,
    /// How many there are.
    pub matching: usize,
}

/// The answer of all workers, in the order that was wished for.
#[derive(Debug, Clone)]
pub struct LiveList {
    pub connections: Vec<LiveConnection>,
    /// How many match the filter, those beyond the limit included.
    pub matching: usize,
    /// Whether every worker answered.
    pub complete: bool,
}

/// A question, or a request, to one worker.
#[derive(Debug)]
pub enum LiveQuery {
    List {
        wish: Arc<LiveWish>,
        reply: flume::Sender<LiveShare>,
    },
    /// To close the connection with this number; the answer is whether it is there.
    Close {
        id: u64,
        reply: flume::Sender<bool>,
    },
}

/// Whether a connection was closed on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// It is ending.
    Yes,
    /// No worker has it.
    NotLive,
    /// None of the workers that answered in time has it.
    Unknown,
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

    /// Asks all workers for connections and waits for their answers, but not beyond `deadline`: any future, so that the
    /// caller's runtime keeps the time.
    pub async fn list(&self, wish: LiveWish, deadline: impl Future<Output = ()>) -> LiveList {
        let (wish, mut shares) = (Arc::new(wish), Vec::new());
        let query = |reply| LiveQuery::List { wish: Arc::clone(&wish), reply };
        let complete = self
            .ask(query, deadline, |share| {
                shares.push(share);
                false
            })
            .await;
        let matching = shares.iter().map(|share| share.matching).sum();
        let mut connections: Vec<LiveConnection> =
            shares.into_iter().flat_map(|share| share.connections).collect();
        connections.sort_by_cached_key(|connection| (wish.key(connection), connection.id));
        connections.truncate(wish.limit);
        LiveList { connections, matching, complete }
    }

    /// Asks for the end of the connection with this number.
    pub async fn close(&self, id: u64, deadline: impl Future<Output = ()>) -> Closed {
        let mut was_there = false;
        let query = |reply| LiveQuery::Close { id, reply };
        let complete = self
            .ask(query, deadline, |has_it| {
                was_there |= has_it;
                was_there
            })
            .await;
        match (was_there, complete) {
            (true, _) => Closed::Yes,
            (false, true) => Closed::NotLive,
            (false, false) => Closed::Unknown,
        }
    }

    /// Asks all workers, until `enough` of an answer or the deadline. Whether every worker answered.
    async fn ask<T>(
        &self,
        query: impl Fn(flume::Sender<T>) -> LiveQuery,
        deadline: impl Future<Output = ()>,
        mut enough: impl FnMut(T) -> bool,
    ) -> bool {
        let (reply, answers) = flume::bounded(self.inboxes.len().max(1));
        for inbox in &self.inboxes {
            // A full inbox means a worker that does not keep up; its part is missing from the answer.
            let _missing = inbox.try_send(query(reply.clone()));
        }
        drop(reply);
        let mut answered = 0;
        let mut deadline = pin!(deadline);
        while let Either::Left((Ok(answer), _)) = select(answers.recv_async(), deadline.as_mut()).await {
            answered += 1;
            if enough(answer) {
                break;
            }
        }
        answered == self.inboxes.len()
    }
}

impl LiveWish {
    /// The oldest ones, whoever they are of.
    pub fn oldest(limit: usize) -> Self {
        Self { limit, order: LiveOrder::Age, ascending: false, filter: String::new() }
    }

    /// Whether any connection will do, and they are wanted in the order in which they came.
    pub fn is_by_age(&self) -> bool {
        self.filter.is_empty() && self.order == LiveOrder::Age && !self.ascending
    }

    /// The lower, the sooner a connection comes.
    pub fn rank(&self, amount: u64) -> u64 {
        if self.ascending { amount } else { u64::MAX - amount }
    }

    fn key(&self, connection: &LiveConnection) -> u64 {
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.rank(match self.order {
            // Workers look at different moments, and numbers grow with time.
            LiveOrder::Age => u64::MAX - connection.id,
            LiveOrder::Idle => nanoseconds(connection.idle),
            LiveOrder::Received => connection.bytes_received,
            LiveOrder::Sent => connection.bytes_sent,
        })
    }
}

impl LiveOrder {
    pub const ALL: [Self; 4] = [Self::Age, Self::Idle, Self::Received, Self::Sent];

    /// As queries call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Idle => "idle",
            Self::Received => "received",
            Self::Sent => "sent",
        }
    }
}

/// Milliseconds since this process first asked: a clock that all threads share and that fits an atomic.
pub fn process_clock_ms() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}
