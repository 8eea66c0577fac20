//! A histogram that grows with what it sees, in bounded memory.

use serde::{Deserialize, Serialize};

/// Number of bins.
pub const BINS: usize = 2048;

/// Counts of values in equal bins over a range that doubles whenever a value falls outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Least value seen.
    pub min: f32,
    /// Greatest value seen.
    pub max: f32,
    /// Number of values that were exactly zero; they are counted in their bin too.
    pub zeros: u64,
    /// Lower edge of the first bin.
    pub low: f32,
    /// Width of a bin; 0 while every value was the same.
    pub width: f32,
    /// Values in each bin.
    pub counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        let (min, max) = (f32::INFINITY, f32::NEG_INFINITY);
        Histogram { min, max, zeros: 0, low: 0.0, width: 0.0, counts: vec![0; BINS] }
    }
}

impl Histogram {
    /// Counts the values; false, and nothing counted, if one of them is not finite.
    #[must_use]
    pub fn add(&mut self, values: &[f32]) -> bool {
        let (mut min, mut max, mut sum) = (f32::INFINITY, f32::NEG_INFINITY, 0.0f32);
        for &v in values {
            min = min.min(v);
            max = max.max(v);
            // Stays zero, or becomes NaN: `min` and `max` alone would not see a NaN.
            sum += v * 0.0;
        }
        if sum.is_nan() {
            return false;
        }
        if values.is_empty() {
            return true;
        }
        self.cover(min, max);
        (self.min, self.max) = (self.min.min(min), self.max.max(max));
        let inverse = if self.width > 0.0 { 1.0 / self.width as f64 } else { 0.0 };
        let low = self.low as f64;
        for &v in values {
            let bin = ((v as f64 - low) * inverse) as usize;
            self.counts[bin.min(BINS - 1)] += 1;
            self.zeros += u64::from(v == 0.0);
        }
        true
    }

    /// Widens the range until it holds both values.
    fn cover(&mut self, min: f32, max: f32) {
        if self.width == 0.0 {
            let seen = self.total();
            let (low, high) = (self.min.min(min), self.max.max(max));
            if high > low {
                let old = self.min;
                self.counts.fill(0);
                self.low = low;
                self.width = ((high as f64 - low as f64) / BINS as f64) as f32 * 1.0001;
                if self.width < f32::MIN_POSITIVE {
                    self.width = f32::MIN_POSITIVE;
                }
                if seen > 0 {
                    let bin = ((old as f64 - low as f64) / self.width as f64) as usize;
                    self.counts[bin.min(BINS - 1)] = seen;
                }
            } else {
                self.low = low;
            }
            return;
        }
        while self.edge(BINS) < max as f64 && self.width < f32::MAX / BINS as f32 / 4.0 {
            self.double(0);
        }
        while (self.low as f64) > min as f64 && self.width < f32::MAX / BINS as f32 / 4.0 {
            self.low = (self.low as f64 - BINS as f64 * self.width as f64) as f32;
            self.double(BINS / 2);
        }
    }

    /// Joins pairs of bins; the joined ones begin at bin `start`.
    fn double(&mut self, start: usize) {
        let joined: Vec<u64> = self.counts.chunks(2).map(|pair| pair[0] + pair[1]).collect();
        self.counts.fill(0);
        self.counts[start..start + joined.len()].copy_from_slice(&joined);
        self.width *= 2.0;
    }

    /// Lower edge of a bin.
    pub fn edge(&self, bin: usize) -> f64 {
        self.low as f64 + bin as f64 * self.width as f64
    }

    /// Middle of a bin, within what was seen.
    pub fn middle(&self, bin: usize) -> f64 {
        (self.edge(bin) + self.width as f64 / 2.0).clamp(self.min as f64, self.max as f64)
    }

    /// Number of values.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_when_the_range_doubles() {
        let mut histogram = Histogram::default();
        assert!(histogram.add(&[0.5; 3]));
        assert!(histogram.add(&[0.25, 1.0, 0.0]));
        assert!(histogram.add(&[-7.0, 40.0, 0.0, 1000.0]));
        assert_eq!((histogram.min, histogram.max, histogram.zeros), (-7.0, 1000.0, 2));
        assert_eq!(histogram.total(), 10);
        let mean: f64 =
            (0..BINS).map(|b| histogram.counts[b] as f64 * histogram.middle(b)).sum::<f64>();
        assert!((mean - 1035.75).abs() < 10.0 * histogram.width as f64, "{mean}");
        assert!((histogram.width as f64) < 4.0 * 1007.0 / BINS as f64, "bins stay narrow");
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let mut histogram = Histogram::default();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!histogram.add(&[1.0, bad]));
        }
        assert_eq!(histogram.total(), 0);
    }
}
