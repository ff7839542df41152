//! Routes, and what each listener's connections match.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::names::Names;
use super::{Context, shared};
use crate::config::errors::quoted;
use crate::config::raw::{self, List};
use crate::config::{BackendRef, Hostname, Listener, Protocol, Route};

/// Backends of one route; with [`MAX_WEIGHT`] their sum stays within `u32`.
const MAX_BACKENDS: usize = 1_000;
/// That of Gateway API.
const MAX_WEIGHT: u32 = 1_000_000;
/// Hostnames times sources, of all routes together: no file has more sources alone.
const MAX_MATCHES: usize = 1_000_000;

/// The names that a route may refer to.
pub(super) struct Known<'a> {
    pub(super) listeners: &'a Names,
    pub(super) upstreams: &'a Names,
}

/// `listeners` are those of the file that are right.
pub(super) fn routes<'a>(
    cx: &Context<'_>,
    list: List<raw::Route>,
    known: &Known<'a>,
    listeners: &'a [Listener],
) -> Vec<Route> {
    let mut matches = Matches {
        protocols: listeners.iter().map(|listener| (&*listener.name, listener.protocol)).collect(),
        first_of: shared::first_of_each(listeners),
        pairs: 0,
        seen: HashMap::new(),
        listeners: HashSet::new(),
        // A route that cannot be read may be any listener's.
        complete: list.get().is_some_and(|items| items.iter().all(|item| item.get().is_some())),
    };
    let routes: Vec<Route> = cx
        .items(list, "routes")
        .filter_map(|(path, raw)| route(cx, &path, raw, known, &mut matches))
        .collect();
    if matches.pairs > MAX_MATCHES {
        cx.report.add(
            "routes",
            format_args!(
                "they name {} pairs of a hostname and a source; write at most {MAX_MATCHES}",
                matches.pairs
            ),
        );
    }
    if matches.complete && known.listeners.is_complete() {
        for (name, i) in known.listeners.all() {
            if !matches.listeners.contains(name) {
                cx.report.add(
                    format!("listeners[{i}]"),
                    format_args!("no route takes its connections; add a route with listener: {name}"),
                );
            }
        }
    }
    routes
}

/// What the routes so far match.
struct Matches<'a> {
    /// What is spoken on each listener, where that is known.
    protocols: HashMap<&'a str, Protocol>,
    /// Listeners that share an address, all of them with the first one.
    first_of: HashMap<&'a str, &'a Listener>,
    /// How many of a hostname and a source the routes so far name.
    pairs: usize,
    /// The value is the route.
    seen: HashMap<Match<'a>, String>,
    listeners: HashSet<&'a str>,
    complete: bool,
}

/// One listener, hostname and source; `None` is every name or none, and every client.
type Match<'a> = (&'a str, Option<Hostname>, Option<IpNet>);

fn route<'a>(
    cx: &Context<'_>,
    path: &str,
    mut raw: raw::Route,
    known: &Known<'a>,
    matches: &mut Matches<'a>,
) -> Option<Route> {
    let listener_path = format!("{path}.listener");
    let listener = std::mem::take(&mut raw.listener);
    let listener = cx.required(listener, &listener_path, "the name of a listener, like listener: postgres");
    let listener = listener.and_then(|name| known.listeners.resolve(cx, &name.0, &listener_path));
    match listener {
        Some(name) => {
            matches.listeners.insert(name);
        }
        None => matches.complete = false,
    }
    let protocol = listener.and_then(|name| matches.protocols.get(name).copied());
    if protocol == Some(Protocol::Tcp) {
        refuse_tls(cx, path, &raw, listener.unwrap_or_default());
    }
    if let Some(listener) = listener {
        claim(cx, path, &raw, listener, protocol, matches);
    }
    let sources = cx.networks(raw.sources, &format!("{path}.sources"));
    let hostnames = cx.items(raw.hostnames, &format!("{path}.hostnames")).map(|(_, name)| name).collect();
    let tls_mode = raw.tls.or_default().mode.value().map(super::tls::mode);
    let backends = backends(cx, path, raw.backend_refs, known.upstreams);
    Some(Route {
        name: raw.name.value()?.0.into(),
        listener: listener?.into(),
        hostnames,
        sources,
        tls_mode,
        backends,
    })
}

/// What only clients that speak TLS can be told apart by.
fn refuse_tls(cx: &Context<'_>, path: &str, raw: &raw::Route, listener: &str) {
    let has_hostnames = raw.hostnames.get().is_some_and(|names| !names.is_empty());
    for (name, is_written) in [("hostnames", has_hostnames), ("tls", !raw.tls.is_absent())] {
        if is_written {
            cx.report.add(
                format!("{path}.{name}"),
                format_args!(
                    "clients of listener {} speak no TLS; write protocol: TLS there, or remove it",
                    quoted(listener)
                ),
            );
        }
    }
}

/// Takes what the route matches, and reports what another has taken already.
fn claim<'a>(
    cx: &Context<'_>,
    path: &str,
    raw: &raw::Route,
    listener: &'a str,
    protocol: Option<Protocol>,
    matches: &mut Matches<'a>,
) {
    let first = matches.first_of.get(listener).map_or(listener, |first| &*first.name);
    let sources = each_or_all(&raw.sources, &format!("{path}.sources"), |net| net.0);
    let hostnames = each_or_all(&raw.hostnames, &format!("{path}.hostnames"), Hostname::clone);
    matches.pairs = matches.pairs.saturating_add(hostnames.len().saturating_mul(sources.len()));
    if matches.pairs > MAX_MATCHES {
        // To look at each of them could take minutes.
        return;
    }
    for (hostname_at, hostname) in hostnames {
        for (source_at, source) in &sources {
            let key = (first, hostname.clone(), *source);
            let Some(first) = matches.seen.get(&key) else {
                matches.seen.insert(key, path.to_owned());
                continue;
            };
            if first == path {
                continue;
            }
            let listener = quoted(listener);
            let (at, message) = match (&hostname, source) {
                (None, Some(net)) => (
                    source_at,
                    format!(
                        "{net} of listener {listener} is already taken by {first}; remove it from one of the two"
                    ),
                ),
                (None, None) => {
                    let what =
                        if protocol == Some(Protocol::Tls) { "hostnames or sources" } else { "sources" };
                    (
                        source_at,
                        format!(
                            "every client of listener {listener} is already taken by {first}; write the {what} this route \
                             is for"
                        ),
                    )
                }
                (Some(name), None) => (
                    &hostname_at,
                    format!(
                        "{name} of listener {listener} is already taken by {first}; remove it from one of the two, or \
                         write the sources this route is for"
                    ),
                ),
                (Some(name), Some(net)) => (
                    &hostname_at,
                    format!(
                        "{name} for {net} of listener {listener} is already taken by {first}; remove it from one of the two"
                    ),
                ),
            };
            cx.report.add(at.as_str(), message);
        }
    }
}

/// The items of a list that are right, with their paths; `None` where it is empty, which means all there are.
fn each_or_all<T, U>(list: &List<T>, path: &str, value: impl Fn(&T) -> U) -> Vec<(String, Option<U>)> {
    let items = list.get().map_or(&[][..], Vec::as_slice);
    if items.is_empty() && !list.is_wrong() {
        return vec![(path.to_owned(), None)];
    }
    let right = items.iter().enumerate().filter_map(|(i, item)| Some((i, item.get()?)));
    right.map(|(i, item)| (format!("{path}[{i}]"), Some(value(item)))).collect()
}

fn backends(cx: &Context<'_>, path: &str, list: List<raw::BackendRef>, upstreams: &Names) -> Vec<BackendRef> {
    let path = format!("{path}.backendRefs");
    let example = "at least one, like backendRefs: [{upstream: pg}]";
    let written = list.get().map_or(0, Vec::len);
    let is_empty = list.get().is_some_and(Vec::is_empty);
    let all_right = list.get().is_some_and(|items| items.iter().all(|item| item.get().is_some()));
    if list.is_absent() {
        cx.report.add(path.as_str(), format_args!("missing; write {example}"));
    } else if is_empty {
        cx.report.add(path.as_str(), format_args!("the list is empty; write {example}"));
    } else if written > MAX_BACKENDS {
        cx.report.add(
            path.as_str(),
            format_args!("{written} backends are too many; write at most {MAX_BACKENDS}"),
        );
    }
    let mut total = 0_u64;
    let mut backends = Vec::new();
    let mut weights_known = all_right && !is_empty;
    for (path, raw) in cx.items(list, &path) {
        weights_known &= !raw.weight.is_wrong();
        let weight = cx.within(raw.weight.or(1), &format!("{path}.weight"), 0, MAX_WEIGHT);
        total += u64::from(weight);
        let path = format!("{path}.upstream");
        let name = cx.required(raw.upstream, &path, "the name of an upstream, like upstream: pg");
        if let Some(name) = name
            && let Some(upstream) = upstreams.resolve(cx, &name.0, &path)
        {
            backends.push(BackendRef { upstream: upstream.into(), weight });
        }
    }
    if weights_known && total == 0 {
        cx.report
            .add(path, "every weight is 0, so no connection could go anywhere; write a weight of at least 1");
    }
    backends
}
