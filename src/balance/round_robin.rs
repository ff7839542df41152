//! Weighted round robin, one order for the whole process.

use super::{Choice, Pick};

/// The endpoint whose turn it is, or the next in order that was not tried.
pub(super) fn pick(choice: &Choice<'_>, turn: usize) -> Option<Pick> {
    (0..choice.tier.turns()).find_map(|ahead| {
        let index = choice.tier.at(turn.wrapping_add(ahead))?;
        let reservation = choice.candidate(index)?.reserve()?;
        Some(Pick { index, reservation })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Tried;
    use crate::balance::tests::{endpoints, with_choice};

    #[test]
    fn visits_in_order_and_skips_the_tried() {
        let endpoints = endpoints(&[1, 1, 1]);
        let mut tried = Tried::default();
        let picked = |turn, tried: &Tried| {
            with_choice(&endpoints, tried, |choice| pick(choice, turn)).map(|pick| pick.index)
        };
        assert_eq!(
            (0..4).map(|turn| picked(turn, &tried)).collect::<Vec<_>>(),
            [Some(0), Some(1), Some(2), Some(0)]
        );
        tried.insert(1);
        assert_eq!(picked(1, &tried), Some(2));
        tried.insert(0);
        tried.insert(2);
        assert_eq!(picked(1, &tried), None);
    }
}
