//! Few connections at once: what each way of choosing makes of weights then, when loads hardly differ.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::endpoints;
use crate::balance::{
    Choice, Pick, Selection, Start, Tried, least_connections, peak_ewma, random, round_robin,
};
use crate::routing::Endpoint;

type PickNext = fn(&Choice<'_>, usize, &mut fastrand::Rng) -> Option<Pick>;

const ALL: [(&str, PickNext); 4] = [
    ("RoundRobin", round_robin::pick),
    ("LeastConnections", |choice, _, random| least_connections::pick(choice, random)),
    ("Random", |choice, _, random| random::pick(choice, random)),
    ("PeakEWMA", |choice, _, random| peak_ewma::pick(choice, random)),
];

const PICKS: u32 = 10_000;
const WINDOW: Duration = Duration::from_secs(60);

/// The share that each endpoint got of many connections one after the other, of which so many live at once.
fn shares(pick: PickNext, endpoints: &[Endpoint], concurrency: usize, now: Instant, seed: u64) -> Vec<f64> {
    // As the control side does it; groups are made for many only.
    let selection = Selection::new(endpoints, 50, None).with_groups(endpoints);
    let tried = Tried::default();
    let tier = &selection.tiers()[0];
    let choice = Choice { endpoints, tier, tried: &tried, window: Some(WINDOW), takes_leaving: false, now };
    let mut random = fastrand::Rng::with_seed(seed);
    let mut held = VecDeque::new();
    let mut counts = vec![0_u32; endpoints.len()];
    for turn in 0..PICKS {
        if held.len() == concurrency {
            // Not always the oldest: that would keep time with those that take turns.
            drop(held.swap_remove_back(random.usize(0..held.len())));
        }
        let picked = pick(&choice, turn as usize, &mut random).unwrap();
        counts[picked.index] += 1;
        held.push_back(picked);
    }
    counts.into_iter().map(|count| f64::from(count) / f64::from(PICKS)).collect()
}

/// Endpoints that have all answered in about the same time.
fn measured(weights: &[u32], now: Instant) -> Vec<Endpoint> {
    let endpoints = endpoints(weights);
    for (number, endpoint) in (0_u64..).zip(&endpoints) {
        endpoint.state.latency.connected(Duration::from_micros(1_000 + number * 37 % 500), now);
    }
    endpoints
}

fn wanted(weights: &[u32]) -> Vec<f64> {
    let total: u32 = weights.iter().sum();
    weights.iter().map(|weight| f64::from(*weight) / f64::from(total)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn one_at_a_time_the_shares_are_the_weights(weights in prop::collection::vec(1..=20_u32, 2..9), seed: u64) {
        let now = Instant::now();
        // PeakEWMA tells those of the same weight apart by any difference of their times.
        let are_all_different = (1..weights.len()).all(|index| !weights[..index].contains(&weights[index]));
        for (name, pick) in ALL {
            let measured = (name != "PeakEWMA" || are_all_different).then(|| measured(&weights, now));
            for endpoints in [Some(endpoints(&weights)), measured].into_iter().flatten() {
                let shares = shares(pick, &endpoints, 1, now, seed);
                for (share, wanted) in shares.iter().zip(wanted(&weights)) {
                    prop_assert!((share - wanted).abs() < 0.03, "{name} {weights:?}: {shares:?}");
                }
            }
        }
    }

    #[test]
    fn with_a_few_at_once_nobody_starves(weights in prop::collection::vec(1..=20_u32, 2..9), seed: u64) {
        let now = Instant::now();
        for (name, pick) in ALL {
            for concurrency in [2, 4] {
                let shares = shares(pick, &endpoints(&weights), concurrency, now, seed);
                prop_assert!(shares.iter().all(|share| *share > 0.0), "{name} {concurrency} {weights:?}: {shares:?}");
            }
        }
    }
}

/// Of two. In between, what is held by load is rounded to whole connections, down to half a share at worst.
#[test]
fn the_lighter_gets_about_its_share_however_few_there_are() {
    let now = Instant::now();
    for (name, pick) in ALL {
        for (heavy, concurrency) in
            [3, 9].into_iter().flat_map(|heavy| [1, 2, 4, 16].map(|many| (heavy, many)))
        {
            let weights = [heavy, 1];
            for endpoints in [endpoints(&weights), measured(&weights, now)] {
                let share = shares(pick, &endpoints, concurrency, now, 7)[1];
                let fits = wanted(&weights)[1] * 0.5..wanted(&weights)[1] * 1.2;
                assert!(fits.contains(&share), "{name} {weights:?} {concurrency}: {share}");
            }
        }
    }
}

#[test]
fn among_many_in_groups_a_light_one_has_its_chance() {
    let mut weights = vec![1; 200];
    weights[..100].fill(9);
    for concurrency in [1, 4] {
        let shares = shares(ALL[1].1, &endpoints(&weights), concurrency, Instant::now(), 7);
        let light: f64 = shares[100..].iter().sum();
        assert!((0.08..0.12).contains(&light), "{concurrency}: {light}");
        let got_some = shares[100..].iter().filter(|share| **share > 0.0).count();
        assert_eq!(got_some, 100, "{concurrency}");
    }
}

#[test]
fn one_at_a_time_slow_start_is_a_slope() {
    let start = Instant::now();
    for (name, pick) in ALL {
        let mut endpoints = endpoints(&[1, 1]);
        endpoints[1].start = Start::At(start);
        let of_new = [6, 15, 30, 45, 60]
            .map(|second| shares(pick, &endpoints, 1, start + Duration::from_secs(second), 7)[1]);
        assert!(of_new.windows(2).all(|pair| pair[0] + 0.02 < pair[1]), "{name}: {of_new:?}");
        assert!((0.04..0.12).contains(&of_new[0]) && (0.48..0.52).contains(&of_new[4]), "{name}: {of_new:?}");
    }
}

/// It passes the same tests as one that is found by load.
#[test]
fn who_is_drawn_may_be_chosen() {
    let mut endpoints = endpoints(&[9, 5, 3, 2, 1, 0]);
    let now = Instant::now();
    let selection = Selection::new(&endpoints, 0, None);
    endpoints[1].max_connections = std::num::NonZeroUsize::new(1);
    let _full = endpoints[1].reserve();
    let drain = crate::config::UpstreamDrain { timeout: Duration::from_secs(60), close_per_second: None };
    endpoints[2].state.leave(drain, now);
    let mut tried = Tried::default();
    tried.insert(0);
    let tier = &selection.tiers()[0];
    let choice =
        Choice { endpoints: &endpoints, tier, tried: &tried, window: None, takes_leaving: false, now };
    let mut random = fastrand::Rng::with_seed(7);
    for (name, pick) in ALL {
        let mut counts = [0; 6];
        (0..1_000).for_each(|turn| counts[pick(&choice, turn, &mut random).unwrap().index] += 1);
        assert_eq!([counts[0], counts[1], counts[2], counts[5]], [0; 4], "{name}: {counts:?}");
        assert!(counts[3] > counts[4] && counts[4] > 200, "{name}: {counts:?}");
    }
}
