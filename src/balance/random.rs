//! The better one of two random endpoints: the one with fewer connections for its weight, among equals by weight. The first one
//! is taken anyway if it has none.

use crate::routing::Endpoint;

use super::{Choice, Pick, two_choices};

pub(super) fn pick(choice: &Choice<'_>, random: &mut fastrand::Rng) -> Option<Pick> {
    two_choices::pick(choice, random, |endpoint, other| has_fewer(choice, endpoint, other))
}

/// Whether it would have fewer connections for its weight with one more. Not than one that has none: that one was drawn by
/// weight, and where there are few connections this is all that follows the weights. A heavy one with a few would
/// be better for ever, and without the one more a light one without any would be.
fn has_fewer(choice: &Choice<'_>, endpoint: &Endpoint, other: &Endpoint) -> bool {
    let (active, active_of_other) = (endpoint.state.active(), other.state.active());
    let load = |active: usize, other: &Endpoint| (active as u128 + 1) * u128::from(choice.weight(other));
    active_of_other > 0 && load(active, other) < load(active_of_other, endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Tried;
    use crate::balance::tests::{endpoints, picks_of_new, with_choice};

    fn pick(endpoints: &[Endpoint], tried: &Tried, random: &mut fastrand::Rng) -> Option<Pick> {
        with_choice(endpoints, tried, |choice| super::pick(choice, random))
    }

    #[test]
    fn follows_the_weights_and_skips_the_tried() {
        let endpoints = endpoints(&[3, 1, 6]);
        let mut random = fastrand::Rng::with_seed(3);
        let mut tried = Tried::default();
        tried.insert(2);
        let mut chosen = [0; 3];
        with_choice(&endpoints, &tried, |choice| {
            (0..4_000).for_each(|_| chosen[super::pick(choice, &mut random).unwrap().index] += 1);
        });
        assert_eq!(chosen[2], 0);
        assert!((2_850..3_150).contains(&chosen[0]), "{chosen:?}");
    }

    /// One random choice would leave a standard deviation of 10.
    #[test]
    fn connections_that_last_are_spread_evenly_and_by_weight() {
        let endpoints = endpoints(&[[1; 50], [3; 50]].concat());
        let mut random = fastrand::Rng::with_seed(3);
        let _held: Vec<Pick> = with_choice(&endpoints, &Tried::default(), |choice| {
            (0..20_000).map_while(|_| super::pick(choice, &mut random)).collect()
        });
        for endpoint in &endpoints {
            let (active, fair) = (endpoint.state.active(), 100 * endpoint.weight as usize);
            assert!(active.abs_diff(fair) <= 6 * endpoint.weight as usize, "{active} in place of {fair}");
        }
    }

    #[test]
    fn of_two_the_less_loaded_is_taken() {
        let endpoints = endpoints(&[1, 1]);
        let mut random = fastrand::Rng::with_seed(3);
        let _held = endpoints[0].state.reserve();
        for _ in 0..100 {
            assert_eq!(pick(&endpoints, &Tried::default(), &mut random).map(|pick| pick.index), Some(1));
        }
    }

    #[test]
    fn nothing_left_is_nothing_picked() {
        let mut random = fastrand::Rng::with_seed(3);
        assert!(pick(&endpoints(&[0]), &Tried::default(), &mut random).is_none());
        assert!(pick(&[], &Tried::default(), &mut random).is_none());
    }

    /// By load; and by chance: a fifth of half of the first draws, and of those that come again.
    #[test]
    fn who_is_new_gets_less() {
        let held = picks_of_new(true, 600, super::pick);
        assert!((95..=105).contains(&held), "{held}");
        let picks = picks_of_new(false, 10_000, super::pick);
        assert!((1_500..1_850).contains(&picks), "{picks}");
    }
}
