//! How many connections each client address has, and how fast it makes new ones: exact for the process, in bounded
//! memory.
//!
//! An address that has no connections and has not lately made any says nothing, and is forgotten. When there is no room for a new
//! one, the one that has been at rest longest makes room; only when all have connections, the newcomer is admitted without
//! being counted. Pure: the time is an argument.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Client addresses that are known at once.
const KNOWN_MAX: usize = 65_536;
/// Parts with a lock each, so that workers seldom wait for each other.
const STRIPES: usize = 16;
/// Of those at rest, how many each newcomer may find forgotten.
const FORGET_AT_ONCE: usize = 2;
/// What sums of fractions may be off by.
const ROUNDING: f64 = 1e-6;

/// What one client address may do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SourcePolicy {
    /// Connections at once.
    pub limit: Option<NonZeroU32>,
    /// New connections per second. At one moment as many as in a second may come, and one in any case.
    pub rate: Option<f64>,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceRefusal {
    Limit,
    Rate,
}

/// The client addresses of one listener.
#[derive(Debug)]
pub struct Sources {
    stripes: [Stripe; STRIPES],
    /// Its key is random, so that nobody can choose addresses that all fall into one stripe.
    hasher: RandomState,
    known: AtomicUsize,
    known_max: usize,
    uncounted: AtomicU64,
}

/// A connection that counts for its client address, until this is dropped.
#[derive(Debug)]
pub struct SourcePlace {
    sources: Arc<Sources>,
    source: Source,
}

/// An IPv4 address, or the network of an IPv6 address that one site has at the least (RFC 6177).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Source {
    V4(Ipv4Addr),
    V6([u16; 4]),
}

/// On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    tallies: HashMap<Source, Tally>,
    /// Those without connections, by when their last one came.
    idle: BTreeSet<(Instant, Source)>,
}

#[derive(Debug)]
struct Tally {
    connections: u32,
    /// New connections that the rate had not made up for at `last`.
    level: f64,
    /// When the last one came.
    last: Instant,
}

impl Default for Sources {
    fn default() -> Self {
        Self::new(KNOWN_MAX)
    }
}

impl Sources {
    fn new(known_max: usize) -> Self {
        Self {
            stripes: Default::default(),
            hasher: RandomState::new(),
            known: AtomicUsize::new(0),
            known_max,
            uncounted: AtomicU64::new(0),
        }
    }

    /// Asks whether a connection of this client may be, and counts it if so. `None`: it may be, and there is no room to
    /// count it.
    ///
    /// # Errors
    /// Which of the two the client has too many of; then nothing has changed.
    pub fn enter(
        self: &Arc<Self>,
        client: IpAddr,
        policy: SourcePolicy,
        now: Instant,
    ) -> Result<Option<SourcePlace>, SourceRefusal> {
        let source = Source::of(client);
        let mut known = self.stripe(source).lock();
        let forgotten = known.forget_rested(policy.rate, now);
        self.known.fetch_sub(forgotten, Ordering::AcqRel);
        if !known.tallies.contains_key(&source) {
            let Some(learned) = self.learn(known, source, now) else {
                self.uncounted.fetch_add(1, Ordering::Relaxed);
                return Ok(None);
            };
            known = learned;
        }
        known.admit(source, policy, now)?;
        Ok(Some(SourcePlace { sources: Arc::clone(self), source }))
    }

    /// How many client addresses are known.
    pub fn known(&self) -> usize {
        self.known.load(Ordering::Relaxed)
    }

    /// How many connections were admitted without being counted.
    pub fn uncounted(&self) -> u64 {
        self.uncounted.load(Ordering::Relaxed)
    }

    /// Makes a client address known. `None`: there is no room.
    fn learn<'a>(
        &'a self,
        mut known: MutexGuard<'a, Known>,
        source: Source,
        now: Instant,
    ) -> Option<MutexGuard<'a, Known>> {
        if !self.take_room() && !known.forget_oldest() {
            // Never two locks at once.
            drop(known);
            self.stripes.iter().find(|stripe| stripe.lock().forget_oldest())?;
            known = self.stripe(source).lock();
            if known.tallies.contains_key(&source) {
                // Another worker was faster.
                self.known.fetch_sub(1, Ordering::AcqRel);
                return Some(known);
            }
        }
        known.learn(source, now);
        Some(known)
    }

    fn take_room(&self) -> bool {
        let take = |known: usize| (known < self.known_max).then_some(known + 1);
        self.known.fetch_update(Ordering::AcqRel, Ordering::Relaxed, take).is_ok()
    }

    fn leave(&self, source: Source) {
        if self.stripe(source).lock().leave(source) {
            self.known.fetch_sub(1, Ordering::AcqRel);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the remainder is small")]
    fn stripe(&self, source: Source) -> &Stripe {
        let index = self.hasher.hash_one(source) % STRIPES as u64;
        &self.stripes[index as usize]
    }
}

impl Drop for SourcePlace {
    fn drop(&mut self) {
        self.sources.leave(self.source);
    }
}

impl Source {
    fn of(client: IpAddr) -> Self {
        match client.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

impl Stripe {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// A new one is like one that has been at rest for ever.
    fn learn(&mut self, source: Source, now: Instant) {
        self.tallies.insert(source, Tally { connections: 0, level: 0.0, last: now });
        self.idle.insert((now, source));
    }

    fn admit(&mut self, source: Source, policy: SourcePolicy, now: Instant) -> Result<(), SourceRefusal> {
        let Some(tally) = self.tallies.get_mut(&source) else { return Ok(()) };
        let before = (tally.last, source);
        tally.admit(policy, now)?;
        self.idle.remove(&before);
        Ok(())
    }

    /// A connection has ended. Whether its source is forgotten for it.
    fn leave(&mut self, source: Source) -> bool {
        let Some(tally) = self.tallies.get_mut(&source) else { return false };
        tally.connections = tally.connections.saturating_sub(1);
        if tally.connections > 0 {
            return false;
        }
        if tally.level > 0.0 {
            self.idle.insert((tally.last, source));
            return false;
        }
        self.tallies.remove(&source).is_some()
    }

    /// Forgets some of those that a connection would find as if they were new; how many.
    fn forget_rested(&mut self, rate: Option<f64>, now: Instant) -> usize {
        let is_rested = |known: &Self, source: &Source| {
            known
                .tallies
                .get(source)
                .is_none_or(|tally| rate.is_none_or(|rate| tally.level_at(rate, now) <= 0.0))
        };
        let mut forgotten = 0;
        while forgotten < FORGET_AT_ONCE
            && self.idle.first().is_some_and(|(_, source)| is_rested(self, source))
            && self.forget_oldest()
        {
            forgotten += 1;
        }
        forgotten
    }

    /// Forgets the one that has been without a new connection longest. `false`: all have connections.
    fn forget_oldest(&mut self) -> bool {
        self.idle.pop_first().is_some_and(|(_, source)| self.tallies.remove(&source).is_some())
    }
}

impl Tally {
    fn admit(&mut self, policy: SourcePolicy, now: Instant) -> Result<(), SourceRefusal> {
        if policy.limit.is_some_and(|limit| self.connections >= limit.get()) {
            return Err(SourceRefusal::Limit);
        }
        if let Some(rate) = policy.rate {
            let level = self.level_at(rate, now) + 1.0;
            if level > rate.max(1.0) + ROUNDING {
                return Err(SourceRefusal::Rate);
            }
            self.level = level;
        }
        // Another worker's time may be a little ahead; what it has given back is not given twice.
        self.last = self.last.max(now);
        self.connections = self.connections.saturating_add(1);
        Ok(())
    }

    /// What the rate has not made up for yet.
    fn level_at(&self, rate: f64, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.last).as_secs_f64();
        (self.level - since * rate).max(0.0)
    }
}

#[cfg(test)]
mod tests;
