//! Which route a connection takes: by the name that it asks for, by its client's address, and by what it offers to speak.
//!
//! As in Gateway API: of the routes that match, the one with the most specific hostname, then the one with the most
//! specific source, then one that names protocols, then the first.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::Hostname;

/// What a connection is routed by.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Whom the client asks for, in whatever case; `None`: nobody.
    pub server_name: Option<&'a str>,
    /// What it offers to speak (ALPN).
    pub alpn: &'a [Box<[u8]>],
    pub client: IpAddr,
}

/// Indices of routes, by what they match. A lookup looks up each end of the name and each length of a prefix that some
/// route has, however many routes there are.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    exact: HashMap<Box<str>, Sources>,
    /// By what the names end in, without `*.`.
    below: HashMap<Box<str>, Sources>,
    /// Of the routes without hostnames.
    any: Sources,
}

/// Of the routes with one hostname.
#[derive(Debug, Default)]
struct Sources {
    /// By prefix length, the longest first.
    by_length: Vec<(u8, HashMap<IpNet, Protocols>)>,
    /// Of the routes without sources.
    everyone: Protocols,
}

/// Of the routes with one hostname and one source.
#[derive(Debug, Default)]
struct Protocols {
    named: BTreeMap<Box<[u8]>, usize>,
    /// The route without protocols.
    any: Option<usize>,
}

impl Matcher {
    /// Adds the route at `index`; to be called in the routes' order.
    pub(super) fn add(&mut self, index: usize, hostnames: &[Hostname], sources: &[IpNet], alpn: &[String]) {
        if hostnames.is_empty() {
            self.any.add(index, sources, alpn);
        }
        for hostname in hostnames {
            let names = if hostname.is_wildcard() { &mut self.below } else { &mut self.exact };
            names.entry(hostname.name().into()).or_default().add(index, sources, alpn);
        }
    }

    pub(super) fn find(&self, asked: Asked<'_>) -> Option<usize> {
        let asked = Asked { client: asked.client.to_canonical(), ..asked };
        let by_name = asked.server_name.and_then(|name| self.find_by_name(name, asked));
        by_name.or_else(|| self.any.find(asked))
    }

    fn find_by_name(&self, server_name: &str, asked: Asked<'_>) -> Option<usize> {
        if self.exact.is_empty() && self.below.is_empty() {
            return None;
        }
        let name = lower_case(server_name);
        let exact = self.exact.get(&*name).and_then(|sources| sources.find(asked));
        if exact.is_some() || self.below.is_empty() {
            return exact;
        }
        // What stands for the labels below must not be empty.
        let ends = name.match_indices('.').filter(|(at, _)| *at > 0).filter_map(|(at, _)| name.get(at + 1..));
        ends.filter_map(|end| self.below.get(end)).find_map(|sources| sources.find(asked))
    }
}

impl Sources {
    fn add(&mut self, index: usize, sources: &[IpNet], alpn: &[String]) {
        if sources.is_empty() {
            self.everyone.add(index, alpn);
        }
        for net in sources {
            let length = net.prefix_len();
            let at = match self.by_length.binary_search_by(|(other, _)| length.cmp(other)) {
                Ok(at) => at,
                Err(at) => {
                    self.by_length.insert(at, (length, HashMap::new()));
                    at
                }
            };
            if let Some((_, nets)) = self.by_length.get_mut(at) {
                nets.entry(net.trunc()).or_default().add(index, alpn);
            }
        }
    }

    fn find(&self, asked: Asked<'_>) -> Option<usize> {
        let within = |(length, nets): &(u8, HashMap<IpNet, Protocols>)| {
            nets.get(&IpNet::new(asked.client, *length).ok()?.trunc())?.find(asked.alpn)
        };
        self.by_length.iter().find_map(within).or_else(|| self.everyone.find(asked.alpn))
    }
}

impl Protocols {
    fn add(&mut self, index: usize, alpn: &[String]) {
        if alpn.is_empty() {
            self.any.get_or_insert(index);
        }
        for protocol in alpn {
            self.named.entry(protocol.as_bytes().into()).or_insert(index);
        }
    }

    fn find(&self, alpn: &[Box<[u8]>]) -> Option<usize> {
        if self.named.is_empty() {
            return self.any;
        }
        alpn.iter().filter_map(|protocol| self.named.get(protocol)).min().copied().or(self.any)
    }
}

fn lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    Cow::Borrowed(name)
}

#[cfg(test)]
mod tests;
