//! Affine quantisation parameters.

/// How integers stand for reals: `real = (integer − zero_point) · scale`, for the whole tensor or
/// per slice along `axis`.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantParams {
    /// One positive step, or one per slice along `axis`.
    pub scale: Vec<f32>,
    /// The integer that stands for 0.0, as many as scales.
    pub zero_point: Vec<i32>,
    /// The axis the parameters run along; `None` where one pair serves the whole tensor.
    pub axis: Option<usize>,
}

impl QuantParams {
    /// One step and one zero for the whole tensor.
    pub fn per_tensor(scale: f32, zero_point: i32) -> Self {
        QuantParams { scale: vec![scale], zero_point: vec![zero_point], axis: None }
    }

    /// The u8 parameters that cover `low..=high`, with 0.0 represented exactly.
    ///
    /// The range is widened to contain 0; an empty or all-zero range gets a step of 1/255.
    pub fn asymmetric_u8(low: f32, high: f32) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let span = high - low;
        let scale = if span > 0.0 && span.is_finite() { span / 255.0 } else { 1.0 / 255.0 };
        let scale = scale.max(f32::MIN_POSITIVE);
        let zero_point = (-low / scale).round_ties_even().clamp(0.0, 255.0) as i32;
        QuantParams::per_tensor(scale, zero_point)
    }

    /// The step that covers `±magnitude` symmetrically with `limit` steps a side (127 for int8).
    pub fn symmetric_scale(magnitude: f32, limit: f32) -> f32 {
        if magnitude > 0.0 && magnitude.is_finite() {
            (magnitude / limit).max(f32::MIN_POSITIVE)
        } else {
            1.0 / limit
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_exact() {
        for (low, high) in [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)] {
            let p = QuantParams::asymmetric_u8(low, high);
            assert!((0..=255).contains(&p.zero_point[0]));
            assert!(p.scale[0] > 0.0);
        }
        assert_eq!(QuantParams::asymmetric_u8(0.0, 2.55).zero_point, [0]);
    }
}
