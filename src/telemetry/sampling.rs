//! Which connections are told of, and to whom: decided once, at a connection's end, by what it was.
//!
//! On the worker, so that a record that nobody wants costs no place in the queue. What ordinary connections are kept
//! depends on their trace alone: a line of the access log and a trace of the same share are of the same connections,
//! and another process that keeps the same share of the same traces keeps the same ones.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::config::AccessLog;

use super::{ConnectionRecord, TraceId};

/// Who wants the record of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// The access log.
    pub log: bool,
    /// The traces.
    pub trace: bool,
    /// The list of recent failures.
    pub failure: bool,
}

/// What is kept; it can be changed while connections ask.
#[derive(Debug)]
pub struct Sampling {
    pub log: Share,
    pub trace: Share,
}

/// A share of ordinary connections, beside all that are notable; or, switched off, none at all.
#[derive(Debug)]
pub struct Share {
    is_on: AtomicBool,
    /// A number from 0 to 1.
    share: AtomicU64,
}

impl Wants {
    /// Whether anybody does.
    pub fn any(self) -> bool {
        self.log || self.trace || self.failure
    }
}

impl Sampling {
    pub fn new(log: &AccessLog) -> Self {
        Self { log: Share::new(log.enabled, log.sample), trace: Share::new(false, 0.0) }
    }

    /// Who wants the record of a connection that ended.
    pub fn wants(&self, record: &ConnectionRecord) -> Wants {
        let is_notable = record.is_notable();
        Wants {
            log: self.log.takes(record.trace, is_notable),
            trace: self.trace.takes(record.trace, is_notable),
            failure: record.outcome.is_error(),
        }
    }
}

impl Share {
    pub fn new(is_on: bool, share: f64) -> Self {
        Self { is_on: AtomicBool::new(is_on), share: AtomicU64::new(share.to_bits()) }
    }

    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    pub fn switch(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// Of ordinary connections, 0 to 1, while it is on.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.share.load(Ordering::Relaxed))
    }

    pub fn set(&self, share: f64) {
        self.share.store(share.to_bits(), Ordering::Relaxed);
    }

    /// Whether the connection of this trace is kept.
    fn takes(&self, trace: TraceId, is_notable: bool) -> bool {
        self.is_on() && (is_notable || trace.is_within(self.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Outcome, trace_id};
    use proptest::prelude::*;

    fn record(outcome: Outcome) -> ConnectionRecord {
        ConnectionRecord { outcome, ..ConnectionRecord::example() }
    }

    fn sampling(log: f64, trace: f64) -> Sampling {
        Sampling { log: Share::new(true, log), trace: Share::new(true, trace) }
    }

    #[test]
    fn notable_connections_are_kept_whatever_the_share() {
        let none = sampling(0.0, 0.0);
        let kept = Wants { log: true, trace: true, failure: true };
        assert_eq!(none.wants(&record(Outcome::UpstreamReset)), kept);
        assert_eq!(none.wants(&record(Outcome::DownstreamClosed)), Wants::default());
        let mut retried = record(Outcome::DownstreamClosed);
        retried.attempts.extend_from_within(..);
        assert_eq!(none.wants(&retried), Wants { failure: false, ..kept });
    }

    #[test]
    fn what_is_switched_off_gets_nothing_and_failures_are_listed_all_the_same() {
        let sampling = sampling(1.0, 1.0);
        sampling.log.switch(false);
        sampling.trace.switch(false);
        let failed = sampling.wants(&record(Outcome::UpstreamReset));
        assert_eq!((failed, failed.any()), (Wants { failure: true, ..Wants::default() }, true));
        assert!(!sampling.wants(&record(Outcome::UpstreamClosed)).any());
        sampling.log.switch(true);
        assert!(sampling.wants(&record(Outcome::UpstreamClosed)).log);
    }

    #[test]
    fn so_many_are_kept_as_the_share_says() {
        let sampling = sampling(0.1, 0.1);
        let kept = |ids: std::ops::Range<u64>| {
            let wants = ids.map(|id| {
                let trace = trace_id(id);
                sampling.wants(&ConnectionRecord { trace, ..record(Outcome::DownstreamClosed) })
            });
            wants.filter(|wants| wants.trace).count()
        };
        // Six standard deviations.
        assert!(kept(0..100_000).abs_diff(10_000) < 600);
        sampling.trace.set(1.0);
        assert_eq!(kept(0..1_000), 1_000);
    }

    proptest! {
        #[test]
        fn who_is_in_a_share_is_in_every_larger_one(id: u64, one in 0.0..=1.0, other in 0.0..=1.0) {
            let record = ConnectionRecord { trace: trace_id(id), ..record(Outcome::DownstreamClosed) };
            let wants = sampling(f64::min(one, other), f64::max(one, other)).wants(&record);
            prop_assert!(!wants.log || wants.trace);
        }
    }
}
