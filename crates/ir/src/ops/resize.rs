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
        /// Corners fall on the corners of a region; what is outside x is a value of its own.
        Crop = "crop",
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
    /// x resampled: inputs x, region (for a crop: the start along each axis, then the ends, from 0
    /// to 1; all of x where absent), scales (f32, one per axis) and sizes (i64, one per axis), of
    /// which one is given. ONNX's `Resize`.
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
        /// True to widen the filter where the image shrinks.
        pub antialias: bool = false,
        /// What a crop takes from outside x.
        pub extrapolation: f32 = 0.0,
    }
}

/// Keys's cubic: the weights of the four elements around a position `t` after the second.
pub(crate) fn cubic(t: f64, a: f64) -> [f64; 4] {
    let near = |d: f64| ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
    let far = |d: f64| ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
    [far(1.0 + t), near(t), near(1.0 - t), far(2.0 - t)]
}

/// For each position along an axis of the result, elements of x along it and their weights.
pub type AxisTable = Vec<Vec<(usize, f64)>>;

/// What extents grew by.
fn ratios(from: &[usize], to: &[usize]) -> Vec<f64> {
    to.iter().zip(from).map(|(&to, &from)| to as f64 / from as f64).collect()
}

impl Resize {
    /// The position in x; `region` is the part of the axis a crop covers.
    fn position(
        &self,
        i: usize,
        scale: f64,
        (extent, result): (usize, usize),
        region: (f64, f64),
    ) -> f64 {
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
            Coordinates::Crop if result <= 1 => 0.5 * (region.0 + region.1) * (extent as f64 - 1.0),
            Coordinates::Crop => {
                let step = (region.1 - region.0) / (result as f64 - 1.0);
                (region.0 + i as f64 * step) * (extent as f64 - 1.0)
            }
        }
    }

    /// The weight of an element at a distance from a position.
    fn weight(&self, distance: f64) -> f64 {
        let (d, a) = (distance.abs(), self.cubic_a as f64);
        match self.mode {
            ResizeMode::Cubic if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
            ResizeMode::Cubic if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
            ResizeMode::Cubic => 0.0,
            _ => (1.0 - d).max(0.0),
        }
    }

    /// The same elements as [`Resize::taps`], and as many more as the image shrinks.
    fn wide_taps(&self, position: f64, scale: f64, extent: usize) -> Vec<(usize, f64)> {
        let (scale, floor) = (scale.min(1.0), position.floor());
        let reach = if self.mode == ResizeMode::Cubic { 2.0 } else { 1.0 };
        let first = (-reach / scale).floor() as i64 + 1;
        let at = |offset: i64| floor + offset as f64;
        let own = |offset: i64| (at(offset), self.weight((at(offset) - position) * scale));
        let mut taps: Vec<(f64, f64)> = (first..2 - first).map(own).collect();
        let last = extent as f64 - 1.0;
        if self.exclude_outside {
            taps.retain(|tap| (0.0..=last).contains(&tap.0));
        }
        let total: f64 = taps.iter().map(|tap| tap.1).sum();
        taps.into_iter().map(|(i, w)| (i.clamp(0.0, last) as usize, w / total)).collect()
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

    /// For each position along an axis, the elements it is made of; none if it is outside a crop.
    fn axis_taps(&self, extents: (usize, usize), scale: f64, region: (f64, f64)) -> AxisTable {
        let (extent, result) = extents;
        let crop = self.coordinates == Coordinates::Crop;
        let at = |i: usize| {
            // An axis that keeps its extent is not resampled, whatever the coordinates say.
            let kept = extent == result && scale == 1.0 && !crop;
            let position = if kept { i as f64 } else { self.position(i, scale, extents, region) };
            if crop && !(0.0..=extent as f64 - 1.0).contains(&position) {
                Vec::new()
            } else if self.antialias && self.mode != ResizeMode::Nearest && scale < 1.0 {
                self.wide_taps(position, scale, extent)
            } else {
                self.taps(position, extent)
            }
        };
        (0..result).map(at).collect()
    }

    /// For each axis, and each position along it in the result, the elements of x along that axis
    /// it is made of, with their weights; from shapes x to y. `None` where that depends on data:
    /// crops, scales that are not known.
    pub fn tables(
        &self,
        inputs: Operands<'_, Fact>,
        x: &[usize],
        y: &[usize],
    ) -> Option<Vec<AxisTable>> {
        if self.coordinates == Coordinates::Crop {
            return None;
        }
        let by_scales = inputs.optional(2).is_some_and(|s| !s.count().is(0));
        let scales = Resize::scales(inputs).ok()?;
        if by_scales && scales.is_none() {
            return None;
        }
        let scales = scales.unwrap_or_else(|| ratios(x, y));
        let table = |axis: usize| self.axis_taps((x[axis], y[axis]), scales[axis], (0.0, 1.0));
        Some((0..x.len()).map(table).collect())
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

/// The part of each axis that a crop covers.
fn region(inputs: Operands<'_, Tensor>, rank: usize) -> Result<Vec<(f64, f64)>, Problem> {
    let Some(given) = inputs.optional(1).filter(|given| !given.is_empty()) else {
        return Ok(vec![(0.0, 1.0); rank]);
    };
    let edges = given.to_f64_vec();
    if edges.len() != 2 * rank {
        return Err(Problem::shape("a region has a start and an end for every axis"));
    }
    Ok((0..rank).map(|axis| (edges[axis], edges[rank + axis])).collect())
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
        let scales = Resize::scales(Operands(&facts))?.unwrap_or_else(|| ratios(x.shape(), &shape));
        let region = region(inputs, x.rank())?;
        let taps: Vec<_> = (0..x.rank())
            .map(|axis| self.axis_taps((x.shape()[axis], shape[axis]), scales[axis], region[axis]))
            .collect();
        let (strides, source) = (row_major_strides(x.shape()), x.to_f64_vec());
        let mut values = Vec::with_capacity(shape.iter().product());
        for_each_index(&shape, |index| {
            let mut terms = vec![(0usize, 1.0f64)];
            for (axis, &i) in index.iter().enumerate() {
                if taps[axis][i].is_empty() {
                    return values.push(self.extrapolation as f64);
                }
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
