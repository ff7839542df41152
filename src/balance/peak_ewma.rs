//! The better one of two random endpoints by how long clients wait for it and by how many connections it has.

use crate::routing::Endpoint;

use super::{Choice, Pick, two_choices};

pub(super) fn pick(choice: &Choice<'_>, random: &mut fastrand::Rng) -> Option<Pick> {
    two_choices::pick(choice, random, |endpoint, other| is_faster(choice, endpoint, other))
}

/// Whether its time to connect and to answer, for each of its connections with one more and by its weight, is less. Of who was never tried
/// nothing is known that could be held against it, or for it: it is taken to be as fast as the other.
fn is_faster(choice: &Choice<'_>, endpoint: &Endpoint, other: &Endpoint) -> bool {
    let seconds = |endpoint: &Endpoint| endpoint.state.latency.seconds(choice.now);
    let (one, two) = seconds(endpoint).zip(seconds(other)).unwrap_or((1.0, 1.0));
    #[expect(clippy::cast_precision_loss, reason = "exact: less than 2^24")]
    let weight = |endpoint: &Endpoint| choice.weight(endpoint) as f64;
    cost(endpoint, one) * weight(other) < cost(other, two) * weight(endpoint)
}

fn cost(endpoint: &Endpoint, seconds: f32) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact for more connections than there are ports")]
    let connections = (endpoint.state.active() + 1) as f64;
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
