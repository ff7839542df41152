use std::collections::HashSet;
use std::sync::Barrier;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn policy(limit: u32, rate: f64) -> SourcePolicy {
    SourcePolicy { limit: NonZeroU32::new(limit), rate: (rate > 0.0).then_some(rate) }
}

fn sources(known_max: usize) -> Arc<Sources> {
    Arc::new(Sources::new(known_max))
}

fn v4(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + number).into()
}

/// How many of `count` are admitted at this moment, and end at once.
fn burst(sources: &Arc<Sources>, count: usize, policy: SourcePolicy, now: Instant) -> usize {
    (0..count).filter(|_| sources.enter(v4(1), policy, now).is_ok()).count()
}

#[test]
fn connections_at_once_are_limited_and_given_back() {
    let (sources, now) = (sources(8), Instant::now());
    let limit = policy(2, 0.0);
    let first = sources.enter(v4(1), limit, now).unwrap();
    let second = sources.enter(v4(1), limit, now).unwrap();
    assert_eq!(sources.enter(v4(1), limit, now).unwrap_err(), SourceRefusal::Limit);
    assert!(sources.enter(v4(2), limit, now).is_ok(), "another address has its own");
    drop(first);
    let third = sources.enter(v4(1), limit, now).unwrap();
    assert_eq!(sources.known(), 1);
    // A lower limit holds at once, a higher one too.
    assert_eq!(sources.enter(v4(1), policy(1, 0.0), now).unwrap_err(), SourceRefusal::Limit);
    assert!(sources.enter(v4(1), policy(3, 0.0), now).is_ok());
    drop((second, third));
    assert_eq!(sources.known(), 0, "who has none is not remembered");
}

#[test]
fn a_second_s_worth_may_come_at_once() {
    let now = Instant::now();
    for (rate, at_once) in [(50.0, 50), (2.5, 2), (1.0, 1), (0.1, 1)] {
        assert_eq!(burst(&sources(8), 100, policy(0, rate), now), at_once, "{rate}");
    }
}

#[test]
fn the_rate_makes_up_for_what_came() {
    let (sources, start) = (sources(8), Instant::now());
    let ten = policy(0, 10.0);
    assert_eq!(burst(&sources, 20, ten, start), 10);
    for hundreds in 1..=20 {
        assert_eq!(burst(&sources, 5, ten, start + Duration::from_millis(hundreds * 100)), 1);
    }
    assert_eq!(burst(&sources, 20, ten, start + Duration::from_secs(60)), 10, "no more for a longer rest");
}

#[test]
fn a_changed_rate_holds_at_once() {
    let (sources, now) = (sources(8), Instant::now());
    assert_eq!(burst(&sources, 5, policy(0, 0.001), now), 1);
    let later = now + Duration::from_millis(100);
    assert_eq!(burst(&sources, 5, policy(0, 0.001), later), 0);
    assert_eq!(burst(&sources, 200, policy(0, 100.0), later), 100);
    assert_eq!(burst(&sources, 5, policy(0, 10.0), later), 0);
}

#[test]
fn a_refused_connection_costs_nothing() {
    let (sources, now) = (sources(8), Instant::now());
    let both = policy(1, 2.0);
    let held = sources.enter(v4(1), both, now).unwrap();
    for _ in 0..10 {
        assert_eq!(sources.enter(v4(1), both, now).unwrap_err(), SourceRefusal::Limit);
    }
    drop(held);
    assert!(sources.enter(v4(1), both, now).is_ok());
    assert_eq!(sources.enter(v4(1), both, now).unwrap_err(), SourceRefusal::Rate);
}

#[test]
fn a_source_is_an_ipv4_address_or_an_ipv6_network() {
    let source = |text: &str| Source::of(text.parse().unwrap());
    assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
    assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    assert_ne!(source("::1"), source("0.0.0.0"));
}

#[test]
fn the_one_longest_at_rest_makes_room_and_else_nobody_does() {
    let (sources, start) = (sources(3), Instant::now());
    let slow = policy(0, 0.01);
    let at = |seconds| start + Duration::from_secs(seconds);
    // Not rested for a hundred seconds, so that they are known until they make room.
    for number in 1..=3 {
        sources.enter(v4(number), slow, at(u64::from(number))).unwrap();
    }
    assert_eq!(sources.known(), 3);
    let held = sources.enter(v4(4), slow, at(4)).unwrap();
    assert!(held.is_some());
    let is_known =
        |number| sources.stripe(Source::of(v4(number))).lock().tallies.contains_key(&Source::of(v4(number)));
    assert!(is_known(4) && sources.known() == 3);
    let held: Vec<_> =
        (5..=6).map(|number| sources.enter(v4(number), slow, at(5)).unwrap().unwrap()).collect();
    assert_eq!(sources.uncounted(), 0);
    assert!(sources.enter(v4(7), slow, at(5)).unwrap().is_none(), "all have connections");
    assert_eq!((sources.known(), sources.uncounted()), (3, 1));
    drop(held);
    assert!(sources.enter(v4(7), slow, at(6)).unwrap().is_some());
    assert_eq!(sources.known(), 3);
}

#[test]
fn who_has_rested_is_forgotten_with_the_next_connections() {
    let (sources, start) = (Arc::new(Sources::default()), Instant::now());
    let one = policy(0, 1.0);
    for number in 0..1_000 {
        sources.enter(v4(number), one, start).unwrap();
    }
    assert_eq!(sources.known(), 1_000);
    let later = start + Duration::from_secs(10);
    for number in 5_000..6_000 {
        sources.enter(v4(number), one, later).unwrap();
    }
    assert!(sources.known() < 1_100, "{}", sources.known());
}

#[test]
fn threads_share_one_count() {
    const THREADS: usize = 4;
    const LIMIT: usize = 3;
    let (sources, now) = (sources(2), Instant::now());
    let (together, live) = (Barrier::new(THREADS), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (sources, together, live) = (&sources, &together, &live);
            scope.spawn(move || {
                together.wait();
                for turn in 0..20_000_u32 {
                    let limit = policy(LIMIT as u32, 0.0);
                    // Uncounted while the others have all the room.
                    if let Ok(Some(place)) = sources.enter(v4(1), limit, now) {
                        let others = live.fetch_add(1, Ordering::SeqCst);
                        assert!(others < LIMIT, "{others}");
                        live.fetch_sub(1, Ordering::SeqCst);
                        drop(place);
                    }
                    // And somebody else, who competes for the room.
                    drop(sources.enter(v4(2 + thread as u32 + turn % 3), policy(0, 0.0), now));
                }
            });
        }
    });
    assert_eq!(sources.known(), 0);
}

/// What happens next: some time passes, and a source connects or its oldest connection ends.
#[derive(Clone, Debug)]
struct Step {
    milliseconds: u64,
    source: u32,
    connects: bool,
}

fn steps(sources: u32) -> impl Strategy<Value = Vec<Step>> {
    let step = (0..300_u64, 0..sources, prop::bool::weighted(0.7));
    let step = step.prop_map(|(milliseconds, source, connects)| Step { milliseconds, source, connects });
    prop::collection::vec(step, 1..300)
}

proptest! {
    /// Whatever comes: no source has more at once than the limit, nor more in any time than the rate and one second's worth; who
    /// is refused has as many; and nothing is left in the end.
    #[test]
    fn never_above_the_limit_and_never_above_the_rate(
        steps in steps(3),
        limit in 0..4_u32,
        rate in prop_oneof![Just(0.0), 0.2..20.0_f64],
    ) {
        let sources = sources(16);
        let mut now = Instant::now();
        let mut live: [Vec<SourcePlace>; 3] = Default::default();
        let mut came: [Vec<Instant>; 3] = Default::default();
        for Step { milliseconds, source, connects } in steps {
            now += Duration::from_millis(milliseconds);
            let (live, came) = (&mut live[source as usize], &mut came[source as usize]);
            if !connects {
                drop((!live.is_empty()).then(|| live.remove(0)));
                continue;
            }
            let most = rate.max(1.0);
            let lately = |from: Instant, times: &[Instant]| times.iter().filter(|time| **time >= from).count() as f64;
            let excess = |times: &[Instant]| {
                let over = |from: &Instant| lately(*from, times) - (now - *from).as_secs_f64() * rate;
                times.iter().map(over).fold(0.0, f64::max)
            };
            match sources.enter(v4(source), policy(limit, rate), now) {
                Ok(place) => {
                    live.push(place.unwrap());
                    came.push(now);
                    prop_assert!(limit == 0 || live.len() <= limit as usize);
                    prop_assert!(rate == 0.0 || excess(came) <= most + 0.01, "{} at once", excess(came));
                }
                Err(SourceRefusal::Limit) => prop_assert_eq!(live.len(), limit as usize),
                Err(SourceRefusal::Rate) => prop_assert!(excess(came) + 1.0 > most, "refused too early"),
            }
        }
        drop(live);
        if rate == 0.0 {
            prop_assert_eq!(sources.known(), 0);
        }
        for stripe in &sources.stripes {
            prop_assert!(stripe.lock().tallies.values().all(|tally| tally.connections == 0));
        }
    }

    /// However many come, the memory is bounded, and the books agree.
    #[test]
    fn memory_is_bounded(steps in steps(40), rate in prop_oneof![Just(0.0), Just(0.5)]) {
        const MOST: usize = 5;
        let sources = sources(MOST);
        let (mut now, mut places, mut uncounted) = (Instant::now(), Vec::new(), 0);
        for Step { milliseconds, source, connects } in steps {
            now += Duration::from_millis(milliseconds);
            if !connects {
                drop((!places.is_empty()).then(|| places.remove(0)));
                continue;
            }
            let with_connections: HashSet<Source> = places.iter().map(|place: &SourcePlace| place.source).collect();
            match sources.enter(v4(source), policy(0, rate), now) {
                Ok(Some(place)) => places.push(place),
                Ok(None) => {
                    uncounted += 1;
                    prop_assert_eq!(with_connections.len(), MOST, "somebody could have made room");
                }
                Err(refusal) => prop_assert_eq!(refusal, SourceRefusal::Rate),
            }
            let tallies: usize = sources.stripes.iter().map(|stripe| stripe.lock().tallies.len()).sum();
            let idle: usize = sources.stripes.iter().map(|stripe| stripe.lock().idle.len()).sum();
            let live: HashSet<Source> = places.iter().map(|place| place.source).collect();
            prop_assert!(tallies <= MOST);
            prop_assert_eq!(sources.known(), tallies);
            prop_assert_eq!(live.len() + idle, tallies, "a source is idle or has connections");
        }
        prop_assert_eq!(sources.uncounted(), uncounted);
    }
}
