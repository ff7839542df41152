//! The better one of two candidates drawn by weight. Taken again and again that is nearly as even as looking at all of
//! them (Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001), and a pick costs the same however
//! many there are.

use crate::routing::Endpoint;

use super::{Choice, Pick};

/// Draws before all are looked at. Nearly every pick needs fewer, unless most endpoints may not be chosen or one has
/// nearly all of the weight.
const DRAWS: usize = 8;

type Candidate<'a> = (usize, &'a Endpoint);

/// The first one drawn, unless the second is better. With one candidate left it is that one.
pub(super) fn pick(
    choice: &Choice<'_>,
    random: &mut fastrand::Rng,
    is_better: impl Fn(&Endpoint, &Endpoint) -> bool,
) -> Option<Pick> {
    loop {
        let (first, second) = draw(choice, random)?;
        let (index, endpoint) = second.filter(|second| is_better(second.1, first.1)).unwrap_or(first);
        // Else another worker took its last place between the choice and the reservation.
        if let Some(reservation) = endpoint.reserve() {
            return Some(Pick { index, reservation });
        }
    }
}

/// Two different candidates; one if there is no other.
fn draw<'a>(
    choice: &Choice<'a>,
    random: &mut fastrand::Rng,
) -> Option<(Candidate<'a>, Option<Candidate<'a>>)> {
    let mut first: Option<Candidate<'a>> = None;
    for _ in 0..DRAWS.min(choice.tier.turns()) {
        let Some((index, endpoint)) = choice.draw(random) else { continue };
        match first {
            Some((before, _)) if before == index => {}
            Some(first) => return Some((first, Some((index, endpoint)))),
            None => first = Some((index, endpoint)),
        }
    }
    let first = match first {
        Some(first) => first,
        None => draw_from_all(choice, random, None)?,
    };
    Some((first, draw_from_all(choice, random, Some(first.0))))
}

/// Any candidate but `taken`, by weight.
fn draw_from_all<'a>(
    choice: &Choice<'a>,
    random: &mut fastrand::Rng,
    taken: Option<usize>,
) -> Option<Candidate<'a>> {
    let mut drawn = None;
    let mut total = 0;
    for (index, endpoint) in choice.candidates().filter(|(index, _)| Some(*index) != taken) {
        let weight = choice.weight(endpoint);
        total += weight;
        // Reservoir sampling: each of those so far is the drawn one with a chance in proportion to its weight.
        if random.u64(0..total) < weight {
            drawn = Some((index, endpoint));
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Tried;
    use crate::balance::tests::{endpoints, with_choice};
    use proptest::prelude::*;

    fn drawn(
        endpoints: &[Endpoint],
        tried: &Tried,
        random: &mut fastrand::Rng,
    ) -> Option<(usize, Option<usize>)> {
        with_choice(endpoints, tried, |choice| {
            draw(choice, random).map(|(first, second)| (first.0, second.map(|second| second.0)))
        })
    }

    #[test]
    fn the_first_follows_the_weights() {
        let endpoints = endpoints(&[3, 1, 6]);
        let mut random = fastrand::Rng::with_seed(3);
        let mut firsts = [0; 3];
        with_choice(&endpoints, &Tried::default(), |choice| {
            (0..10_000).for_each(|_| firsts[draw(choice, &mut random).unwrap().0.0] += 1);
        });
        for (count, expected) in firsts.iter().zip([3_000_i32, 1_000, 6_000]) {
            assert!((count - expected).abs() < 200, "{firsts:?}");
        }
    }

    #[test]
    fn who_has_nearly_all_of_the_weight_is_compared_all_the_same() {
        let endpoints = endpoints(&[10_000, 1]);
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..100 {
            assert!(drawn(&endpoints, &Tried::default(), &mut random).unwrap().1.is_some());
        }
    }

    proptest! {
        #[test]
        fn two_candidates_as_long_as_there_are_two(
            weights in prop::collection::vec(0_u32..=10_000, 0..40),
            was_tried in prop::collection::vec(any::<bool>(), 40),
            seed: u64,
        ) {
            let mut tried = Tried::default();
            let is_candidate = |index: &usize| weights[*index] > 0 && !was_tried[*index];
            (0..weights.len()).filter(|index| was_tried[*index]).for_each(|index| tried.insert(index));
            let drawn = drawn(&endpoints(&weights), &tried, &mut fastrand::Rng::with_seed(seed));
            let drawn: Vec<usize> =
                drawn.into_iter().flat_map(|(first, second)| [Some(first), second]).flatten().collect();
            prop_assert!(drawn.iter().all(is_candidate), "{:?}", drawn);
            prop_assert_eq!(drawn.len(), (0..weights.len()).filter(is_candidate).count().min(2));
            prop_assert!(drawn.len() < 2 || drawn[0] != drawn[1]);
        }
    }
}
