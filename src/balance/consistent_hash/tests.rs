use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::balance::tests::{endpoints, picks_of_new};
use crate::balance::{Selection, Tried};

const SIZE: u32 = 10_007;

fn with_choice<T>(endpoints: &[Endpoint], tried: &Tried, act: impl FnOnce(&Choice<'_>) -> T) -> T {
    let selection = Selection::new(endpoints, 50, None).with_slots(SIZE, endpoints, None);
    act(&Choice {
        endpoints,
        tier: &selection.tiers()[0],
        tried,
        window: None,
        takes_leaving: false,
        now: std::time::Instant::now(),
    })
}

fn client(number: u32) -> u64 {
    hash::of_ip(IpAddr::V4((0x0a00_0000 + number).into()))
}

/// Where each of these clients goes while nobody is connected.
fn places(endpoints: &[Endpoint], tried: &Tried, clients: u32) -> Vec<SocketAddr> {
    with_choice(endpoints, tried, |choice| {
        (0..clients).map(|number| endpoints[pick(choice, client(number), 0).unwrap().index].address).collect()
    })
}

fn slots(selection: &Selection) -> &Slots {
    selection.tiers()[0].slots().unwrap()
}

#[test]
fn clients_are_spread_by_weight_and_stay() {
    let endpoints = endpoints(&[1, 3, 0, 1]);
    let first = places(&endpoints, &Tried::default(), 5_000);
    assert_eq!(first, places(&endpoints, &Tried::default(), 5_000));
    let mut counts: HashMap<SocketAddr, i32> = HashMap::new();
    first.into_iter().for_each(|address| *counts.entry(address).or_default() += 1);
    for (endpoint, expected) in endpoints.iter().zip([1_000, 3_000, 0, 1_000]) {
        let count = counts.get(&endpoint.address).copied().unwrap_or(0);
        assert!((count - expected).abs() <= 100, "{count} in place of {expected}");
    }
}

#[test]
fn the_order_of_the_list_says_nothing() {
    let mut endpoints = endpoints(&[1; 7]);
    let before = places(&endpoints, &Tried::default(), 500);
    endpoints.reverse();
    assert_eq!(places(&endpoints, &Tried::default(), 500), before);
}

#[test]
fn who_is_passed_over_gives_way_to_the_same_next_one_for_a_client_and_to_all_others_for_many() {
    let endpoints = endpoints(&[1; 7]);
    let first = places(&endpoints, &Tried::default(), 500);
    let mut tried = Tried::default();
    tried.insert(0);
    let second = places(&endpoints, &tried, 500);
    assert_eq!(second, places(&endpoints, &tried, 500));
    let pairs = || first.iter().zip(&second);
    assert!(pairs().all(|(first, second)| (*first == endpoints[0].address) == (first != second)));
    let next: BTreeSet<&SocketAddr> =
        pairs().filter(|(first, second)| first != second).map(|(_, second)| second).collect();
    assert_eq!(next.len(), 6);
}

#[test]
fn a_client_has_some_connections_at_its_endpoint_and_no_more_than_the_bound() {
    let endpoints = endpoints(&[1; 4]);
    let mut held = Vec::new();
    with_choice(&endpoints, &Tried::default(), |choice| {
        for active in 0..400 {
            held.push(pick(choice, client(1), active).unwrap());
            let home = endpoints[held[0].index].state.active();
            assert!(home <= 10.max((active + 1) * 5 / 16 + 1), "{home} of {}", active + 1);
            assert!(active >= 10 || home == active + 1, "{home} of {}", active + 1);
        }
    });
    assert!(endpoints.iter().all(|endpoint| endpoint.state.active() <= 125));
    drop(held);
    assert_eq!(endpoints.iter().map(|endpoint| endpoint.state.active()).sum::<usize>(), 0);
}

#[test]
fn who_is_above_its_bound_is_better_than_nobody() {
    let endpoints = endpoints(&[1, 1]);
    let _held: Vec<_> = (0..100).map(|_| endpoints[1].state.reserve()).collect();
    let mut tried = Tried::default();
    tried.insert(0);
    with_choice(&endpoints, &tried, |choice| {
        assert_eq!(pick(choice, client(1), 100).map(|pick| pick.index), Some(1));
    });
    tried.insert(1);
    with_choice(&endpoints, &tried, |choice| assert!(pick(choice, client(1), 100).is_none()));
    with_choice(&[], &tried, |choice| assert!(pick(choice, client(1), 100).is_none()));
}

/// A fifth of its half of the clients.
#[test]
fn who_is_new_has_some_of_its_clients() {
    let mut number = 0;
    let picks = picks_of_new(false, 10_000, |choice, _| {
        number += 1;
        let picked = pick(choice, client(number), 0);
        let again = pick(choice, client(number), 0);
        assert_eq!(picked.as_ref().map(|pick| pick.index), again.map(|pick| pick.index), "it stays");
        picked
    });
    assert!((850..1_150).contains(&picks), "{picks}");
}

#[test]
fn what_has_not_changed_is_not_made_again() {
    let mut all = endpoints(&[1, 2, 3]);
    let first = Selection::new(&all, 50, None).with_slots(SIZE, &all, None);
    all.reverse();
    let again = Selection::new(&all, 50, None).with_slots(SIZE, &all, Some(&first));
    assert!(Arc::ptr_eq(&slots(&first).maglev, &slots(&again).maglev));
    assert_ne!(slots(&first).owners, slots(&again).owners);
    let larger = Selection::new(&all, 50, None).with_slots(20_011, &all, Some(&first));
    all[0].weight = 7;
    let heavier = Selection::new(&all, 50, None).with_slots(SIZE, &all, Some(&first));
    for other in [larger, heavier] {
        assert!(!Arc::ptr_eq(&slots(&first).maglev, &slots(&other).maglev));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whoever_is_left_is_found(
        weights in prop::collection::vec(0_u32..=20, 0..40),
        was_tried in prop::collection::vec(any::<bool>(), 40),
        client: [u8; 16],
    ) {
        let mut tried = Tried::none(client.into());
        (0..weights.len()).filter(|index| was_tried[*index]).for_each(|index| tried.insert(index));
        let is_candidate = |index: &usize| weights[*index] > 0 && !was_tried[*index];
        let picked = with_choice(&endpoints(&weights), &tried, |choice| pick(choice, tried.key, 0));
        prop_assert_eq!(picked.is_some(), (0..weights.len()).any(|index| is_candidate(&index)));
        prop_assert!(picked.is_none_or(|picked| is_candidate(&picked.index)));
    }
}
