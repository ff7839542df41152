//! The endpoint with the fewest connections for its weight, exact across workers.

use std::ops::ControlFlow;

use crate::routing::Endpoint;

use super::groups::{self, Groups};
use super::{Choice, Pick};

/// Groups that are looked at before all endpoints are: with so many in vain, the others are likely to be in vain too.
const GROUPS_MAX: usize = 8;

/// Draws before the least loaded is looked for, where those that are drawn may not be chosen.
const DRAWS: usize = 8;

/// Where weights differ, one that is drawn by weight if it has no connection: by load alone nobody would go to a light one until
/// those that are heavier have many. Else the least loaded.
pub(super) fn pick(choice: &Choice<'_>, random: &mut fastrand::Rng) -> Option<Pick> {
    idle_by_weight(choice, random).or_else(|| by_load(choice, random))
}

/// The least loaded candidate; among equals a random one.
///
/// The choice stands only if its count is still the one that was compared: it then was the least of what
/// was seen. A lost race is simply run again; some other worker's pick took hold each time, so all together always move
/// on.
pub(super) fn by_load(choice: &Choice<'_>, random: &mut fastrand::Rng) -> Option<Pick> {
    loop {
        let found = choice.tier.groups().and_then(|groups| least_of_groups(choice, groups, random));
        let Least { index, endpoint, active, .. } = found.or_else(|| least(choice, random))?;
        if let Some(reservation) = endpoint.state.reserve_if(active) {
            return Some(Pick { index, reservation });
        }
    }
}

/// Who is drawn by weight, if it has no connection. Where all are alike none is better than such a one, and it is found by load.
fn idle_by_weight(choice: &Choice<'_>, random: &mut fastrand::Rng) -> Option<Pick> {
    if choice.tier.is_even() && choice.window.is_none() {
        return None;
    }
    let (index, endpoint) = (0..DRAWS).find_map(|_| choice.draw(random))?;
    // To look first is cheaper than to reserve in vain.
    let is_idle = endpoint.state.active() == 0;
    let reservation = is_idle.then(|| endpoint.state.reserve_if(0)).flatten()?;
    Some(Pick { index, reservation })
}

struct Least<'a> {
    index: usize,
    endpoint: &'a Endpoint,
    active: usize,
    weight: u64,
}

/// The best of those that were looked at.
#[derive(Default)]
struct Best<'a> {
    least: Option<Least<'a>>,
    /// How many are as good.
    equals: u32,
}

impl<'a> Best<'a> {
    fn consider(&mut self, candidate: Least<'a>, random: &mut fastrand::Rng) {
        // Looked at once more: it is this count that the choice stands or falls with.
        if candidate.endpoint.max_connections.is_some_and(|max| candidate.active >= max.get()) {
            return;
        }
        let order = self.least.as_ref().map_or(std::cmp::Ordering::Less, |least| {
            load_after(candidate.active, least.weight).cmp(&load_after(least.active, candidate.weight))
        });
        let is_taken = match order {
            std::cmp::Ordering::Less => {
                self.equals = 1;
                true
            }
            std::cmp::Ordering::Equal => {
                // Reservoir sampling: each of the equals ends up chosen with the same chance.
                self.equals += 1;
                random.u32(0..self.equals) == 0
            }
            std::cmp::Ordering::Greater => false,
        };
        if is_taken {
            self.least = Some(candidate);
        }
    }
}

fn least<'a>(choice: &Choice<'a>, random: &mut fastrand::Rng) -> Option<Least<'a>> {
    let mut best = Best::default();
    for (index, endpoint) in choice.candidates() {
        let (active, weight) = (endpoint.state.active(), choice.weight(endpoint));
        best.consider(Least { index, endpoint, active, weight }, random);
    }
    best.least
}

/// The same, by looking only where it may be. `None`: it was not found like that.
fn least_of_groups<'a>(
    choice: &Choice<'a>,
    groups: &Groups,
    random: &mut fastrand::Rng,
) -> Option<Least<'a>> {
    let mut best = None;
    let mut seen = [usize::MAX; GROUPS_MAX];
    for count in 0..=GROUPS_MAX {
        let Some((number, bound)) = groups.least(seen.get(..count)?, random) else { break };
        if best.as_ref().is_some_and(|least| load(least) <= bound) {
            break;
        }
        *seen.get_mut(count)? = number;
        if look_at(choice, groups, (number, bound), &mut best, random).is_break() {
            break;
        }
    }
    best
}

/// Looks for a better one in a group, until it has found one that no other can be better than. Equals are not told apart, as
/// the place to begin with is by chance.
fn look_at<'a>(
    choice: &Choice<'a>,
    groups: &Groups,
    (number, bound): (usize, u64),
    best: &mut Option<Least<'a>>,
    random: &mut fastrand::Rng,
) -> ControlFlow<()> {
    groups.look(number, random, |seen, at_best, active| {
        let index = seen.index as usize;
        let may_be_better = seen.is_member && best.as_ref().is_none_or(|least| at_best < load(least));
        let Some(endpoint) = choice.endpoints.get(index).filter(|_| may_be_better) else {
            return ControlFlow::Continue(());
        };
        // It is this count that the choice stands or falls with.
        let has_room = endpoint.max_connections.is_none_or(|max| active < max.get());
        let candidate = Least { index, endpoint, active, weight: choice.weight(endpoint) };
        let is_better = best.as_ref().is_none_or(|least| load(&candidate) < load(least));
        if has_room && is_better && choice.may_be_tried(index, endpoint) {
            let is_least = load(&candidate) <= bound;
            *best = Some(candidate);
            if is_least {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })
}

fn load(least: &Least<'_>) -> u64 {
    groups::load(least.active, least.weight)
}

/// (active + 1) / own weight, brought to a common denominator by the other's weight.
fn load_after(active: usize, other_weight: u64) -> u128 {
    (active as u128 + 1) * u128::from(other_weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Tried;
    use crate::balance::tests::{endpoints, picks_of_new, with_choice};
    use std::sync::Mutex;

    fn pick(endpoints: &[Endpoint], random: &mut fastrand::Rng) -> Option<Pick> {
        with_choice(endpoints, &Tried::default(), |choice| super::pick(choice, random))
    }

    fn counts(endpoints: &[Endpoint]) -> Vec<usize> {
        endpoints.iter().map(|endpoint| endpoint.state.active()).collect()
    }

    #[test]
    fn fills_by_weight() {
        let endpoints = endpoints(&[3, 1, 0]);
        let mut random = fastrand::Rng::with_seed(1);
        let picks: Vec<Pick> = (0..400).map_while(|_| pick(&endpoints, &mut random)).collect();
        assert_eq!(counts(&endpoints), [300, 100, 0]);
        drop(picks);
        assert_eq!(counts(&endpoints), [0, 0, 0]);
    }

    #[test]
    fn is_exact_when_threads_choose_at_once() {
        let endpoints = endpoints(&[1, 1, 1, 1]);
        let held = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (endpoints, held) = (&endpoints, &held);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    for _ in 0..1_000 {
                        let pick = pick(endpoints, &mut random);
                        held.lock().unwrap().push(pick);
                    }
                });
            }
        });
        assert_eq!(counts(&endpoints), [1_000; 4]);
    }

    #[test]
    fn a_limit_is_exact_when_threads_choose_at_once() {
        let mut endpoints = endpoints(&[1, 1]);
        endpoints.iter_mut().for_each(|endpoint| endpoint.max_connections = std::num::NonZeroUsize::new(50));
        let held: Vec<Pick> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|seed| {
                    let endpoints = &endpoints;
                    scope.spawn(move || {
                        let mut random = fastrand::Rng::with_seed(seed);
                        (0..1_000).filter_map(|_| pick(endpoints, &mut random)).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!((held.len(), counts(&endpoints)), (100, vec![50, 50]));
    }

    #[test]
    fn equals_are_chosen_alike() {
        let endpoints = endpoints(&[1, 1, 1]);
        let mut random = fastrand::Rng::with_seed(7);
        let mut chosen = [0; 3];
        for _ in 0..3_000 {
            chosen[pick(&endpoints, &mut random).unwrap().index] += 1;
        }
        assert!(chosen.iter().all(|count| (900..1_100).contains(count)), "{chosen:?}");
    }

    #[test]
    fn who_is_new_gets_less() {
        assert_eq!(picks_of_new(true, 600, super::pick), 100);
    }
}
