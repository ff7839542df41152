use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

fn breaker(failures: u32, base_ms: u64, max_ms: u64) -> Breaker {
    Breaker::new(
        BreakerPolicy {
            consecutive_failures: NonZeroU32::new(failures).unwrap(),
            base_interval: Duration::from_millis(base_ms),
            max_interval: Duration::from_millis(max_ms),
        },
        Instant::now(),
    )
}

fn tripped() -> Breaker {
    let breaker = breaker(2, 2, 4);
    assert!(!breaker.permit().unwrap().failed(Instant::now()));
    assert!(breaker.permit().unwrap().failed(Instant::now()), "the second one opens it");
    breaker
}

fn half_open(breaker: &Breaker) -> Permit<'_> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(permit) = breaker.permit() {
            return permit;
        }
        assert!(Instant::now() < deadline, "never half-open: {breaker:?}");
        std::thread::yield_now();
    }
}

#[test]
fn opens_after_failures_in_a_row_only() {
    let breaker = breaker(2, 60_000, 60_000);
    breaker.permit().unwrap().failed(Instant::now());
    assert!(!breaker.permit().unwrap().succeeded(), "it was closed before");
    breaker.permit().unwrap().failed(Instant::now());
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert!(breaker.permit().unwrap().failed(Instant::now()));
    assert_eq!((breaker.state(), breaker.openings()), (BreakerState::Open, 1));
    assert!(!breaker.may_permit(Instant::now()) && breaker.permit().is_none());
}

#[test]
fn one_probe_at_a_time_while_half_open() {
    let breaker = tripped();
    let probe = half_open(&breaker);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert!(
        !breaker.may_permit(Instant::now()) && breaker.permit().is_none(),
        "a second attempt must wait for the probe"
    );
    drop(probe);
    assert!(breaker.may_permit(Instant::now()), "the probe ended without a verdict, so another may try");
    assert!(half_open(&breaker).succeeded(), "that closes it");
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn a_failed_probe_opens_it_again() {
    let breaker = tripped();
    assert!(half_open(&breaker).failed(Instant::now()));
    assert_eq!((breaker.state(), breaker.openings()), (BreakerState::Open, 2));
}

#[test]
fn attempts_from_before_it_opened_do_not_speak_for_the_probe() {
    let breaker = breaker(1, 2, 4);
    let (early, late) = (breaker.permit().unwrap(), breaker.permit().unwrap());
    early.failed(Instant::now());
    let probe = half_open(&breaker);
    assert!(!late.failed(Instant::now()));
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert!(probe.succeeded());
}

#[test]
fn an_open_one_may_be_asked_again_when_its_time_is_over() {
    let breaker = tripped();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !breaker.may_permit(Instant::now()) {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

/// Each of them would let a second probe through if seeing a transition and making it were not one step.
#[test]
fn threads_that_race_for_the_probe_get_one() {
    for _ in 0..200 {
        let breaker = tripped();
        let probes = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let permit = half_open_or_closed(&breaker);
                    if let Some(permit) = permit {
                        assert_eq!(probes.fetch_add(1, Ordering::SeqCst), 0, "two probes at once");
                        std::thread::yield_now();
                        probes.fetch_sub(1, Ordering::SeqCst);
                        permit.succeeded();
                    }
                });
            }
        });
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}

/// The probe; `None` once it is closed.
fn half_open_or_closed(breaker: &Breaker) -> Option<Permit<'_>> {
    loop {
        match breaker.permit() {
            Some(permit) if permit.probe => return Some(permit),
            Some(_) => return None,
            None => std::thread::yield_now(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask,
    Succeed(usize),
    Fail(usize),
    Leave(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Ask),
        1 => (0..8_usize).prop_map(Step::Succeed),
        3 => (0..8_usize).prop_map(Step::Fail),
        1 => (0..8_usize).prop_map(Step::Leave),
    ]
}

proptest! {
    /// Whatever happens: no second probe beside the first, none lost, and nothing through an open breaker.
    #[test]
    fn whatever_happens_there_is_one_probe(steps in prop::collection::vec(step(), 1..200)) {
        // So short that time passes between two steps, and so open turns to half-open.
        let breaker = Breaker::new(BreakerPolicy {
            consecutive_failures: NonZeroU32::new(3).unwrap(),
            base_interval: Duration::from_nanos(1),
            max_interval: Duration::from_nanos(2),
        }, Instant::now());
        let mut permits: Vec<Permit<'_>> = Vec::new();
        for step in steps {
            let state = breaker.state();
            match step {
                Step::Ask => {
                    let permit = breaker.permit();
                    let probing = permits.iter().any(|permit| permit.probe);
                    match state {
                        BreakerState::Closed => prop_assert!(permit.is_some()),
                        BreakerState::HalfOpen => prop_assert_eq!(permit.is_some(), !probing),
                        BreakerState::Open => {}
                    }
                    permits.extend(permit);
                }
                Step::Succeed(number) if number < permits.len() => { permits.remove(number).succeeded(); }
                Step::Fail(number) if number < permits.len() => { permits.remove(number).failed(Instant::now()); }
                Step::Leave(number) if number < permits.len() => drop(permits.remove(number)),
                _ => {}
            }
            prop_assert!(permits.iter().filter(|permit| permit.probe).count() <= 1);
        }
        permits.clear();
        half_open(&breaker).succeeded();
        prop_assert_eq!(breaker.state(), BreakerState::Closed, "no permit was lost");
    }
}

/// Asks again as soon as its time is over, so many times, and says how long it was open each time.
fn times_open(breaker: &Breaker, failures: usize, alone: bool) -> Vec<Duration> {
    let open_for = |_| {
        half_open(breaker).fail(Instant::now(), alone);
        Duration::from_micros(breaker.watch.0.open_for.load(Ordering::Relaxed))
    };
    (0..failures).map(open_for).collect()
}

#[test]
fn while_nobody_else_is_there_its_time_does_not_grow() {
    let breaker = breaker(1, 4, 64);
    breaker.permit().unwrap().failed(Instant::now());
    let alone = times_open(&breaker, 6, true);
    assert!(alone.iter().all(|time| *time <= Duration::from_millis(4)), "{alone:?}");
    let beside_others = times_open(&breaker, 6, false);
    assert!(beside_others[5] >= Duration::from_millis(32), "{beside_others:?}");
    let alone = times_open(&breaker, 2, true);
    assert!(alone[1] <= Duration::from_millis(4), "{alone:?}");
}

#[test]
fn it_is_waited_for_only_some_time() {
    let breaker = breaker(1, 60_000, 60_000);
    let (now, hour, patience) = (Instant::now(), Duration::from_secs(3_600), Duration::from_secs(5));
    assert!(breaker.may_permit_by(now, now + hour, patience), "it is closed");
    breaker.permit().unwrap().failed(now + hour);
    let after = |seconds| now + hour + Duration::from_secs(seconds);
    assert!(breaker.may_permit_by(after(60), after(4), patience));
    assert!(!breaker.may_permit_by(after(29), after(4), patience), "it is still open by then");
    assert!(!breaker.may_permit_by(after(66), after(6), patience), "it is no hiccup any more");
}
