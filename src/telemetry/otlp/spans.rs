//! From a connection's record to its spans. Pure.
//!
//! The root is the connection; below it are its phases, each from the record's own times, so that trace and access log
//! say the same. A failure that another attempt made good is the attempt's, not the connection's.

use std::time::{Duration, SystemTime};

use crate::telemetry::{Attempt, ConnectionRecord, LongLived, Outcome, identity};

use super::attributes;
use super::span::{Kind, Place, Span, Spans};
use super::wire::Message;

/// The trace of a connection that ended. Its spans are put together in `fields`.
pub(super) fn of_ended(record: &ConnectionRecord, fields: &mut Message) -> Spans {
    let root = identity::span_id(record.id);
    let mut trace = Trace { record, root, fields, spans: Spans::new() };
    trace.connection();
    trace.proxy_header();
    trace.handshake();
    trace.route();
    for (index, attempt) in record.attempts.iter().enumerate() {
        trace.attempt(index, attempt);
    }
    trace.relay();
    trace.drain();
    trace.spans
}

/// A part of the life of a connection that goes on.
pub(super) fn of_long_lived(connection: &LongLived, fields: &mut Message) -> Spans {
    // Another one for each part, beyond those that its end will have.
    let part = connection.to.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let part = usize::try_from(part).unwrap_or(usize::MAX);
    let place = Place {
        trace: connection.trace,
        id: identity::child_span_id(connection.id, part),
        parent: Some(identity::span_id(connection.id)),
        is_parent_remote: false,
    };
    let mut spans = Spans::new();
    let name = format!("tcp {} (live)", connection.listener);
    let mut span = spans.begin(fields, place, (&name, ""), Kind::Internal);
    span.lasts(connection.from, connection.to);
    attributes::of_long_lived(&mut span, connection);
    span.end();
    spans
}

struct Trace<'a> {
    record: &'a ConnectionRecord,
    root: u64,
    /// Of the span that is written.
    fields: &'a mut Message,
    spans: Spans,
}

/// A span's place in the time of its connection.
type Time = (Duration, Duration);

impl Trace<'_> {
    fn connection(&mut self) {
        let record = self.record;
        let place = Place {
            trace: record.trace,
            id: self.root,
            parent: record.parent.map(|parent| parent.span),
            is_parent_remote: record.parent.is_some(),
        };
        let failure = self.failure();
        let mut span = self.spans.begin(self.fields, place, ("tcp ", &record.listener), Kind::Server);
        span.lasts(record.timeline.accepted, record.timeline.accepted + record.timeline.ended);
        attributes::of_connection(&mut span, record);
        span.fail(failure, record.tls.as_deref().and_then(|tls| tls.failure.as_deref()));
        span.end();
    }

    /// Until it was known who the client is.
    fn proxy_header(&mut self) {
        use Outcome::{ProxyHeaderInvalid, ProxyHeaderTimeout, ProxyHeaderUntrusted};
        let timeline = &self.record.timeline;
        let failures = [ProxyHeaderInvalid, ProxyHeaderTimeout, ProxyHeaderUntrusted];
        let failure = failures.contains(&self.record.outcome).then_some(self.record.outcome);
        let ended = timeline.proxy_ended.or_else(|| failure.map(|_| timeline.ended));
        let Some(ended) = ended else { return };
        let time = (Duration::ZERO, ended);
        let mut span = self.child("proxy header", time);
        span.fail(failure, None);
        span.end();
    }

    /// The client's TLS handshake, or its ClientHello, where TLS ends elsewhere.
    fn handshake(&mut self) {
        let record = self.record;
        let begun = record.timeline.proxy_ended.unwrap_or_default();
        let tls = record.tls.as_deref();
        let ended = tls.and_then(|tls| tls.handshake_ended);
        let failure = record.outcome.is_of_handshake().then_some(record.outcome);
        // Without an attempt: those that have one have ended it.
        let is_under_way = ended.is_none() && record.attempts.is_empty();
        let is_begun = failure.is_some() || tls.is_some();
        if ended.is_none() && !(is_under_way && is_begun) {
            return;
        }
        let made = tls.and_then(|tls| tls.downstream.as_ref());
        let is_passed_through = ended.is_some() && made.is_none();
        let name = if is_passed_through { "client hello" } else { "tls handshake" };
        let mut span = self.child(name, (begun, ended.unwrap_or(record.timeline.ended)));
        if let Some(made) = made {
            attributes::negotiated(&mut span, made);
        }
        let failure = failure.filter(|_| is_under_way);
        span.fail(failure, tls.and_then(|tls| tls.failure.as_deref()));
        span.end();
    }

    /// From knowing the client until its first endpoint was chosen, with the wait for a place.
    fn route(&mut self) {
        let record = self.record;
        let timeline = &record.timeline;
        let is_refused = record.outcome == Outcome::NoRoute;
        if timeline.routed.is_none() && !is_refused {
            return;
        }
        let handshake = record.tls.as_deref().and_then(|tls| tls.handshake_ended);
        let begun = handshake.or(timeline.proxy_ended).unwrap_or_default();
        // Who was refused within the handshake was so at its end.
        let begun = if is_refused && record.tls.is_some() { timeline.ended } else { begun };
        let time = (begun, timeline.connect_started.unwrap_or(timeline.ended));
        let failure = self.failure().filter(|_| record.attempts.is_empty());
        let mut span = self.child("route", time);
        attributes::route(&mut span, record);
        span.fail(failure, None);
        span.end();
    }

    fn attempt(&mut self, index: usize, attempt: &Attempt) {
        let record = self.record;
        let hedged = record.attempts.iter().any(|other| is_hedge(attempt, other));
        let upstream = record.upstream.as_deref().unwrap_or("endpoint");
        // Who was outpaced, or whose client left, has not failed.
        let failure = attempt.failure.filter(|failure| failure.is_error() && *failure != Outcome::Outpaced);
        let (name, time) = (("connect ", upstream), (attempt.started, attempt.ended));
        let parent = self.next_id();
        let mut span = self.begin(self.root, name, Kind::Client, time);
        attributes::of_attempt(&mut span, record, attempt, index + 1, hedged);
        span.fail(failure, attempt.reason.as_deref());
        span.end();
        let Some(connected) = attempt.handshake_started else { return };
        let made = record.tls.as_deref().and_then(|tls| tls.upstream.as_ref());
        let time = (connected, attempt.ended);
        let mut span = self.begin(parent, ("tls handshake", ""), Kind::Internal, time);
        if let Some(made) = made.filter(|_| attempt.failure.is_none()) {
            attributes::negotiated(&mut span, made);
        }
        span.fail(failure, attempt.reason.as_deref());
        span.end();
    }

    /// From having an endpoint to the end.
    fn relay(&mut self) {
        let record = self.record;
        let timeline = &record.timeline;
        let (Some(_), Some(begun)) = (record.endpoint, timeline.connect_ended) else { return };
        let failure = self.failure();
        let mut events = [
            ("first_byte_downstream", timeline.first_byte_downstream),
            ("first_byte_upstream", timeline.first_byte_upstream),
            ("half_close_downstream", timeline.half_close_downstream),
            ("half_close_upstream", timeline.half_close_upstream),
        ];
        events.sort_by_key(|(_, at)| *at);
        let mut span = self.child("relay", (begun, timeline.ended));
        attributes::bytes(&mut span, record);
        for (name, at) in events {
            if let Some(at) = at {
                span.event(name, timeline.accepted + at);
            }
        }
        span.fail(failure, None);
        span.end();
    }

    /// The time in which it was to end.
    fn drain(&mut self) {
        let timeline = &self.record.timeline;
        if let Some(begun) = timeline.drain_started {
            self.child("drain", (begun, timeline.ended)).end();
        }
    }

    /// What is wrong with the connection as a whole.
    fn failure(&self) -> Option<Outcome> {
        Some(self.record.outcome).filter(|outcome| outcome.is_error())
    }

    fn child(&mut self, name: &str, time: Time) -> Span<'_> {
        self.begin(self.root, (name, ""), Kind::Internal, time)
    }

    fn begin(&mut self, parent: u64, name: (&str, &str), kind: Kind, (started, ended): Time) -> Span<'_> {
        let (id, parent) = (self.next_id(), Some(parent));
        let place = Place { trace: self.record.trace, id, parent, is_parent_remote: false };
        let mut span = self.spans.begin(self.fields, place, name, kind);
        let accepted = self.record.timeline.accepted;
        span.lasts(accepted + started, accepted + ended.max(started));
        span
    }

    /// Of the span that begins next.
    fn next_id(&self) -> u64 {
        identity::child_span_id(self.record.id, self.spans.count())
    }
}

/// Whether `attempt` began beside `other`.
fn is_hedge(attempt: &Attempt, other: &Attempt) -> bool {
    other.started < attempt.started && attempt.started < other.ended
}

#[cfg(test)]
mod tests;
