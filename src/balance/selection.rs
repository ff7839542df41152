//! Which endpoints of an upstream are chosen from, in order of preference. Made with the table, and pure.

use crate::routing::Endpoint;

use super::Schedule;
use super::consistent_hash::Slots;

/// All that may be chosen. A later tier is asked only when no endpoint of the earlier ones is left to try.
#[derive(Debug, Default)]
pub struct Selection {
    tiers: Vec<Tier>,
    panics: bool,
}

/// Endpoints that are balanced as one.
#[derive(Debug)]
pub(super) struct Tier {
    /// By their index in the upstream; none of weight 0.
    members: Vec<u32>,
    /// The order in which round robin visits `members`, by weight.
    schedule: Schedule,
    /// Only where clients are hashed.
    slots: Option<Slots>,
}

impl Selection {
    /// The healthy ones of `endpoints`; all of them when fewer than `panic_threshold` per cent are healthy, because then it
    /// is more likely that the probes are wrong, or that the few would drown in what is meant for all.
    pub fn new(endpoints: &[Endpoint], panic_threshold: u32) -> Self {
        let with_weight = || (0u32..).zip(endpoints).filter(|(_, endpoint)| endpoint.weight > 0);
        let all: Vec<u32> = with_weight().map(|(index, _)| index).collect();
        let healthy: Vec<u32> = with_weight()
            .filter(|(_, endpoint)| endpoint.state.health.is_healthy())
            .map(|(index, _)| index)
            .collect();
        let panics = healthy.len() < all.len()
            && healthy.len() as u64 * 100 < all.len() as u64 * u64::from(panic_threshold);
        let members = if panics { all } else { healthy };
        Self { tiers: vec![Tier::new(members, endpoints)], panics }
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

    /// Whether so few endpoints are healthy that health is ignored.
    pub fn panics(&self) -> bool {
        self.panics
    }

    /// Whether there is nothing to choose from.
    pub fn is_empty(&self) -> bool {
        self.tiers.iter().all(|tier| tier.members.is_empty())
    }

    /// The indices of all that may be chosen.
    pub fn members(&self) -> impl Iterator<Item = usize> + '_ {
        self.tiers.iter().flat_map(Tier::members)
    }

    pub(super) fn tiers(&self) -> &[Tier] {
        &self.tiers
    }
}

impl Tier {
    pub(super) fn new(members: Vec<u32>, endpoints: &[Endpoint]) -> Self {
        let weight = |member: &u32| endpoints.get(*member as usize).map_or(0, |endpoint| endpoint.weight);
        Self { schedule: Schedule::new(members.iter().map(weight)), members, slots: None }
    }

    /// The indices of its endpoints.
    pub(super) fn members(&self) -> impl Iterator<Item = usize> + '_ {
        self.members.iter().map(|member| *member as usize)
    }

    /// The index of the endpoint whose turn this is. `None`: the tier is empty.
    pub(super) fn at(&self, turn: usize) -> Option<usize> {
        self.members.get(self.schedule.at(turn)?).map(|member| *member as usize)
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

    fn chosen(healthy: &[bool], panic_threshold: u32) -> (Vec<usize>, bool) {
        let endpoints = endpoints(&vec![1; healthy.len()]);
        for (endpoint, healthy) in endpoints.iter().zip(healthy) {
            endpoint.state.health.set(*healthy);
        }
        let selection = Selection::new(&endpoints, panic_threshold);
        (selection.tiers()[0].members().collect(), selection.panics())
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
    fn without_a_threshold_none_may_be_left() {
        assert_eq!(chosen(&[false, false], 0), (vec![], false));
    }

    #[test]
    fn those_without_weight_do_not_count() {
        let endpoints = endpoints(&[1, 0, 0, 0]);
        endpoints[1].state.health.set(false);
        let selection = Selection::new(&endpoints, 100);
        assert_eq!(selection.tiers()[0].members().collect::<Vec<_>>(), [0]);
        assert!(!selection.panics());
    }
}
