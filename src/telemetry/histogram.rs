//! A histogram of seconds with fixed buckets; plain numbers, one owner, merged at scrape.

use std::time::Duration;

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
}

impl Histogram {
    pub fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.counts[BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
        self.sum += seconds;
    }

    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum += other.sum;
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
