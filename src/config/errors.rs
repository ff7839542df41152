//! What is wrong with a configuration file: every mistake at once, each with its line.
//!
//! A message reads like help from a colleague: what is wrong; what to write instead.
//! Nothing here decides what is a mistake.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::tree::Node;

/// More than this many are counted, not kept: nobody reads them, and a file of nothing but
/// mistakes must not cost memory and time in proportion.
pub(super) const MAX_ERRORS: usize = 200;

/// One mistake. Displays as `file:line: path: what is wrong; what to write instead`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    file: Arc<str>,
    line: Option<usize>,
    path: String,
    message: String,
}

impl Error {
    /// The line in the file, from 1, where it is known.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// Where in the file's structure, like `listeners[1].address`; empty for the file as a whole.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong; what to write instead.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Error {}

/// All mistakes of one file, in the order of its lines. Displays one per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    errors: Vec<Error>,
}

impl Errors {
    pub(super) fn one(file: &str, line: Option<usize>, message: impl Into<String>) -> Self {
        Self { errors: vec![Error { file: file.into(), line, path: String::new(), message: message.into() }] }
    }

    /// Whether there is none; never so for an `Errors` that a parse returned.
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    pub fn len(&self) -> usize {
        self.errors.len()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Error> {
        self.errors.iter()
    }
}

impl<'a> IntoIterator for &'a Errors {
    type Item = &'a Error;
    type IntoIter = std::slice::Iter<'a, Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Collects mistakes while a file is read, and finds the line of each.
pub(super) struct Report {
    file: Arc<str>,
    root: Rc<Node>,
    errors: RefCell<Vec<Error>>,
    more: Cell<usize>,
}

impl Report {
    pub(super) fn new(file: &str, root: Rc<Node>) -> Self {
        Self { file: file.into(), root, errors: RefCell::default(), more: Cell::new(0) }
    }

    pub(super) fn root(&self) -> &Node {
        &self.root
    }

    /// Past the limit; what costs time to explain need not be explained any more.
    pub(super) fn is_full(&self) -> bool {
        self.errors.borrow().len() >= MAX_ERRORS
    }

    /// Adds a mistake at `path`; its line is that of the deepest part of the path that is written.
    pub(super) fn add(&self, path: impl Into<String>, message: impl fmt::Display) {
        if self.is_full() {
            self.more.set(self.more.get() + 1);
            return;
        }
        let path = path.into();
        self.add_at(self.root.line_of(&path), path, message);
    }

    pub(super) fn add_at(&self, line: Option<usize>, path: String, message: impl fmt::Display) {
        if self.is_full() {
            self.more.set(self.more.get() + 1);
            return;
        }
        let message = match self.item(&path) {
            Some(item) => format!("{message} ({item})"),
            None => message.to_string(),
        };
        self.errors.borrow_mut().push(Error { file: self.file.clone(), line, path, message });
    }

    /// `listener "postgres"` for a path inside that listener: people know names, not numbers.
    fn item(&self, path: &str) -> Option<String> {
        let (kind, rest) = path.split_once("s[")?;
        if !matches!(kind, "listener" | "route" | "upstream") {
            return None;
        }
        let (index, field) = rest.split_once(']')?;
        if field == ".name" {
            return None;
        }
        let name = self.root.find(&format!("{kind}s[{index}].name"))?.text()?;
        Some(format!("{kind} {}", quoted(name)))
    }

    pub(super) fn finish(self) -> Option<Errors> {
        let mut errors = self.errors.into_inner();
        if errors.is_empty() {
            return None;
        }
        // Stable: mistakes of one line stay in the order they were found, which is from the outside in.
        errors.sort_by_key(|error| error.line.unwrap_or(0));
        if self.more.get() > 0 {
            errors.push(Error {
                file: self.file,
                line: None,
                path: String::new(),
                message: format!("{} more mistakes; correct these first", self.more.get()),
            });
        }
        Some(Errors { errors })
    }
}

/// Text from the file as it may appear in a message: in quotes, on one line and not too long.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text))
}

/// Like [`quoted`], without the quotes.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut out: String = text
        .chars()
        .take(LONGEST)
        .flat_map(|c| {
            let escape = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
            let escaped = escape.then(|| c.escape_default());
            let plain = (!escape).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push_str("...");
    }
    out
}

/// The candidate that `word` was most likely meant to be.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Distances cost time in the product of the lengths, and nobody mistypes a word this long.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let plain = |text: &str| -> String {
        let letters = text.chars().filter(|c| c.is_alphanumeric());
        letters.flat_map(char::to_lowercase).collect()
    };
    let wanted = plain(word);
    let allowed = (wanted.len() / 3).max(1);
    let mut best: Option<(usize, &'a str)> = None;
    for candidate in candidates {
        if candidate.len().abs_diff(word.len()) > LONGEST / 2 || candidate.len() > LONGEST {
            continue;
        }
        let distance = strsim::damerau_levenshtein(&wanted, &plain(candidate));
        if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}
