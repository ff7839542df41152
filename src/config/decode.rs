//! From the tree to serde types, going on after every mistake.
//!
//! A serde deserializer stops at its first error. This one notes the error where it happens, with its
//! path, and lets the nearest [`Field`](super::raw::Field) swallow it; so one pass finds all mistakes
//! of form: unknown, repeated and mistyped fields. It knows serde, but no field of ours.

use std::collections::HashSet;
use std::fmt::{self, Display};

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde_yaml::Value;

use super::errors::{Report, nearest, quoted, shown};
use super::tree::{Data, Entry, Node};

/// Decodes the whole tree; `None` only if its root is not even a mapping. Mistakes go to the report.
pub(super) fn decode<T: for<'de> Deserialize<'de>>(report: &Report) -> Option<T> {
    T::deserialize(At { node: report.root(), step: Step::Root, report }).ok()
}

/// A mistake that does not know its place yet, or has been noted already.
#[derive(Debug)]
pub(super) enum Fault {
    Message(String),
    Noted,
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(message) => f.write_str(message),
            Self::Noted => f.write_str("noted"),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::Message(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let wanted = wanted(&expected.to_string());
        if let (Unexpected::Float(value), Some(bounds)) = (found, wanted.strip_prefix(WHOLE)) {
            return Self::Message(format!("{value} is not {WHOLE}; write one{bounds}"));
        }
        let found = match found {
            Unexpected::Bool(value) => format!("{value} does not fit here"),
            Unexpected::Unsigned(value) => format!("{value} is a number"),
            Unexpected::Signed(value) => format!("{value} is a number"),
            Unexpected::Float(value) => format!("{value} is a number"),
            Unexpected::Str(value) => format!("{} is text", quoted(value)),
            Unexpected::Unit => "there is no value".to_owned(),
            Unexpected::Seq => "this is a list".to_owned(),
            Unexpected::Map => "this is a block of fields".to_owned(),
            other => format!("{other} does not fit here"),
        };
        Self::Message(format!("{found}; write {wanted}"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Unsigned(value) => value.to_string(),
            Unexpected::Signed(value) => value.to_string(),
            other => other.to_string(),
        };
        let wanted = wanted(&expected.to_string());
        Self::Message(format!("{found} is out of range; write {wanted}"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let instead = match nearest(variant, expected.iter().copied()) {
            Some(near) => written(near),
            None => choices(expected),
        };
        Self::Message(format!("{} is not a known value; write {instead}", quoted(variant)))
    }
}

const WHOLE: &str = "a whole number";

/// What serde's own visitors expect, in words for people.
fn wanted(expected: &str) -> String {
    let words = match expected {
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "text in quotes",
        "a sequence" => "a list: [a, b], or one item per line after a -",
        other if other.starts_with("struct ") => "its fields below it, indented, or in braces {}",
        other => other,
    };
    words.to_owned()
}

fn choices(of: &[&str]) -> String {
    let of: Vec<String> = of.iter().copied().map(written).collect();
    match &of[..] {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// A text as it has to be in YAML: what looks like a number needs quotes.
fn written(text: &str) -> String {
    if text.parse::<f64>().is_ok() { quoted(text) } else { text.to_owned() }
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

/// A place in the tree.
#[derive(Clone, Copy)]
struct At<'a> {
    node: &'a Node,
    step: Step<'a>,
    report: &'a Report,
}

impl<'a> At<'a> {
    fn path(&self) -> String {
        match self.step {
            Step::Root => String::new(),
            Step::Key(parent, key) => join(parent.path(), &shown(key)),
            Step::Index(parent, index) => {
                let mut path = parent.path();
                path.push_str(&format!("[{index}]"));
                path
            }
        }
    }

    fn note(&self, fault: Fault) -> Fault {
        let message = match fault {
            Fault::Noted => return fault,
            _ if self.report.is_full() => String::new(),
            Fault::Message(message) => message,
        };
        self.report.add(self.path(), message);
        Fault::Noted
    }

    fn unexpected(&self) -> Unexpected<'a> {
        match &self.node.data {
            Data::List(_) => Unexpected::Seq,
            Data::Map(_) => Unexpected::Map,
            Data::Scalar(Value::Bool(value)) => Unexpected::Bool(*value),
            Data::Scalar(Value::String(value)) => Unexpected::Str(value),
            Data::Scalar(Value::Number(number)) => number
                .as_u64()
                .map(Unexpected::Unsigned)
                .or_else(|| number.as_i64().map(Unexpected::Signed))
                .or_else(|| number.as_f64().map(Unexpected::Float))
                .unwrap_or(Unexpected::Other("a number")),
            Data::Scalar(_) => Unexpected::Unit,
        }
    }

    /// The entries that `fields` knows, each once; the others are noted as mistakes. A mistyped one is
    /// read as the field it was meant to be, so that it is one mistake, and those in it are found too.
    fn known(&self, entries: &'a [Entry], fields: &'static [&'static str]) -> Vec<(&'static str, &'a Entry)> {
        let written: HashSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        let mut known: Vec<(&'static str, &'a Entry)> = Vec::new();
        for entry in entries {
            let field = fields.iter().find(|field| **field == entry.key);
            let taken = |name: &str| known.iter().find(|(field, _)| *field == name);
            let message = match field.map(|field| (*field, taken(field))) {
                Some((field, None)) => {
                    known.push((field, entry));
                    continue;
                }
                _ if self.report.is_full() => String::new(),
                Some((_, Some((_, first)))) => {
                    format!("written twice, first on line {}; keep one of them", first.line)
                }
                None => match nearest(&entry.key, fields.iter().copied()) {
                    Some(near) => {
                        if !written.contains(near) && taken(near).is_none() {
                            known.push((near, entry));
                        }
                        format!("there is no such field; write {near}")
                    }
                    None => format!("there is no such field; write {}", choices(fields)),
                },
            };
            let path = join(self.path(), &shown(&entry.key));
            self.report.add_at(Some(entry.line), path, message);
        }
        known
    }
}

fn join(mut path: String, key: &str) -> String {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
    path
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.data {
            Data::List(items) => visitor.visit_seq(Items { at: &self, items: items.iter().enumerate() }),
            Data::Map(_) => Err(de::Error::invalid_type(self.unexpected(), &visitor)),
            Data::Scalar(value) => scalar(value, visitor),
        }
        .map_err(|fault| self.note(fault))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.data {
            Data::Map(entries) => visitor.visit_map(Fields {
                at: &self,
                entries: self.known(entries, fields).into_iter(),
                value: None,
            }),
            // serde's structs would also take a list of their values in order; nobody means that.
            _ => Err(de::Error::invalid_type(self.unexpected(), &visitor)),
        }
        .map_err(|fault| self.note(fault))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match (&self.node.data, self.unexpected()) {
            (Data::Scalar(Value::String(text)), _) => {
                let variant: de::value::StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
                visitor.visit_enum(variant)
            }
            (_, Unexpected::Float(number)) if variants.contains(&number.to_string().as_str()) => {
                Err(Fault::Message(format!("{number} is read as a number; write \"{number}\" in quotes")))
            }
            (_, found) => Err(de::Error::invalid_type(found, &choices(variants).as_str() as &dyn Expected)),
        }
        .map_err(|fault| self.note(fault))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self).map_err(|fault| self.note(fault))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self).map_err(|fault| self.note(fault))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

fn scalar<'de, V: Visitor<'de>>(value: &Value, visitor: V) -> Result<V::Value, Fault> {
    match value {
        Value::Bool(value) => visitor.visit_bool(*value),
        Value::String(text) => visitor.visit_str(text),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => visitor.visit_u64(number),
            (_, Some(number), _) => visitor.visit_i64(number),
            (.., Some(number)) => visitor.visit_f64(number),
            _ => visitor.visit_unit(),
        },
        _ => visitor.visit_unit(),
    }
}

struct Fields<'a> {
    at: &'a At<'a>,
    entries: std::vec::IntoIter<(&'static str, &'a Entry)>,
    value: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((field, entry)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some(entry);
        let key: de::value::StrDeserializer<'_, Fault> = field.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some(entry) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(At {
            node: &entry.node,
            step: Step::Key(self.at, &entry.key),
            report: self.at.report,
        })
    }
}

struct Items<'a> {
    at: &'a At<'a>,
    items: std::iter::Enumerate<std::slice::Iter<'a, std::rc::Rc<Node>>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        seed.deserialize(At { node, step: Step::Index(self.at, index), report: self.at.report }).map(Some)
    }
}
