use super::*;
use proptest::prelude::*;

const BASE: Duration = Duration::from_secs(30);

fn policy(consecutive_failures: u32, max_percent: u32) -> EjectionPolicy {
    let consecutive_failures = NonZeroU32::new(consecutive_failures).unwrap();
    EjectionPolicy { consecutive_failures, base_time: BASE, max_percent }
}

fn address(index: usize) -> SocketAddr {
    ([10, 0, 0, 1], u16::try_from(index + 1).unwrap()).into()
}

/// Endpoints that count, and the one who decides, together as in the process.
struct Upstream {
    policy: EjectionPolicy,
    endpoints: Vec<Ejection>,
    ejections: Ejections,
    now: Instant,
}

impl Upstream {
    fn new(policy: EjectionPolicy, endpoints: usize) -> Self {
        let endpoints = (0..endpoints).map(|_| Ejection::default()).collect();
        Self { policy, endpoints, ejections: Ejections::default(), now: Instant::now() }
    }

    fn fail(&self, index: usize, times: u32) -> bool {
        let fail = |_| self.endpoints[index].failed("connect_refused", self.policy.consecutive_failures);
        (0..times).map(fail).fold(false, |asks, asked| asks | asked)
    }

    fn step(&mut self) -> Vec<Change> {
        let failures = self.endpoints.iter().map(Ejection::failures);
        let members: Vec<_> = failures.enumerate().map(|(index, count)| (address(index), count)).collect();
        let changes = self.ejections.step(&self.policy, &members, self.now);
        for change in &changes {
            match change {
                Change::Ejected { endpoint, time } => {
                    self.endpoints[index(endpoint)].eject(self.now + *time);
                }
                Change::Returned { endpoint } => assert!(self.endpoints[index(endpoint)].restore()),
            }
        }
        changes
    }

    fn ejected(&self) -> Vec<usize> {
        (0..self.endpoints.len()).filter(|index| self.endpoints[*index].is_ejected()).collect()
    }
}

fn index(endpoint: &SocketAddr) -> usize {
    usize::from(endpoint.port()) - 1
}

fn ejected(index: usize, times: u32) -> Change {
    Change::Ejected { endpoint: address(index), time: BASE * times }
}

fn returned(index: usize) -> Change {
    Change::Returned { endpoint: address(index) }
}

#[test]
fn a_row_of_failures_ejects_and_time_brings_back() {
    let mut upstream = Upstream::new(policy(3, 50), 2);
    assert!(!upstream.fail(0, 2));
    upstream.endpoints[0].succeeded();
    assert!(!upstream.fail(0, 2), "the row was broken");
    assert!(upstream.step().is_empty());
    assert!(upstream.fail(0, 1), "the third in a row asks for a decision");
    assert_eq!(upstream.endpoints[0].last_failure(), "connect_refused");
    assert_eq!(upstream.step(), [ejected(0, 1)]);
    assert_eq!(upstream.ejections.next_return(), Some(upstream.now + BASE));
    assert!(!upstream.fail(0, 9), "who connects all the same is not heard");
    upstream.now += BASE - Duration::from_millis(1);
    assert!(upstream.step().is_empty());
    upstream.now += Duration::from_millis(1);
    assert_eq!(upstream.step(), [returned(0)]);
    assert_eq!((upstream.endpoints[0].failures(), upstream.endpoints[0].count()), (0, 1));
    assert_eq!(upstream.ejections.next_return(), None);
}

#[test]
fn each_time_is_longer_until_it_stays_well() {
    let mut upstream = Upstream::new(policy(1, 50), 2);
    for times in (1..=MAX_TIMES).chain([MAX_TIMES; 2]) {
        upstream.fail(0, 1);
        assert_eq!(upstream.step(), [ejected(0, times)]);
        upstream.now += BASE * times;
        assert_eq!(upstream.step(), [returned(0)]);
    }
    // Well for four times the first: that many are taken off.
    upstream.now += BASE * 4;
    upstream.fail(0, 1);
    assert_eq!(upstream.step(), [ejected(0, MAX_TIMES - 4 + 1)]);
    upstream.now += BASE * MAX_TIMES;
    upstream.step();
    upstream.now += BASE * MAX_TIMES;
    upstream.fail(0, 1);
    assert_eq!(upstream.step(), [ejected(0, 1)], "it begins anew");
}

#[test]
fn no_more_than_their_share_and_the_worst_first() {
    let mut upstream = Upstream::new(policy(2, 50), 5);
    for (index, failures) in [2, 4, 2, 6, 1].into_iter().enumerate() {
        upstream.fail(index, failures);
    }
    assert_eq!(upstream.step(), [ejected(3, 1), ejected(1, 1)]);
    assert!(upstream.step().is_empty());
    upstream.now += BASE;
    assert_eq!(
        upstream.step().iter().filter(|change| matches!(change, Change::Ejected { .. })).count(),
        2,
        "who waited for room has it now"
    );
    assert_eq!(upstream.ejected(), [0, 2]);
}

#[test]
fn one_of_two_may_be_ejected_and_the_only_one_may_not() {
    for (endpoints, percent, expected) in
        [(1, 50, 0), (1, 99, 0), (1, 100, 1), (2, 1, 1), (2, 100, 2), (3, 50, 1), (10, 1, 1), (10, 29, 2)]
    {
        let mut upstream = Upstream::new(policy(1, percent), endpoints);
        (0..endpoints).for_each(|index| assert!(upstream.fail(index, 1)));
        upstream.step();
        assert_eq!(upstream.ejected().len(), expected, "{percent}% of {endpoints}");
    }
}

#[test]
fn with_fewer_endpoints_some_return_early() {
    let mut upstream = Upstream::new(policy(1, 50), 4);
    upstream.fail(0, 1);
    upstream.step();
    upstream.now += Duration::from_secs(1);
    upstream.fail(1, 1);
    upstream.step();
    assert_eq!(upstream.ejected(), [0, 1]);
    upstream.endpoints.truncate(2);
    assert_eq!(upstream.step(), [returned(0)], "whose time is over next");
}

#[test]
fn who_is_another_has_no_past() {
    let mut upstream = Upstream::new(policy(1, 50), 2);
    upstream.fail(0, 1);
    upstream.step();
    upstream.ejections.forget(address(0));
    upstream.endpoints[0] = Ejection::default();
    upstream.fail(0, 1);
    assert_eq!(upstream.step(), [ejected(0, 1)]);
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Fail {
        index: usize,
        times: u32,
    },
    Succeed(usize),
    Wait(Duration),
    /// There are so many endpoints from now on.
    Endpoints(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..6_usize, 1..5_u32).prop_map(|(index, times)| Op::Fail { index, times }),
        1 => (0..6_usize).prop_map(Op::Succeed),
        3 => (0..100_u64).prop_map(|seconds| Op::Wait(Duration::from_secs(seconds))),
        1 => (1..7_usize).prop_map(Op::Endpoints),
    ]
}

/// What has to be remembered of an endpoint to foretell its next ejection, in the plainest way.
#[derive(Debug, Clone, Copy, Default)]
struct Model {
    /// How long the last ejection was, in times of the first, and when it ended.
    last: Option<(u32, Instant)>,
    until: Option<Instant>,
}

impl Model {
    fn next_times(&self, now: Instant) -> u32 {
        let Some((mut times, mut since)) = self.last else { return 1 };
        while times > 0 && since + BASE <= now {
            times -= 1;
            since += BASE;
        }
        (times + 1).min(MAX_TIMES)
    }
}

proptest! {
    /// Never too many, never without a cause, nobody longer than said; and who has failed enough is ejected if there is room.
    #[test]
    fn ejections_follow_a_plain_model(
        consecutive_failures in 1..4_u32,
        percent in 1..=100_u32,
        ops in prop::collection::vec(op(), 1..150),
    ) {
        let mut upstream = Upstream::new(policy(consecutive_failures, percent), 4);
        let mut models = vec![Model::default(); 6];
        for op in ops {
            let count = upstream.endpoints.len();
            match op {
                Op::Fail { index, times } => { upstream.fail(index % count, times); }
                Op::Succeed(index) => upstream.endpoints[index % count].succeeded(),
                Op::Wait(time) => upstream.now += time,
                Op::Endpoints(count) => {
                    upstream.endpoints.resize_with(count, Ejection::default);
                    models[count..].fill(Model::default());
                }
            }
            let (now, count) = (upstream.now, upstream.endpoints.len());
            let most = (count * percent as usize / 100).max(usize::from(count > 1));
            let failed: Vec<u32> = upstream.endpoints.iter().map(Ejection::failures).collect();
            let too_many = upstream.ejected().len() > most;
            for change in upstream.step() {
                match change {
                    Change::Ejected { endpoint, time } => {
                        let model = &mut models[index(&endpoint)];
                        prop_assert!(failed[index(&endpoint)] >= consecutive_failures);
                        let times = model.next_times(now);
                        prop_assert_eq!(time, BASE * times);
                        (model.until, model.last) = (Some(now + time), Some((times, now + time)));
                    }
                    Change::Returned { endpoint } => {
                        let model = &mut models[index(&endpoint)];
                        let until = model.until.take().unwrap();
                        prop_assert!(until <= now || too_many);
                        model.last = model.last.map(|(times, _)| (times, now));
                    }
                }
            }
            let ejected = upstream.ejected();
            prop_assert!(ejected.len() <= most, "{} of {count} at {percent}%", ejected.len());
            let due = models.iter().filter_map(|model| model.until).min();
            prop_assert_eq!(upstream.ejections.next_return(), due);
            prop_assert!(due.is_none_or(|due| due > now), "who should be back is not");
            for (index, endpoint) in upstream.endpoints.iter().enumerate() {
                prop_assert_eq!(endpoint.until(), models[index].until);
                let waits = !endpoint.is_ejected() && endpoint.failures() >= consecutive_failures;
                prop_assert!(!waits || ejected.len() == most, "there was room for {index}");
            }
        }
    }
}
