//! How far one tensor is from another: signal to quantisation noise, cosine, largest difference.

use lepton_tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::MeasureError;

/// Running sums of a comparison; feed it batches of any size.
#[derive(Clone, Copy, Debug, Default)]
pub struct Difference {
    count: u64,
    signal: f64,
    noise: f64,
    other_power: f64,
    product: f64,
    absolute: f64,
    max_abs: f64,
    not_finite: u64,
}

/// The result of comparing a tensor with its reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// 10·log₁₀(Σ reference² / Σ (reference − other)²) in decibels; `None` where no element
    /// differs (infinite) or where the reference is all zero (no signal).
    pub sqnr_db: Option<f64>,
    /// Cosine of the angle between the two; 1 where both are all zero, 0 where one is.
    pub cosine: f64,
    /// Largest absolute difference.
    pub max_abs: f64,
    /// Mean absolute difference.
    pub mean_abs: f64,
    /// Elements compared.
    pub count: u64,
    /// Elements left out of the sums because exactly one of the two is NaN or infinite, or both
    /// are and differ in kind.
    pub not_finite: u64,
}

impl Difference {
    /// Adds the elements of a pair of tensors of equal element count (types may differ; integers
    /// are compared as they are, so dequantise first).
    pub fn update(&mut self, reference: &Tensor, other: &Tensor) -> Result<(), MeasureError> {
        if reference.len() != other.len() {
            return Err(MeasureError::Incomparable {
                reference: reference.shape().to_vec(),
                other: other.shape().to_vec(),
            });
        }
        let pairs = reference.to_f64_vec().into_iter().zip(other.to_f64_vec());
        pairs.for_each(|(a, b)| self.add(a, b));
        Ok(())
    }

    fn add(&mut self, reference: f64, other: f64) {
        self.count += 1;
        if !reference.is_finite() || !other.is_finite() {
            let same = reference == other || (reference.is_nan() && other.is_nan());
            self.not_finite += u64::from(!same);
            return;
        }
        let error = (reference - other).abs();
        self.signal += reference * reference;
        self.other_power += other * other;
        self.product += reference * other;
        self.noise += error * error;
        self.absolute += error;
        self.max_abs = self.max_abs.max(error);
    }

    /// The comparison of everything seen so far.
    pub fn result(&self) -> Comparison {
        let cosine = match (self.signal > 0.0, self.other_power > 0.0) {
            (true, true) => self.product / (self.signal.sqrt() * self.other_power.sqrt()),
            (false, false) => 1.0,
            _ => 0.0,
        };
        let comparable = self.noise > 0.0 && self.signal > 0.0;
        Comparison {
            sqnr_db: comparable.then(|| 10.0 * (self.signal / self.noise).log10()),
            cosine,
            max_abs: self.max_abs,
            mean_abs: self.absolute / self.count.max(1) as f64,
            count: self.count,
            not_finite: self.not_finite,
        }
    }
}

impl Comparison {
    /// Compares two tensors of equal element count.
    pub fn of(reference: &Tensor, other: &Tensor) -> Result<Self, MeasureError> {
        let mut difference = Difference::default();
        difference.update(reference, other)?;
        Ok(difference.result())
    }

    /// True where no element differs at all.
    pub fn is_equal(&self) -> bool {
        self.max_abs == 0.0 && self.not_finite == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_numbers_worked_by_hand() {
        let reference = Tensor::vector(&[3.0f32, 4.0]);
        let result = Comparison::of(&reference, &Tensor::vector(&[3.0f32, 4.5])).unwrap();
        assert!((result.sqnr_db.unwrap() - 20.0).abs() < 1e-12);
        assert!((result.cosine - 27.0 / (5.0 * 29.25f64.sqrt())).abs() < 1e-12);
        assert_eq!((result.max_abs, result.mean_abs, result.count), (0.5, 0.25, 2));
    }

    #[test]
    fn equal_tensors_have_no_ratio_and_nan_is_counted() {
        let a = Tensor::vector(&[1.0f32, f32::NAN]);
        let result = Comparison::of(&a, &a).unwrap();
        assert!(result.is_equal() && result.sqnr_db.is_none());
        let result = Comparison::of(&a, &Tensor::vector(&[1.0f32, 2.0])).unwrap();
        assert_eq!(result.not_finite, 1);
        assert!(!result.is_equal());
        assert!(Comparison::of(&a, &Tensor::vector(&[1.0f32])).is_err());
    }

    #[test]
    fn batches_add_up() {
        let (a, b) = ([1.0f64, -2.0, 3.5, 0.0], [1.25f64, -2.0, 3.0, 0.5]);
        let whole = Comparison::of(&Tensor::vector(&a), &Tensor::vector(&b)).unwrap();
        let mut parts = Difference::default();
        for (x, y) in a.chunks(2).zip(b.chunks(2)) {
            parts.update(&Tensor::vector(x), &Tensor::vector(y)).unwrap();
        }
        assert_eq!(parts.result(), whole);
    }
}
