//! Routes, and what each listener's connections match.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::Context;
use super::names::Names;
use crate::config::errors::quoted;
use crate::config::raw::{self, Field, List};
use crate::config::scalar::Network;
use crate::config::{BackendRef, Route};

/// Backends of one route; with [`MAX_WEIGHT`] their sum stays within `u32`.
const MAX_BACKENDS: usize = 1_000;
/// That of Gateway API.
const MAX_WEIGHT: u32 = 1_000_000;

pub(super) fn routes(
    cx: &Context<'_>,
    list: List<raw::Route>,
    listeners: &Names,
    upstreams: &Names,
) -> Vec<Route> {
    let mut matches = Matches {
        seen: HashMap::new(),
        listeners: HashSet::new(),
        // A route that cannot be read may be any listener's.
        complete: list.get().is_some_and(|items| items.iter().all(|item| item.get().is_some())),
    };
    let routes: Vec<Route> = cx
        .items(list, "routes")
        .filter_map(|(path, raw)| route(cx, &path, raw, listeners, upstreams, &mut matches))
        .collect();
    if matches.complete && listeners.is_complete() {
        for (name, i) in listeners.all() {
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
struct Matches {
    /// By listener and source; `None` is every client. The value is the route.
    seen: HashMap<(String, Option<IpNet>), String>,
    listeners: HashSet<String>,
    complete: bool,
}

fn route(
    cx: &Context<'_>,
    path: &str,
    raw: raw::Route,
    listeners: &Names,
    upstreams: &Names,
    matches: &mut Matches,
) -> Option<Route> {
    let listener_path = format!("{path}.listener");
    let listener =
        cx.required(raw.listener, &listener_path, "the name of a listener, like listener: postgres");
    let listener = listener.and_then(|name| listeners.resolve(cx, &name.0, &listener_path));
    match listener {
        Some(name) => {
            matches.listeners.insert(name.to_owned());
        }
        None => matches.complete = false,
    }
    let sources = sources(cx, path, raw.sources, listener, matches);
    let backends = backends(cx, path, raw.backend_refs, upstreams);
    Some(Route { name: raw.name.value()?.0.into(), listener: listener?.into(), sources, backends })
}

fn sources(
    cx: &Context<'_>,
    path: &str,
    list: List<Network>,
    listener: Option<&str>,
    matches: &mut Matches,
) -> Vec<IpNet> {
    let sources_path = format!("{path}.sources");
    let items = list.get().map_or(&[][..], Vec::as_slice);
    let mut found: Vec<(String, Option<IpNet>)> = Vec::new();
    if items.is_empty() && !list.is_wrong() {
        found.push((sources_path.clone(), None));
    }
    for (i, item) in items.iter().enumerate() {
        if let Field::Is(net) = item {
            found.push((format!("{sources_path}[{i}]"), Some(net.0)));
        }
    }
    for (at, source) in found {
        let Some(listener) = listener else { continue };
        let key = (listener.to_owned(), source);
        let Some(first) = matches.seen.get(&key) else {
            matches.seen.insert(key, path.to_owned());
            continue;
        };
        if first == path {
            continue;
        }
        let message = match source {
            Some(net) => format!(
                "{net} of listener {} is already taken by {first}; remove it from one of the two",
                quoted(listener)
            ),
            None => format!(
                "every client of listener {} is already taken by {first}; write the sources this route is for",
                quoted(listener)
            ),
        };
        cx.report.add(at, message);
    }
    cx.networks(list, &sources_path)
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
