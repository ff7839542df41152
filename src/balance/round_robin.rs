//! Weighted round robin, one order for the whole process.

use crate::routing::Endpoint;

use super::{Choice, Pick};

/// The endpoint whose turn it is, or the next in order that was not tried.
pub(super) fn pick(choice: &Choice<'_>, turn: usize, random: &mut fastrand::Rng) -> Option<Pick> {
    loop {
        let first = candidates_from(choice, turn).next()?;
        let (index, endpoint) = if choice.takes_turn(first.1, random) {
            first
        } else {
            // To anybody, and not to who comes next: that one would get all that the new one passes on.
            let turn = random.usize(0..choice.tier.turns());
            let mut others = candidates_from(choice, turn);
            others.find(|(_, endpoint)| choice.takes_turn(endpoint, random)).unwrap_or(first)
        };
        // Else another worker took its last place between the choice and the reservation.
        if let Some(reservation) = endpoint.reserve() {
            return Some(Pick { index, reservation });
        }
    }
}

fn candidates_from<'a>(choice: &Choice<'a>, turn: usize) -> impl Iterator<Item = (usize, &'a Endpoint)> {
    (0..choice.tier.turns()).filter_map(move |ahead| {
        let index = choice.tier.at(turn.wrapping_add(ahead))?;
        Some((index, choice.candidate(index)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Tried;
    use crate::balance::tests::{endpoints, picks_of_new, with_choice};

    #[test]
    fn visits_in_order_and_skips_the_tried() {
        let endpoints = endpoints(&[1, 1, 1]);
        let mut tried = Tried::default();
        let picked = |turn, tried: &Tried| {
            let mut random = fastrand::Rng::with_seed(3);
            with_choice(&endpoints, tried, |choice| pick(choice, turn, &mut random)).map(|pick| pick.index)
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
    /// It takes a fifth of its turns, and again of those that come back to it.
    #[test]
    fn who_is_new_passes_turns_on() {
        let mut turn = 0;
        let picks = picks_of_new(false, 10_000, |choice, random| {
            turn += 1;
            pick(choice, turn, random)
        });
        assert!((1_250..1_550).contains(&picks), "{picks}");
    }
}
