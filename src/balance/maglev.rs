//! A table of slots that are shared out by weight, so that when some endpoints come or go few slots of the others move
//! (Eisenbud et al., Maglev: A Fast and Reliable Software Network Load Balancer, NSDI 2016, 3.4).

use std::net::SocketAddr;

use super::hash;

/// Who has which slot. Depends on addresses and weights alone, so that every process with the same endpoints has the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Maglev {
    owners: Vec<Owner>,
    /// By the owner's place among `owners`.
    slots: Vec<u32>,
}

/// An endpoint, as far as slots depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) address: SocketAddr,
    /// Above 0.
    pub(super) weight: u32,
}

impl Maglev {
    /// Shares out `size` slots, a prime number of them. `owners` are in the order of their addresses.
    pub(super) fn new(owners: Vec<Owner>, size: u32) -> Self {
        let slots = share_out(&owners, size as usize);
        Self { owners, slots }
    }

    /// Whether [`Self::new`] with these would be the same again.
    pub(super) fn is_of(&self, owners: &[Owner], size: u32) -> bool {
        self.size() == if owners.is_empty() { 0 } else { size as usize } && self.owners == owners
    }

    /// How many slots there are; 0 where nobody is to own them.
    pub(super) fn size(&self) -> usize {
        self.slots.len()
    }

    /// The owner of a slot, by its place among the owners.
    pub(super) fn owner(&self, slot: usize) -> Option<usize> {
        self.slots.get(slot).map(|owner| *owner as usize)
    }
}

const FREE: u32 = u32::MAX;

/// Each owner has an order of its own in which it wants the slots. They take turns, and each takes the first free one of its
/// order; who has half of the greatest weight takes every other turn, and so on.
fn share_out(owners: &[Owner], size: usize) -> Vec<u32> {
    let Some(most) = owners.iter().map(|owner| u64::from(owner.weight)).max() else { return Vec::new() };
    let mut orders: Vec<Order> = owners.iter().map(|owner| Order::new(owner.address, size)).collect();
    let mut slots = vec![FREE; size];
    let mut free = size;
    for round in 1.. {
        for ((place, owner), order) in (0..).zip(owners).zip(&mut orders) {
            if round * u64::from(owner.weight) < order.due {
                continue;
            }
            order.due += most;
            if free == 0 {
                return slots;
            }
            while slots.get(order.slot).is_some_and(|slot| *slot != FREE) {
                order.advance(size);
            }
            if let Some(slot) = slots.get_mut(order.slot) {
                *slot = place;
            }
            free -= 1;
        }
    }
    slots
}

/// Visits every slot once, as the size is a prime number.
struct Order {
    slot: usize,
    skip: usize,
    /// The round, times the weight, from which on it may take its next slot.
    due: u64,
}

impl Order {
    fn new(address: SocketAddr, size: usize) -> Self {
        let seed = hash::of_address(address);
        Self { slot: remainder(seed, size), skip: 1 + remainder(hash::mix(seed), size - 1), due: 0 }
    }

    fn advance(&mut self, size: usize) {
        self.slot += self.skip;
        if self.slot >= size {
            self.slot -= size;
        }
    }
}

/// Below `size`, which is not 0.
#[expect(clippy::cast_possible_truncation, reason = "less than size")]
pub(super) fn remainder(hash: u64, size: usize) -> usize {
    (hash % size as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u32 = 10_007;

    fn owners(weights: &[u32]) -> Vec<Owner> {
        let address = |number: usize| ([10, 0, 0, u8::try_from(number).unwrap()], 5432).into();
        weights
            .iter()
            .enumerate()
            .map(|(number, weight)| Owner { address: address(number), weight: *weight })
            .collect()
    }

    fn addresses(maglev: &Maglev) -> Vec<SocketAddr> {
        maglev.slots.iter().map(|owner| maglev.owners[*owner as usize].address).collect()
    }

    #[test]
    fn nobody_owns_nothing() {
        let empty = Maglev::new(Vec::new(), SIZE);
        assert_eq!((empty.size(), empty.owner(0)), (0, None));
        assert!(empty.is_of(&[], SIZE));
        assert!(!empty.is_of(&owners(&[1]), SIZE));
    }

    #[test]
    fn more_owners_than_slots_share_them_all_the_same() {
        let maglev = Maglev::new(owners(&[1; 50]), 7);
        let mut with_one = maglev.slots.clone();
        with_one.sort_unstable();
        with_one.dedup();
        assert_eq!(with_one.len(), 7);
    }

    #[test]
    fn is_of_its_owners_and_size_only() {
        let maglev = Maglev::new(owners(&[1, 2]), SIZE);
        assert!(maglev.is_of(&owners(&[1, 2]), SIZE));
        assert!(!maglev.is_of(&owners(&[2, 1]), SIZE));
        assert!(!maglev.is_of(&owners(&[1, 2]), 101));
        assert_eq!(maglev, Maglev::new(owners(&[1, 2]), SIZE));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn shares_are_the_weights(weights in prop::collection::vec(1_u32..=20, 1..20)) {
            let maglev = Maglev::new(owners(&weights), SIZE);
            let total: u32 = weights.iter().sum();
            for (place, weight) in weights.iter().enumerate() {
                let slots = maglev.slots.iter().filter(|owner| **owner as usize == place).count() as f64;
                let fair = f64::from(SIZE) * f64::from(*weight) / f64::from(total);
                prop_assert!((slots - fair).abs() <= 2.0 + fair / 100.0, "{weights:?}: {place} has {slots}, wants {fair}");
            }
        }

        #[test]
        fn when_one_leaves_little_else_moves(count in 2_usize..=80, leaver: prop::sample::Index, heavy in 1_u32..=3) {
            let mut all = owners(&vec![1; count]);
            all[0].weight = heavy;
            // With 90 it is just so, and with more of them more would move: docs/balancing.md.
            let before = Maglev::new(all.clone(), 65_537);
            let left = all.remove(leaver.index(count)).address;
            let after = Maglev::new(all, 65_537);
            let (before, after) = (addresses(&before), addresses(&after));
            let least = before.iter().filter(|address| **address == left).count();
            let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
            prop_assert!(moved >= least && moved as f64 <= 1.5 * least as f64, "{moved} in place of {least}");
        }
    }
}
