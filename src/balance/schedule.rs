//! The order in which weighted choices take turns: smooth, so that 3:1 is `a a b a` and not `a a a b`.

/// A repeating order of indices in which each appears in proportion to its weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Vec<u32>);

/// Longest order kept. Larger sums of weights are scaled down to it, which costs at most
/// one part in this many of accuracy per choice.
const TURNS_MAX: u64 = 16_384;

impl Schedule {
    /// The order for these weights; the caller's index is the position. Weight 0 never appears.
    pub fn new(weights: impl Iterator<Item = u32>) -> Self {
        let weights: Vec<u64> = weights.map(u64::from).collect();
        let divisor = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
        let total: u64 = weights.iter().sum::<u64>() / divisor;
        let weights: Vec<u64> = if total <= TURNS_MAX {
            weights.iter().map(|weight| weight / divisor).collect()
        } else {
            let scale = |weight: &u64| (*weight > 0).then(|| (weight / divisor * TURNS_MAX / total).max(1));
            weights.iter().map(|weight| scale(weight).unwrap_or(0)).collect()
        };
        Self(smooth(&weights))
    }

    /// The index whose turn it is. `None` when no weight is above 0.
    pub fn at(&self, turn: usize) -> Option<usize> {
        let index = self.0.get(turn.checked_rem(self.0.len())?)?;
        usize::try_from(*index).ok()
    }

    /// How many turns make one repetition.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Interleaves by the ideal times of each turn: the k-th of n turns of an index is due at (k + 1/2) / n,
/// so every prefix of the order is within one turn of the exact shares.
fn smooth(weights: &[u64]) -> Vec<u32> {
    let mut turns: Vec<(f64, u32)> = Vec::new();
    for (index, weight) in (0u32..).zip(weights) {
        let turns_of_index = u32::try_from(*weight).unwrap_or(u32::MAX);
        turns.extend((0..turns_of_index).map(|k| ((f64::from(k) + 0.5) / f64::from(turns_of_index), index)));
    }
    turns.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    turns.into_iter().map(|(_, index)| index).collect()
}

fn greatest_common_divisor(mut one: u64, mut other: u64) -> u64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(weights: &[u32]) -> Vec<usize> {
        let schedule = Schedule::new(weights.iter().copied());
        (0..schedule.len()).map(|turn| schedule.at(turn).unwrap()).collect()
    }

    #[test]
    fn equal_weights_take_plain_turns() {
        assert_eq!(order(&[7, 7, 7]), [0, 1, 2]);
    }

    #[test]
    fn a_heavy_one_is_spread_out() {
        assert_eq!(order(&[3, 1]), [0, 0, 1, 0]);
    }

    #[test]
    fn no_weight_no_turn() {
        assert_eq!(order(&[0, 0]), [0usize; 0]);
        assert_eq!(Schedule::new([0].into_iter()).at(5), None);
    }

    proptest! {
        #[test]
        fn shares_are_the_weights_within_one_per_cent(weights in prop::collection::vec(0u32..=1_000_000, 1..20)) {
            let order = order(&weights);
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            for (index, weight) in weights.iter().enumerate() {
                let turns = order.iter().filter(|turn| **turn == index).count();
                let share = turns as f64 / order.len().max(1) as f64;
                let wanted = if total > 0.0 { f64::from(*weight) / total } else { 0.0 };
                prop_assert!((share - wanted).abs() < 0.01, "{weights:?}: {index} has {share}, wants {wanted}");
                prop_assert!(*weight == 0 || turns > 0, "{weights:?}: {index} starves");
            }
        }
    }
}
