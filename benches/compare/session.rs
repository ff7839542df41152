//! One run: every peer side by side, the cases one after the other, the peers shuffled within each round.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use fastrand::Rng;

use crate::args::Options;
use crate::backend::Backend;
use crate::cases::{self, Case, Layer, Measurement, Target, Work};
use crate::error::{Context, Error, Result};
use crate::idle::{self, Plan};
use crate::machine;
use crate::peer::{self, Peer, Recipe, Wants};
use crate::process;
use crate::profile::Profile;
use crate::receiver::Receiver;
use crate::secure::{Credentials, Voices};

/// Starting a process and opening thousands of connections is slow, and memory hardly varies.
const MOST_IDLE_ROUNDS: usize = 3;
/// A measurement is repeated when something else had the proxy's core for a larger share of the time.
/// That has nothing to do with what the proxy does, so repeating favours none.
const DISTURBED: f64 = 0.03;
const ATTEMPTS: usize = 3;

pub(super) struct Session {
    pub(super) options: Options,
    pub(super) recipes: Vec<Recipe>,
    pub(super) versions: Vec<String>,
    /// Place of the peer that ratios refer to.
    pub(super) baseline: usize,
    pub(super) machine: String,
    pub(super) idle: Plan,
    pub(super) samples: Vec<Sample>,
    pub(super) notes: Vec<String>,
    disturbed: Vec<(Case, f64)>,
    backend: Backend,
    peers: Vec<Peer>,
    /// Of each peer's traces, and the connections that were made through it.
    receivers: Vec<Option<Receiver>>,
    connections: Vec<u64>,
    voices: Voices,
    wants: Wants,
}

/// One number of one peer in one round.
pub(super) struct Sample {
    pub(super) case: Case,
    pub(super) metric: &'static str,
    pub(super) peer: usize,
    pub(super) round: usize,
    pub(super) value: f64,
}

impl Session {
    pub(super) fn start(options: Options) -> Result<Self> {
        let machine = machine::describe();
        // Threads started from here on inherit it; the proxies are started on their own CPU.
        process::pin_this_thread(options.load_cpu)?;
        let recipes = peer::recipes(&options)?;
        let baseline = match &options.baseline {
            None => 0,
            Some(name) => recipes
                .iter()
                .position(|recipe| recipe.name == *name)
                .ok_or_else(|| Error::new(format!("the baseline {name:?} is not among the peers")))?,
        };
        let mut versions = Vec::new();
        for recipe in &recipes {
            versions.push(recipe.version()?);
        }
        let credentials = options.needs_tls().then(Credentials::make).transpose()?;
        let voices = Voices::of(credentials.as_ref())?;
        let is_large = options.cases.iter().any(|case| case.layer == Layer::Many);
        let wants = Wants { credentials, is_large };
        let backend = Backend::start(options.load_cpu)?;
        let (mut peers, mut receivers) = (Vec::new(), Vec::new());
        for recipe in &recipes {
            let receiver = recipe.traced().map(|_| Receiver::start(options.load_cpu)).transpose()?;
            let address = receiver.as_ref().map(|receiver| receiver.address);
            let peer = recipe.start(options.proxy_cpu, &backend.addresses, &wants, address)?;
            if recipe.never_sleeps() {
                peer.pause()?;
            }
            peers.push(peer);
            receivers.push(receiver);
        }
        let idle = Plan::new(options.quick);
        let (samples, notes) = (Vec::new(), Vec::new());
        Ok(Self {
            options,
            recipes,
            versions,
            baseline,
            machine,
            idle,
            samples,
            notes,
            disturbed: Vec::new(),
            backend,
            connections: vec![0; peers.len()],
            peers,
            receivers,
            voices,
            wants,
        })
    }

    pub(super) fn run(&mut self) -> Result<()> {
        if machine::separates_interrupt_time() {
            self.notes.push(
                "this kernel keeps interrupts out of a task's CPU time (CONFIG_IRQ_TIME_ACCOUNTING): \
                 the receive processing of the network is not in these numbers"
                    .into(),
            );
        }
        if !self.peers.iter().all(|peer| peer.clock.sees_ksoftirqd()) {
            self.notes.push(
                "the proxy core's ksoftirqd is not visible: CPU times miss what it did for the proxy".into(),
            );
        }
        let overflows = machine::time_wait_overflows();
        let mut rng = Rng::with_seed(self.options.rounds as u64);
        for case in self.options.cases.clone() {
            let rounds = match case {
                Case { work: Work::Idle, .. } => self.options.rounds.min(MOST_IDLE_ROUNDS),
                _ => self.options.rounds,
            };
            for round in 0..rounds {
                eprintln!("compare: {} {}/{rounds}", case.name(), round + 1);
                let mut order: Vec<usize> = (0..self.peers.len()).collect();
                order.retain(|peer| self.recipes[*peer].can(case));
                rng.shuffle(&mut order);
                for peer in order {
                    self.measure(case, peer, round)?;
                }
            }
        }
        self.note_disturbances();
        self.check_traces()?;
        for peer in &self.peers {
            process::check_affinity(peer.pid, self.options.proxy_cpu).map_err(|error| peer.blame(error))?;
        }
        let overflows = machine::time_wait_overflows() - overflows;
        if overflows > 0 {
            self.notes.push(format!(
                "{overflows} closed connections skipped TIME_WAIT (tcp_max_tw_buckets): conn is a little too cheap"
            ));
        }
        Ok(())
    }

    fn measure(&mut self, case: Case, peer: usize, round: usize) -> Result<()> {
        let reset = self.backend.seen.reset.load(Ordering::Relaxed);
        let mut best = self.attempt(case, peer)?;
        for _ in 1..ATTEMPTS {
            if best.disturbed <= DISTURBED {
                break;
            }
            let again = self.attempt(case, peer)?;
            if again.disturbed < best.disturbed {
                best = again;
            }
        }
        let place = format!("{}, {} round {}", self.recipes[peer].name, case.name(), round + 1);
        if best.disturbed > DISTURBED {
            self.disturbed.push((case, best.disturbed));
        }
        if best.coarse {
            let note = format!("{place}: threads ended, CPU time is exact to 20 ms only");
            self.notes.push(note);
        }
        let resets = self.backend.seen.reset.load(Ordering::Relaxed) - reset;
        if resets > 0 {
            let note = format!("{place}: {resets} connections to the backend ended with a reset");
            self.notes.push(note);
        }
        self.samples.extend(best.values.into_iter().map(|value| Sample {
            case,
            metric: value.metric,
            peer,
            round,
            value: value.value,
        }));
        Ok(())
    }

    fn attempt(&mut self, case: Case, peer: usize) -> Result<Measurement> {
        let before = self.backend.seen.accepted.load(Ordering::Acquire);
        let is_paused = self.recipes[peer].never_sleeps();
        if is_paused {
            self.peers[peer].go_on()?;
        }
        let outcome = self.measure_case(case, peer);
        if is_paused {
            self.peers[peer].pause()?;
        }
        self.connections[peer] += self.backend.seen.accepted.load(Ordering::Acquire) - before;
        // The backend's complaint is the cause when the client's is only a broken connection.
        let blame = |error| self.peers[peer].blame(error);
        self.backend.check().map_err(blame).context(case.name())?;
        outcome.context(case.name())
    }

    /// What observing costs would otherwise be told of a proxy that nobody heard anything from.
    fn check_traces(&mut self) -> Result<()> {
        for (place, peer) in self.peers.iter().enumerate() {
            let (Some(receiver), Some(share)) = (&self.receivers[place], self.recipes[place].traced()) else {
                continue;
            };
            let checked = receiver.arrived.check(self.connections[place], share);
            if let Some(note) = checked.map_err(|error| peer.blame(error))? {
                self.notes.push(format!("{}: {note}", peer.name));
            }
        }
        Ok(())
    }

    fn note_disturbances(&mut self) {
        for case in &self.options.cases {
            let of_case = self.disturbed.iter().filter(|(other, _)| other == case);
            let shares: Vec<f64> = of_case.map(|(_, share)| share * 100.0).collect();
            if !shares.is_empty() {
                self.notes.push(format!(
                    "{}: the machine was busy; in {} measurement(s) the proxy waited for its core, \
                     up to {:.0} % of the time",
                    case.name(),
                    shares.len(),
                    shares.iter().copied().fold(0.0, f64::max)
                ));
            }
        }
    }

    fn measure_case(&mut self, case: Case, peer: usize) -> Result<Measurement> {
        let time = self.options.time;
        let speech = &self.voices.in_layer(case.layer)?;
        let receiver = self.receivers[peer].as_ref();
        let traces = receiver.map(|receiver| &*receiver.arrived);
        if matches!(case.work, Work::Idle | Work::Churn) {
            let (cpu, address) = (self.options.proxy_cpu, receiver.map(|receiver| receiver.address));
            // Nobody rewrites a large table as a whole: what is republished is a small one.
            let small = Wants { credentials: None, is_large: false };
            let wants = if case.work == Work::Churn { &small } else { &self.wants };
            let mut fresh = self.recipes[peer].start(cpu, &self.backend.addresses, wants, address)?;
            self.backend.settle()?;
            let target = Target { address: fresh.addresses.of(case.layer), speech, traces };
            let measured = match case.work {
                Work::Churn => cases::churn(&mut fresh, &target, &self.backend, time),
                _ => idle::measure(&mut fresh, &target, &self.backend, &self.idle),
            };
            let measured = measured.map_err(|error| fresh.blame(error))?;
            fresh.stop()?;
            return Ok(measured);
        }
        let running = &mut self.peers[peer];
        let name = format!("{}-{}", case.name(), running.name);
        let start = |folder: &PathBuf| Profile::start(running.pid, folder, &name);
        let profile = self.options.profile.as_ref().map(start).transpose()?;
        let target = Target { address: running.addresses.of(case.layer), speech, traces };
        let measured = match case.work {
            Work::Conn if case.layer == Layer::Many => {
                let conn = Target { address: running.addresses.of(Layer::Plain), speech, traces };
                cases::beside_conn(running, &target, &conn, &self.backend, time)
            }
            Work::Conn => cases::short_connections(running, &target, &self.backend, time),
            Work::Bulk1 | Work::Bulk16 => cases::bulk(case.work, running, &target, &self.backend, time),
            Work::Mixed => cases::mixed(running, &target, &self.backend, time),
            Work::Storm => cases::storm(running, &target, self.voices.hello()?, &self.backend, time),
            Work::Rr64 | Work::Rr1 | Work::Idle | Work::Churn => {
                cases::round_trips(case.work, running, &target, &self.backend, time)
            }
        };
        if let Some(profile) = profile {
            eprintln!("compare: {}", profile.finish()?.display());
        }
        measured.map_err(|error| running.blame(error))
    }

    pub(super) fn stop(self) -> Result<()> {
        for peer in self.peers {
            peer.stop()?;
        }
        Ok(())
    }
}
