//! YAML text as a tree that knows the line of everything in it.
//!
//! The YAML library reads the text; this keeps lines, which values alone would lose, and bounds
//! depth and size, so that no file can exhaust memory or the stack. It knows no field of ours.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};
use serde_yaml::Value;

/// Deeper than this is no configuration of ours, which needs 8.
const MAX_DEPTH: usize = 32;
/// Values in one file, counting what an alias repeats each time: 100 000 endpoints need 500 000.
const MAX_NODES: usize = 1_000_000;

/// One value and where it is written.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) data: Data,
    /// Values in it, itself included.
    size: usize,
}

#[derive(Debug)]
pub(super) enum Data {
    /// Never a sequence, a mapping or a tagged value.
    Scalar(Value),
    List(Vec<Rc<Node>>),
    /// As written: a key may be there twice.
    Map(Vec<Entry>),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) node: Rc<Node>,
}

/// Why a text is no tree at all.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) line: usize,
    pub(super) message: String,
}

impl Node {
    pub(super) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(value) => value.as_str(),
            _ => None,
        }
    }

    pub(super) fn is_empty_list(&self) -> bool {
        matches!(&self.data, Data::List(items) if items.is_empty())
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    fn item(&self, index: usize) -> Option<&Self> {
        match &self.data {
            Data::List(items) => items.get(index).map(Rc::as_ref),
            _ => None,
        }
    }

    /// The value at a path like `listeners[1].address`.
    pub(super) fn find(&self, path: &str) -> Option<&Self> {
        steps(path).try_fold(self, |node, step| match step {
            Step::Key(key) => node.entry(key).map(|entry| entry.node.as_ref()),
            Step::Index(index) => node.item(index),
        })
    }

    /// The line of the deepest part of `path` that is written; a field's line is its key's.
    pub(super) fn line_of(&self, path: &str) -> Option<usize> {
        let mut node = self;
        let mut line = path.is_empty().then_some(self.line);
        for step in steps(path) {
            let found = match step {
                Step::Key(key) => node.entry(key).map(|entry| (entry.line, entry.node.as_ref())),
                Step::Index(index) => node.item(index).map(|item| (item.line, item)),
            };
            let Some((next_line, next)) = found else {
                break;
            };
            line = Some(next_line);
            node = next;
        }
        line
    }
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    let parts = path.split(['.', '[']).filter(|part| !part.is_empty());
    parts.map(|part| {
        let index = part.strip_suffix(']').and_then(|text| text.parse().ok());
        index.map_or(Step::Key(part), Step::Index)
    })
}

/// Reads one YAML document. An empty text is an empty mapping: what is missing then has better words.
pub(super) fn read(text: &str) -> Result<Rc<Node>, Broken> {
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = Reader { text, parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    let mut root = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            _ if root.is_some() => {
                return Err(broken(
                    &span,
                    "a second document starts here; write one document, without a further ---",
                ));
            }
            event => root = Some(reader.node(event, span, 0)?),
        }
    }
    Ok(match root {
        Some(node) if !matches!(node.data, Data::Scalar(Value::Null)) => node,
        _ => Rc::new(Node { line: 1, data: Data::Map(Vec::new()), size: 1 }),
    })
}

struct Reader<'a> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Rc<Node>>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Broken> {
        match self.parser.next_event() {
            None => Ok((Event::StreamEnd, Span::default())),
            Some(result) => result.map_err(|error| syntax(&error, self.text)),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Rc<Node>, Broken> {
        if depth > MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} deep; write it flatter");
            return Err(broken(&span, &message));
        }
        let (anchor, tag, data) = match event {
            Event::Alias(id) => return self.alias(id, &span),
            Event::Scalar(text, style, anchor, tag) => (anchor, tag, Data::Scalar(scalar(&text, style))),
            Event::SequenceStart(anchor, tag) => (anchor, tag, Data::List(self.list(depth)?)),
            Event::MappingStart(anchor, tag) => (anchor, tag, Data::Map(self.map(depth)?)),
            _ => return Err(broken(&span, "a value is missing; write one")),
        };
        if tag.is_some() {
            return Err(broken(
                &span,
                "tags like !!str are not supported; remove the tag, and write text in quotes",
            ));
        }
        let below: usize = match &data {
            Data::Scalar(_) => 0,
            Data::List(items) => items.iter().map(|item| item.size).sum(),
            Data::Map(entries) => entries.iter().map(|entry| entry.node.size).sum(),
        };
        self.count(1, &span)?;
        let node = Rc::new(Node { line: span.start.line(), data, size: below + 1 });
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Rc<Node>>, Broken> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Broken> {
        let mut entries = Vec::new();
        loop {
            let (key, key_span) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(entries),
                (Event::Scalar(text, _, 0, None), span) => (text.into_owned(), span),
                (_, span) => {
                    return Err(broken(&span, "this key is not plain text; write a field's name"));
                }
            };
            if key == "<<" {
                return Err(broken(&key_span, "merge keys (<<) are not supported; write the fields out"));
            }
            let (event, span) = self.next()?;
            entries.push(Entry {
                key,
                line: key_span.start.line(),
                node: self.node(event, span, depth + 1)?,
            });
        }
    }

    /// What an alias repeats is shared in memory but walked again each time, so it counts again:
    /// this is what stops a small file that unfolds into billions of values.
    fn alias(&mut self, id: usize, span: &Span) -> Result<Rc<Node>, Broken> {
        let Some(node) = self.anchors.get(&id).cloned() else {
            return Err(broken(span, "this alias stands inside what it names; write the value out"));
        };
        self.count(node.size, span)?;
        Ok(node)
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), Broken> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            let message = format!("the file has more than {MAX_NODES} values; write fewer, without aliases");
            return Err(broken(span, &message));
        }
        Ok(())
    }
}

/// What a scalar means is the YAML library's decision; only unquoted ones can be other than text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    const LONGEST_NUMBER: usize = 40;
    if text.is_empty() && style == ScalarStyle::Plain {
        return Value::Null;
    }
    let may_be_other = style == ScalarStyle::Plain
        && text.len() <= LONGEST_NUMBER
        && text.starts_with(|c: char| c.is_ascii_digit() || "+-.~nNtTfF".contains(c))
        && !text.contains([':', '#', ' ', '\n', '/']);
    if may_be_other
        && let Ok(value @ (Value::Null | Value::Bool(_) | Value::Number(_))) =
            serde_yaml::from_str::<Value>(text)
    {
        return value;
    }
    Value::String(text.to_owned())
}

fn broken(span: &Span, message: &str) -> Broken {
    Broken { line: span.start.line(), message: message.to_owned() }
}

fn syntax(error: &ScanError, text: &str) -> Broken {
    let (line, column) = (error.marker().line(), error.marker().col() + 1);
    // The usual reason by far: brackets are a list in YAML, but also part of an IPv6 address.
    let mut near = text.lines().skip(line.saturating_sub(2)).take(2);
    let help = if near.any(|line| line.contains("]:") && line.contains(": [")) {
        "write an address with brackets in quotes, like \"[::]:5432\""
    } else {
        "check the indentation, quotes and brackets here and just above"
    };
    Broken { line, message: format!("not valid YAML: {} (column {column}); {help}", error.info()) }
}
