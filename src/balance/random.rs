//! A random endpoint, by weight.

use crate::routing::Endpoint;

use super::{Choice, Pick};

/// Each candidate with a chance in proportion to its weight.
pub(super) fn pick(choice: &Choice<'_>, random: &mut fastrand::Rng) -> Option<Pick> {
    loop {
        let (index, endpoint) = draw(choice, random)?;
        // Else another worker took its last place, or its breaker opened, between the choice and the reservation.
        if let Some(reservation) = endpoint.reserve() {
            return Some(Pick { index, reservation });
        }
    }
}

fn draw<'a>(choice: &Choice<'a>, random: &mut fastrand::Rng) -> Option<(usize, &'a Endpoint)> {
    let candidates: Vec<(usize, &Endpoint)> = choice.candidates().collect();
    let total: u64 = candidates.iter().map(|(_, endpoint)| u64::from(endpoint.weight)).sum();
    let mut ticket = random.u64(0..total.max(1));
    candidates.into_iter().find(|(_, endpoint)| {
        let weight = u64::from(endpoint.weight);
        let is_drawn = ticket < weight;
        ticket = ticket.saturating_sub(weight);
        is_drawn
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Tried;
    use crate::balance::tests::{endpoints, with_choice};

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
        for _ in 0..4_000 {
            chosen[pick(&endpoints, &tried, &mut random).unwrap().index] += 1;
        }
        assert_eq!(chosen[2], 0);
        assert!((2_850..3_150).contains(&chosen[0]), "{chosen:?}");
    }

    #[test]
    fn nothing_left_is_nothing_picked() {
        let mut random = fastrand::Rng::with_seed(3);
        assert!(pick(&endpoints(&[0]), &Tried::default(), &mut random).is_none());
        assert!(pick(&[], &Tried::default(), &mut random).is_none());
    }
}
