//! A live connection as others on its worker see it: how old, how idle, how to end it.
//!
//! Single-threaded: plain cells. What ends a connection from outside (a timeout, a drain) states its verdict here and
//! shuts the sockets down; the connection's own task notices because its reads return.

mod flags;
mod permission;
mod times;
mod tls;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::proxy_protocol::{Addresses, TraceParent};
use crate::resilience::{SourcePlace, SourceRefusal};
use crate::routing::{Endpoint, EndpointState, Listener, Upstream};
use crate::telemetry::{LiveConnection, LongLived, Outcome, Parent, Side, TraceId, Via, trace_id};
use crate::worker::runtime::SocketHandle;

pub(super) use flags::Flag;
pub(super) use times::Elapsed;

use super::postgres::Asks;
use super::proxy;
use flags::Flags;
use times::Times;
use tls::LiveTls;

/// Milliseconds of the kernel's coarse clock: reading it costs a few nanoseconds, and a few milliseconds of
/// coarseness do not matter to a timeout. (And one more, so that none at all takes no more room.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CoarseTime(NonZeroU64);

/// A connection without a byte for this long is idle.
const IDLE: Duration = Duration::from_secs(1);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client to the endpoint.
    Received,
    /// From the endpoint to the client.
    Sent,
}

/// What a proxy in front said.
struct Named {
    addresses: Addresses,
    via: Arc<Via>,
    parent: Option<TraceParent>,
}

/// What it holds.
#[derive(Default)]
struct Sockets {
    downstream: Option<SocketHandle>,
    upstream: Option<SocketHandle>,
}

impl Sockets {
    fn of(&self, side: Side) -> Option<&SocketHandle> {
        match side {
            Side::Downstream => self.downstream.as_ref(),
            Side::Upstream => self.upstream.as_ref(),
            Side::Sheave => None,
        }
    }
}

pub(crate) struct Live {
    pub(crate) id: u64,
    /// Who connected: the client, or a proxy in front.
    pub(super) from: SocketAddr,
    /// What a proxy in front said; apart, because few do.
    named: OnceCell<Box<Named>>,
    /// Who accepted it; see [`Live::listener`].
    pub(crate) accepted_by: Arc<Listener>,
    pub(crate) accepted: Instant,
    opened: CoarseTime,
    /// What is known of its TLS; apart, because few speak any that is seen here.
    tls: OnceCell<Box<LiveTls>>,
    flags: Flags,
    /// Whether its endpoint is to be asked for TLS in plain text.
    pub(super) asks: Cell<Asks>,
    upstream: OnceCell<Arc<Upstream>>,
    endpoint: OnceCell<(SocketAddr, Arc<EndpointState>)>,
    last_active: Cell<CoarseTime>,
    half_closed: Cell<Option<Side>>,
    /// The last bytes went to the endpoint.
    awaits_answer: Cell<bool>,
    /// When it got its endpoint.
    connected: Cell<CoarseTime>,
    received: Cell<u64>,
    sent: Cell<u64>,
    times: Times,
    verdict: Cell<Option<Outcome>>,
    /// Its place among those of its client address, if they are counted; apart, because few are.
    source: Cell<Option<Box<SourcePlace>>>,
    /// Whose socket failed first.
    pub(super) broken: Cell<Option<Side>>,
    /// Whether bytes of the client wait for the endpoint to take them.
    pub(super) client_waits: Cell<bool>,
    /// How many of them had been taken when somebody last looked after this connection.
    pub(super) received_at_look: Cell<u64>,
    /// Its entry among the deadlines of the registry.
    pub(super) scheduled: Cell<Option<CoarseTime>>,
    sockets: RefCell<Sockets>,
}

impl CoarseTime {
    pub(crate) fn now() -> Self {
        let time = clock_gettime(ClockId::MonotonicCoarse);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let milliseconds = seconds * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000;
        Self(NonZeroU64::MIN.saturating_add(milliseconds))
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl std::ops::Add<Duration> for CoarseTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let more = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(more))
    }
}

impl Live {
    pub(super) fn new(id: u64, from: SocketAddr, listener: Arc<Listener>) -> Self {
        let now = CoarseTime::now();
        Self {
            id,
            from,
            named: OnceCell::new(),
            accepted_by: listener,
            accepted: Instant::now(),
            opened: now,
            tls: OnceCell::new(),
            flags: Flags::default(),
            asks: Cell::default(),
            upstream: OnceCell::new(),
            endpoint: OnceCell::new(),
            last_active: Cell::new(now),
            half_closed: Cell::new(None),
            awaits_answer: Cell::new(false),
            connected: Cell::new(now),
            received: Cell::new(0),
            sent: Cell::new(0),
            times: Times::default(),
            verdict: Cell::new(None),
            source: Cell::new(None),
            broken: Cell::new(None),
            client_waits: Cell::new(false),
            received_at_look: Cell::new(0),
            scheduled: Cell::new(None),
            sockets: RefCell::default(),
        }
    }

    /// As far as is known.
    pub(crate) fn client(&self) -> SocketAddr {
        self.named.get().map_or(self.from, |named| named.addresses.source)
    }

    /// What a proxy in front said of the client.
    pub(super) fn named(&self) -> Option<&Addresses> {
        self.named.get().map(|named| &named.addresses)
    }

    /// The proxy in front that named the client.
    pub(super) fn via(&self) -> Option<Arc<Via>> {
        self.named.get().map(|named| Arc::clone(&named.via))
    }

    /// A proxy in front says who the client is, and whose trace it belongs to.
    pub(super) fn introduce(&self, named: Addresses, parent: Option<TraceParent>) {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let Addresses { source, destination } = named;
        let addresses = Addresses { source: canonical(source), destination: canonical(destination) };
        let via = Arc::new(Via { proxy: self.from, destination: addresses.destination });
        let _set_once = self.named.set(Box::new(Named { addresses, via, parent }));
    }

    /// The trace that it belongs to: its own, or that of who said so.
    pub(super) fn trace(&self) -> TraceId {
        self.parent_of().map_or_else(|| trace_id(self.id), |parent| TraceId::new(parent.trace))
    }

    /// What it is a part of in that trace.
    pub(super) fn parent(&self) -> Option<Parent> {
        self.parent_of().map(|parent| Parent { span: parent.span, is_sampled: parent.is_sampled })
    }

    fn parent_of(&self) -> Option<TraceParent> {
        self.named.get()?.parent
    }

    pub(super) fn attach_downstream(&self, socket: SocketHandle) {
        self.sockets.borrow_mut().downstream = Some(socket);
    }

    pub(super) fn with_downstream<T>(&self, look: impl FnOnce(&SocketHandle) -> T) -> Option<T> {
        self.sockets.borrow().downstream.as_ref().map(look)
    }

    /// Resets the endpoint's connection; reads and writes that wait there return.
    pub(super) fn abort_upstream(&self) {
        if let Some(upstream) = &self.sockets.borrow().upstream {
            upstream.abort();
        }
    }

    /// From now on the connection has an endpoint.
    pub(super) fn attach_upstream(&self, endpoint: &Endpoint, socket: SocketHandle) {
        let _set_once = self.endpoint.set((endpoint.address, Arc::clone(&endpoint.state)));
        self.sockets.borrow_mut().upstream = Some(socket);
        self.connected.set(CoarseTime::now());
        self.last_active.set(self.connected.get());
    }

    /// Asks whether its client may have another connection, and counts it if so.
    pub(super) fn enter_source(&self) -> Result<(), SourceRefusal> {
        if let Some(place) = self.accepted_by.enter_source(self.client().ip(), self.accepted)? {
            self.source.set(Some(Box::new(place)));
        }
        Ok(())
    }

    /// Counts it for its client where that begins with `listener`, the successor of its own. One that is yet to be
    /// admitted counts itself.
    pub(crate) fn count_source(&self, listener: &Listener) {
        // Who may be yet to say who its client is cannot be counted.
        let speaks_for_others = |proxy| proxy::is_trusted(proxy, self.from.ip());
        let is_early = self.accepted_by.sources.is_some()
            || self.accepted_by.proxy.as_ref().is_some_and(speaks_for_others);
        let counts = self.upstream.get().is_some() || !is_early;
        let place = self.source.take().or_else(|| {
            let place = counts.then(|| listener.count_source(self.client().ip(), self.accepted));
            place.flatten().map(Box::new)
        });
        self.source.set(place);
    }

    pub(super) fn set_upstream(&self, upstream: &Arc<Upstream>) {
        let _set_once = self.upstream.set(Arc::clone(upstream));
    }

    pub(crate) fn upstream(&self) -> Option<&Arc<Upstream>> {
        self.upstream.get()
    }

    pub(crate) fn endpoint(&self) -> Option<SocketAddr> {
        self.endpoint.get().map(|(address, _)| *address)
    }

    pub(crate) fn endpoint_state(&self) -> Option<&EndpointState> {
        self.endpoint.get().map(|(_, state)| &**state)
    }

    /// Bytes were read that go this way.
    pub(super) fn arrived(&self, direction: Direction) {
        if self.note_bytes(direction)
            && let (Direction::Sent, Some(endpoint)) = (direction, self.endpoint_state())
        {
            endpoint.ejection.succeeded();
            if let Some(took) = self.waited_for_answer() {
                endpoint.latency.answered(took, Instant::now());
            }
        }
    }

    /// Bytes were handed on this way: the connection is alive.
    pub(super) fn moved(&self, direction: Direction, bytes: u64) {
        let total = match direction {
            Direction::Received => &self.received,
            Direction::Sent => &self.sent,
        };
        total.set(total.get() + bytes);
        self.awaits_answer.set(direction == Direction::Received);
        self.last_active.set(CoarseTime::now());
    }

    pub(super) fn bytes(&self, direction: Direction) -> u64 {
        match direction {
            Direction::Received => self.received.get(),
            Direction::Sent => self.sent.get(),
        }
    }

    /// This side's stream has ended.
    pub(super) fn half_close(&self, side: Side) {
        self.half_closed.set(self.half_closed.get().or(Some(side)));
        self.last_active.set(CoarseTime::now());
    }

    /// Whose stream has ended, if one has; the first of them.
    pub(super) fn ended_first(&self) -> Option<Side> {
        self.half_closed.get()
    }

    /// Ends the connection from outside its task. The first verdict stands.
    pub(crate) fn end(&self, outcome: Outcome) {
        if self.verdict.get().is_none() {
            self.verdict.set(Some(outcome));
        }
        let sockets = self.sockets.borrow();
        if let Some(tls) = self.tls.get() {
            for (side, secure) in &*tls.sides.borrow() {
                let _not_yet = sockets.of(*side).map(|socket| secure.say_goodbye(socket));
            }
        }
        match (&sockets.downstream, &sockets.upstream) {
            // Nobody has answered yet, and a FIN would look like an answer.
            (Some(downstream), None) => downstream.abort(),
            (downstream, upstream) => downstream.iter().chain(upstream).for_each(SocketHandle::shutdown),
        }
    }

    /// Whether somebody has ended it from outside.
    pub(crate) fn is_ending(&self) -> bool {
        self.verdict.get().is_some()
    }

    /// Why it was ended from outside, if it was.
    pub(super) fn verdict(&self) -> Option<Outcome> {
        self.verdict.get()
    }

    /// Whether its listener or its endpoint has left the table.
    pub(crate) fn has_to_leave(&self) -> bool {
        self.leave_by().is_some()
    }

    /// When it has to be gone because its listener or endpoint left the table.
    fn leave_by(&self) -> Option<CoarseTime> {
        let listener = self.listener().state.leave_by();
        let endpoint = self.endpoint_state().and_then(EndpointState::leave_by);
        let by = listener.into_iter().chain(endpoint).min()?;
        Some(self.opened + by.saturating_duration_since(self.accepted))
    }

    /// Whether the endpoint has to speak next, as far as bytes tell.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.awaits_answer.get()
    }

    pub(crate) fn idle_for(&self, now: CoarseTime) -> Duration {
        now.since(self.last_active.get())
    }

    /// Whether closing it now would hurt more than closing another: it waits for an answer, or had a byte a moment ago.
    pub(crate) fn is_busy(&self, now: CoarseTime) -> bool {
        self.awaits_answer() || self.idle_for(now) < IDLE
    }

    /// The next moment at which a timeout may be over, and the outcome if it then is.
    pub(super) fn deadline(&self) -> Option<(CoarseTime, Outcome)> {
        let listener = &self.listener().timeouts;
        let upstream = self.upstream.get().map(|upstream| &upstream.timeouts);
        let shorter = |one: Option<Duration>, other: Option<Duration>| match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let active = self.last_active.get();
        let idle = shorter(listener.idle, upstream.and_then(|timeouts| timeouts.idle));
        let upstream_max = upstream.and_then(|timeouts| timeouts.max_duration);
        let handshake = self.is(Flag::ShakesHands).then(|| self.opened + listener.tls_handshake);
        let half_close = listener.half_close.filter(|_| self.half_closed.get().is_some());
        [
            self.leave_by().map(|by| (by, Outcome::TableRemoved)),
            handshake.map(|by| (by, Outcome::TlsHandshakeTimeout)),
            listener.max_duration.map(|max| (self.opened + self.spread(max), Outcome::MaxDuration)),
            upstream_max.map(|max| (self.connected.get() + self.spread(max), Outcome::MaxDuration)),
            half_close.map(|half_close| (active + half_close, Outcome::HalfCloseTimeout)),
            idle.map(|idle| (active + idle, Outcome::IdleTimeout)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(deadline, _)| *deadline)
    }

    /// Up to a tenth less, so that connections that were made together do not all come back together.
    fn spread(&self, max: Duration) -> Duration {
        // Fibonacci hashing: neighbours end far apart.
        let hash = self.id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
        max - max.mul_f64(f64::from(u32::try_from(hash).unwrap_or(0)) / f64::from(1 << 16) / 10.0)
    }

    pub(super) fn snapshot(&self, worker: usize, now: CoarseTime) -> LiveConnection {
        LiveConnection {
            id: self.id,
            worker,
            client: self.client(),
            listener: self.listener().name.clone(),
            server_name: self.server_name().map(Into::into),
            upstream: self.upstream.get().map(|upstream| upstream.name.clone()),
            endpoint: self.endpoint(),
            age: self.accepted.elapsed(),
            idle: self.idle_for(now),
            bytes_received: self.received.get(),
            bytes_sent: self.sent.get(),
        }
    }

    /// What it has done, of which the last `interval` is told.
    pub(super) fn long_lived(&self, interval: Duration) -> LongLived {
        let to = SystemTime::now();
        LongLived {
            id: self.id,
            trace: self.trace(),
            client: self.client(),
            listener: self.listener().name.clone(),
            upstream: self.upstream.get().map(|upstream| upstream.name.clone()),
            endpoint: self.endpoint(),
            bytes_received: self.received.get(),
            bytes_sent: self.sent.get(),
            idle: self.idle_for(CoarseTime::now()),
            from: to.checked_sub(interval).unwrap_or(to),
            to,
        }
    }

    /// Lets go of the sockets, so that they close with the connection's task, and of what it was counted for.
    pub(super) fn detach(&self) {
        drop(self.source.take());
        drop(self.tls.get().and_then(|tls| tls.place.take()));
        self.sockets.take();
        if let Some(tls) = self.tls.get() {
            tls.sides.borrow_mut().clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::routing::{Findings, RouteTable, compile};

    #[test]
    fn ends_of_old_age_are_spread_over_a_tenth() {
        let text = "listeners: [{name: a, address: \"127.0.0.1:1\"}]\n\
                    routes: [{name: a, listener: a, backendRefs: [{upstream: a}]}]\n\
                    upstreams: [{name: a, endpoints: [{address: \"127.0.0.1:2\"}]}]\n";
        let config = Config::parse(text, "test").unwrap();
        let table = compile(&config, &Findings::default(), &RouteTable::empty(), Instant::now());
        let max = Duration::from_secs(1_000);
        let ends: Vec<Duration> = (1..=1_000)
            .map(|id| {
                Live::new(id, "127.0.0.1:3".parse().unwrap(), Arc::clone(&table.listeners[0])).spread(max)
            })
            .collect();
        assert!(ends.iter().all(|end| (Duration::from_secs(900)..=max).contains(end)));
        for second in (900..1_000).step_by(10) {
            let tenth = Duration::from_secs(second)..Duration::from_secs(second + 10);
            let ends = ends.iter().filter(|end| tenth.contains(*end)).count();
            assert!((80..=120).contains(&ends), "{ends} of 1000 from {second} s");
        }
    }
}
