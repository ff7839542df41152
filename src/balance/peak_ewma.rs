//! The better one of two random endpoints by how long clients wait for it and by how many connections it has.

use crate::routing::Endpoint;

use super::{Choice, Pick, two_choices};

pub(super) fn pick(choice: &Choice<'_>, random: &mut fastrand::Rng) -> Option<Pick> {
    two_choices::pick(choice, random, |endpoint, other| is_faster(choice, endpoint, other))
}

/// How many times as fast is clearly faster, of two of which one has another weight.
const CLEARLY: f64 = 2.0;

/// Whether its time to connect and to answer, for each of its connections with one more and by its weight, is less. Of who was never tried
/// nothing is known that could be held against it, or for it: it is taken to be as fast as the other.
///
/// The other was drawn by weight, and where there are few connections this is all that follows the weights: a heavy one
/// would be better for ever. So if that has no connection, being the heavier is not enough.
fn is_faster(choice: &Choice<'_>, endpoint: &Endpoint, other: &Endpoint) -> bool {
    let seconds = |endpoint: &Endpoint| endpoint.state.latency.seconds(choice.now);
    let (one, two) = seconds(endpoint).zip(seconds(other)).unwrap_or((1.0, 1.0));
    let (weight, weight_of_other) = (choice.weight(endpoint), choice.weight(other));
    let active_of_other = other.state.active();
    let (cost, cost_of_other) = (cost(endpoint.state.active(), one), cost(active_of_other, two));
    #[expect(clippy::cast_precision_loss, reason = "exact: less than 2^53")]
    let is_better = cost * (weight_of_other as f64) < cost_of_other * (weight as f64);
    let counts_alone = active_of_other > 0 || weight == weight_of_other;
    is_better && (counts_alone || cost * CLEARLY < cost_of_other)
}

fn cost(active: usize, seconds: f32) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact for more connections than there are ports")]
    let connections = (active + 1) as f64;
    f64::from(seconds) * connections
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Tried;
    use crate::balance::tests::{endpoints, picks_of_new, with_choice};
    use std::time::{Duration, Instant};

    /// Endpoints whose connects take so many milliseconds.
    fn with_latencies(millis: &[u64]) -> Vec<Endpoint> {
        let endpoints = endpoints(&vec![1; millis.len()]);
        for (endpoint, millis) in endpoints.iter().zip(millis) {
            endpoint.state.latency.connected(Duration::from_millis(*millis), Instant::now());
        }
        endpoints
    }

    fn hold(endpoints: &[Endpoint], count: usize) -> Vec<Pick> {
        let mut random = fastrand::Rng::with_seed(3);
        with_choice(endpoints, &Tried::default(), |choice| {
            (0..count).map_while(|_| super::pick(choice, &mut random)).collect()
        })
    }

    fn active(endpoints: &[Endpoint]) -> Vec<usize> {
        endpoints.iter().map(|endpoint| endpoint.state.active()).collect()
    }

    #[test]
    fn who_is_slow_gets_as_much_less() {
        let endpoints = with_latencies(&[1, 4]);
        let _held = hold(&endpoints, 500);
        assert_eq!(active(&endpoints), [400, 100]);
    }

    #[test]
    fn alike_they_get_the_same_by_weight() {
        let mut endpoints = with_latencies(&[1, 1]);
        endpoints[0].weight = 3;
        let _held = hold(&endpoints, 400);
        assert_eq!(active(&endpoints), [300, 100]);
    }

    #[test]
    fn who_was_never_tried_is_neither_preferred_nor_left_alone() {
        let mut endpoints = with_latencies(&[1, 1]);
        endpoints[1].state = Default::default();
        let _held = hold(&endpoints, 100);
        assert_eq!(active(&endpoints), [50, 50]);
    }

    #[test]
    fn who_fails_is_left_alone() {
        let endpoints = with_latencies(&[1, 1, 1]);
        endpoints[2].state.latency.failed(Duration::ZERO, Instant::now());
        let _held = hold(&endpoints, 12);
        assert_eq!(active(&endpoints)[2], 0, "ten times as slow");
    }

    #[test]
    fn who_is_new_gets_less() {
        assert_eq!(picks_of_new(true, 600, super::pick), 100);
    }
}
