//! How many retries an upstream's connections may cost: a share of them, and a floor.
//!
//! Without it, an outage multiplies: when every attempt fails, each connection brings `numRetries` more of them to endpoints that
//! are down already. Pure: the time and the number of connections are arguments.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Retries are weighed against the connections of so long before.
const WINDOW: Duration = Duration::from_secs(10);
/// Retries of this long are counted as one.
const GRAIN: Duration = Duration::from_millis(500);
/// Until then, since the first of a grain, the last of it may be in the window: all of them count.
const COUNTED: Duration = WINDOW.saturating_add(GRAIN);

/// How many retries there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetPolicy {
    /// Per hundred connections.
    pub percent: u32,
    /// Always allowed.
    pub min_per_second: u32,
}

/// What came and was spent lately. A connection without a retry costs a count; only now and then it leaves a mark here.
#[derive(Debug, Default)]
pub struct Budget {
    /// Oldest first. The first may lie before the window: connections are counted from there.
    spent: VecDeque<Spent>,
    /// Whether there were others before the first.
    has_forgotten: bool,
}

#[derive(Debug, Clone, Copy)]
struct Spent {
    since: Instant,
    /// Connections of the upstream so far, then.
    connections: u64,
    retries: u64,
}

impl Budget {
    /// Connections after which one leaves a mark.
    pub const MARK_EVERY: u64 = 64;

    /// Notes how many `connections` the upstream has had so far.
    pub fn mark(&mut self, connections: u64, now: Instant) {
        // One from before it all stays, to tell the connections in the window from those before.
        while self.spent.get(1).is_some_and(|next| now.saturating_duration_since(next.since) >= COUNTED) {
            self.spent.pop_front();
            self.has_forgotten = true;
        }
        let is_new = |last: &Spent| now.saturating_duration_since(last.since) < GRAIN;
        if !self.spent.back().is_some_and(is_new) {
            self.spent.push_back(Spent { since: now, connections, retries: 0 });
        }
    }

    /// Asks for a retry; `connections` is how many the upstream has had so far. Whether it may be made: it then counts.
    pub fn withdraw(&mut self, policy: BudgetPolicy, connections: u64, now: Instant) -> bool {
        self.mark(connections, now);
        let is_recent = |spent: &Spent| now.saturating_duration_since(spent.since) < COUNTED;
        let retries: u64 =
            self.spent.iter().filter(|spent| is_recent(spent)).map(|spent| spent.retries).sum();
        let lately = self.connections_lately(connections, now);
        let allowed =
            lately * u64::from(policy.percent) / 100 + u64::from(policy.min_per_second) * WINDOW.as_secs();
        if retries >= allowed {
            return false;
        }
        if let Some(last) = self.spent.back_mut() {
            last.retries += 1;
        }
        true
    }

    /// Takes back the last retry that counts: it has cost the upstream nothing that matters.
    pub fn refund(&mut self) {
        if let Some(last) = self.spent.iter_mut().rev().find(|spent| spent.retries > 0) {
            last.retries -= 1;
        }
    }

    /// The connections in the window, as far as is known: evenly spread since the last mark before it.
    fn connections_lately(&self, connections: u64, now: Instant) -> u64 {
        let is_before = |spent: &&Spent| now.saturating_duration_since(spent.since) >= WINDOW;
        let before = self.spent.iter().rev().find(is_before);
        let Some(first) = before.or_else(|| self.spent.front()) else { return connections };
        let since = now.saturating_duration_since(first.since);
        let more = connections.saturating_sub(first.connections);
        if since < WINDOW {
            return if self.has_forgotten { more } else { connections };
        }
        let in_window = u128::from(more) * WINDOW.as_millis() / since.as_millis().max(1);
        u64::try_from(in_window).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: BudgetPolicy = BudgetPolicy { percent: 20, min_per_second: 10 };

    #[test]
    fn a_share_of_the_connections_and_a_floor() {
        let mut budget = Budget::default();
        let now = Instant::now();
        let granted = (0..1_000).filter(|_| budget.withdraw(POLICY, 500, now)).count();
        assert_eq!(granted, 500 * 20 / 100 + 10 * 10);
        let later = now + COUNTED;
        let granted = (0..1_000).filter(|_| budget.withdraw(POLICY, 500, later)).count();
        assert_eq!(granted, 100, "without connections since then there is the floor");
    }

    #[test]
    fn no_retry_leaves_the_window_with_an_earlier_one() {
        let floor = BudgetPolicy { percent: 0, min_per_second: 10 };
        let mut budget = Budget::default();
        let start = Instant::now();
        let granted = [(0, 1), (400, 110), (10_010, 110), (10_399, 110), (10_500, 110)].map(|(at, asked)| {
            let now = start + Duration::from_millis(at);
            (0..asked).filter(|_| budget.withdraw(floor, 1_000, now)).count()
        });
        assert_eq!(granted, [1, 99, 0, 0, 100]);
    }

    #[test]
    fn nothing_is_nothing() {
        let none = BudgetPolicy { percent: 0, min_per_second: 0 };
        assert!(!Budget::default().withdraw(none, 1_000_000, Instant::now()));
    }

    #[test]
    fn what_is_given_back_may_be_spent_again() {
        let mut budget = Budget::default();
        let start = Instant::now();
        budget.refund();
        let at = |tick: u32| start + tick * Duration::from_millis(10);
        for tick in 0..5_000 {
            assert!(budget.withdraw(POLICY, 0, at(tick)), "{tick}");
            budget.refund();
        }
        let granted = (0..1_000).filter(|_| budget.withdraw(POLICY, 0, at(5_000))).count();
        assert_eq!(granted, 100, "a refund is no credit");
    }

    #[test]
    fn a_busy_upstream_of_long_ago_does_not_count() {
        let mut budget = Budget::default();
        let now = Instant::now();
        assert!(budget.withdraw(POLICY, 1_000_000, now));
        // Ten a second since then.
        let later = now + Duration::from_secs(1_000);
        let granted = (0..1_000).filter(|_| budget.withdraw(POLICY, 1_010_000, later)).count();
        assert_eq!(granted, 100 * 20 / 100 + 100);
    }

    proptest! {
        /// In a total outage each connection asks for retries: no window has more of them than it may.
        #[test]
        fn an_outage_is_no_storm(
            percent in prop::sample::select(vec![0_u32, 20]),
            steps in prop::collection::vec((0..400_u64, 0..20_u64, 0..40_usize), 1..200),
        ) {
            let policy = BudgetPolicy { percent, ..POLICY };
            let mut budget = Budget::default();
            let start = Instant::now();
            let (mut now, mut connections) = (start, 0_u64);
            // When each connection came and each retry was granted.
            let (mut came, mut granted): (Vec<Instant>, Vec<Instant>) = (Vec::new(), Vec::new());
            for (milliseconds, more, asked) in steps {
                now += Duration::from_millis(milliseconds);
                connections += more;
                came.extend((0..more).map(|_| now));
                granted.extend((0..asked).filter(|_| budget.withdraw(policy, connections, now)).map(|_| now));
                let lately = |time: &&Instant| now - **time < WINDOW;
                // Connections are weighed since the oldest retry in the window, or a grain before.
                let retries = granted.iter().filter(lately).count() as u64;
                let all = came.len() as u64;
                prop_assert!(retries <= all * u64::from(percent) / 100 + 100, "{retries} retries for {all} connections");
            }
        }
    }
}
