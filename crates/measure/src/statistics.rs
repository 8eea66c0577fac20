//! Intervals, tests and resampling, each with the paper or formula it follows.

use oorandom::Rand64;
use serde::{Deserialize, Serialize};

/// The confidence of every interval this crate reports.
pub const CONFIDENCE: f64 = 0.95;
/// The normal quantile that belongs to [`CONFIDENCE`], two-sided.
pub(crate) const Z: f64 = 1.959_963_984_540_054;
/// Resamples of a bootstrap: enough that its 2.5 % ends rest on 25 values each.
pub(crate) const RESAMPLES: usize = 1000;
const SEED: u128 = 0x6c65_7074_6f6e;

/// The ends of a confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The score interval of a proportion (Wilson 1927), which stays inside 0..=1 and has a width even
/// at 0 and at 1. Without trials it is the whole of 0..=1.
pub fn wilson(successes: usize, trials: usize) -> Interval {
    if trials == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let n = trials as f64;
    let p = successes as f64 / n;
    let denominator = 1.0 + Z * Z / n;
    let centre = (p + Z * Z / (2.0 * n)) / denominator;
    let half = Z / denominator * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let low = if successes == 0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if successes == trials { 1.0 } else { (centre + half).min(1.0) };
    Interval { low, high }
}

/// The two-sided p-value of McNemar's exact test: `a` samples only the first got right, `b` only
/// the second. Under "no difference" `a` is binomial with probability one half.
pub fn mcnemar_exact(a: usize, b: usize) -> f64 {
    let n = a + b;
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for i in 0..=a.min(b) {
        tail += log_term.exp();
        log_term += ((n - i) as f64).ln() - ((i + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

/// The interval of the difference of two paired proportions, (a − b)/n, by the adjusted Wald
/// method of Bonett and Price (2012).
pub(crate) fn paired_proportions(a: usize, b: usize, n: usize) -> Interval {
    let n = n as f64 + 2.0;
    let (p, q) = ((a as f64 + 1.0) / n, (b as f64 + 1.0) / n);
    let half = Z * ((p + q - (p - q).powi(2)) / n).sqrt();
    Interval { low: (p - q - half).max(-1.0), high: (p - q + half).min(1.0) }
}

/// The `q` quantile (0..=1) of sorted values, linear between neighbours. 0 for no values.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let position = q.clamp(0.0, 1.0) * last as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}

/// The median; reorders `values`. 0 for no values.
pub fn median(values: &mut [f64]) -> f64 {
    let n = values.len();
    if n == 0 {
        return 0.0;
    }
    let (lower, &mut middle, _) = values.select_nth_unstable_by(n / 2, f64::total_cmp);
    if n % 2 == 1 {
        return middle;
    }
    (lower.iter().copied().fold(f64::NEG_INFINITY, f64::max) + middle) / 2.0
}

/// Calls `statistic` with how often each of `samples` samples was drawn, [`RESAMPLES`] times with
/// a fixed seed, and returns its values, sorted. Draws where it has no value are left out.
pub(crate) fn bootstrap(
    samples: usize,
    mut statistic: impl FnMut(&[u32]) -> Option<f64>,
) -> Vec<f64> {
    let mut random = Rand64::new(SEED);
    let mut counts = vec![0u32; samples];
    let mut values = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        counts.fill(0);
        for _ in 0..samples {
            counts[random.rand_range(0..samples as u64) as usize] += 1;
        }
        values.extend(statistic(&counts));
    }
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// The percentile interval of sorted bootstrap values.
pub(crate) fn percentile_interval(sorted: &[f64]) -> Interval {
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Interval { low: quantile(sorted, tail), high: quantile(sorted, 1.0 - tail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_matches_the_published_example() {
        // Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611.
        let interval = wilson(81, 263);
        assert!((interval.low - 0.2553).abs() < 5e-5, "{interval:?}");
        assert!((interval.high - 0.3662).abs() < 5e-5, "{interval:?}");
        let interval = wilson(0, 20);
        assert_eq!(interval.low, 0.0);
        assert!((interval.high - 0.1611).abs() < 5e-5, "{interval:?}");
    }

    #[test]
    fn mcnemar_is_the_binomial_tail() {
        // 2 · (1 + 10 + 45) / 2^10, by hand.
        assert!((mcnemar_exact(2, 8) - 112.0 / 1024.0).abs() < 1e-12);
        assert_eq!(mcnemar_exact(0, 0), 1.0);
        assert_eq!(mcnemar_exact(5, 5), 1.0);
        assert!(mcnemar_exact(4000, 5000) < 1e-20);
        assert_eq!(mcnemar_exact(2, 8), mcnemar_exact(8, 2));
    }

    #[test]
    fn medians_and_quantiles() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut []), 0.0);
        assert_eq!(quantile(&[0.0, 10.0], 0.25), 2.5);
    }

    #[test]
    fn bootstrap_of_a_mean_has_the_width_of_its_standard_error() {
        let values: Vec<f64> = (0..400).map(|i| (i % 20) as f64).collect();
        let means = bootstrap(values.len(), |counts| {
            let sum: f64 = counts.iter().zip(&values).map(|(&c, v)| c as f64 * v).sum();
            Some(sum / values.len() as f64)
        });
        let interval = percentile_interval(&means);
        let expected = 2.0 * Z * 5.7663 / 20.0;
        assert!(((interval.high - interval.low) / expected - 1.0).abs() < 0.1, "{interval:?}");
        assert!(interval.low < 9.5 && 9.5 < interval.high);
    }
}
