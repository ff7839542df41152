//! Limits, breakers, ejection, choice and tables together: whatever happens in whatever order, what was promised holds.

use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::*;
use crate::balance::{self, Tried};
use crate::resilience::{Change, EjectionPolicy, Ejections, Permit};
use crate::routing::{Reservation, UpstreamPlace};

const UPSTREAM_MAX: usize = 8;
const ENDPOINT_MAX: usize = 3;
const PORTS: u16 = 6;
const FAILURES: NonZeroU32 = NonZeroU32::new(2).unwrap();
const EJECTION: EjectionPolicy = EjectionPolicy {
    consecutive_failures: NonZeroU32::new(3).unwrap(),
    base_time: Duration::from_secs(30),
    max_percent: 50,
};

#[derive(Debug, Clone)]
enum Step {
    Connect,
    /// By the table before, as a connection does that came with it.
    ConnectBefore,
    /// How an attempt ends; the number says which.
    Connected(usize),
    Failed(usize),
    ClientLeft(usize),
    /// An established connection ends.
    Ended(usize),
    /// It is reset before its endpoint's first byte.
    Reset(usize),
    Milliseconds(u64),
    /// What probes say of one of the endpoints.
    Health(usize, bool),
    /// The endpoints of the next table, a bit for each.
    Table(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let which = || 0..UPSTREAM_MAX;
    prop_oneof![
        6 => Just(Step::Connect),
        2 => Just(Step::ConnectBefore),
        3 => which().prop_map(Step::Connected),
        5 => which().prop_map(Step::Failed),
        1 => which().prop_map(Step::ClientLeft),
        2 => which().prop_map(Step::Ended),
        1 => which().prop_map(Step::Reset),
        2 => (1..20_000_u64).prop_map(Step::Milliseconds),
        1 => (which(), any::<bool>()).prop_map(|(which, is_well)| Step::Health(which, is_well)),
        2 => (1..1_u8 << PORTS).prop_map(Step::Table),
    ]
}

struct Attempt {
    endpoint: &'static Endpoint,
    permit: Option<Permit<'static>>,
    held: (Reservation, UpstreamPlace),
    /// Whether it was chosen by the newest table, and whether there was one to choose that had not left.
    is_newest: bool,
    others: bool,
}

/// A worker, and what the control side does with its verdicts.
struct World {
    config: Config,
    /// Tables live for ever here, so that permits can outlive them as they outlive a worker's.
    table: &'static RouteTable,
    before: &'static RouteTable,
    ejections: Ejections,
    attempts: Vec<Attempt>,
    established: Vec<(&'static Endpoint, (Reservation, UpstreamPlace))>,
    /// All that ever were.
    states: Vec<(SocketAddr, Arc<EndpointState>)>,
    random: fastrand::Rng,
    now: Instant,
}

impl World {
    fn new(load_balancer: LoadBalancer) -> Self {
        let mut config = config();
        let upstream = &mut config.upstreams[0];
        upstream.load_balancer = load_balancer;
        upstream.limits.max_connections = NonZeroUsize::new(UPSTREAM_MAX);
        upstream.limits.max_per_endpoint = NonZeroUsize::new(ENDPOINT_MAX);
        // failsafe reads the clock itself: with times of nothing an open breaker is one that waits for its probe.
        upstream.breaker = Some(config::Breaker {
            consecutive_failures: FAILURES,
            base_interval: Duration::ZERO,
            max_interval: Duration::ZERO,
        });
        // Never panics, so that who is ejected must never be chosen.
        upstream.health.panic_threshold = 0;
        let now = Instant::now();
        let none: &RouteTable = Box::leak(Box::new(RouteTable::empty()));
        let mut world = Self {
            config,
            table: none,
            before: none,
            ejections: Ejections::default(),
            attempts: Vec::new(),
            established: Vec::new(),
            states: Vec::new(),
            random: fastrand::Rng::with_seed(1),
            now,
        };
        world.publish((1 << PORTS) - 1);
        world
    }

    fn upstream(&self) -> &'static Arc<Upstream> {
        &self.table.upstreams["u"]
    }

    fn publish(&mut self, endpoints: u8) {
        let listed = (0..PORTS).filter(|bit| endpoints & (1 << bit) != 0).map(|bit| config::Endpoint {
            address: ([127, 0, 0, 1], bit + 1).into(),
            weight: u32::from(bit % 3) + 1,
            zone: None,
            priority: 0,
        });
        self.config.upstreams[0].members = Members::Listed(listed.collect());
        let before = self.table.upstreams.get("u");
        self.recompile();
        // As the control side: one that left and comes back is said to be well.
        for gone in before.iter().flat_map(|upstream| &upstream.endpoints) {
            if !self.upstream().endpoints.iter().any(|stays| Arc::ptr_eq(&stays.state, &gone.state)) {
                gone.state.ejection.restore();
                gone.state.health.reset(true);
                self.ejections.forget(gone.address);
            }
        }
        self.decide();
    }

    fn recompile(&mut self) {
        let mut table = compile(&self.config, &none(), self.table, self.now);
        table.succeed(self.table, self.now);
        self.before = self.table;
        self.table = Box::leak(Box::new(table));
        for endpoint in &self.upstream().endpoints {
            if !self.states.iter().any(|(_, state)| Arc::ptr_eq(state, &endpoint.state)) {
                self.states.push((endpoint.address, Arc::clone(&endpoint.state)));
            }
        }
    }

    /// As the control side does when somebody has failed often enough, or an ejection is over.
    fn decide(&mut self) {
        let endpoints = &self.upstream().endpoints;
        let members: Vec<_> = endpoints.iter().map(|e| (e.address, e.state.ejection.failures())).collect();
        let changes = self.ejections.step(&EJECTION, &members, self.now);
        for change in &changes {
            let (Change::Ejected { endpoint, .. } | Change::Returned { endpoint }) = change;
            let Some(endpoint) = endpoints.iter().find(|e| e.address == *endpoint) else { continue };
            match change {
                Change::Ejected { time, .. } => endpoint.state.ejection.eject(self.now + *time),
                Change::Returned { .. } => drop(endpoint.state.ejection.restore()),
            }
        }
        if !changes.is_empty() {
            self.recompile();
        }
    }

    fn connect(&mut self, table: &'static RouteTable) {
        let Some(upstream) = table.upstreams.get("u") else { return };
        let Some(place) = upstream.state.take_place() else { return };
        let mut tried = Tried::none([127, 0, 0, 9].into());
        loop {
            let may_be_chosen = |index: usize| {
                let endpoint = &upstream.endpoints[index];
                let has_room = !endpoint.is_full() && endpoint.may_be_tried(self.now);
                has_room && !endpoint.state.has_left() && !tried.contains(index)
            };
            let others = upstream.selection.all().any(may_be_chosen);
            let pick = balance::pick(upstream, &mut tried, &mut self.random, self.now);
            let Some(pick) = pick else { return };
            let endpoint = &upstream.endpoints[pick.index];
            if let Some(permit) = endpoint.breaker.as_ref().unwrap().permit() {
                self.attempts.push(Attempt {
                    endpoint,
                    permit: Some(permit),
                    held: (pick.reservation, place),
                    is_newest: std::ptr::eq(table, self.table),
                    others,
                });
                return;
            }
            tried.insert(pick.index);
        }
    }

    fn failed(&mut self, endpoint: &Endpoint) {
        if endpoint.state.ejection.failed("connect_refused", EJECTION.consecutive_failures) {
            self.decide();
        }
    }

    fn take(&mut self, step: &Step) {
        self.now += Duration::from_millis(1);
        match *step {
            Step::Connect => self.connect(self.table),
            Step::ConnectBefore => self.connect(self.before),
            Step::Connected(at) if at < self.attempts.len() => {
                let Attempt { endpoint, permit, held, .. } = self.attempts.remove(at);
                permit.unwrap().succeeded();
                self.established.push((endpoint, held));
            }
            Step::Failed(at) if at < self.attempts.len() => {
                let Attempt { endpoint, permit, held, .. } = self.attempts.remove(at);
                permit.unwrap().failed(self.now);
                drop(held);
                self.failed(endpoint);
            }
            Step::ClientLeft(at) if at < self.attempts.len() => drop(self.attempts.remove(at)),
            Step::Ended(at) if at < self.established.len() => {
                let (endpoint, _held) = self.established.remove(at);
                endpoint.state.ejection.succeeded();
            }
            Step::Reset(at) if at < self.established.len() => {
                let (endpoint, _held) = self.established.remove(at);
                self.failed(endpoint);
            }
            Step::Milliseconds(milliseconds) => {
                self.now += Duration::from_millis(milliseconds);
                if self.ejections.next_return().is_some_and(|due| due <= self.now) {
                    self.decide();
                }
            }
            Step::Health(at, is_well) if at < self.upstream().endpoints.len() => {
                self.upstream().endpoints[at].state.health.set(is_well);
                self.recompile();
            }
            Step::Table(endpoints) => self.publish(endpoints),
            _ => {}
        }
    }

    fn check(&self, has_chosen: bool) -> Result<(), TestCaseError> {
        let live = self.attempts.len() + self.established.len();
        prop_assert!(live <= UPSTREAM_MAX, "{live} connections of the upstream");
        for (address, state) in &self.states {
            let of_it = |endpoint: &Endpoint| Arc::ptr_eq(&endpoint.state, state);
            let attempts = self.attempts.iter().filter(|attempt| of_it(attempt.endpoint)).count();
            let established = self.established.iter().filter(|(endpoint, _)| of_it(endpoint)).count();
            prop_assert_eq!(state.active(), attempts + established, "{} counts its own", address);
            prop_assert!(state.active() <= ENDPOINT_MAX, "{address} has {}", state.active());
        }
        for attempt in self.attempts.iter().filter(|attempt| attempt.permit.as_ref().unwrap().is_probe()) {
            let breaker = attempt.endpoint.breaker.as_ref().unwrap();
            let of_it = |other: &&Attempt| {
                let probes = other.permit.as_ref().unwrap().is_probe();
                probes && other.endpoint.breaker.as_ref().unwrap().is(breaker)
            };
            prop_assert_eq!(
                self.attempts.iter().filter(of_it).count(),
                1,
                "probes of {}",
                attempt.endpoint.address
            );
        }
        let endpoints = &self.upstream().endpoints;
        let ejected = endpoints.iter().filter(|endpoint| endpoint.state.ejection.is_ejected()).count();
        let allowed = (endpoints.len() / 2).max(usize::from(endpoints.len() >= 2));
        prop_assert!(ejected <= allowed, "{ejected} of {} are ejected", endpoints.len());
        if has_chosen {
            let Attempt { endpoint, is_newest, others, .. } = self.attempts.last().unwrap();
            let (state, address) = (&endpoint.state, endpoint.address);
            prop_assert!(!state.has_left() || !*others, "{address} drains, and was chosen before others");
            prop_assert!(!*is_newest || !state.has_left(), "{address} drains, and was chosen");
            prop_assert!(!*is_newest || state.is_healthy(), "{address} is ejected or ill, and was chosen");
        }
        Ok(())
    }

    /// With nothing under way any more nothing is held, and every breaker lets somebody through.
    fn end(mut self) -> Result<(), TestCaseError> {
        self.attempts.clear();
        self.established.clear();
        for (address, state) in &self.states {
            prop_assert_eq!(state.active(), 0, "{} holds something", address);
        }
        for endpoint in &self.upstream().endpoints {
            let permit = endpoint.breaker.as_ref().unwrap().permit();
            prop_assert!(permit.is_some(), "the breaker of {} has lost its permit", endpoint.address);
        }
        prop_assert!(self.upstream().state.take_place().is_some(), "the upstream has lost a place");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_exceeded_lost_or_chosen_wrongly(
        steps in prop::collection::vec(step(), 1..150),
        way in 0..5_usize,
    ) {
        let ways = [
            LoadBalancer::RoundRobin,
            LoadBalancer::LeastConnections,
            LoadBalancer::Random,
            LoadBalancer::PeakEwma,
            LoadBalancer::ConsistentHash { table_size: 101 },
        ];
        let mut world = World::new(ways[way]);
        for step in &steps {
            let before = world.attempts.len();
            world.take(step);
            world.check(world.attempts.len() > before)?;
        }
        world.end()?;
    }
}
