//! Which endpoints of an upstream are chosen from, in order of preference. Made with the table, and pure.

use crate::routing::Endpoint;

use super::Schedule;

/// All that may be chosen. A later tier is asked only when no endpoint of the earlier ones is left to try.
#[derive(Debug, Default)]
pub struct Selection {
    tiers: Vec<Tier>,
}

/// Endpoints that are balanced as one.
#[derive(Debug)]
pub(super) struct Tier {
    /// By their index in the upstream; none of weight 0.
    members: Vec<u32>,
    /// The order in which round robin visits `members`, by weight.
    schedule: Schedule,
}

impl Selection {
    pub fn new(endpoints: &[Endpoint]) -> Self {
        let all = (0u32..).zip(endpoints).filter(|(_, endpoint)| endpoint.weight > 0);
        let tier = Tier::new(all.map(|(index, _)| index).collect(), endpoints);
        Self { tiers: vec![tier] }
    }

    /// Whether there is nothing to choose from.
    pub fn is_empty(&self) -> bool {
        self.tiers.iter().all(|tier| tier.members.is_empty())
    }

    pub(super) fn tiers(&self) -> &[Tier] {
        &self.tiers
    }
}

impl Tier {
    pub(super) fn new(members: Vec<u32>, endpoints: &[Endpoint]) -> Self {
        let weight = |member: &u32| endpoints.get(*member as usize).map_or(0, |endpoint| endpoint.weight);
        Self { schedule: Schedule::new(members.iter().map(weight)), members }
    }

    /// The indices of its endpoints.
    pub(super) fn members(&self) -> impl Iterator<Item = usize> + '_ {
        self.members.iter().map(|member| *member as usize)
    }

    /// The index of the endpoint whose turn this is. `None`: the tier is empty.
    pub(super) fn at(&self, turn: usize) -> Option<usize> {
        self.members.get(self.schedule.at(turn)?).map(|member| *member as usize)
    }

    /// How many turns make one repetition.
    pub(super) fn turns(&self) -> usize {
        self.schedule.len()
    }
}
