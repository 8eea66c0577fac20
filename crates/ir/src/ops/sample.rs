//! Reading an image between its pixels: at the positions of a grid, or within boxes.

use lepton_tensor::Tensor;

use super::facets::facets;
use super::walk::{for_each_index, require_float, require_rank};
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, Operands, Operator, Quant};
use crate::ops::resize::ResizeMode;
use crate::{attributes, words};

/// Most cells, and samples of a cell, along an axis.
const MAX_CELLS: usize = 4096;

words! {
    /// What lies outside an image.
    pub enum Outside {
        /// Zeros
        Zeros = "zeros",
        /// The nearest pixel
        Border = "border",
        /// The image, mirrored
        Reflection = "reflection",
    }
}

attributes! {
    /// x `[N,C,spatial…]` at the positions of `grid` `[N,result…,axes]` (Jaderberg et al. 2015):
    /// −1 and 1 are the edges of x, the last spatial axis comes first. Result `[N,C,result…]`.
    pub struct GridSample {
        /// How a value is made from the pixels around a position.
        pub mode: ResizeMode = ResizeMode::Linear,
        /// What lies outside.
        pub outside: Outside = Outside::Zeros,
        /// True if −1 and 1 are the centres of the outermost pixels, not their edges.
        pub align_corners: bool = false,
    }
}

words! {
    /// How a cell is made from its samples.
    pub enum CellFunction {
        /// Their mean
        Mean = "mean",
        /// The largest weighted pixel
        Max = "max",
    }
}

words! {
    /// Where the centres of pixels are.
    pub enum PixelCentres {
        /// At halves: a box from 0 to 1 is the first pixel
        Halves = "halves",
        /// At whole numbers, and boxes are at least one pixel long
        Wholes = "wholes",
    }
}

attributes! {
    /// The parts of x `[N,C,H,W]` within `boxes` `[R,4]` (x, y, x, y of two corners), each of the
    /// image `batch_indices` `[R]` says, in `height`·`width` cells (He et al. 2017): `[R,C,h,w]`.
    pub struct RoiAlign {
        /// How a cell is made from its samples.
        pub function: CellFunction = CellFunction::Mean,
        /// Cells from top to bottom.
        pub height: usize = 1,
        /// Cells from left to right.
        pub width: usize = 1,
        /// Samples of a cell along each axis; 0 for as many as it has pixels.
        pub samples: usize = 0,
        /// What a coordinate of a box is multiplied with.
        pub spatial_scale: f32 = 1.0,
        /// Where the centres of pixels are.
        pub centres: PixelCentres = PixelCentres::Halves,
    }
}

/// `v` mirrored at `low` and `high` until it lies between them.
fn reflected(v: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    if range <= 0.0 || !v.is_finite() {
        return low;
    }
    let outside = if v < low {
        low - v
    } else if v > high {
        v - high
    } else {
        return v;
    };
    let times = (outside / range).trunc();
    let rest = outside - times * range;
    if (times % 2.0 == 0.0) == (v < low) { low + rest } else { high - rest }
}

impl GridSample {
    /// Where reflection turns back along an axis.
    fn edges(&self, extent: usize) -> (f64, f64) {
        let extent = extent as f64;
        if self.align_corners { (0.0, extent - 1.0) } else { (-0.5, extent - 0.5) }
    }

    /// Pixels along one axis and their weights for a coordinate of the grid; a pixel outside that
    /// counts as zero is left out.
    fn taps(&self, coordinate: f64, extent: usize) -> Vec<(usize, f64)> {
        let (low, high) = self.edges(extent);
        let length = extent as f64;
        let mut at = if self.align_corners {
            (coordinate + 1.0) / 2.0 * (length - 1.0)
        } else {
            ((coordinate + 1.0) * length - 1.0) / 2.0
        };
        if self.mode == ResizeMode::Nearest {
            at = at.round_ties_even();
        }
        if at < low || at > high {
            at = match self.outside {
                Outside::Zeros => at,
                Outside::Border => at.clamp(0.0, length - 1.0),
                Outside::Reflection => reflected(at, low, high),
            };
        }
        let floor = at.floor();
        let t = at - floor;
        let taps: Vec<(f64, f64)> = match self.mode {
            ResizeMode::Nearest => vec![(at.round_ties_even(), 1.0)],
            ResizeMode::Linear => vec![(floor, 1.0 - t), (floor + 1.0, t)],
            ResizeMode::Cubic => {
                let weights = super::resize::cubic(t, -0.75);
                (0..4).map(|k| (floor - 1.0 + k as f64, weights[k])).collect()
            }
        };
        let inside = |(i, weight): (f64, f64)| {
            let within = i >= 0.0 && i <= length - 1.0;
            let i = match self.outside {
                _ if within => i,
                Outside::Zeros => return None,
                Outside::Border => i.clamp(0.0, length - 1.0),
                Outside::Reflection => reflected(i, low, high).clamp(0.0, length - 1.0),
            };
            Some((i as usize, weight))
        };
        taps.into_iter().filter_map(inside).collect()
    }
}

/// `Σ plane[at]·weight` over every combination of taps, one list per axis of `extents`.
fn interpolated(plane: &[f64], extents: &[usize], taps: &[Vec<(usize, f64)>]) -> f64 {
    let mut terms = vec![(0usize, 1.0f64)];
    for (extent, along) in extents.iter().zip(taps) {
        let wider = terms.iter().flat_map(|&(at, weight)| {
            along.iter().map(move |tap| (at * extent + tap.0, weight * tap.1))
        });
        terms = wider.collect();
    }
    terms.iter().map(|&(at, weight)| plane[at] * weight).sum()
}

impl Operator for GridSample {
    facets! {
        arity = Arity::exactly(2),
        stops = "sampling is not trained through yet",
        frozen = "positions may lie anywhere",
        quant = Quant::FloatOnly("positions need more than 8 bits"),
        element_ops = 16,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, grid) = (inputs.required(0, "x")?, inputs.required(1, "grid")?);
        require_float("x", x.dtype)?;
        require_float("grid", grid.dtype)?;
        require_rank("grid", grid, x.rank())?;
        if x.rank() < 3 {
            return Err(Problem::shape(format!("x must have spatial axes, found {x}")));
        }
        let last = &grid.dims[grid.rank() - 1];
        if last.as_usize().is_some_and(|axes| axes != x.rank() - 2) {
            return Err(Problem::shape(format!("positions {grid} for an image {x}")));
        }
        let lead = [x.dims[0].clone(), x.dims[1].clone()];
        Ok(vec![Fact::new(x.dtype, [&lead, &grid.dims[1..grid.rank() - 1]].concat())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, grid) = (inputs.required(0, "x")?, inputs.required(1, "grid")?);
        let made = self.infer(Operands(&[Some(&Fact::of(x)), Some(&Fact::of(grid))]))?;
        let shape = made[0].shape().ok_or_else(|| Problem::shape("a negative extent"))?;
        let (source, positions) = (x.to_f64_vec(), grid.to_f64_vec());
        let spatial = &x.shape()[2..];
        let axes = spatial.len();
        if x.shape()[0] != grid.shape()[0] || grid.shape()[axes + 1] != axes || x.is_empty() {
            return Err(Problem::shape("the grid does not go with the image"));
        }
        let plane: usize = spatial.iter().product();
        let points: usize = shape[2..].iter().product();
        let mut values = Vec::with_capacity(shape.iter().product());
        for n in 0..shape[0] {
            let taps = |point: usize| -> Vec<Vec<(usize, f64)>> {
                let at = &positions[(n * points + point) * axes..][..axes];
                (0..axes).map(|a| self.taps(at[axes - 1 - a], spatial[a])).collect()
            };
            let taps: Vec<_> = (0..points).map(taps).collect();
            for c in 0..shape[1] {
                let own = &source[(n * shape[1] + c) * plane..][..plane];
                values.extend(taps.iter().map(|taps| interpolated(own, spatial, taps)));
            }
        }
        Ok(vec![Tensor::from_f64_slice(x.dtype(), shape, &values)?])
    }
}

/// The two pixels around a position and their weights; none if it is outside.
fn between(at: f64, extent: usize) -> Vec<(usize, f64)> {
    if at < -1.0 || at > extent as f64 {
        return Vec::new();
    }
    let at = at.clamp(0.0, extent as f64 - 1.0);
    let low = at.floor() as usize;
    let t = at - low as f64;
    vec![(low, 1.0 - t), ((low + 1).min(extent - 1), t)]
}

impl RoiAlign {
    /// Samples along one axis of each cell of a box.
    fn samples(
        &self,
        from: f64,
        to: f64,
        cells: usize,
        extent: usize,
    ) -> Vec<Vec<Vec<(usize, f64)>>> {
        let scale = self.spatial_scale as f64;
        let halves = self.centres == PixelCentres::Halves;
        let shift = if halves { 0.5 } else { 0.0 };
        let (start, end) = (from * scale - shift, to * scale - shift);
        let length = if halves { end - start } else { (end - start).max(1.0) };
        let cell = length / cells as f64;
        let count =
            if self.samples > 0 { self.samples } else { cell.ceil().clamp(0.0, 4096.0) as usize };
        let at =
            |c: usize, i: usize| start + c as f64 * cell + (i as f64 + 0.5) * cell / count as f64;
        let of_cell = |c: usize| (0..count).map(|i| between(at(c, i), extent)).collect();
        (0..cells).map(of_cell).collect()
    }

    /// One cell from its samples along both axes.
    fn cell(
        &self,
        plane: &[f64],
        width: usize,
        rows: &[Vec<(usize, f64)>],
        columns: &[Vec<(usize, f64)>],
    ) -> f64 {
        let (mut sum, mut largest) = (0.0, f64::NEG_INFINITY);
        for (row, column) in rows.iter().flat_map(|r| columns.iter().map(move |c| (r, c))) {
            let mut sampled = 0.0;
            let mut inside = false;
            for (y, wy) in row {
                for (x, wx) in column {
                    let term = plane[y * width + x] * wy * wx;
                    sampled += term;
                    largest = largest.max(term);
                    inside = true;
                }
            }
            sum += sampled;
            largest = if inside { largest } else { largest.max(0.0) };
        }
        let count = rows.len() * columns.len();
        match (count, self.function) {
            (0, _) => 0.0,
            (_, CellFunction::Max) => largest,
            (_, CellFunction::Mean) => sum / count as f64,
        }
    }
}

impl Operator for RoiAlign {
    facets! {
        arity = Arity::exactly(3),
        stops = "sampling is not trained through yet",
        frozen = "boxes may lie anywhere",
        quant = Quant::FloatOnly("positions need more than 8 bits"),
        element_ops = 64,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, boxes) = (inputs.required(0, "x")?, inputs.required(1, "boxes")?);
        require_float("x", x.dtype)?;
        require_rank("x", x, 4)?;
        if [self.height, self.width, self.samples].iter().any(|&count| count > MAX_CELLS) {
            return Err(Problem::attribute("height", "too many cells or samples"));
        }
        require_rank("boxes", boxes, 2)?;
        require_rank("batch_indices", inputs.required(2, "batch_indices")?, 1)?;
        let cells = [self.height, self.width].map(Dim::from);
        let lead = [boxes.dims[0].clone(), x.dims[1].clone()];
        Ok(vec![Fact::new(x.dtype, [lead, cells].concat())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, boxes) = (inputs.required(0, "x")?, inputs.required(1, "boxes")?);
        let images = inputs.required(2, "batch_indices")?;
        self.infer(Operands(&[x, boxes, images].map(Fact::of).each_ref().map(Some)))?;
        let images = images.to_i64_vec();
        let (&[n, c, h, w], &[count, 4]) = (x.shape(), boxes.shape()) else {
            return Err(Problem::shape("x must be [N,C,H,W] and boxes [R,4]"));
        };
        let inside = |&i: &i64| usize::try_from(i).is_ok_and(|i| i < n);
        if images.len() != count || !images.iter().all(inside) || h * w == 0 {
            return Err(Problem::value("each box needs an image of x"));
        }
        let (source, edges) = (x.to_f64_vec(), boxes.to_f64_vec());
        let mut values = Vec::new();
        for (edge, &image) in edges.chunks(4).zip(&images) {
            let rows = self.samples(edge[1], edge[3], self.height, h);
            let columns = self.samples(edge[0], edge[2], self.width, w);
            for channel in 0..c {
                let plane = &source[(image as usize * c + channel) * h * w..][..h * w];
                for_each_index(&[self.height, self.width], |cell| {
                    values.push(self.cell(plane, w, &rows[cell[0]], &columns[cell[1]]));
                });
            }
        }
        Ok(vec![Tensor::from_f64_slice(x.dtype(), [count, c, self.height, self.width], &values)?])
    }
}
