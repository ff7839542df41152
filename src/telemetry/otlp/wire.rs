//! Messages of protobuf, written field by field.
//!
//! Spans are the bulk of what is sent, a connection has four or more of them with some fifty attributes, and a message of
//! generated types costs an allocation for each name and value, and several passes over all of them. Numbers of fields are those
//! of <https://github.com/open-telemetry/opentelemetry-proto>; tests read what is written here by its generated types.

use std::fmt::{Display, Write};

use prost::encoding::{WireType, encode_varint, encoded_len_varint};

/// The number of a field in its message.
pub(super) type Tag = u32;

/// The fields of a message.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    bytes: Vec<u8>,
    /// For text that is made for a field.
    text: String,
}

/// What an attribute says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Whole(i64),
    Flag(bool),
}

impl Message {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), text: String::new() }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds the fields of `other`.
    pub(super) fn extend(&mut self, other: &Self) {
        self.bytes.extend_from_slice(&other.bytes);
    }

    pub(super) fn bytes(&mut self, tag: Tag, bytes: &[u8]) {
        self.begin(tag, bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, tag: Tag, text: &str) {
        self.bytes(tag, text.as_bytes());
    }

    /// `start` and `end` as one text.
    pub(super) fn joined(&mut self, tag: Tag, start: &str, end: &str) {
        self.begin(tag, start.len() + end.len());
        self.bytes.extend_from_slice(start.as_bytes());
        self.bytes.extend_from_slice(end.as_bytes());
    }

    /// A number that is small most of the time, or one of an enumeration.
    pub(super) fn varint(&mut self, tag: Tag, number: u64) {
        self.key(tag, WireType::Varint);
        self.number(number);
    }

    pub(super) fn fixed64(&mut self, tag: Tag, number: u64) {
        self.key(tag, WireType::SixtyFourBit);
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    pub(super) fn fixed32(&mut self, tag: Tag, number: u32) {
        self.key(tag, WireType::ThirtyTwoBit);
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    pub(super) fn message(&mut self, tag: Tag, message: &Self) {
        self.bytes(tag, &message.bytes);
    }

    /// A `KeyValue`.
    pub(super) fn attribute(&mut self, tag: Tag, key: &str, value: Value<'_>) {
        let value_len = value.encoded_len();
        self.begin(tag, with_header(key.len()) + with_header(value_len));
        self.text(1, key);
        self.begin(2, value_len);
        match value {
            Value::Text(text) => self.text(1, text),
            Value::Flag(flag) => self.varint(2, flag.into()),
            Value::Whole(number) => self.varint(3, number.cast_unsigned()),
        }
    }

    /// A `KeyValue` whose value is text that is yet to be made.
    pub(super) fn shown(&mut self, tag: Tag, key: &str, value: impl Display) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let _infallible = write!(text, "{value}");
        self.attribute(tag, key, Value::Text(&text));
        self.text = text;
    }

    /// What is written next, of this length, is the field's.
    pub(super) fn begin(&mut self, tag: Tag, len: usize) {
        self.key(tag, WireType::LengthDelimited);
        self.number(len as u64);
    }

    fn key(&mut self, tag: Tag, wire_type: WireType) {
        self.number(u64::from(tag << 3 | wire_type as u32));
    }

    /// Most are below 128, and then take a byte.
    #[inline]
    fn number(&mut self, number: u64) {
        match u8::try_from(number) {
            Ok(byte) if byte < 0x80 => self.bytes.push(byte),
            _ => encode_varint(number, &mut self.bytes),
        }
    }
}

/// What a field of this length takes whose number is below 16, as all are that are written here but one.
pub(super) fn with_header(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

impl Value<'_> {
    /// Of the `AnyValue` that it becomes.
    fn encoded_len(self) -> usize {
        match self {
            Self::Text(text) => with_header(text.len()),
            Self::Whole(number) => 1 + encoded_len_varint(number.cast_unsigned()),
            Self::Flag(_) => 2,
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<u16> for Value<'_> {
    fn from(number: u16) -> Self {
        Self::Whole(number.into())
    }
}

/// OTLP has signed numbers only.
impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message as _;

    /// Lengths around which what says them grows by a byte, and numbers at their ends.
    #[test]
    fn generated_types_read_every_attribute() {
        let lengths = [0, 1, 100, 120, 126, 127, 128, 16_370, 16_383, 16_384, 40_000];
        for (key, text) in
            lengths.iter().flat_map(|key| lengths.map(|text| ("k".repeat(*key), "t".repeat(text))))
        {
            let mut span = Message::default();
            span.attribute(9, &key, Value::Text(&text));
            let mut expected = vec![attribute(&key, any_value::Value::StringValue(text))];
            for number in [i64::MIN, -1, 0, 1, 127, 128, i64::MAX] {
                span.attribute(9, &key, Value::Whole(number));
                expected.push(attribute(&key, any_value::Value::IntValue(number)));
                span.shown(9, &key, number);
                expected.push(attribute(&key, any_value::Value::StringValue(number.to_string())));
            }
            for flag in [true, false] {
                span.attribute(9, &key, Value::Flag(flag));
                expected.push(attribute(&key, any_value::Value::BoolValue(flag)));
            }
            let read = Span::decode(&*span.into_bytes()).unwrap();
            assert_eq!(read, Span { attributes: expected, ..Span::default() });
        }
    }

    fn attribute(key: &str, value: any_value::Value) -> KeyValue {
        let value = Some(AnyValue { value: Some(value) });
        KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
    }

    #[test]
    fn fields_are_as_generated_types_have_them() {
        let mut span = Message::default();
        span.bytes(1, &[7; 16]);
        span.joined(5, "tcp ", "a");
        span.varint(6, 2);
        span.fixed64(7, u64::MAX);
        let mut status = Message::default();
        status.text(2, "why");
        span.message(15, &status);
        span.fixed32(16, 0x101);
        let span = Span::decode(&*span.into_bytes()).unwrap();
        assert_eq!((span.trace_id, &*span.name, span.kind), (vec![7; 16], "tcp a", 2));
        assert_eq!((span.start_time_unix_nano, span.flags), (u64::MAX, 0x101));
        assert_eq!(span.status.unwrap().message, "why");
    }
}
