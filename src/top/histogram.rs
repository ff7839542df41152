//! Quantiles of what a histogram counted between two scrapes.

use crate::telemetry;

use super::exposition::Sample;

/// Cumulative buckets: how many are at most each bound.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Cumulative(Vec<(f64, f64)>);

impl Cumulative {
    /// One of its buckets, as it is exposed.
    pub(super) fn add_sample(&mut self, sample: &Sample<'_>) {
        if let Some(bound) = sample.label("le").and_then(|bound| bound.parse().ok()) {
            self.add(bound, sample.value);
        }
    }

    fn add(&mut self, bound: f64, count: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, known)) => *known += count,
            None => {
                self.0.push((bound, count));
                self.0.sort_by(|(one, _), (other, _)| one.total_cmp(other));
            }
        }
    }

    /// Of what came since `before`; `None` where nothing did.
    pub(super) fn quantile(&self, share: f64, before: Option<&Self>) -> Option<f64> {
        let earlier = |bound: f64| {
            let buckets = before.map_or(&[][..], |before| &before.0);
            buckets.iter().find(|(known, _)| *known == bound).map_or(0.0, |(_, count)| *count)
        };
        let since: Vec<_> = self.0.iter().map(|(bound, count)| (*bound, count - earlier(*bound))).collect();
        telemetry::quantile(&since, share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cumulative(buckets: &[(f64, f64)]) -> Cumulative {
        let mut cumulative = Cumulative::default();
        buckets.iter().for_each(|(bound, count)| cumulative.add(*bound, *count));
        cumulative
    }

    #[test]
    fn quantiles_are_of_what_came_in_between() {
        let before = cumulative(&[(1.0, 100.0), (2.0, 100.0), (f64::INFINITY, 100.0)]);
        let now = cumulative(&[(f64::INFINITY, 110.0), (1.0, 100.0), (2.0, 110.0)]);
        assert_eq!(now.quantile(0.5, Some(&before)), Some(1.5));
        assert_eq!(now.quantile(0.5, None), Some(0.55));
        assert_eq!(now.quantile(0.5, Some(&now)), None);
        assert_eq!(before.quantile(0.5, Some(&now)), None, "backwards");
        assert_eq!(Cumulative::default().quantile(0.5, None), None);
        let beyond = cumulative(&[(1.0, 0.0), (f64::INFINITY, 4.0)]);
        assert_eq!(beyond.quantile(0.99, None), Some(1.0));
    }

    proptest! {
        #[test]
        fn a_quantile_lies_in_its_bucket_and_grows_with_its_share(
            counts in prop::collection::vec(0..50_u32, 1..8), low in 0.0..1.0_f64, more in 0.0..1.0_f64
        ) {
            let mut sum = 0.0;
            let mut buckets = Vec::new();
            for (bound, count) in counts.iter().enumerate() {
                sum += f64::from(*count);
                buckets.push((f64::from(u32::try_from(bound).unwrap()) + 1.0, sum));
            }
            let cumulative = cumulative(&buckets);
            let high = (low + more).min(1.0);
            match (cumulative.quantile(low, None), cumulative.quantile(high, None)) {
                (Some(one), Some(other)) => {
                    prop_assert!((0.0..=buckets.len() as f64).contains(&one));
                    prop_assert!(one <= other);
                }
                (one, other) => prop_assert!(sum == 0.0 && one == other),
            }
        }
    }
}
