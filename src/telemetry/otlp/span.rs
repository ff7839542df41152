//! Spans as they are sent.

use std::fmt::Display;
use std::time::SystemTime;

use crate::telemetry::{Outcome, TraceId};

use super::nanoseconds;
use super::wire::{Message, Tag, Value};

/// Fields of `Span`.
mod field {
    use super::Tag;

    pub(super) const TRACE: Tag = 1;
    pub(super) const ID: Tag = 2;
    pub(super) const PARENT: Tag = 4;
    pub(super) const NAME: Tag = 5;
    pub(super) const KIND: Tag = 6;
    pub(super) const START: Tag = 7;
    pub(super) const END: Tag = 8;
    pub(super) const ATTRIBUTE: Tag = 9;
    pub(super) const EVENT: Tag = 11;
    pub(super) const STATUS: Tag = 15;
    pub(super) const FLAGS: Tag = 16;
}

/// Of `ScopeSpans`.
const SPANS: Tag = 2;

/// Bits of the flags: the trace is kept, and the third is known and tells whether the parent is another process'.
const SAMPLED: u32 = 0x001;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// What most traces take.
const EXPECTED_BYTES: usize = 2_048;

/// Spans that belong together, each as a field of `ScopeSpans`.
#[derive(Debug)]
pub(super) struct Spans {
    message: Message,
    count: usize,
}

/// One that is written, until it is put to the others.
pub(super) struct Span<'a> {
    fields: &'a mut Message,
    spans: &'a mut Spans,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// Which span it is, and of what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) trace: TraceId,
    pub(super) id: u64,
    pub(super) parent: Option<u64>,
    /// The parent is another process'.
    pub(super) is_parent_remote: bool,
}

impl Spans {
    pub(super) fn new() -> Self {
        Self { message: Message::with_capacity(EXPECTED_BYTES), count: 0 }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// All of them.
    pub(super) fn message(&self) -> &Message {
        &self.message
    }

    /// Begins one, which is put together in `fields`. Its name is `name`, in two parts.
    pub(super) fn begin<'a>(
        &'a mut self,
        fields: &'a mut Message,
        place: Place,
        name: (&str, &str),
        kind: Kind,
    ) -> Span<'a> {
        fields.clear();
        fields.bytes(field::TRACE, &place.trace.to_bytes());
        fields.bytes(field::ID, &place.id.to_be_bytes());
        if let Some(parent) = place.parent {
            fields.bytes(field::PARENT, &parent.to_be_bytes());
        }
        fields.joined(field::NAME, name.0, name.1);
        fields.varint(field::KIND, kind as u64);
        let remote = if place.is_parent_remote { IS_REMOTE } else { 0 };
        fields.fixed32(field::FLAGS, SAMPLED | HAS_IS_REMOTE | remote);
        Span { fields, spans: self }
    }
}

impl Span<'_> {
    pub(super) fn lasts(&mut self, from: SystemTime, to: SystemTime) {
        self.fields.fixed64(field::START, nanoseconds(from));
        self.fields.fixed64(field::END, nanoseconds(to));
    }

    pub(super) fn put<'v>(&mut self, key: &str, value: impl Into<Value<'v>>) {
        self.fields.attribute(field::ATTRIBUTE, key, value.into());
    }

    pub(super) fn show(&mut self, key: &str, value: impl Display) {
        self.fields.shown(field::ATTRIBUTE, key, value);
    }

    pub(super) fn event(&mut self, name: &str, at: SystemTime) {
        let mut event = Message::with_capacity(40);
        event.fixed64(1, nanoseconds(at));
        event.text(2, name);
        self.fields.message(field::EVENT, &event);
    }

    /// What is wrong with it, if anything is.
    pub(super) fn fail(&mut self, failure: Option<Outcome>, reason: Option<&str>) {
        const ERROR: u64 = 2;
        let Some(failure) = failure else { return };
        self.put("error.type", failure.label());
        let mut status = Message::default();
        status.text(2, reason.unwrap_or_default());
        status.varint(3, ERROR);
        self.fields.message(field::STATUS, &status);
    }

    pub(super) fn end(self) {
        self.spans.message.message(SPANS, self.fields);
        self.spans.count += 1;
    }
}
