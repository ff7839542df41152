//! Listeners of one address: they share its sockets, and a ClientHello says which of them its connection is for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Protocol;

use super::Listener;
use super::matcher::{Asked, Matcher};

/// What the first of such listeners knows of the others.
#[derive(Debug)]
pub(super) struct Shared {
    others: Vec<Arc<Listener>>,
    routes: Arc<Routes>,
}

/// The routes of all of them.
#[derive(Debug)]
struct Routes {
    /// Of `all`, by their indices.
    matcher: Matcher,
    /// (listener, of which 0 is the first; index into its routes).
    all: Vec<(usize, usize)>,
}

impl Shared {
    /// Which of the listeners (0 is the first) and which of its routes.
    fn find(&self, asked: Asked<'_>) -> Option<(usize, usize)> {
        self.routes.all.get(self.routes.matcher.find(asked)?).copied()
    }

    /// The listener with this number.
    fn listener<'a>(&'a self, first: &'a Arc<Listener>, number: usize) -> Option<&'a Arc<Listener>> {
        number.checked_sub(1).map_or(Some(first), |number| self.others.get(number))
    }
}

impl Routes {
    fn new<'a>(listeners: impl Iterator<Item = &'a Arc<Listener>>) -> Self {
        let (mut matcher, mut all) = (Matcher::default(), Vec::new());
        for (number, listener) in listeners.enumerate() {
            for (index, route) in listener.routes.iter().enumerate() {
                matcher.add(all.len(), &route.hostnames, &route.sources, &route.alpn);
                all.push((number, index));
            }
        }
        Self { matcher, all }
    }
}

/// Tells the first listener of each address of the others.
pub(super) fn introduce(listeners: &mut [Arc<Listener>]) {
    let mut by_address: HashMap<SocketAddr, Vec<usize>> = HashMap::new();
    for (index, listener) in listeners.iter().enumerate() {
        if listener.protocol == Protocol::Tls {
            by_address.entry(listener.address).or_default().push(index);
        }
    }
    for indices in by_address.into_values().filter(|indices| indices.len() > 1) {
        let mut members = indices.iter().filter_map(|index| listeners.get(*index)).cloned();
        let Some(first) = members.next() else { continue };
        let others: Vec<_> = members.collect();
        let before = first.shared.as_ref();
        let is_known = |shared: &&Arc<Shared>| {
            shared.others.len() == others.len()
                && shared.others.iter().zip(&others).all(|(one, other)| Arc::ptr_eq(one, other))
        };
        if before.filter(is_known).is_some() {
            continue;
        }
        // A listener that knew of others has the same routes as then, if to other endpoints: see `Listener::with_upstreams`.
        let routes = before.map_or_else(
            || Arc::new(Routes::new([&first].into_iter().chain(&others))),
            |shared| Arc::clone(&shared.routes),
        );
        let shared = Some(Arc::new(Shared { others, routes }));
        if let Some(place) = indices.first().and_then(|index| listeners.get_mut(*index)) {
            *place = Arc::new(Listener { shared, ..Listener::clone(&first) });
        }
    }
}

impl Listener {
    /// The route for a client that asks for this, and the listener whose route it is: of all that share this one's sockets, if it is
    /// the first of them.
    pub fn find<'a>(self: &'a Arc<Self>, asked: Asked<'_>) -> Option<(&'a Arc<Self>, &'a Arc<super::Route>)> {
        let Some(shared) = &self.shared else { return Some((self, self.route_for(asked)?)) };
        let (number, index) = shared.find(asked)?;
        let listener = shared.listener(self, number)?;
        Some((listener, listener.routes.get(index)?))
    }
}

#[cfg(test)]
mod tests;
