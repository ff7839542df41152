//! Routes, and what each listener's connections match.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::names::Names;
use super::{Context, shared};
use crate::config::errors::quoted;
use crate::config::raw::{self, List};
use crate::config::scalar::AlpnName;
use crate::config::{BackendRef, Hostname, Listener, Protocol, Route, TlsMode};

/// Backends of one route; with the bound on weights their sum stays within `u32`.
const MAX_BACKENDS: usize = 1_000;
/// Of one route: no client offers more.
const MAX_PROTOCOLS: usize = 16;
/// Hostnames times sources times protocols, of all routes together: no file has more sources alone.
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
        by_name: listeners.iter().map(|listener| (&*listener.name, listener)).collect(),
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
                "they name {} combinations of a hostname, a source and a protocol; write at most {MAX_MATCHES}",
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
    by_name: HashMap<&'a str, &'a Listener>,
    /// Listeners that share an address, all of them with the first one.
    first_of: HashMap<&'a str, &'a Listener>,
    /// How many of a hostname, a source and a protocol the routes so far name.
    pairs: usize,
    /// The value is the route.
    seen: HashMap<Match<'a>, String>,
    listeners: HashSet<&'a str>,
    complete: bool,
}

/// One listener, hostname, source and protocol; `None` is every name or none, every client, and every protocol or none.
type Match<'a> = (&'a str, Option<Hostname>, Option<IpNet>, Option<String>);

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
    let found = listener.and_then(|name| matches.by_name.get(name).copied());
    let protocol = found.map(|listener| listener.protocol);
    if protocol == Some(Protocol::Tcp) {
        refuse_tls(cx, path, &raw, listener.unwrap_or_default());
    }
    if let Some(listener) = listener {
        claim(cx, path, &raw, listener, protocol, matches);
    }
    let sources = cx.networks(raw.sources, &format!("{path}.sources"));
    let hostnames = cx.items(raw.hostnames, &format!("{path}.hostnames")).map(|(_, name)| name).collect();
    let tls_mode = raw.tls.or_default().mode.value().map(super::tls::mode);
    let alpn = alpn(cx, path, raw.alpn_protocols, tls_mode, found);
    let backends = backends(cx, path, raw.backend_refs, known.upstreams);
    Some(Route {
        name: raw.name.value()?.0.into(),
        listener: listener?.into(),
        hostnames,
        sources,
        alpn,
        tls_mode,
        backends,
    })
}

/// The protocols of its clients. Where TLS ends here they have to be among those that the listener agrees on.
fn alpn(
    cx: &Context<'_>,
    path: &str,
    list: List<AlpnName>,
    tls_mode: Option<TlsMode>,
    listener: Option<&Listener>,
) -> Vec<String> {
    let path = format!("{path}.alpnProtocols");
    let length = list.get().map_or(0, Vec::len);
    if length > MAX_PROTOCOLS {
        cx.report.add(path.as_str(), format_args!("{length} are too many; write at most {MAX_PROTOCOLS}"));
    }
    let tls = listener.and_then(|listener| listener.tls.as_ref());
    let ends_here = tls.filter(|tls| tls_mode.unwrap_or(tls.mode) == TlsMode::Terminate);
    let mut protocols = Vec::new();
    for (at, protocol) in cx.items(list, &path) {
        if let Some(tls) = ends_here.filter(|tls| !tls.agrees_on(&protocol.0)) {
            let listener = listener.map_or("", |listener| &listener.name);
            let missing = if tls.alpn.is_empty() { "offers none" } else { "does not offer it" };
            cx.report.add(
                at,
                format_args!(
                    "TLS ends here, and listener {} {missing}; add it to tls.alpnProtocols there, or write tls: {{mode: \
                     Passthrough}} in this route",
                    quoted(listener)
                ),
            );
        }
        protocols.push(protocol.0);
    }
    protocols
}

/// What only clients that speak TLS can be told apart by.
fn refuse_tls(cx: &Context<'_>, path: &str, raw: &raw::Route, listener: &str) {
    let has_hostnames = raw.hostnames.get().is_some_and(|names| !names.is_empty());
    let has_protocols = raw.alpn_protocols.get().is_some_and(|names| !names.is_empty());
    for (name, is_written) in
        [("hostnames", has_hostnames), ("alpnProtocols", has_protocols), ("tls", !raw.tls.is_absent())]
    {
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
    let protocols = each_or_all(&raw.alpn_protocols, &format!("{path}.alpnProtocols"), |name| name.0.clone());
    let pairs = hostnames.len().saturating_mul(sources.len()).saturating_mul(protocols.len());
    matches.pairs = matches.pairs.saturating_add(pairs);
    if matches.pairs > MAX_MATCHES {
        // To look at each of them could take minutes.
        return;
    }
    for (hostname_at, hostname) in hostnames {
        for (source_at, source) in &sources {
            for (protocol_at, spoken) in &protocols {
                let key = (first, hostname.clone(), *source, spoken.clone());
                let Some(taken_by) = matches.seen.get(&key) else {
                    matches.seen.insert(key, path.to_owned());
                    continue;
                };
                if taken_by != path {
                    let at = match (&hostname, spoken) {
                        (Some(_), _) => &hostname_at,
                        (None, Some(_)) => protocol_at,
                        (None, None) => source_at,
                    };
                    let names_tls = protocol == Some(Protocol::Tls);
                    cx.report.add(at.as_str(), taken(&key, listener, taken_by, names_tls));
                }
            }
        }
    }
}

/// What to say of a match that another route has already.
fn taken(key: &Match<'_>, listener: &str, by: &str, names_tls: bool) -> String {
    let (_, hostname, source, spoken) = key;
    let with = spoken.as_ref().map_or_else(String::new, |spoken| format!(" with ALPN {spoken}"));
    let is_taken = format!("{with} of listener {} is already taken by {by}", quoted(listener));
    match (hostname, source) {
        (None, Some(net)) => format!("{net}{is_taken}; remove it from one of the two"),
        (None, None) => {
            let what = if names_tls { "hostnames or sources" } else { "sources" };
            let or = if spoken.is_some() { "remove it from one of the two, or write" } else { "write" };
            format!("every client{is_taken}; {or} the {what} this route is for")
        }
        (Some(name), None) => {
            format!("{name}{is_taken}; remove it from one of the two, or write the sources this route is for")
        }
        (Some(name), Some(net)) => format!("{name} for {net}{is_taken}; remove it from one of the two"),
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
        let weight = raw.weight.number(1);
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
