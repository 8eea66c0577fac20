//! Resampling of images.

use lepton_tensor::{Tensor, row_major_strides};

use super::facets::facets;
use super::walk::{for_each_index, require_float};
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, AxisLink, Operands, Operator, Quant};
use crate::{attributes, words};

words! {
    /// How an element is made from its neighbours.
    pub enum ResizeMode {
        /// The nearest element.
        Nearest = "nearest",
        /// Linear between two elements per axis.
        Linear = "linear",
        /// Keys's cubic through four elements per axis.
        Cubic = "cubic",
    }
}

words! {
    /// Which position of x an index of the result stands for.
    pub enum Coordinates {
        /// `(i + ½)/scale − ½`
        HalfPixel = "half_pixel",
        /// The same, but 0 where the result has one element.
        PytorchHalfPixel = "pytorch_half_pixel",
        /// The same, centred where the scaled extent was rounded down.
        HalfPixelSymmetric = "half_pixel_symmetric",
        /// Corners fall on corners.
        AlignCorners = "align_corners",
        /// `i/scale`
        Asymmetric = "asymmetric",
    }
}

words! {
    /// How a position is rounded to the nearest element.
    pub enum NearestMode {
        /// Halves toward the smaller index.
        RoundPreferFloor = "round_prefer_floor",
        /// Halves toward the larger index.
        RoundPreferCeil = "round_prefer_ceil",
        /// Always to the smaller index.
        Floor = "floor",
        /// Always to the larger index.
        Ceil = "ceil",
    }
}

attributes! {
    /// x resampled: inputs x, roi (not used), scales (f32, one per axis) and sizes (i64, one per
    /// axis), of which one is given. ONNX's `Resize` without crop and antialias.
    pub struct Resize {
        /// How an element is made.
        pub mode: ResizeMode = ResizeMode::Nearest,
        /// Which position it stands for.
        pub coordinates: Coordinates = Coordinates::HalfPixel,
        /// How a position is rounded.
        pub nearest: NearestMode = NearestMode::RoundPreferFloor,
        /// The coefficient of the cubic.
        pub cubic_a: f32 = -0.75,
        /// True if taps outside x have no weight (cubic).
        pub exclude_outside: bool = false,
    }
}

/// Keys's cubic: the weights of the four elements around a position `t` after the second.
pub(crate) fn cubic(t: f64, a: f64) -> [f64; 4] {
    let near = |d: f64| ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
    let far = |d: f64| ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
    [far(1.0 + t), near(t), near(1.0 - t), far(2.0 - t)]
}

impl Resize {
    fn position(&self, i: usize, scale: f64, extent: usize, result: usize) -> f64 {
        let half = (i as f64 + 0.5) / scale - 0.5;
        match self.coordinates {
            Coordinates::HalfPixel => half,
            Coordinates::PytorchHalfPixel => {
                if result > 1 {
                    half
                } else {
                    0.0
                }
            }
            Coordinates::HalfPixelSymmetric => {
                let adjustment = result as f64 / (scale * extent as f64);
                extent as f64 / 2.0 * (1.0 - adjustment) + half
            }
            Coordinates::AlignCorners if result <= 1 => 0.0,
            Coordinates::AlignCorners => i as f64 * (extent as f64 - 1.0) / (result as f64 - 1.0),
            Coordinates::Asymmetric => i as f64 / scale,
        }
    }

    /// The elements along one axis that make up an element at `position`, with their weights.
    fn taps(&self, position: f64, extent: usize) -> Vec<(usize, f64)> {
        let clamp = |i: f64| i.clamp(0.0, extent as f64 - 1.0) as usize;
        let floor = position.floor();
        let t = position - floor;
        match self.mode {
            ResizeMode::Nearest => {
                let rounded = match self.nearest {
                    NearestMode::RoundPreferFloor => (position - 0.5).ceil(),
                    NearestMode::RoundPreferCeil => (position + 0.5).floor(),
                    NearestMode::Floor => floor,
                    NearestMode::Ceil => position.ceil(),
                };
                vec![(clamp(rounded), 1.0)]
            }
            ResizeMode::Linear => vec![(clamp(floor), 1.0 - t), (clamp(floor + 1.0), t)],
            ResizeMode::Cubic => {
                let weights = cubic(t, self.cubic_a as f64);
                let mut taps: Vec<(f64, f64)> =
                    (0..4).map(|k| (floor - 1.0 + k as f64, weights[k])).collect();
                if self.exclude_outside {
                    taps.retain(|&(i, _)| i >= 0.0 && i < extent as f64);
                    let total: f64 = taps.iter().map(|tap| tap.1).sum();
                    taps.iter_mut().for_each(|tap| tap.1 /= total);
                }
                taps.into_iter().map(|(i, weight)| (clamp(i), weight)).collect()
            }
        }
    }

    /// Scales, where they are given and known.
    fn scales(inputs: Operands<'_, Fact>) -> Result<Option<Vec<f64>>, Problem> {
        let given = inputs.optional(2).filter(|s| !s.count().is(0));
        let sizes = inputs.optional(3).filter(|s| !s.count().is(0));
        let rank = inputs.required(0, "x")?.rank();
        let fits = |fact: &Fact| fact.count().as_known().is_none_or(|n| n == rank as i64);
        if given.is_some() == sizes.is_some() {
            return Err(Problem::value("exactly one of scales and sizes is given"));
        }
        if !given.is_none_or(fits) || !sizes.is_none_or(fits) {
            return Err(Problem::shape("one scale or size for every axis"));
        }
        let Some(tensor) = given.and_then(|s| s.constant.as_ref()) else { return Ok(None) };
        let scales = tensor.to_f64_vec();
        if scales.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            return Err(Problem::value("scales must be positive"));
        }
        Ok(Some(scales))
    }
}

/// `⌊extent·scale⌋`.
fn scaled(extent: &Dim, scale: f64) -> Dim {
    let whole = |s: f64| (s.fract() == 0.0 && s <= 1e6).then_some(Dim::known(s as i64));
    match (extent.as_known(), whole(scale), whole(1.0 / scale)) {
        (Some(known), ..) => Dim::known((known as f64 * scale).floor() as i64),
        (None, Some(times), _) => extent.clone() * times,
        (None, None, Some(parts)) => extent.floor_div(&parts),
        _ => Dim::unknown(),
    }
}

impl Operator for Resize {
    facets! {
        arity = Arity::between(3, 4),
        stops = "resampling is not trained through yet",
        quant = Quant::Requantise,
        element_ops = 8,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        if self.mode != ResizeMode::Nearest {
            require_float("x", x.dtype)?;
        }
        if let Some(scales) = Resize::scales(inputs)? {
            let dims = x.dims.iter().zip(scales).map(|(dim, scale)| scaled(dim, scale)).collect();
            return Ok(vec![Fact::new(x.dtype, dims)]);
        }
        let sizes = inputs.optional(3).and_then(|sizes| {
            let known = || sizes.known_integers().map(|v| v.into_iter().map(Dim::known).collect());
            sizes.integers.clone().or_else(known)
        });
        let dims: Vec<Dim> = sizes.unwrap_or_else(|| vec![Dim::unknown(); x.rank()]);
        if dims.iter().any(|d| d.as_known().is_some_and(|d| d < 0)) {
            return Err(Problem::value("a negative size"));
        }
        Ok(vec![Fact::new(x.dtype, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let facts: Vec<Option<Fact>> = inputs.0.iter().map(|t| t.map(Fact::of)).collect();
        let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
        let made = self.infer(Operands(&facts))?;
        let shape = made[0].shape().ok_or_else(|| Problem::shape("a negative extent"))?;
        let x = inputs.required(0, "x")?;
        if x.is_empty() {
            return Err(Problem::shape("an empty image cannot be resampled"));
        }
        let scales = Resize::scales(Operands(&facts))?.unwrap_or_else(|| {
            shape.iter().zip(x.shape()).map(|(&to, &from)| to as f64 / from as f64).collect()
        });
        let axis_taps = |axis: usize| -> Vec<Vec<(usize, f64)>> {
            let (extent, result) = (x.shape()[axis], shape[axis]);
            let at = |i| self.position(i, scales[axis], extent, result);
            // An axis that keeps its extent is not resampled, whatever the coordinates say.
            let own = |i| if extent == result && scales[axis] == 1.0 { i as f64 } else { at(i) };
            (0..result).map(|i| self.taps(own(i), extent)).collect()
        };
        let taps: Vec<_> = (0..x.rank()).map(axis_taps).collect();
        let (strides, source) = (row_major_strides(x.shape()), x.to_f64_vec());
        let mut values = Vec::with_capacity(shape.iter().product());
        for_each_index(&shape, |index| {
            let mut terms = vec![(0usize, 1.0f64)];
            for (axis, &i) in index.iter().enumerate() {
                let widened = terms.iter().flat_map(|&(at, weight)| {
                    let along = taps[axis][i].iter().filter(|tap| tap.1 != 0.0);
                    along.map(move |tap| (at, weight, tap))
                });
                terms =
                    widened.map(|(at, w, tap)| (at + tap.0 * strides[axis], w * tap.1)).collect();
            }
            values.push(terms.iter().map(|&(at, weight)| source[at] * weight).sum::<f64>());
        });
        Ok(vec![Tensor::from_f64_slice(x.dtype(), shape, &values)?])
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let Some(x) = inputs.optional(0) else { return Vec::new() };
        (0..x.rank())
            .filter(|&axis| x.dims[axis] == outputs[0].dims[axis])
            .map(|axis| AxisLink::Same { output: 0, output_axis: axis, input: 0, input_axis: axis })
            .collect()
    }
}
