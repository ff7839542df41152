//! Passive health: an endpoint that fails several connections in a row is ejected for a while.
//!
//! [`Ejection`] is what all workers share of one endpoint; they count in it. [`Ejections`] decides for an upstream as a whole,
//! so that never too many of its endpoints are ejected at once. Pure: the time and what was counted are arguments.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When an endpoint is ejected, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionPolicy {
    /// Failures in a row.
    pub consecutive_failures: NonZeroU32,
    /// How long the first ejection lasts. Each further one lasts so much longer, up to [`MAX_TIMES`] of it; each such time
    /// that the endpoint is not ejected takes one off again.
    pub base_time: Duration,
    /// At most this share of the endpoints is ejected, but one of two may always be.
    pub max_percent: u32,
}

/// The longest ejection, in times of the first.
const MAX_TIMES: u32 = 10;

/// Shared by all workers. What is well, which nearly all are, costs a load for each connection.
#[derive(Debug, Default)]
pub struct Ejection {
    in_a_row: AtomicU32,
    count: AtomicU64,
    standing: Mutex<Standing>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Standing {
    /// When an ejection ends; `None`: it is not ejected.
    until: Option<Instant>,
    last_failure: &'static str,
}

impl Ejection {
    /// The endpoint did what it should.
    pub fn succeeded(&self) {
        if self.in_a_row.load(Ordering::Relaxed) > 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// A connection failed, and that was the endpoint's doing. Whether somebody has to decide what comes of it. While it is
    /// ejected, only who ignores that connects to it, and nothing counts.
    pub fn failed(&self, failure: &'static str, consecutive_failures: NonZeroU32) -> bool {
        let mut standing = self.standing();
        if standing.until.is_some() {
            return false;
        }
        standing.last_failure = failure;
        let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        // Where there was no room for it at first, it is asked again, and not with every failure.
        in_a_row.is_multiple_of(consecutive_failures.get())
    }

    /// Failures in a row, up to now.
    pub fn failures(&self) -> u32 {
        self.in_a_row.load(Ordering::Relaxed)
    }

    /// What the last of them was.
    pub fn last_failure(&self) -> &'static str {
        self.standing().last_failure
    }

    pub fn eject(&self, until: Instant) {
        let mut standing = self.standing();
        standing.until = Some(until);
        self.in_a_row.store(0, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// It is no longer ejected, and nothing has failed. Whether it was.
    pub fn restore(&self) -> bool {
        let mut standing = self.standing();
        self.in_a_row.store(0, Ordering::Relaxed);
        standing.until.take().is_some()
    }

    pub fn is_ejected(&self) -> bool {
        self.until().is_some()
    }

    /// When its ejection ends, if it is ejected.
    pub fn until(&self) -> Option<Instant> {
        self.standing().until
    }

    /// How often it was ejected.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The endpoints of one upstream that are, or were lately, ejected.
#[derive(Debug, Default)]
pub struct Ejections {
    records: HashMap<SocketAddr, Record>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    /// Ejections so far, without those that time has taken off.
    times: u32,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Ejected { until: Instant },
    Back { since: Instant },
}

/// What a step has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Ejected { endpoint: SocketAddr, time: Duration },
    Returned { endpoint: SocketAddr },
}

impl Ejections {
    /// What is to change now; `members` are all endpoints that may be chosen, each with its failures in a row. To be asked when an
    /// endpoint has failed often enough, when there are other members, and when [`Self::next_return`] has come.
    pub fn step(
        &mut self,
        policy: &EjectionPolicy,
        members: &[(SocketAddr, u32)],
        now: Instant,
    ) -> Vec<Change> {
        let known: HashSet<SocketAddr> = members.iter().map(|(endpoint, _)| *endpoint).collect();
        self.records.retain(|endpoint, record| known.contains(endpoint) && record.matters(policy, now));
        let allowed = allowed(policy, known.len());
        let returned = self.give_back(allowed, now);
        let mut suspects: Vec<_> = members
            .iter()
            .filter(|(endpoint, failures)| {
                *failures >= policy.consecutive_failures.get()
                    && !returned.contains(endpoint)
                    && !self.is_ejected(endpoint)
            })
            .collect();
        suspects.sort_unstable_by_key(|(endpoint, failures)| (Reverse(*failures), *endpoint));
        let room = allowed.saturating_sub(self.ejected().count());
        let mut changes: Vec<Change> =
            returned.into_iter().map(|endpoint| Change::Returned { endpoint }).collect();
        changes.extend(suspects.into_iter().take(room).map(|(endpoint, _)| {
            let times = self.records.get(endpoint).map_or(0, |record| record.times_left(policy, now));
            let times = (times + 1).min(MAX_TIMES);
            let time = policy.base_time * times;
            self.records.insert(*endpoint, Record { times, phase: Phase::Ejected { until: now + time } });
            Change::Ejected { endpoint: *endpoint, time }
        }));
        changes
    }

    /// When the next ejection ends.
    pub fn next_return(&self) -> Option<Instant> {
        self.ejected().map(|(until, _)| until).min()
    }

    /// This endpoint is another one from now on.
    pub fn forget(&mut self, endpoint: SocketAddr) {
        self.records.remove(&endpoint);
    }

    /// Those whose time is over; and while more than `allowed` are left, because others have gone, those whose time is over next.
    fn give_back(&mut self, allowed: usize, now: Instant) -> HashSet<SocketAddr> {
        let mut ejected: Vec<(Instant, SocketAddr)> = self.ejected().collect();
        ejected.sort_unstable();
        let over = ejected.iter().take_while(|(until, _)| *until <= now).count();
        let returning = over.max(ejected.len().saturating_sub(allowed));
        let returned: HashSet<SocketAddr> =
            ejected.into_iter().take(returning).map(|(_, endpoint)| endpoint).collect();
        for endpoint in &returned {
            if let Some(record) = self.records.get_mut(endpoint) {
                record.phase = Phase::Back { since: now };
            }
        }
        returned
    }

    fn is_ejected(&self, endpoint: &SocketAddr) -> bool {
        self.records.get(endpoint).is_some_and(|record| matches!(record.phase, Phase::Ejected { .. }))
    }

    fn ejected(&self) -> impl Iterator<Item = (Instant, SocketAddr)> + '_ {
        self.records.iter().filter_map(|(endpoint, record)| match record.phase {
            Phase::Ejected { until } => Some((until, *endpoint)),
            Phase::Back { .. } => None,
        })
    }
}

impl Record {
    /// Its ejections, but for those that the time since has taken off.
    fn times_left(&self, policy: &EjectionPolicy, now: Instant) -> u32 {
        let Phase::Back { since } = self.phase else { return self.times };
        let well_for = now.saturating_duration_since(since).as_millis();
        let off = well_for / policy.base_time.as_millis().max(1);
        self.times.saturating_sub(u32::try_from(off).unwrap_or(u32::MAX))
    }

    /// Whether there is anything to remember.
    fn matters(&self, policy: &EjectionPolicy, now: Instant) -> bool {
        self.times_left(policy, now) > 0
    }
}

/// How many of so many endpoints may be ejected at once.
fn allowed(policy: &EjectionPolicy, endpoints: usize) -> usize {
    let share = endpoints as u64 * u64::from(policy.max_percent) / 100;
    usize::try_from(share).unwrap_or(endpoints).max(usize::from(endpoints >= 2))
}

#[cfg(test)]
mod tests;
