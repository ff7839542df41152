//! The endpoint that the client's address belongs to, as long as it has not much more than its share.
//!
//! Who is passed over (tried, its breaker open, above its bound, new) gives way to the next in an order that is the client's own, so
//! that all attempts and all processes agree on that one too.

use std::sync::Arc;

use crate::routing::Endpoint;

use super::maglev::{Maglev, Owner, remainder};
use super::slow_start::WHOLE;
use super::{Choice, Pick, hash};

/// The slots of a tier, and whose they are in this table.
#[derive(Debug)]
pub(super) struct Slots {
    maglev: Arc<Maglev>,
    /// The owners, in the order of the table of slots, by their index in the upstream.
    owners: Vec<u32>,
    /// Of all owners.
    weight: u64,
}

/// An endpoint has at most this many fourths of its fair share (Mirrokni et al., Consistent Hashing with Bounded Loads,
/// 2016) ...
const BOUND_FOURTHS: u128 = 5;
/// ... or this many connections: the shares of so few say nothing, and a client with some connections stays at its endpoint.
const ALWAYS: u128 = 10;
/// Slots that are looked at before all endpoints are. Four fifths of them can be above their bound at most.
const LOOKS: usize = 64;

/// `key` is the client's; `active` are the connections of the upstream.
pub(super) fn pick(choice: &Choice<'_>, key: u64, active: usize) -> Option<Pick> {
    let slots = choice.tier.slots()?;
    let first = |may_have: &dyn Fn(&Endpoint) -> bool| {
        slots.order(key).find_map(|index| {
            let endpoint = choice.candidate(index).filter(|endpoint| may_have(endpoint))?;
            Some(Pick { index, reservation: endpoint.reserve()? })
        })
    };
    first(&|endpoint| slots.has_room(endpoint, active) && takes_client(choice, endpoint, key))
        .or_else(|| first(&|_| true))
}

/// Not by chance: who is new takes some of its clients now, and as its share grows more and more of them, each one for good.
fn takes_client(choice: &Choice<'_>, endpoint: &Endpoint, key: u64) -> bool {
    let share = choice.share(endpoint);
    share == WHOLE
        || hash::mix(key ^ hash::of_address(endpoint.address)) % u64::from(WHOLE) < u64::from(share)
}

impl Slots {
    /// Those of `before` as far as one of them has the same owners.
    pub(super) fn new<'a>(
        members: impl Iterator<Item = usize>,
        endpoints: &[Endpoint],
        size: u32,
        mut before: impl Iterator<Item = &'a Self>,
    ) -> Self {
        let mut owners: Vec<(Owner, u32)> = members
            .filter_map(|index| {
                let Endpoint { address, weight, .. } = endpoints.get(index)?;
                Some((Owner { address: *address, weight: *weight }, u32::try_from(index).ok()?))
            })
            .collect();
        owners.sort_unstable();
        let (of, owners): (Vec<Owner>, Vec<u32>) = owners.into_iter().unzip();
        let weight = of.iter().map(|owner| u64::from(owner.weight)).sum();
        let same = before.find(|slots| slots.maglev.is_of(&of, size)).map(|slots| Arc::clone(&slots.maglev));
        Self { maglev: same.unwrap_or_else(|| Arc::new(Maglev::new(of, size))), owners, weight }
    }

    /// The endpoints in the order of a client: the owners of some slots, some of them more than once, and then all.
    fn order(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        let (size, count) = (self.maglev.size(), self.owners.len());
        // The size is a prime number, so these are all different. An owner's slots are not side by side anyway, but
        // two clients with the same first slot should not have the same second.
        let step = 1 + if size > 1 { remainder(hash::mix(key), size - 1) } else { 0 };
        let first = if size > 0 { remainder(key, size) } else { 0 };
        let looks =
            (0..LOOKS.min(size)).filter_map(move |look| self.maglev.owner((first + look * step) % size));
        let start = if count > 0 { remainder(key, count) } else { 0 };
        let all = (0..count).map(move |ahead| (start + ahead) % count);
        looks.chain(all).filter_map(|place| self.owners.get(place).map(|index| *index as usize))
    }

    /// Whether it stays within its bound with one more.
    fn has_room(&self, endpoint: &Endpoint, active: usize) -> bool {
        let (all, weight) = (active as u128 + 1, u128::from(endpoint.weight));
        let bound = (BOUND_FOURTHS * all * weight).div_ceil(4 * u128::from(self.weight.max(1)));
        (endpoint.state.active() as u128) < bound.max(ALWAYS)
    }
}

#[cfg(test)]
mod tests;
