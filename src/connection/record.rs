//! Gathers what a connection's record will say, and writes it exactly once.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::config::Name;
use crate::routing::{Endpoint, Route, Upstream};
use crate::telemetry::{Attempt, ConnectionRecord, Outcome, Report, Timeline, Wants, WorkerCounters};
use crate::worker::runtime::SocketHandle;

use super::live::{Direction, Elapsed, Flag};
use super::{Context, Live};

/// Lives as long as the connection's task. Dropped without a verdict (a panic, a task that is dropped), it still
/// writes the record: outcome `internal`.
pub(super) struct Recorder {
    context: Rc<Context>,
    live: Rc<Live>,
    proxy_ended: Option<Elapsed>,
    route: Option<Name>,
    routed: Option<Elapsed>,
    connect_started: Option<Elapsed>,
    connect_ended: Option<Elapsed>,
    attempts: Vec<Attempt>,
    outcome: Outcome,
}

impl Recorder {
    pub(super) fn new(context: Rc<Context>, live: Rc<Live>) -> Self {
        Self {
            context,
            live,
            proxy_ended: None,
            route: None,
            routed: None,
            connect_started: None,
            connect_ended: None,
            attempts: Vec::new(),
            outcome: Outcome::Internal,
        }
    }

    /// No header of the PROXY protocol is waited for any more.
    pub(super) fn introduced(&mut self) {
        self.proxy_ended = Some(self.live.elapsed_at(Instant::now()));
    }

    pub(super) fn routed(&mut self, route: &Route, upstream: &Arc<Upstream>) {
        self.route = Some(route.name.clone());
        self.routed = Some(self.live.elapsed_at(Instant::now()));
        self.live.set_upstream(upstream);
    }

    /// One attempt has ended, connected by this socket or failed.
    pub(super) fn attempted(
        &mut self,
        endpoint: &Endpoint,
        started: Instant,
        result: Result<&SocketHandle, Outcome>,
    ) {
        let at = |instant| self.live.elapsed_at(instant);
        let (started, ended, failure) = (at(started), at(Instant::now()), result.err());
        // Of two at once, the one that began later may end first; and who was outpaced ends when it is connected already.
        self.connect_started = Some(self.connect_started.map_or(started, |first| first.min(started)));
        if failure != Some(Outcome::Outpaced) {
            self.connect_ended = Some(ended);
        }
        let socket = result.ok().filter(|_| self.context.sampling.trace.is_on());
        let attempt = Attempt {
            endpoint: endpoint.address,
            pod: endpoint.pod.clone(),
            local: socket.and_then(SocketHandle::local_address).map(Box::new),
            started: started.get(),
            handshake_started: self
                .live
                .take_handshake(endpoint.address)
                .map(|at| self.live.elapsed_at(at).get()),
            ended: ended.get(),
            failure,
            reason: failure.and_then(|_| self.live.take_failure()),
        };
        if self.attempts.is_empty() {
            // Most connections have one, and keep it as long as they live.
            self.attempts.reserve_exact(1);
        }
        self.attempts.push(attempt);
        if self.attempts.len() > 1 || self.context.sampling.is_slow(ended.get()) {
            self.live.set(Flag::IsNotable, true);
        }
    }

    /// When it got its endpoint.
    pub(super) fn connected_at(&self) -> Option<Instant> {
        let ended = self.connect_ended.filter(|_| self.live.endpoint().is_some())?;
        Some(self.live.accepted + ended.get())
    }

    /// How it ended. The record is written when the recorder is dropped, right after.
    pub(super) fn finish(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    fn record(&mut self) -> ConnectionRecord {
        let live = &self.live;
        let ended = live.accepted.elapsed();
        ConnectionRecord {
            id: live.id,
            trace: live.trace(),
            parent: live.parent(),
            wants: Wants::default(),
            worker: self.context.worker,
            client: live.client(),
            via: live.via(),
            local: live.local(),
            listener: live.listener().name.clone(),
            route: self.route.take(),
            upstream: live.upstream().map(|upstream| upstream.name.clone()),
            service: live.upstream().and_then(|upstream| upstream.service.clone()),
            endpoint: live.endpoint(),
            attempts: std::mem::take(&mut self.attempts),
            bytes_received: live.bytes(Direction::Received),
            bytes_sent: live.bytes(Direction::Sent),
            tls: live.take_tls(),
            timeline: Timeline {
                // Kept nowhere, as every connection would have to.
                accepted: SystemTime::now().checked_sub(ended).unwrap_or(SystemTime::UNIX_EPOCH),
                proxy_ended: self.proxy_ended.map(Elapsed::get),
                routed: self.routed.map(Elapsed::get),
                connect_started: self.connect_started.map(Elapsed::get),
                connect_ended: self.connect_ended.map(Elapsed::get),
                first_byte_downstream: live.first_byte(Direction::Received),
                first_byte_upstream: live.first_byte(Direction::Sent),
                half_close_downstream: live.end_passed_on(Direction::Received),
                half_close_upstream: live.end_passed_on(Direction::Sent),
                drain_started: live.to_end_since(self.context.draining_since.get()),
                ended,
            },
            // Who ended it from outside knows why; all the task itself has seen is sockets that were shut down.
            outcome: live.verdict().unwrap_or(self.outcome),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let mut record = self.record();
        let context = &self.context;
        record.wants = context.sampling.wants(&record);
        context.registry.close(&self.live);
        context.counters.enter(&record);
        if record.wants.any() && context.records.try_send(Report::Ended(record)).is_err() {
            WorkerCounters::add(&context.counters.records_dropped, 1);
        }
    }
}
