//! Order statistics and a bootstrap interval: robust against the odd disturbed round.

use fastrand::Rng;

const RESAMPLES: usize = 2000;

/// The value below which the share `q` of the values lies, interpolated between neighbours.
pub(super) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = q * last as f64;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    below + (above - below) * place.fract()
}

pub(super) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The 90 % interval of the median: resampled with replacement, 5th to 95th percentile.
pub(super) fn bootstrap_interval(values: &[f64], rng: &mut Rng) -> (f64, f64) {
    let medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sample: Vec<f64> = (0..values.len()).map(|_| values[rng.usize(..values.len())]).collect();
            median(&sample)
        })
        .collect();
    (quantile(&medians, 0.05), quantile(&medians, 0.95))
}
