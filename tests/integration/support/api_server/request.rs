//! What is asked of the API server, and which objects it is about.

use std::collections::BTreeMap;
use std::io::BufRead;

use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) verb: Verb,
    /// `services`, or the whole path if it is none of a namespace's objects.
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) query: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    List,
    Watch,
    /// None that this server knows.
    Other,
}

impl Request {
    /// The next one of a connection; `None` when it has ended.
    pub(super) fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut lines = reader.lines().map_while(Result::ok);
        let first = lines.next()?;
        // Nobody sends a body.
        lines.find(|line| line.is_empty())?;
        let mut words = first.split(' ');
        let (method, uri) = (words.next()?, words.next()?);
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let query: BTreeMap<String, String> =
            pairs.map(|(name, value)| (decoded(name), decoded(value))).collect();
        let (resource, namespace) = match *path.split('/').collect::<Vec<_>>() {
            [
                "",
                "api",
                "v1",
                "namespaces",
                namespace,
                resource @ ("services" | "secrets" | "configmaps"),
            ] => (resource, namespace),
            ["", "apis", "discovery.k8s.io", "v1", "namespaces", namespace, "endpointslices"] => {
                ("endpointslices", namespace)
            }
            _ => (path, ""),
        };
        let verb = match query.get("watch").map(String::as_str) {
            _ if method != "GET" || namespace.is_empty() => Verb::Other,
            Some("true") => Verb::Watch,
            _ => Verb::List,
        };
        Some(Self { verb, resource: resource.to_owned(), namespace: namespace.to_owned(), query })
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.parameter(name)?.parse().ok()
    }

    /// Whether it is about this object.
    pub(super) fn selects(&self, object: &Value) -> bool {
        let (resource, namespace, name) = super::key(object);
        let has_label = self.parameter("labelSelector").is_none_or(|selector| {
            let (label, values) = selector.split_once(" in (").expect("the one selector that is known here");
            let has = object["metadata"]["labels"][label].as_str();
            values.trim_end_matches(')').split(',').any(|value| has == Some(value))
        });
        let has_name = self.parameter("fieldSelector").is_none_or(|s| s == format!("metadata.name={name}"));
        self.resource == resource && self.namespace == namespace && has_label && has_name
    }
}

/// Without `+` for spaces and `%2F` for slashes.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut whole = parts.next().unwrap_or_default().replace('+', " ");
    for part in parts {
        let (code, rest) = part.split_at(2);
        whole.push(u8::from_str_radix(code, 16).unwrap().into());
        whole.push_str(&rest.replace('+', " "));
    }
    whole
}
