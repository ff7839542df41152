//! Where the least loaded endpoint may be: what spares a choice the look at all of them.
//!
//! Many endpoints are kept in groups, and each group has a bound that none of their loads is below. Who takes a connection off an
//! endpoint lowers the bound at once; who has looked at a whole group, because its bound was the least, raises it to what
//! was seen. A choice looks at the bounds, and then at a group or two.
//!
//! Bounds are shared by all workers and only ever hints of where to look: they never decide who is chosen.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::routing::{Endpoint, EndpointState};

/// Endpoints of a group. Looking at one takes about as long as looking at a bound, so that this is the root of some thousands.
const GROUP: usize = 64;

/// The bound of a group: 12 bits for the table by which it is raised, 12 bits that change with each connection that ends, and 40
/// bits of load. In one word, because it may only be raised if no connection has ended since its endpoints were looked at.
#[derive(Debug, Default)]
pub(super) struct Bound(AtomicU64);

const LOAD_BITS: u32 = 40;
const LOAD_MAX: u64 = (1 << LOAD_BITS) - 1;
const MARK: u64 = 0xfff;
/// Parts of a connection that loads tell apart.
const PRECISION_BITS: u32 = 20;

/// Where the state of an endpoint has its group, once it has one.
#[derive(Debug, Default)]
pub struct Seat(OnceLock<Seated>);

#[derive(Debug)]
struct Seated {
    bound: Arc<Bound>,
    /// By the newest table.
    weight: AtomicU32,
}

/// The groups of a tier.
#[derive(Debug)]
pub(super) struct Groups {
    table: u64,
    groups: Vec<Group>,
}

#[derive(Debug)]
pub(super) struct Group {
    bound: Arc<Bound>,
    /// All endpoints of the upstream that are in it.
    seats: Vec<Seen>,
}

/// What is looked at of an endpoint, side by side with its neighbours': most are passed over for their load.
#[derive(Debug)]
pub(super) struct Seen {
    /// In the upstream.
    pub(super) index: u32,
    pub(super) weight: u32,
    /// Whether the tier has it.
    pub(super) is_member: bool,
    pub(super) state: Arc<EndpointState>,
}

/// (active + 1) / weight, in fixed point and rounded down; the weight is in thousandths.
pub(super) fn load(active: usize, weight: u64) -> u64 {
    let scaled = (active as u64).saturating_add(1).saturating_mul(1_000 << PRECISION_BITS);
    (scaled / weight.max(1)).min(LOAD_MAX)
}

impl Bound {
    fn split(word: u64) -> (u64, u64, u64) {
        (word >> (64 - 12), (word >> LOAD_BITS) & MARK, word & LOAD_MAX)
    }

    fn join(table: u64, mark: u64, load: u64) -> u64 {
        (table & MARK) << (64 - 12) | (mark & MARK) << LOAD_BITS | load
    }

    fn get(&self) -> u64 {
        Self::split(self.0.load(Ordering::SeqCst)).2
    }

    /// Whether no table has raised it yet.
    fn is_new(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }

    /// From now on it is raised by this table. Endpoints may have come to it, or have other weights.
    fn start(&self, table: u64) {
        self.change(
            |current, mark, load| {
                if current == table & MARK { (current, mark, load) } else { (table, mark + 1, 0) }
            },
        );
    }

    /// A connection has ended, which leaves this load.
    fn lower(&self, load: u64) {
        self.change(|table, mark, bound| (table, mark + 1, bound.min(load)));
    }

    /// Raises it to the least that `look` sees, if it sees everything, unless something was taken off in the meantime, or the
    /// table is no longer the one.
    fn raise(&self, table: u64, look: impl FnOnce() -> Option<u64>) {
        let word = self.0.load(Ordering::SeqCst);
        let (current, mark, bound) = Self::split(word);
        let Some(seen) = look().map(|seen| seen.min(LOAD_MAX)) else { return };
        if current == table & MARK && seen > bound {
            let raised = Self::join(table, mark, seen);
            let _raised_by_another =
                self.0.compare_exchange(word, raised, Ordering::SeqCst, Ordering::Relaxed);
        }
    }

    fn change(&self, next: impl Fn(u64, u64, u64) -> (u64, u64, u64)) {
        let change = |word| {
            let (table, mark, load) = Self::split(word);
            let (table, mark, load) = next(table, mark, load);
            Some(Self::join(table, mark, load))
        };
        let _always = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
    }
}

impl Seat {
    /// The weight of the endpoint in the table that is published.
    pub(super) fn weigh(&self, weight: u32) {
        if let Some(seated) = self.0.get() {
            seated.weight.store(weight, Ordering::Relaxed);
        }
    }

    /// A connection has ended that left so many.
    pub fn ended(&self, active: usize) {
        if let Some(Seated { bound, weight }) = self.0.get() {
            bound.lower(load(active, u64::from(weight.load(Ordering::Relaxed)) * 1_000));
        }
    }
}

/// A number for a table. It comes back after 4095 others, when no worker has this one any more; 0 is none.
pub(super) fn next_table() -> u64 {
    static TABLES: AtomicU64 = AtomicU64::new(0);
    TABLES.fetch_add(1, Ordering::Relaxed) % MARK + 1
}

/// Gives every endpoint a group that has none, if they are so many that it pays. One that has gone leaves room for another.
pub(super) fn seat(endpoints: &[Endpoint]) {
    if endpoints.len() <= 2 * GROUP {
        return;
    }
    let mut groups: HashMap<*const Bound, (Arc<Bound>, usize)> = HashMap::new();
    for Seated { bound, .. } in endpoints.iter().filter_map(|endpoint| endpoint.state.seat.0.get()) {
        groups.entry(Arc::as_ptr(bound)).or_insert_with(|| (Arc::clone(bound), 0)).1 += 1;
    }
    let mut roomy: Vec<(Arc<Bound>, usize)> =
        groups.into_values().filter(|(_, size)| *size < GROUP).collect();
    for endpoint in endpoints {
        endpoint.state.seat.0.get_or_init(|| {
            let (bound, size) = roomy.pop().unwrap_or_default();
            if size + 1 < GROUP {
                roomy.push((Arc::clone(&bound), size + 1));
            }
            Seated { bound, weight: AtomicU32::new(endpoint.weight) }
        });
    }
}

impl Groups {
    /// Of a tier of this table with these members. `None`: looking at all of them is as quick.
    pub(super) fn new(members: &[u32], endpoints: &[Endpoint], table: u64) -> Option<Self> {
        if members.len() <= 2 * GROUP {
            return None;
        }
        let mut is_member = vec![false; endpoints.len()];
        for member in members {
            *is_member.get_mut(*member as usize)? = true;
        }
        let mut groups: HashMap<*const Bound, Group> = HashMap::new();
        for ((index, endpoint), is_member) in (0u32..).zip(endpoints).zip(is_member) {
            if endpoint.weight == 0 {
                continue;
            }
            let bound = &endpoint.state.seat.0.get()?.bound;
            let group = || Group { bound: Arc::clone(bound), seats: Vec::new() };
            let state = Arc::clone(&endpoint.state);
            let seen = Seen { index, weight: endpoint.weight, is_member, state };
            groups.entry(Arc::as_ptr(bound)).or_insert_with(group).seats.push(seen);
        }
        let groups = groups.into_values().filter(|group| group.seats.iter().any(|seen| seen.is_member));
        let groups = Self { table, groups: groups.collect() };
        // One that is new is in no other table, and the first table of all succeeds none.
        groups.groups.iter().filter(|group| group.bound.is_new()).for_each(|group| group.bound.start(table));
        Some(groups)
    }

    /// The table that these are of is published.
    pub(super) fn start(&self) {
        for group in &self.groups {
            group.bound.start(self.table);
        }
    }

    /// The group with the least bound that is none of these, and its bound. Where several have it, which one is by chance.
    pub(super) fn least(&self, but: &[usize], random: &mut fastrand::Rng) -> Option<(usize, u64)> {
        let (early, late) = self.groups.split_at(random.usize(0..self.groups.len().max(1)));
        let mut least: Option<(usize, u64)> = None;
        // Plain loops: as a chain of iterators this was nearly half of a choice.
        for (start, part) in [(early.len(), late), (0, early)] {
            for (number, group) in (start..).zip(part) {
                let bound = group.bound.get();
                if least.is_none_or(|(_, least)| bound < least) && !but.contains(&number) {
                    least = Some((number, bound));
                }
            }
        }
        least
    }

    /// Looks at the endpoints of a group, beginning with any of them, until `look` has seen enough. It gets each with its load.
    pub(super) fn look(
        &self,
        number: usize,
        random: &mut fastrand::Rng,
        mut look: impl FnMut(&Seen, u64, usize) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(Group { bound, seats }) = self.groups.get(number) else { return ControlFlow::Continue(()) };
        let (early, late) = seats.split_at(random.usize(0..seats.len().max(1)));
        let (mut least, mut flow) = (LOAD_MAX, ControlFlow::Continue(()));
        bound.raise(self.table, || {
            for seen in late.iter().chain(early) {
                let active = seen.state.active();
                // What an endpoint lacks of its share makes its load higher, and less so from moment to moment.
                let load = load(active, u64::from(seen.weight) * 1_000);
                least = least.min(load);
                flow = look(seen, load, active);
                if flow.is_break() {
                    return None;
                }
            }
            Some(least)
        });
        flow
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;
    use crate::balance::slow_start::Start;
    use crate::balance::tests::endpoints;
    use crate::balance::{Choice, Pick, Selection, Tried, least_connections};

    /// The least load of all that may be chosen, with what it was compared by: (connections, weight in thousandths).
    fn least(choice: &Choice<'_>) -> Option<(u128, u128)> {
        let loads = choice
            .candidates()
            .map(|(_, endpoint)| (endpoint.state.active() as u128 + 1, u128::from(choice.weight(endpoint))));
        loads.min_by(|one, other| (one.0 * other.1).cmp(&(other.0 * one.1)))
    }

    /// Whether the choice is one of the least loaded.
    fn is_least(choice: &Choice<'_>, expected: Option<(u128, u128)>, picked: Option<&Pick>) -> bool {
        let loads = picked.map(|picked| {
            let endpoint = &choice.endpoints[picked.index];
            // It counts already.
            (endpoint.state.active() as u128, u128::from(choice.weight(endpoint)))
        });
        match (expected, loads) {
            (None, None) => true,
            (Some(expected), Some(load)) => expected.0 * load.1 == load.0 * expected.1,
            _ => false,
        }
    }

    fn grouped(endpoints: &[Endpoint]) -> Selection {
        let selection = Selection::new(endpoints, 0, None).with_groups(endpoints);
        selection.start(endpoints);
        assert!(selection.tiers()[0].groups().is_some());
        selection
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pick {
            but: Vec<usize>,
            /// Else an idle one that is drawn by weight comes first.
            is_by_load: bool,
        },
        End(usize),
        /// Some are unhealthy from now on, and others have other weights.
        Table {
            ill: Vec<usize>,
            weights: Vec<u32>,
        },
        Wait(u64),
    }

    const COUNT: usize = 300;

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let but = prop::collection::vec(0..COUNT, 0..3);
        let ill = prop::collection::vec(0..COUNT, 0..20);
        let weights = prop::collection::vec(1..4_u32, COUNT);
        let step = prop_oneof![
            60 => (but, any::<bool>()).prop_map(|(but, is_by_load)| Step::Pick { but, is_by_load }),
            30 => any::<usize>().prop_map(Step::End),
            1 => (ill, weights).prop_map(|(ill, weights)| Step::Table { ill, weights }),
            5 => (0..20_u64).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..600)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_finds_what_looking_at_all_finds(steps in steps(), seed: u64) {
            let mut endpoints = endpoints(&[2; COUNT]);
            let begin = Instant::now();
            for (index, endpoint) in endpoints.iter_mut().enumerate() {
                endpoint.max_connections = std::num::NonZeroUsize::new(usize::from(index % 7 == 0));
                endpoint.start = if index % 5 == 0 { Start::At(begin) } else { Start::Original };
            }
            let mut selection = grouped(&endpoints);
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut now, mut held) = (begin, Vec::new());
            for step in steps {
                match step {
                    Step::Pick { but, is_by_load } => {
                        let mut tried = Tried::default();
                        but.into_iter().for_each(|index| tried.insert(index));
                        let window = Some(Duration::from_secs(60));
                        let tier = &selection.tiers()[0];
                        let choice = Choice { endpoints: &endpoints, tier, tried: &tried, window, takes_leaving: false, now };
                        let expected = least(&choice);
                        let pick = if is_by_load { least_connections::by_load } else { least_connections::pick };
                        let picked = pick(&choice, &mut random);
                        let is_first = |picked: &Pick| endpoints[picked.index].state.active() == 1;
                        let is_fit = !is_by_load && picked.as_ref().is_some_and(is_first)
                            || is_least(&choice, expected, picked.as_ref());
                        prop_assert!(is_fit, "{expected:?} {picked:?}");
                        held.extend(picked);
                    }
                    Step::End(number) if !held.is_empty() => drop(held.swap_remove(number % held.len())),
                    Step::End(_) => {}
                    Step::Table { ill, weights } => {
                        for (index, endpoint) in endpoints.iter_mut().enumerate() {
                            endpoint.weight = weights[index];
                            endpoint.state.health.set(!ill.contains(&index));
                        }
                        selection = grouped(&endpoints);
                    }
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                }
            }
        }
    }

    #[test]
    fn after_threads_have_chosen_and_ended_at_once_the_bounds_still_hold() {
        let endpoints = endpoints(&[1; COUNT]);
        let selection = grouped(&endpoints);
        let tried = Tried::default();
        let choice = || Choice {
            endpoints: &endpoints,
            tier: &selection.tiers()[0],
            tried: &tried,
            window: None,
            takes_leaving: false,
            now: Instant::now(),
        };
        let mut held: Vec<Pick> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|seed| {
                    let choice = &choice;
                    scope.spawn(move || {
                        let mut random = fastrand::Rng::with_seed(seed);
                        let mut held = Vec::new();
                        for _ in 0..5_000 {
                            held.push(least_connections::pick(&choice(), &mut random).unwrap());
                            while random.u8(0..10) < 5 && !held.is_empty() {
                                held.swap_remove(random.usize(0..held.len()));
                            }
                        }
                        held
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let mut random = fastrand::Rng::with_seed(9);
        for _ in 0..2 * COUNT {
            let choice = choice();
            let expected = least(&choice);
            let picked = least_connections::pick(&choice, &mut random);
            assert!(is_least(&choice, expected, picked.as_ref()), "{expected:?} {picked:?}");
            held.extend(picked);
        }
    }

    #[test]
    fn the_first_table_raises_without_having_succeeded_another() {
        let endpoints = endpoints(&[1; COUNT]);
        let selection = Selection::new(&endpoints, 0, None).with_groups(&endpoints);
        let (tier, tried) = (&selection.tiers()[0], Tried::default());
        let choice = Choice {
            endpoints: &endpoints,
            tier,
            tried: &tried,
            window: None,
            takes_leaving: false,
            now: Instant::now(),
        };
        let mut random = fastrand::Rng::with_seed(1);
        let _held: Vec<_> = (0..COUNT).map(|_| least_connections::pick(&choice, &mut random)).collect();
        let bounds: Vec<u64> = tier.groups().unwrap().groups.iter().map(|group| group.bound.get()).collect();
        assert!(bounds.iter().all(|bound| *bound > 0), "{bounds:?}");
    }

    #[test]
    fn who_has_an_older_table_does_not_raise() {
        let bound = Bound::default();
        bound.start(7);
        bound.raise(7, || Some(5));
        assert_eq!(bound.get(), 5);
        bound.start(7);
        assert_eq!(bound.get(), 5, "it has started already");
        bound.start(8);
        bound.raise(7, || Some(5));
        assert_eq!(bound.get(), 0);
        bound.raise(8, || Some(9));
        bound.lower(4);
        bound.lower(6);
        assert_eq!(bound.get(), 4);
        bound.raise(8, || {
            bound.lower(4);
            Some(9)
        });
        assert_eq!(bound.get(), 4, "something ended while it was looked");
        bound.raise(8, || None);
        assert_eq!(bound.get(), 4, "not everything was looked at");
    }

    #[test]
    fn groups_are_filled_before_there_are_new_ones() {
        let mut all = endpoints(&[1; 3 * GROUP]);
        seat(&all);
        let bounds = |all: &[Endpoint]| {
            let mut sizes: HashMap<*const Bound, usize> = HashMap::new();
            for endpoint in all {
                *sizes.entry(Arc::as_ptr(&endpoint.state.seat.0.get().unwrap().bound)).or_default() += 1;
            }
            sizes.into_values().collect::<Vec<_>>()
        };
        assert_eq!(bounds(&all), [GROUP; 3]);
        // Every other one is replaced.
        for endpoint in all.iter_mut().step_by(2) {
            endpoint.state = Arc::default();
        }
        seat(&all);
        assert_eq!(bounds(&all), [GROUP; 3]);
    }
}
