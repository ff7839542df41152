//! A histogram of seconds with fixed buckets; plain numbers, one owner, merged at scrape.

use std::time::{Duration, SystemTime};

use super::TraceId;

/// Upper bounds in seconds: 100 us to 10 s for connecting, on to a day for connections that live long.
pub(super) const BOUNDS: [f64; 20] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 60.0, 600.0, 3_600.0, 86_400.0,
];

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Not cumulative; the last one is what lies above all bounds.
    counts: [u64; BOUNDS.len() + 1],
    sum: f64,
    /// The newest of each bucket that has one; as short as there are such buckets.
    exemplars: Vec<Exemplar>,
}

/// A connection whose trace is kept, and when it was observed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Traced {
    pub trace: TraceId,
    pub at: SystemTime,
}

/// One of the observations in a bucket, by name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exemplar {
    bucket: usize,
    pub trace: TraceId,
    pub seconds: f64,
    pub at: SystemTime,
}

impl Histogram {
    pub fn observe(&mut self, duration: Duration) {
        self.observe_traced(duration, None);
    }

    /// The same, of a connection that can be looked up if it is `traced`.
    pub fn observe_traced(&mut self, duration: Duration, traced: Option<Traced>) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts[bucket] += 1;
        self.sum += seconds;
        if let Some(Traced { trace, at }) = traced {
            self.remember(Exemplar { bucket, trace, seconds, at });
        }
    }

    fn remember(&mut self, exemplar: Exemplar) {
        match self.exemplars.iter_mut().find(|known| known.bucket == exemplar.bucket) {
            Some(known) if known.at <= exemplar.at => *known = exemplar,
            Some(_newer) => {}
            None => self.exemplars.push(exemplar),
        }
    }

    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum += other.sum;
        other.exemplars.iter().for_each(|exemplar| self.remember(*exemplar));
    }

    /// The newest in this bucket, by its place in [`Self::buckets`].
    pub fn exemplar(&self, bucket: usize) -> Option<&Exemplar> {
        self.exemplars.iter().find(|exemplar| exemplar.bucket == bucket)
    }

    /// In seconds.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// (upper bound in seconds, how many in this bucket alone); the last bound is infinity.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        BOUNDS.into_iter().chain([f64::INFINITY]).zip(self.counts).collect()
    }

    /// In seconds: that share of the durations is at most this. See [`quantile`].
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let mut total = 0;
        let cumulative = self.buckets().into_iter().map(|(bound, count)| {
            total += count;
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
            let total = total as f64;
            (bound, total)
        });
        quantile(&cumulative.collect::<Vec<_>>(), share)
    }
}

/// That share of the values is at most this, by cumulative buckets in order: (upper bound, how many are at most that). Within a
/// bucket all values are taken as evenly spread, and above the last bound as that bound, as Prometheus has it. `None`: there
/// are none.
pub fn quantile(cumulative: &[(f64, f64)], share: f64) -> Option<f64> {
    let (_, total) = *cumulative.last()?;
    // Also where counts went backwards.
    if total <= 0.0 {
        return None;
    }
    let wanted = share * total;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, count) in cumulative.iter().copied() {
        if count >= wanted && count > below {
            let part = (wanted - below) / (count - below);
            return Some(if bound.is_finite() { lower + (bound - lower) * part } else { lower });
        }
        (lower, below) = (bound, count);
    }
    Some(lower).filter(|bound| bound.is_finite())
}

#[cfg(test)]
mod tests {
    use super::super::trace_id;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::UNIX_EPOCH;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for milliseconds in 1..=100 {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let median = histogram.quantile(0.5).unwrap();
        assert!((0.045..=0.055).contains(&median), "{median}");
        histogram.observe(Duration::from_secs(1_000_000));
        assert_eq!(histogram.quantile(1.0), Some(86_400.0), "above all bounds nothing is known");
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket_and_merging_adds() {
        let mut one = Histogram::default();
        one.observe(Duration::from_millis(1));
        one.observe(Duration::from_secs(200_000));
        let mut both = one.clone();
        both.merge(&one);
        let bucket = |bound: f64| both.buckets().into_iter().find(|(b, _)| *b == bound).unwrap().1;
        assert_eq!((bucket(0.001), bucket(f64::INFINITY), both.count()), (2, 2, 4));
        assert!((both.sum() - 400_000.002).abs() < 1e-6);
    }

    proptest! {
        /// However observations are spread over workers and scrapes, each bucket remembers its newest connection, and one of its own.
        #[test]
        fn each_bucket_remembers_its_newest(
            observations in proptest::collection::vec((0_u64..100_000_000, 0_usize..3, any::<bool>()), 0..100),
        ) {
            let mut parts = [Histogram::default(), Histogram::default(), Histogram::default()];
            let mut newest = BTreeMap::new();
            for (number, (microseconds, part, is_traced)) in (1..).zip(observations) {
                let (trace, at) = (trace_id(number), UNIX_EPOCH + Duration::from_secs(number));
                let duration = Duration::from_micros(microseconds);
                parts[part].observe_traced(duration, is_traced.then_some(Traced { trace, at }));
                if is_traced {
                    newest.insert(BOUNDS.partition_point(|bound| *bound < duration.as_secs_f64()), trace);
                }
            }
            let mut whole = Histogram::default();
            parts.iter().for_each(|part| whole.merge(part));
            for (bucket, (bound, count)) in whole.buckets().into_iter().enumerate() {
                let exemplar = whole.exemplar(bucket);
                prop_assert_eq!(exemplar.map(|exemplar| exemplar.trace), newest.get(&bucket).copied());
                prop_assert!(exemplar.is_none_or(|exemplar| exemplar.seconds <= bound && count > 0));
            }
        }
    }

    #[test]
    fn exemplars_cost_what_they_hold() {
        assert_eq!(size_of::<Histogram>(), 200);
        assert_eq!(size_of::<Exemplar>(), 48);
    }
}
