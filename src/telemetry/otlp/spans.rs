//! From a connection's record to its spans. Pure.
//!
//! The root is the connection; below it are its phases, each from the record's own times, so that trace and access log
//! say the same. A failure that another attempt made good is the attempt's, not the connection's.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::attributes::Attributes;
use crate::telemetry::{Attempt, ConnectionRecord, LongLived, Outcome, identity};

/// The trace of a connection that ended.
pub(super) fn of_ended(record: &ConnectionRecord, scope: &InstrumentationScope) -> Vec<SpanData> {
    let mut trace = Trace::new(record, scope);
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
pub(super) fn of_long_lived(connection: &LongLived, scope: &InstrumentationScope) -> SpanData {
    let trace = TraceId::from_bytes(connection.trace.to_bytes());
    // Another one for each part, beyond those that its end will have.
    let part = connection.to.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let part = usize::try_from(part).unwrap_or(usize::MAX);
    let span = SpanId::from(identity::child_span_id(connection.id, part));
    SpanData {
        span_context: SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: SpanId::from(identity::span_id(connection.id)),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: format!("tcp {} (live)", connection.listener).into(),
        start_time: connection.from,
        end_time: connection.to,
        attributes: Attributes::of_long_lived(connection).into_vec(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope.clone(),
    }
}

struct Trace<'a> {
    record: &'a ConnectionRecord,
    scope: &'a InstrumentationScope,
    root: SpanId,
    spans: Vec<SpanData>,
}

/// A span's place in the time of its connection.
type Time = (Duration, Duration);

impl<'a> Trace<'a> {
    fn new(record: &'a ConnectionRecord, scope: &'a InstrumentationScope) -> Self {
        let root = SpanId::from(identity::span_id(record.id));
        // Root, handshake, route and relay beside the attempts.
        let spans = Vec::with_capacity(record.attempts.len() + 4);
        Self { record, scope, root, spans }
    }

    fn connection(&mut self) {
        let record = self.record;
        let time = (Duration::ZERO, record.timeline.ended);
        let name = format!("tcp {}", record.listener);
        let attributes = Attributes::of_connection(record);
        let reason = record.tls.as_deref().and_then(|tls| tls.failure.as_deref());
        let failure = self.failure();
        let span = self.add(SpanId::INVALID, name, SpanKind::Server, time, attributes);
        span.span_context = with_id(span, identity::span_id(record.id));
        if let Some(parent) = record.parent {
            span.parent_span_id = SpanId::from(parent.span);
            span.parent_span_is_remote = true;
        }
        fail(span, failure, reason);
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
        let span = self.child("proxy header", time, Attributes::new());
        fail(span, failure, None);
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
        let mut attributes = Attributes::new();
        if let Some(made) = made {
            attributes.negotiated(made);
        }
        let reason = tls.and_then(|tls| tls.failure.as_deref());
        let failure = failure.filter(|_| is_under_way);
        let time = (begun, ended.unwrap_or(record.timeline.ended));
        let span = self.child(name, time, attributes);
        fail(span, failure, reason);
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
        let mut attributes = Attributes::new();
        attributes.route(record);
        let failure = self.failure().filter(|_| record.attempts.is_empty());
        let span = self.child("route", time, attributes);
        fail(span, failure, None);
    }

    fn attempt(&mut self, index: usize, attempt: &Attempt) {
        let record = self.record;
        let hedged = record.attempts.iter().any(|other| is_hedge(attempt, other));
        let attributes = Attributes::of_attempt(record, attempt, index + 1, hedged);
        let upstream = record.upstream.as_deref().unwrap_or("endpoint");
        let (name, time) = (format!("connect {upstream}"), (attempt.started, attempt.ended));
        let root = self.root;
        let span = self.add(root, name, SpanKind::Client, time, attributes);
        // Who was outpaced, or whose client left, has not failed.
        let failure = attempt.failure.filter(|failure| failure.is_error() && *failure != Outcome::Outpaced);
        fail(span, failure, attempt.reason.as_deref());
        let parent = span.span_context.span_id();
        let Some(connected) = attempt.handshake_started else { return };
        let mut attributes = Attributes::new();
        let made = record.tls.as_deref().and_then(|tls| tls.upstream.as_ref());
        if let Some(made) = made.filter(|_| attempt.failure.is_none()) {
            attributes.negotiated(made);
        }
        let time = (connected, attempt.ended);
        let span = self.add(parent, "tls handshake", SpanKind::Internal, time, attributes);
        fail(span, failure, attempt.reason.as_deref());
    }

    /// From having an endpoint to the end.
    fn relay(&mut self) {
        let record = self.record;
        let timeline = &record.timeline;
        let (Some(_), Some(begun)) = (record.endpoint, timeline.connect_ended) else { return };
        let mut attributes = Attributes::new();
        attributes.bytes(record);
        let failure = self.failure();
        let event = |name: &'static str, at: Option<Duration>| {
            Some(Event::new(name, timeline.accepted + at?, Vec::new(), 0))
        };
        let events = [
            event("first_byte_downstream", timeline.first_byte_downstream),
            event("first_byte_upstream", timeline.first_byte_upstream),
            event("half_close_downstream", timeline.half_close_downstream),
            event("half_close_upstream", timeline.half_close_upstream),
        ];
        let span = self.child("relay", (begun, timeline.ended), attributes);
        span.events.events.extend(events.into_iter().flatten());
        span.events.events.sort_by_key(|event| event.timestamp);
        fail(span, failure, None);
    }

    /// The time in which it was to end.
    fn drain(&mut self) {
        let timeline = &self.record.timeline;
        if let Some(begun) = timeline.drain_started {
            self.child("drain", (begun, timeline.ended), Attributes::new());
        }
    }

    /// What is wrong with the connection as a whole.
    fn failure(&self) -> Option<Outcome> {
        Some(self.record.outcome).filter(|outcome| outcome.is_error())
    }

    fn child(&mut self, name: &'static str, time: Time, attributes: Attributes) -> &mut SpanData {
        self.add(self.root, name, SpanKind::Internal, time, attributes)
    }

    fn add(
        &mut self,
        parent: SpanId,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        (started, ended): Time,
        attributes: Attributes,
    ) -> &mut SpanData {
        let record = self.record;
        let trace = TraceId::from_bytes(record.trace.to_bytes());
        let span = SpanId::from(identity::child_span_id(record.id, self.spans.len()));
        let accepted = record.timeline.accepted;
        let index = self.spans.len();
        self.spans.push(SpanData {
            span_context: SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id: parent,
            parent_span_is_remote: false,
            span_kind: kind,
            name: name.into(),
            start_time: accepted + started,
            end_time: accepted + ended.max(started),
            attributes: attributes.into_vec(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        });
        &mut self.spans[index]
    }
}

fn with_id(span: &SpanData, id: u64) -> SpanContext {
    let trace = span.span_context.trace_id();
    SpanContext::new(trace, SpanId::from(id), TraceFlags::SAMPLED, false, TraceState::NONE)
}

/// Whether `attempt` began beside `other`.
fn is_hedge(attempt: &Attempt, other: &Attempt) -> bool {
    other.started < attempt.started && attempt.started < other.ended
}

fn fail(span: &mut SpanData, failure: Option<Outcome>, reason: Option<&str>) {
    if let Some(failure) = failure {
        span.attributes.push(KeyValue::new("error.type", failure.label()));
        span.status = Status::error(reason.unwrap_or_default().to_owned());
    }
}

#[cfg(test)]
mod tests;
