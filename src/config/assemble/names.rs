//! The names of one kind of thing: each once, and what a reference can mean.

use std::collections::HashMap;

use super::Context;
use crate::config::errors::{nearest, quoted};
use crate::config::raw::{Field, List};
use crate::config::scalar::ObjectName;

pub(super) struct Names {
    /// Such as `listeners`.
    kind: &'static str,
    known: HashMap<String, usize>,
    /// Whether every name could be read; if not, an unknown one may be among the others.
    complete: bool,
}

impl Names {
    /// Collects the names of a list, and reports what is missing or named twice.
    pub(super) fn collect<T>(
        cx: &Context<'_>,
        kind: &'static str,
        list: &List<T>,
        name_of: impl Fn(&T) -> &Field<ObjectName>,
    ) -> Self {
        if list.is_absent() {
            let message = format_args!("missing; write at least one, in a list under {kind}:");
            cx.report.add(kind, message);
        }
        let mut names = Self { kind, known: HashMap::new(), complete: !list.is_absent() && !list.is_wrong() };
        if kind == "listeners" && list.get().is_some_and(Vec::is_empty) {
            cx.report.add(kind, "the list is empty, so nothing would listen; write at least one listener");
        }
        for (i, item) in list.get().into_iter().flatten().enumerate() {
            let name = item.get().map(&name_of);
            let Some(Field::Is(name)) = name else {
                names.complete = false;
                if name.is_some_and(Field::is_absent) {
                    let example = "a name of your choice, like name: postgres";
                    cx.report.add(format!("{kind}[{i}].name"), format_args!("missing; write {example}"));
                }
                continue;
            };
            if let Some(first) = names.known.get(&name.0) {
                cx.report.add(
                    format!("{kind}[{i}].name"),
                    format_args!(
                        "{} is already the name of {kind}[{first}]; write another name",
                        quoted(&name.0)
                    ),
                );
            } else {
                names.known.insert(name.0.clone(), i);
            }
        }
        names
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, usize)> {
        self.known.iter().map(|(name, i)| (name.as_str(), *i))
    }

    /// What `name` refers to. A dangling one is reported, and stands for the name it is nearest to, so
    /// that one mistyped reference is one mistake.
    pub(super) fn resolve(&self, cx: &Context<'_>, name: &str, path: &str) -> Option<&str> {
        if let Some((known, _)) = self.known.get_key_value(name) {
            return Some(known);
        }
        if !self.complete || cx.report.is_full() {
            return None;
        }
        let mut candidates: Vec<&str> = self.known.keys().map(String::as_str).collect();
        candidates.sort_unstable();
        let near = nearest(name, candidates.iter().copied());
        let one = self.kind.trim_end_matches('s');
        let instead = match (near, candidates.as_slice()) {
            (Some(near), _) => format!("write {near}"),
            (None, []) => format!("add it under {}", self.kind),
            (None, few) if few.len() <= 5 => {
                format!("write {}, or add it under {}", few.join(" or "), self.kind)
            }
            (None, _) => format!("write one of {}, or add it there", self.kind),
        };
        cx.report.add(path, format_args!("there is no {one} {}; {instead}", quoted(name)));
        near
    }
}
