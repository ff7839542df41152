//! How an endpoint is picked.
//!
//! Pure choice: what to choose from, what was tried already and the randomness are arguments. A pick is
//! counted on its endpoint at once (the [`Reservation`] that comes back), so that two workers choosing at the
//! same moment see each other. Nothing here dials, waits or reads a clock.

mod consistent_hash;
mod groups;
mod hash;
mod latency;
mod least_connections;
mod maglev;
mod near;
mod peak_ewma;
mod random;
mod round_robin;
mod schedule;
mod selection;
mod slow_start;
mod two_choices;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::config::LoadBalancer;
use crate::routing::{Endpoint, Reservation, Upstream};

pub use groups::Seat;
pub use latency::Latency;
pub use near::Nearness;
pub use schedule::Schedule;
pub use selection::Selection;
pub use slow_start::Start;

use selection::Tier;
use slow_start::WHOLE;

/// Endpoints that this connection has tried, by their index in the upstream, and what else stays the same for all its picks.
#[derive(Debug, Default)]
pub struct Tried {
    indices: Vec<usize>,
    /// The hash of the client.
    key: u64,
    /// The turn that this connection got. Its attempts look ahead from there; a turn for each attempt would bring two
    /// endpoints, one of them dead, into step, and every connection to the dead one first.
    turn: Option<usize>,
}

/// The endpoint of the next attempt.
#[derive(Debug)]
pub struct Pick {
    pub index: usize,
    pub reservation: Reservation,
}

/// Picks an endpoint that was not tried yet. `None`: there is none left.
pub fn pick(
    upstream: &Upstream,
    tried: &mut Tried,
    random: &mut fastrand::Rng,
    now: Instant,
) -> Option<Pick> {
    let turn = match upstream.load_balancer {
        LoadBalancer::RoundRobin => *tried.turn.get_or_insert_with(|| upstream.state.turn()),
        _ => 0,
    };
    let among = |takes_leaving: bool, random: &mut fastrand::Rng| {
        let window = upstream.slow_start_now();
        upstream.selection.tiers().iter().find_map(|tier| {
            let choice = Choice { endpoints: &upstream.endpoints, tier, tried, window, takes_leaving, now };
            match upstream.load_balancer {
                LoadBalancer::RoundRobin => round_robin::pick(&choice, turn, random),
                LoadBalancer::LeastConnections => least_connections::pick(&choice, random),
                LoadBalancer::Random => random::pick(&choice, random),
                LoadBalancer::PeakEwma => peak_ewma::pick(&choice, random),
                LoadBalancer::ConsistentHash { .. } => {
                    consistent_hash::pick(&choice, tried.key, upstream.state.active())
                }
            }
        })
    };
    // A connection keeps the table that it came with. Who has left since then is better than nobody, and no better.
    let has_left = |endpoint: &Endpoint| endpoint.state.has_left();
    among(false, random).or_else(|| {
        let is_worth_it = upstream.endpoints.iter().any(has_left);
        is_worth_it.then(|| among(true, random)).flatten()
    })
}

/// Whether a place is all that is missing, after a pick in vain: some endpoint that was not tried yet has a limit. It was full
/// then, even if it no longer is.
pub fn is_full(upstream: &Upstream, tried: &Tried, now: Instant) -> bool {
    upstream.selection.tiers().iter().any(|tier| {
        let choice =
            Choice { endpoints: &upstream.endpoints, tier, tried, window: None, takes_leaving: true, now };
        let waits = |index: usize| {
            let endpoint = upstream.endpoints.get(index);
            endpoint.is_some_and(|endpoint| {
                endpoint.max_connections.is_some() && choice.may_be_tried(index, endpoint)
            })
        };
        tier.members().any(waits)
    })
}

/// What one pick chooses from.
struct Choice<'a> {
    endpoints: &'a [Endpoint],
    tier: &'a Tier,
    tried: &'a Tried,
    /// In which new endpoints get less than their share.
    window: Option<Duration>,
    /// Whether who has left the table may be chosen.
    takes_leaving: bool,
    now: Instant,
}

impl Tried {
    /// None yet, for a connection of this client.
    pub fn none(client: IpAddr) -> Self {
        Self { key: hash::of_ip(client), ..Self::default() }
    }

    pub fn insert(&mut self, index: usize) {
        self.indices.push(index);
    }

    pub fn contains(&self, index: usize) -> bool {
        self.indices.contains(&index)
    }

    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Those of which `may` is true may be tried again.
    pub fn forget(&mut self, may: impl Fn(usize) -> bool) {
        self.indices.retain(|index| !may(*index));
    }

    /// Starts a new round: every endpoint may be tried again.
    pub fn clear(&mut self) {
        self.indices.clear();
    }
}

impl<'a> Choice<'a> {
    /// The endpoint at `index`, if it may be chosen now.
    fn candidate(&self, index: usize) -> Option<&'a Endpoint> {
        let endpoint = self.endpoints.get(index)?;
        (!endpoint.is_full() && self.may_be_tried(index, endpoint)).then_some(endpoint)
    }

    /// Whether nothing but its connections is in the way.
    fn may_be_tried(&self, index: usize, endpoint: &Endpoint) -> bool {
        let is_meant = self.takes_leaving || !endpoint.state.has_left();
        is_meant && !self.tried.contains(index) && endpoint.may_be_tried(self.now)
    }

    /// How much of its share an endpoint gets now, in thousandths.
    fn share(&self, endpoint: &Endpoint) -> u32 {
        self.window.map_or(WHOLE, |window| endpoint.start.share(window, self.now))
    }

    /// The weight of an endpoint now, in thousandths.
    fn weight(&self, endpoint: &Endpoint) -> u64 {
        u64::from(endpoint.weight) * u64::from(self.share(endpoint))
    }

    /// Whether an endpoint whose turn it is takes it. One that is new passes it on as often as its share is not whole.
    fn takes_turn(&self, endpoint: &Endpoint, random: &mut fastrand::Rng) -> bool {
        let share = self.share(endpoint);
        share == WHOLE || random.u32(0..WHOLE) < share
    }

    /// One that may be chosen now, drawn by weight in one look. `None`: none this time.
    fn draw(&self, random: &mut fastrand::Rng) -> Option<(usize, &'a Endpoint)> {
        let turns = self.tier.turns();
        let index = (turns > 0).then(|| self.tier.at(random.usize(0..turns))).flatten()?;
        let endpoint = self.candidate(index)?;
        self.takes_turn(endpoint, random).then_some((index, endpoint))
    }

    /// All that may be chosen now, with their index.
    fn candidates(&self) -> impl Iterator<Item = (usize, &'a Endpoint)> {
        self.tier.members().filter_map(|index| Some((index, self.candidate(index)?)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    mod few;

    use super::*;
    use std::sync::Arc;

    /// Endpoints with these weights on 127.0.0.1, ports from 1.
    pub(crate) fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
        let endpoint = |(index, weight): (usize, &u32)| Endpoint {
            address: ([127, 0, 0, 1], u16::try_from(index + 1).unwrap()).into(),
            pod: None,
            weight: *weight,
            topology: Arc::default(),
            priority: 0,
            max_connections: None,
            start: Start::Original,
            breaker: None,
            state: Arc::default(),
        };
        weights.iter().enumerate().map(endpoint).collect()
    }

    /// Chooses from all of them.
    pub(super) fn with_choice<T>(
        endpoints: &[Endpoint],
        tried: &Tried,
        act: impl FnOnce(&Choice<'_>) -> T,
    ) -> T {
        let selection = Selection::new(endpoints, 50, None);
        act(&Choice {
            endpoints,
            tier: &selection.tiers()[0],
            tried,
            window: None,
            takes_leaving: false,
            now: Instant::now(),
        })
    }

    /// So many picks one after the other of two endpoints, of which the second is new and has a fifth of its share now; how many it
    /// got. With all held they are spread by load, else by chance.
    pub(super) fn picks_of_new(
        is_held: bool,
        count: usize,
        mut pick: impl FnMut(&Choice<'_>, &mut fastrand::Rng) -> Option<Pick>,
    ) -> usize {
        let mut endpoints = endpoints(&[1, 1]);
        let (start, window) = (Instant::now(), Duration::from_secs(60));
        endpoints[1].start = Start::At(start);
        let selection = Selection::new(&endpoints, 50, None).with_slots(101, &endpoints, None);
        let now = start + Duration::from_secs(12);
        let (tier, tried) = (&selection.tiers()[0], Tried::default());
        let choice = Choice {
            endpoints: &endpoints,
            tier,
            tried: &tried,
            window: Some(window),
            takes_leaving: false,
            now,
        };
        let mut random = fastrand::Rng::with_seed(5);
        let (mut held, mut of_new) = (Vec::new(), 0);
        for _ in 0..count {
            let pick = pick(&choice, &mut random).unwrap();
            of_new += pick.index;
            held.extend(is_held.then_some(pick));
        }
        // It is chosen all the same when there is nobody else.
        let mut tried = Tried::default();
        tried.insert(0);
        assert_eq!(pick(&Choice { tried: &tried, ..choice }, &mut random).unwrap().index, 1);
        of_new
    }

    #[test]
    fn weight_zero_and_tried_endpoints_are_no_candidates() {
        let endpoints = endpoints(&[1, 0, 1]);
        let candidates = |tried: &Tried| {
            with_choice(&endpoints, tried, |choice| {
                choice.candidates().map(|(index, _)| index).collect::<Vec<_>>()
            })
        };
        let mut tried = Tried::default();
        tried.insert(0);
        assert_eq!(candidates(&tried), [2]);
        tried.clear();
        assert_eq!(candidates(&tried), [0, 2]);
    }
}
