//! Which route a connection takes: by the name that it asks for, and by its client's address.
//!
//! As in Gateway API: of the routes that match, the one with the most specific hostname, then the one with the most
//! specific source, then the first.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::Hostname;

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
    by_length: Vec<(u8, HashMap<IpNet, usize>)>,
    /// The route without sources.
    everyone: Option<usize>,
}

impl Matcher {
    /// Adds the route at `index`; to be called in the routes' order.
    pub(super) fn add(&mut self, index: usize, hostnames: &[Hostname], sources: &[IpNet]) {
        if hostnames.is_empty() {
            self.any.add(index, sources);
        }
        for hostname in hostnames {
            let names = if hostname.is_wildcard() { &mut self.below } else { &mut self.exact };
            names.entry(hostname.name().into()).or_default().add(index, sources);
        }
    }

    /// The route for a client that asks for this name, in whatever case, or for none.
    pub(super) fn find(&self, server_name: Option<&str>, client: IpAddr) -> Option<usize> {
        let client = client.to_canonical();
        let by_name = server_name.and_then(|name| self.find_by_name(name, client));
        by_name.or_else(|| self.any.find(client))
    }

    fn find_by_name(&self, server_name: &str, client: IpAddr) -> Option<usize> {
        if self.exact.is_empty() && self.below.is_empty() {
            return None;
        }
        let name = lower_case(server_name);
        let exact = self.exact.get(&*name).and_then(|sources| sources.find(client));
        if exact.is_some() || self.below.is_empty() {
            return exact;
        }
        // What stands for the labels below must not be empty.
        let ends = name.match_indices('.').filter(|(at, _)| *at > 0).filter_map(|(at, _)| name.get(at + 1..));
        ends.filter_map(|end| self.below.get(end)).find_map(|sources| sources.find(client))
    }
}

impl Sources {
    fn add(&mut self, index: usize, sources: &[IpNet]) {
        if sources.is_empty() {
            self.everyone.get_or_insert(index);
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
                nets.entry(net.trunc()).or_insert(index);
            }
        }
    }

    fn find(&self, client: IpAddr) -> Option<usize> {
        let within = |(length, nets): &(u8, HashMap<IpNet, usize>)| {
            nets.get(&IpNet::new(client, *length).ok()?.trunc()).copied()
        };
        self.by_length.iter().find_map(within).or(self.everyone)
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
