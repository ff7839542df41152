//! Which connections are told of, and to whom: decided once, at a connection's end, by what it was.
//!
//! On the worker, so that a record that nobody wants costs no place in the queue. What ordinary connections are kept
//! depends on their trace alone: a line of the access log and a trace of the same share are of the same connections,
//! and another process that keeps the same share of the same traces keeps the same ones.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::config::AccessLog;

use super::record::Parent;
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

/// What is kept. The shares can be changed while connections ask.
#[derive(Debug)]
pub struct Sampling {
    pub log: Share,
    pub trace: Share,
    slower_than: Option<Duration>,
    parents: Parents,
}

/// Which traces are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TraceRules {
    /// Share of ordinary connections, 0 to 1.
    pub sample: f64,
    /// Whose client had to wait longer is always kept; `None`: nobody waits too long.
    pub slower_than: Option<Duration>,
    pub parents: Parents,
}

/// What it means to ordinary connections that they are a part of another's trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parents {
    Ignored,
    /// They are kept where that one is, which would otherwise lack a part.
    Kept,
    /// The same, and they are not kept where that one is not.
    Followed,
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
    /// `trace`: `None` keeps none.
    pub fn new(log: &AccessLog, trace: Option<TraceRules>) -> Self {
        Self {
            log: Share::new(log.enabled, log.sample),
            trace: Share::new(trace.is_some(), trace.map_or(0.0, |rules| rules.sample)),
            slower_than: trace.and_then(|rules| rules.slower_than),
            parents: trace.map_or(Parents::Ignored, |rules| rules.parents),
        }
    }

    /// Who wants the record of a connection that ended.
    pub fn wants(&self, record: &ConnectionRecord) -> Wants {
        let is_notable = record.is_notable();
        Wants {
            log: self.log.takes(record.trace, is_notable),
            trace: self.trace.is_on()
                && (is_notable
                    || self.is_slow(record.longest_wait())
                    || self.keeps(record.trace, record.parent)),
            failure: record.outcome.is_error(),
        }
    }

    /// Whether the trace is kept however its connection ends: by the sample, or as a part of one that is kept.
    pub fn keeps(&self, trace: TraceId, parent: Option<Parent>) -> bool {
        let is_parent_kept =
            parent.filter(|_| self.parents != Parents::Ignored).map(|parent| parent.is_sampled);
        match is_parent_kept {
            Some(true) => self.trace.is_on(),
            Some(false) if self.parents == Parents::Followed => false,
            _ => self.trace.takes(trace, false),
        }
    }

    /// Whether a client that waits so long makes its connection a slow one.
    pub fn is_slow(&self, wait: Duration) -> bool {
        self.slower_than.is_some_and(|most| wait > most)
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
    use crate::config::LogFormat;
    use crate::telemetry::{Outcome, trace_id};
    use proptest::prelude::*;

    fn record(outcome: Outcome) -> ConnectionRecord {
        ConnectionRecord { outcome, ..ConnectionRecord::example() }
    }

    fn sampling(log: f64, trace: f64) -> Sampling {
        with(log, TraceRules { sample: trace, slower_than: None, parents: Parents::Kept })
    }

    fn with(log: f64, rules: TraceRules) -> Sampling {
        Sampling::new(&AccessLog { enabled: true, sample: log, format: LogFormat::Json }, Some(rules))
    }

    #[test]
    fn who_had_to_wait_is_kept() {
        let milliseconds = Duration::from_millis;
        let rules = TraceRules { sample: 0.0, slower_than: Some(milliseconds(100)), parents: Parents::Kept };
        let sampling = with(0.0, rules);
        let is_kept = |connected, asked: Option<u64>, answered: Option<u64>| {
            let mut record = record(Outcome::DownstreamClosed);
            record.timeline.connect_ended = Some(milliseconds(connected));
            record.timeline.first_byte_downstream = asked.map(milliseconds);
            record.timeline.first_byte_upstream = answered.map(milliseconds);
            record.timeline.ended = milliseconds(100_000);
            sampling.wants(&record).trace
        };
        assert!(!is_kept(100, None, None) && is_kept(101, None, None), "for its endpoint");
        assert!(!is_kept(5, Some(9_000), Some(9_100)), "the client took its time");
        assert!(is_kept(5, Some(9_000), Some(9_101)), "for the answer");
        assert!(!is_kept(5, Some(99_900), None) && is_kept(5, Some(99_899), None), "in vain, to the end");
        assert!(is_kept(5, Some(1), Some(106)), "asked before there was an endpoint");
        let in_vain = |routed: Option<u64>| {
            let mut record = record(Outcome::DownstreamClosed);
            record.timeline.routed = routed.map(milliseconds);
            record.timeline.connect_ended = None;
            record.timeline.ended = milliseconds(101);
            sampling.wants(&record).trace
        };
        assert!(in_vain(Some(1)) && !in_vain(None), "in vain for a place");
        assert!(!is_kept(5, Some(9_000), Some(6)) && is_kept(5, None, Some(106)), "spoken to first");
    }

    #[test]
    fn parts_of_traces_of_others_are_kept_as_the_rules_say() {
        let parent = |is_sampled| Some(Parent { span: 1, is_sampled });
        let keeps = |sample, parents, parent| {
            let rules = TraceRules { sample, slower_than: None, parents };
            let sampling = with(0.0, rules);
            let trace = sampling.keeps(trace_id(1), parent);
            let record = ConnectionRecord { parent, ..record(Outcome::DownstreamClosed) };
            assert_eq!(sampling.wants(&record).trace, trace);
            trace
        };
        for parents in [Parents::Ignored, Parents::Kept, Parents::Followed] {
            assert!(keeps(1.0, parents, None) && !keeps(0.0, parents, None));
            assert_eq!(keeps(0.0, parents, parent(true)), parents != Parents::Ignored);
            assert_eq!(keeps(1.0, parents, parent(false)), parents != Parents::Followed);
        }
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
