//! From what was observed to the ranges that integers cover.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::histogram::{BINS, Histogram};

/// How the range of an activation is chosen. Every choice contains 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Calibration {
    /// From the least to the greatest value seen.
    MinMax,
    /// What holds this percentage of the values, the rest cut off in equal parts on both sides.
    Percentile(f64),
    /// The range of least expected squared error: rounding inside, cutting outside.
    Mse,
    /// The range whose 256 levels keep the distribution best (Kullback–Leibler divergence, as in
    /// Migacz, "8-bit inference with TensorRT", 2017).
    KullbackLeibler,
}

/// The range of each activation, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ranges {
    /// Least and greatest real that the integers cover.
    pub by_value: BTreeMap<String, (f32, f32)>,
}

/// Candidates per side of the grid search for the least squared error.
const GRID: usize = 64;

/// The range a histogram gets.
pub(crate) fn range(histogram: &Histogram, calibration: Calibration) -> (f32, f32) {
    if histogram.width == 0.0 || histogram.total() == 0 {
        let seen = if histogram.min.is_finite() { histogram.min } else { 0.0 };
        return (seen.min(0.0), seen.max(0.0));
    }
    let full = (histogram.min.min(0.0), histogram.max.max(0.0));
    match calibration {
        Calibration::MinMax => full,
        Calibration::Percentile(percent) => percentile(histogram, percent),
        Calibration::Mse => least_error(histogram, full),
        Calibration::KullbackLeibler => least_divergence(histogram, full),
    }
}

fn percentile(histogram: &Histogram, percent: f64) -> (f32, f32) {
    let total = histogram.total() as f64;
    let tail = (1.0 - percent.clamp(0.0, 100.0) / 100.0) / 2.0 * total;
    let cut = |bins: &mut dyn Iterator<Item = usize>| {
        let mut below = 0.0;
        for bin in bins {
            below += histogram.counts[bin] as f64;
            if below > tail {
                return bin;
            }
        }
        0
    };
    let low = histogram.edge(cut(&mut (0..BINS))).max(histogram.min as f64);
    let high = histogram.edge(cut(&mut (0..BINS).rev()) + 1).min(histogram.max as f64);
    (low.min(0.0) as f32, high.max(0.0) as f32)
}

/// Running sums over the bins: how much squared error a cut leaves outside, in constant time.
struct Tails {
    /// Count, sum and sum of squares of the bins before each edge.
    before: Vec<[f64; 3]>,
}

impl Tails {
    fn of(histogram: &Histogram) -> Tails {
        let mut before = vec![[0.0; 3]];
        for (bin, &count) in histogram.counts.iter().enumerate() {
            let (n, v, last) = (count as f64, histogram.middle(bin), before[bin]);
            before.push([last[0] + n, last[1] + n * v, last[2] + n * v * v]);
        }
        Tails { before }
    }

    /// `Σ (v − bound)²` over bins `from..to`.
    fn cost(&self, from: usize, to: usize, bound: f64) -> f64 {
        let (a, b) = (self.before[from], self.before[to]);
        let [n, sum, squares] = [b[0] - a[0], b[1] - a[1], b[2] - a[2]];
        (squares - 2.0 * bound * sum + n * bound * bound).max(0.0)
    }

    fn count(&self, from: usize, to: usize) -> f64 {
        self.before[to][0] - self.before[from][0]
    }
}

fn least_error(histogram: &Histogram, full: (f32, f32)) -> (f32, f32) {
    let tails = Tails::of(histogram);
    let bin_of = |v: f64| {
        let at = (v - histogram.low as f64) / histogram.width as f64;
        (at.max(0.0) as usize).min(BINS)
    };
    let mut best = (f64::INFINITY, full);
    let steps = |bound: f32| if bound == 0.0 { 1 } else { GRID };
    for i in 0..steps(full.0) {
        for j in 0..steps(full.1) {
            let shrink = |k: usize| 1.0 - k as f64 / GRID as f64;
            let (low, high) = (full.0 as f64 * shrink(i), full.1 as f64 * shrink(j));
            let (first, last) = (bin_of(low), bin_of(high).max(bin_of(low)));
            let step = (high - low) / 255.0;
            // Zero is exact, so it has no rounding error.
            let rounded = (tails.count(first, last) - histogram.zeros as f64).max(0.0);
            let cost = rounded * step * step / 12.0
                + tails.cost(0, first, low)
                + tails.cost(last, BINS, high);
            if cost < best.0 {
                best = (cost, (low as f32, high as f32));
            }
        }
    }
    best.1
}

/// Levels of the quantised distribution.
const LEVELS: usize = 256;
/// Ranges tried.
const CUTS: usize = 112;

fn least_divergence(histogram: &Histogram, full: (f32, f32)) -> (f32, f32) {
    let mut counts: Vec<f64> = histogram.counts.iter().map(|&c| c as f64).collect();
    // Exact zeros would outweigh everything after a ReLU, and cost nothing.
    let zero = (-(histogram.low as f64) / histogram.width as f64).clamp(0.0, BINS as f64 - 1.0);
    counts[zero as usize] = (counts[zero as usize] - histogram.zeros as f64).max(0.0);
    let largest = full.1.max(-full.0) as f64;
    let mut best = (f64::INFINITY, full);
    for cut in 0..CUTS {
        // One magnitude for both sides: the side that is short already is not cut first.
        let limit = largest * (1.0 - cut as f64 / CUTS as f64);
        let (low, high) = ((full.0 as f64).max(-limit), (full.1 as f64).min(limit));
        let bin = |v: f64| ((v - histogram.low as f64) / histogram.width as f64).max(0.0);
        let (first, last) = (bin(low) as usize, (bin(high).ceil() as usize).min(BINS));
        if last < first + LEVELS {
            break;
        }
        let divergence = divergence(&counts, first, last);
        if divergence < best.0 {
            best = (divergence, (low as f32, high as f32));
        }
    }
    best.1
}

/// Divergence of bins `first..last`, with what is outside moved to the ends, from the same bins
/// at 256 levels.
fn divergence(counts: &[f64], first: usize, last: usize) -> f64 {
    let inside = &counts[first..last];
    let mut clipped = inside.to_vec();
    clipped[0] += counts[..first].iter().sum::<f64>();
    clipped[inside.len() - 1] += counts[last..].iter().sum::<f64>();
    let total: f64 = clipped.iter().sum();
    let kept: f64 = inside.iter().sum();
    if total == 0.0 || kept == 0.0 {
        return f64::INFINITY;
    }
    let mut sum = 0.0;
    for level in 0..LEVELS {
        let at = |l: usize| l * inside.len() / LEVELS;
        let bins = at(level)..at(level + 1);
        let used = inside[bins.clone()].iter().filter(|c| **c > 0.0).count();
        let mean = inside[bins.clone()].iter().sum::<f64>() / used.max(1) as f64 / kept;
        for bin in bins {
            let p = clipped[bin] / total;
            if p > 0.0 {
                let q = if inside[bin] > 0.0 { mean } else { 0.0 };
                sum += p * (p / q.max(1e-9)).ln();
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bell of 100 000 values with one outlier at 100 times its width.
    fn with_outlier() -> Histogram {
        let mut histogram = Histogram::default();
        let mut state = 1u32;
        let mut uniform = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        let bell: Vec<f32> =
            (0..100_000).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect();
        assert!(histogram.add(&bell));
        assert!(histogram.add(&[100.0]));
        histogram
    }

    #[test]
    fn outliers_are_cut_by_all_but_min_max() {
        let histogram = with_outlier();
        let high = |calibration| range(&histogram, calibration).1;
        assert_eq!(high(Calibration::MinMax), 100.0);
        for calibration in [Calibration::Percentile(99.9), Calibration::KullbackLeibler] {
            let high = high(calibration);
            assert!(high > 1.5 && high < 40.0, "{calibration:?}: {high}");
        }
        // Cutting the outlier by d costs d², rounding 100 000 values costs (span/255)²/12 each.
        let high = high(Calibration::Mse);
        assert!(high > 80.0 && high < 95.0, "{high}");
    }

    #[test]
    fn every_range_contains_zero() {
        let mut histogram = Histogram::default();
        assert!(histogram.add(&[3.0, 4.0, 5.0]));
        for calibration in [
            Calibration::MinMax,
            Calibration::Percentile(90.0),
            Calibration::Mse,
            Calibration::KullbackLeibler,
        ] {
            let (low, high) = range(&histogram, calibration);
            assert_eq!(low, 0.0, "{calibration:?}");
            assert!(high > 2.0, "{calibration:?}: {high}");
        }
    }

    #[test]
    fn the_error_chosen_is_the_least_on_the_grid() {
        let histogram = with_outlier();
        let values: Vec<(f64, f64)> =
            (0..BINS).map(|b| (histogram.middle(b), histogram.counts[b] as f64)).collect();
        let error = |(low, high): (f32, f32)| {
            let step = (high - low) as f64 / 255.0;
            let one = |v: f64| {
                let cut = v.clamp(low as f64, high as f64);
                (v - cut).powi(2) + if cut == v { step * step / 12.0 } else { 0.0 }
            };
            values.iter().map(|(v, n)| n * one(*v)).sum::<f64>()
        };
        let chosen = error(range(&histogram, Calibration::Mse));
        assert!(chosen < error(range(&histogram, Calibration::MinMax)));
        assert!(chosen < error(range(&histogram, Calibration::Percentile(99.0))));
    }
}
