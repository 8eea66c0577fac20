//! Resampling along one axis: every element of the result is a weighted sum of a few of x.

use crate::vector::{Vector, vectorised};

/// For each position of the result along an axis, the positions of x it is made of.
#[derive(Clone, Debug, Default)]
pub struct Taps {
    /// Where the taps of each position start; one more at the end.
    starts: Vec<usize>,
    at: Vec<usize>,
    weights: Vec<f32>,
}

impl Taps {
    /// From positions and weights, for each position of the result.
    pub fn new<'a>(positions: impl IntoIterator<Item = &'a [(usize, f64)]>) -> Self {
        let mut taps = Taps { starts: vec![0], ..Taps::default() };
        for position in positions {
            taps.at.extend(position.iter().map(|tap| tap.0));
            taps.weights.extend(position.iter().map(|tap| tap.1 as f32));
            taps.starts.push(taps.at.len());
        }
        taps
    }

    /// Positions of the result.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// True if the result has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The position of x that each of the result is, where it is one.
    pub fn copies(&self) -> Option<&[usize]> {
        let single = self.starts.windows(2).all(|pair| pair[1] - pair[0] == 1);
        (single && self.weights.iter().all(|&w| w == 1.0)).then_some(&self.at)
    }

    fn of(&self, position: usize) -> (&[usize], &[f32]) {
        let range = self.starts[position]..self.starts[position + 1];
        (&self.at[range.clone()], &self.weights[range])
    }
}

/// `[outer, extent, inner]` to `[outer, taps.len(), inner]`.
#[inline(always)]
fn resample<V: Vector>(x: &[f32], extent: usize, inner: usize, taps: &Taps, y: &mut [f32]) {
    let images = x.chunks_exact((extent * inner).max(1));
    for (x, y) in images.zip(y.chunks_exact_mut((taps.len() * inner).max(1))) {
        for (i, row) in y.chunks_exact_mut(inner.max(1)).enumerate() {
            let (at, weights) = taps.of(i);
            if inner == 1 {
                row[0] = at.iter().zip(weights).map(|(&k, w)| x[k] * w).sum();
                continue;
            }
            for j in (0..inner).step_by(V::LANES) {
                let count = V::LANES.min(inner - j);
                let mut sum = V::splat(0.0);
                for (&k, &weight) in at.iter().zip(weights) {
                    let part = &x[k * inner + j..][..count];
                    // SAFETY: `part` has `count` values, at most as many as a vector has.
                    let value = unsafe { V::load_upto(part.as_ptr(), count) };
                    sum = value.mul_add(V::splat(weight), sum);
                }
                // SAFETY: the row has `count` more values from `j` on.
                unsafe { sum.store_upto(row[j..].as_mut_ptr(), count) };
            }
        }
    }
}

vectorised! {
    /// Resamples the middle axis of `[outer, extent, inner]`: y is `[outer, taps.len(), inner]`.
    ///
    /// # Panics
    /// If a tap is outside `extent`, or y shorter than its whole rows.
    pub fn resample_f32(isa, x: &[f32], extent: usize, inner: usize, taps: &Taps, y: &mut [f32])
        = resample;
}
