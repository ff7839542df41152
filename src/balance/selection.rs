//! Which endpoints of an upstream are chosen from, in order of preference. Made with the table, and pure.

use std::collections::BTreeSet;

use crate::config::ZoneAware;
use crate::routing::Endpoint;

use super::Schedule;
use super::consistent_hash::Slots;
use super::groups::{self, Groups};
use super::near::{self, Nearness};

/// All that may be chosen. A later tier is asked only when no endpoint of the earlier ones is left to try.
#[derive(Debug, Default)]
pub struct Selection {
    /// At least one; none but an only one is empty.
    tiers: Vec<Tier>,
    panics: bool,
    nearness: Option<Nearness>,
}

/// Endpoints that are balanced as one.
#[derive(Debug)]
pub(super) struct Tier {
    /// By their index in the upstream; none of weight 0.
    members: Vec<u32>,
    /// The order in which they take turns, by weight. Of all endpoints and not of `members`, so that a draw is one look.
    schedule: Schedule,
    /// Whether all members have the same weight.
    is_even: bool,
    /// Only where clients are hashed.
    slots: Option<Slots>,
    /// Only where the least loaded of many is looked for.
    groups: Option<Groups>,
}

/// Endpoints of one priority.
struct Level {
    priority: u32,
    /// Those that may be chosen, by their index in the upstream.
    healthy: Vec<u32>,
    all: usize,
}

impl Selection {
    /// The healthy ones of `endpoints`, the near ones first, and spares after those that they are spares for.
    ///
    /// Where fewer than `panic_threshold` per cent of a level are healthy, the next level is chosen from with it, because
    /// the few would drown in what is meant for all. Where no level has enough, all endpoints are chosen from: then it is
    /// more likely that the probes are wrong.
    pub fn new(endpoints: &[Endpoint], panic_threshold: u32, zone_aware: Option<&ZoneAware>) -> Self {
        let levels = levels(endpoints);
        let enough = |level: &Level| is_enough(level.healthy.len(), level.all, panic_threshold);
        let panics =
            !levels.iter().any(enough) && levels.iter().any(|level| has_too_few(level, panic_threshold));
        if panics {
            // Who has never been well, and is not to be used before that, is not meant.
            let all = indices(endpoints, |endpoint| !endpoint.state.health.is_awaited());
            return Self { tiers: vec![Tier::new(all, endpoints)], panics, nearness: None };
        }
        let upto = levels.iter().position(enough).map_or(levels.len(), |last| last + 1);
        let (first, spares) = levels.split_at(upto);
        let first: Vec<u32> = first.iter().flat_map(|level| &level.healthy).copied().collect();
        let highest = levels.get(upto.saturating_sub(1)).map_or(0, |level| level.priority);
        let near =
            zone_aware.and_then(|wish| near::choose(endpoints, &first, highest, wish, panic_threshold));
        let mut tiers = Vec::with_capacity(1);
        let nearness = near.map(|(nearness, near)| {
            let far = first.iter().filter(|index| near.binary_search(index).is_err()).copied().collect();
            tiers.extend([near, far]);
            nearness
        });
        if nearness.is_none() {
            tiers.push(first);
        }
        tiers.extend(spares.iter().map(|level| level.healthy.clone()));
        tiers.retain(|tier| !tier.is_empty());
        if tiers.is_empty() {
            tiers.push(Vec::new());
        }
        let tiers = tiers.into_iter().map(|tier| Tier::new(tier, endpoints)).collect();
        Self { tiers, panics, nearness }
    }

    /// With so many slots in each tier for clients to be hashed to. What has not changed since `before` is taken from there.
    #[must_use]
    pub fn with_slots(mut self, size: u32, endpoints: &[Endpoint], before: Option<&Self>) -> Self {
        for tier in &mut self.tiers {
            let before =
                before.iter().flat_map(|before| &before.tiers).filter_map(|tier| tier.slots.as_ref());
            let slots = Slots::new(tier.members(), endpoints, size, before);
            tier.slots = Some(slots);
        }
        self
    }

    /// With groups in each tier, so that the least loaded endpoint is found without looking at all of them.
    #[must_use]
    pub fn with_groups(mut self, endpoints: &[Endpoint]) -> Self {
        groups::seat(endpoints);
        let table = groups::next_table();
        for tier in &mut self.tiers {
            tier.groups = Groups::new(&tier.members, endpoints, table);
        }
        self
    }

    /// The table that this is of is published.
    pub fn start(&self, endpoints: &[Endpoint]) {
        for endpoint in endpoints {
            endpoint.state.seat.weigh(endpoint.weight);
        }
        self.tiers.iter().filter_map(Tier::groups).for_each(Groups::start);
    }

    /// Whether so few endpoints are healthy that health is ignored.
    pub fn panics(&self) -> bool {
        self.panics
    }

    /// Whether there is nothing to choose from.
    pub fn is_empty(&self) -> bool {
        self.tiers.iter().all(|tier| tier.members.is_empty())
    }

    /// The indices of the endpoints that new connections go to first.
    pub fn first(&self) -> impl Iterator<Item = usize> + '_ {
        self.tiers.iter().take(1).flat_map(Tier::members)
    }

    /// The indices of all that may be chosen.
    pub fn all(&self) -> impl Iterator<Item = usize> + '_ {
        self.tiers.iter().flat_map(Tier::members)
    }

    /// What makes those nearer than others; `None`: they are not.
    pub fn nearness(&self) -> Option<Nearness> {
        self.nearness
    }

    pub(super) fn tiers(&self) -> &[Tier] {
        &self.tiers
    }
}

/// By priority, and in each by index.
fn levels(endpoints: &[Endpoint]) -> Vec<Level> {
    let priorities: BTreeSet<u32> =
        endpoints.iter().filter(|endpoint| endpoint.weight > 0).map(|endpoint| endpoint.priority).collect();
    let level = |priority| {
        let of_it = |endpoint: &Endpoint| endpoint.priority == priority;
        Level {
            priority,
            healthy: indices(endpoints, |endpoint| of_it(endpoint) && endpoint.state.is_healthy()),
            all: indices(endpoints, of_it).len(),
        }
    };
    priorities.into_iter().map(level).collect()
}

/// Of those that have a weight.
fn indices(endpoints: &[Endpoint], is_meant: impl Fn(&Endpoint) -> bool) -> Vec<u32> {
    let meant = (0u32..).zip(endpoints).filter(|(_, endpoint)| endpoint.weight > 0 && is_meant(endpoint));
    meant.map(|(index, _)| index).collect()
}

/// Whether so many healthy ones of all can bear what is meant for all.
fn is_enough(healthy: usize, all: usize, panic_threshold: u32) -> bool {
    healthy > 0 && healthy as u64 * 100 >= all as u64 * u64::from(panic_threshold)
}

fn has_too_few(level: &Level, panic_threshold: u32) -> bool {
    panic_threshold > 0 && level.healthy.len() < level.all
}

impl Tier {
    pub(super) fn new(members: Vec<u32>, endpoints: &[Endpoint]) -> Self {
        let mut weights = vec![0; endpoints.len()];
        for member in members.iter().map(|member| *member as usize) {
            if let (Some(weight), Some(endpoint)) = (weights.get_mut(member), endpoints.get(member)) {
                *weight = endpoint.weight;
            }
        }
        let mut of_members = weights.iter().filter(|weight| **weight > 0);
        let first = of_members.next();
        let is_even = of_members.all(|weight| Some(weight) == first);
        Self { schedule: Schedule::new(weights.into_iter()), members, is_even, slots: None, groups: None }
    }

    /// The indices of its endpoints.
    pub(super) fn members(&self) -> impl Iterator<Item = usize> + '_ {
        self.members.iter().map(|member| *member as usize)
    }

    /// The index of the endpoint whose turn this is. `None`: the tier is empty.
    pub(super) fn at(&self, turn: usize) -> Option<usize> {
        self.schedule.at(turn)
    }

    /// Whether all of its endpoints have the same weight, slow start aside.
    pub(super) fn is_even(&self) -> bool {
        self.is_even
    }

    pub(super) fn groups(&self) -> Option<&Groups> {
        self.groups.as_ref()
    }

    pub(super) fn slots(&self) -> Option<&Slots> {
        self.slots.as_ref()
    }

    /// How many turns make one repetition.
    pub(super) fn turns(&self) -> usize {
        self.schedule.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::endpoints;
    use std::sync::Arc;

    fn chosen(healthy: &[bool], panic_threshold: u32) -> (Vec<usize>, bool) {
        let endpoints = endpoints(&vec![1; healthy.len()]);
        for (endpoint, healthy) in endpoints.iter().zip(healthy) {
            endpoint.state.health.set(*healthy);
        }
        let selection = Selection::new(&endpoints, panic_threshold, None);
        (selection.first().collect(), selection.panics())
    }

    /// The tiers of endpoints with these priorities and this health.
    fn tiers(levels: &[(u32, bool)], panic_threshold: u32) -> (Vec<Vec<usize>>, bool) {
        let mut endpoints = endpoints(&vec![1; levels.len()]);
        for (endpoint, (priority, healthy)) in endpoints.iter_mut().zip(levels) {
            endpoint.priority = *priority;
            endpoint.state.health.set(*healthy);
        }
        let selection = Selection::new(&endpoints, panic_threshold, None);
        (selection.tiers().iter().map(|tier| tier.members().collect()).collect(), selection.panics())
    }

    #[test]
    fn spares_come_after_those_that_they_are_spares_for() {
        let all_well = [(1, true), (0, true), (0, true), (7, true)];
        assert_eq!(tiers(&all_well, 50), (vec![vec![1, 2], vec![0], vec![3]], false));
        let half = [(1, true), (0, false), (0, true), (7, true)];
        assert_eq!(tiers(&half, 50), (vec![vec![2], vec![0], vec![3]], false), "half are enough");
        let few = [(1, true), (0, false), (0, true), (0, false)];
        assert_eq!(tiers(&few, 50), (vec![vec![2, 0]], false), "the spares help out the few");
        let none = [(1, true), (0, false), (0, false), (7, true)];
        assert_eq!(tiers(&none, 50), (vec![vec![0], vec![3]], false));
        assert_eq!(tiers(&none, 0), (vec![vec![0], vec![3]], false));
    }

    #[test]
    fn spares_in_the_zone_say_nothing_of_those_in_use() {
        let mut endpoints = endpoints(&[1; 10]);
        for (index, endpoint) in endpoints.iter_mut().enumerate() {
            let zone = if index < 7 { "a" } else { "b" };
            endpoint.topology =
                Arc::new(crate::routing::Topology { zone: Some(zone.into()), ..Default::default() });
            endpoint.priority = u32::from((3..7).contains(&index));
        }
        let here = crate::config::Location { zone: Some("a".into()), node: None };
        let wish = ZoneAware { here: Arc::new(here), min_endpoints: 3 };
        let selection = Selection::new(&endpoints, 50, Some(&wish));
        assert_eq!(selection.first().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(selection.nearness(), Some(Nearness::Zone));
    }

    #[test]
    fn only_when_no_level_has_enough_all_are_chosen_from() {
        let bad = [(0, false), (0, false), (1, false), (1, true), (1, false)];
        assert_eq!(tiers(&bad, 50), (vec![vec![0, 1, 2, 3, 4]], true));
        assert_eq!(tiers(&bad, 30), (vec![vec![3]], false));
        assert_eq!(tiers(&[(0, false), (1, false)], 0), (vec![vec![]], false));
        assert_eq!(tiers(&[(0, true), (1, false)], 100), (vec![vec![0]], false));
    }

    #[test]
    fn the_unhealthy_are_left_out_until_too_few_are_left() {
        assert_eq!(chosen(&[true, false, true, true], 50), (vec![0, 2, 3], false));
        assert_eq!(chosen(&[true, false, false, true], 50), (vec![0, 3], false), "half of them is not less");
        assert_eq!(chosen(&[true, false, false, false], 50), (vec![0, 1, 2, 3], true));
        assert_eq!(chosen(&[false, false], 50), (vec![0, 1], true));
        assert_eq!(chosen(&[true, true], 100), (vec![0, 1], false));
    }

    #[test]
    fn the_ejected_are_left_out_as_the_unhealthy_are() {
        let endpoints = endpoints(&[1; 4]);
        endpoints[0].state.health.set(false);
        endpoints[1].state.ejection.eject(std::time::Instant::now());
        let members = |threshold| {
            let selection = Selection::new(&endpoints, threshold, None);
            selection.tiers()[0].members().collect::<Vec<_>>()
        };
        assert_eq!(members(50), [2, 3]);
        assert_eq!(members(51), [0, 1, 2, 3], "they count together");
    }

    #[test]
    fn who_was_never_well_is_not_used_for_want_of_others() {
        let endpoints = endpoints(&[1; 3]);
        let members = || {
            let selection = Selection::new(&endpoints, 50, None);
            (selection.first().collect::<Vec<_>>(), selection.panics())
        };
        endpoints.iter().for_each(|endpoint| endpoint.state.health.reset(false));
        assert_eq!(members(), (vec![], true));
        for well in [true, false] {
            endpoints[1].state.health.set(well);
            assert_eq!(members(), (vec![1], true), "it was well once");
        }
    }

    #[test]
    fn without_a_threshold_none_may_be_left() {
        assert_eq!(chosen(&[false, false], 0), (vec![], false));
    }

    #[test]
    fn those_without_weight_do_not_count() {
        let endpoints = endpoints(&[1, 0, 0, 0]);
        endpoints[1].state.health.set(false);
        let selection = Selection::new(&endpoints, 100, None);
        assert_eq!(selection.tiers()[0].members().collect::<Vec<_>>(), [0]);
        assert!(!selection.panics());
    }
}
