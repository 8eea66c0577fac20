//! Operators that follow from the shapes of their operands: masks, permutations, windows.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::conv_transpose::ConvTranspose;
use lepton_ir::ops::find::NonZero;
use lepton_ir::ops::gather::{Gather, GatherElements};
use lepton_ir::ops::pad::Pad;
use lepton_ir::ops::pool::{Pool, PoolFunction};
use lepton_ir::ops::sample::GridSample;
use lepton_ir::ops::scatter::ScatterElements;
use lepton_ir::ops::unary::UnaryFunction as U;
use lepton_tensor::DType;

use super::call::Call;
use super::rows::given_type;
use crate::error::FormatError;
use crate::steps::{Made, Results, Steps};

/// `count` numbers of an attribute, `usual` where it is absent.
fn per_axis(
    call: &Call<'_>,
    name: &str,
    count: usize,
    usual: usize,
) -> Result<Vec<usize>, FormatError> {
    let given = call.ints(name);
    if given.is_empty() {
        return Ok(vec![usual; count]);
    }
    let values: Option<Vec<usize>> = given.iter().map(|&v| usize::try_from(v).ok()).collect();
    let values = values.filter(|values| values.len() == count);
    values.ok_or_else(|| call.error(format!("attribute `{name}` is {given:?}")))
}

/// Response normalisation across channels (Krizhevsky et al. 2012).
pub fn local_response(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["alpha", "beta", "bias", "size"])?;
    let x = call.required(0)?;
    let size = usize::try_from(call.int("size", 0)).unwrap_or(0);
    if size == 0 || call.fact(0)?.rank() < 3 {
        return Err(call.error("needs a size and an image"));
    }
    let shape = call.shape_of(x)?;
    let square = call.pair(B::Mul, x, x)?;
    let channels = call.extent_of(x, 1)?;
    let channels = call.reshape(channels, &[1])?;
    let (first, last) = (call.integers(&[0, 1]), call.integers(&[-1]));
    let as_plane = call.concat(&[first, channels, last], 0)?;
    let plane = call
        .emit_one(lepton_ir::ops::reshape::Reshape::default(), &[Some(square), Some(as_plane)])?;
    let before = (size - 1) / 2;
    let pool = Pool {
        function: PoolFunction::Average,
        kernel: vec![size, 1],
        pads: vec![before, 0, size - 1 - before, 0],
        count_padding: true,
        ..Pool::default()
    };
    let mean = call.emit_one(pool, &[Some(plane)])?;
    let mean = call.reshape_as(mean, shape)?;
    let scaled = call.scaled(mean, f64::from(call.float("alpha", 1e-4)))?;
    let sum = call.shifted(scaled, f64::from(call.float("bias", 1.0)))?;
    let beta = call.scalar(call.dtype(x), f64::from(call.float("beta", 0.75)))?;
    let divisor = call.pair(B::Pow, sum, beta)?;
    Ok(vec![call.pair(B::Div, x, divisor)?])
}

/// 1 on a diagonal of a matrix shaped like the operand.
pub fn eye_like(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["dtype", "k"])?;
    let x = call.required(0)?;
    if call.fact(0)?.rank() != 2 {
        return Err(call.error("needs a matrix"));
    }
    let to = given_type(call.int("dtype", 0)).unwrap_or(call.dtype(x));
    let (rows, columns) = (call.extent_of(x, 0)?, call.extent_of(x, 1)?);
    let (rows, columns) = (call.counting(rows)?, call.counting(columns)?);
    let rows = call.unsqueeze(rows, &[1])?;
    let shift = call.constant(lepton_tensor::Tensor::scalar(call.int("k", 0)));
    let rows = call.pair(B::Add, rows, shift)?;
    let same = call.pair(B::Equal, rows, columns)?;
    Ok(vec![call.cast(same, to)?])
}

/// The slices along an axis, or the elements, at which a condition holds.
pub fn compress(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["axis"])?;
    let (mut x, condition) = (call.required(0)?, call.required(1)?);
    let axis = if call.has("axis") { call.axis("axis", 0)? as i64 } else { 0 };
    if !call.has("axis") {
        x = call.reshape(x, &[-1])?;
    }
    let found = call.emit_one(NonZero {}, &[Some(condition)])?;
    let found = call.reshape(found, &[-1])?;
    call.emit(Gather { axis }, &[Some(x), Some(found)])
}

/// Each sequence of a batch from its end, as far as it is long.
pub fn reverse_sequence(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["batch_axis", "time_axis"])?;
    let (x, lengths) = (call.required(0)?, call.required(1)?);
    let (batch, time) = (call.axis("batch_axis", 1)?, call.axis("time_axis", 0)?);
    if batch.max(time) != 1 || batch == time {
        return Err(call.error("time and batch must be the first two axes"));
    }
    let steps = call.extent_of(x, time)?;
    let steps = call.counting(steps)?;
    let steps = call.unsqueeze(steps, &[batch as i64])?;
    let lengths = call.unsqueeze(lengths, &[time as i64])?;
    let mirrored = call.pair(B::Sub, lengths, steps)?;
    let one = call.scalar(DType::I64, 1.0)?;
    let mirrored = call.pair(B::Sub, mirrored, one)?;
    let within = call.pair(B::Less, steps, lengths)?;
    let mut at = call.select(within, mirrored, steps)?;
    let rest: Vec<i64> = (2..call.fact(0)?.rank() as i64).collect();
    if !rest.is_empty() {
        at = call.unsqueeze(at, &rest)?;
    }
    let shape = call.shape_of(x)?;
    let at = call.expand(at, shape)?;
    call.emit(GatherElements { axis: time as i64 }, &[Some(x), Some(at)])
}

/// An image from the sums of overlapping blocks: a transposed convolution with one-hot weights.
pub fn col2im(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["dilations", "pads", "strides"])?;
    let x = call.required(0)?;
    let sizes = |call: &Call<'_>, index| -> Result<Vec<usize>, FormatError> {
        call.known(index)?
            .into_iter()
            .map(|v| usize::try_from(v).map_err(|_| call.error("a negative extent")))
            .collect()
    };
    let (image, block) = (sizes(call, 1)?, sizes(call, 2)?);
    let axes = image.len();
    let dilations = per_axis(call, "dilations", axes, 1)?;
    let strides = per_axis(call, "strides", axes, 1)?;
    let pads = per_axis(call, "pads", 2 * axes, 0)?;
    let each = lepton_tensor::checked_product(&block).unwrap_or(0);
    let columns = call.graph.fact(x).dims.get(1).and_then(|d| d.as_usize()).unwrap_or(0);
    if each == 0 || columns == 0 || !columns.is_multiple_of(each) || block.len() != axes {
        return Err(call.error("the blocks do not go with the columns"));
    }
    let (mut spatial, mut rest) = (vec![0, columns as i64], Vec::new());
    for a in 0..axes {
        let covered = dilations[a].saturating_mul(block[a] - 1).saturating_add(1);
        let padded = image[a].saturating_add(pads[a]).saturating_add(pads[axes + a]);
        let room = padded.checked_sub(covered).ok_or_else(|| call.error("a block is too large"))?;
        spatial.push((room / strides[a].max(1) + 1) as i64);
        rest.push(room % strides[a].max(1));
    }
    let channels = columns / each;
    call.check_size(&[columns, each])?;
    let mut values = vec![0.0; columns * each];
    for (i, row) in values.chunks_mut(each).enumerate() {
        row[i % each] = 1.0;
    }
    let shape = [&[columns, 1], block.as_slice()].concat();
    let weights = call.table(call.dtype(x), &shape, &values)?;
    let x = call.reshape(x, &spatial)?;
    let op = ConvTranspose {
        strides,
        pads,
        dilations,
        output_padding: rest,
        group: channels,
        ..ConvTranspose::default()
    };
    // One group for each channel: `each` channels in, one out.
    call.emit(op, &[Some(x), Some(weights)])
}

/// `x` with more elements before and after along each axis; negative numbers crop.
fn extended(call: &mut Call<'_>, x: ValueId, before: &[i64], after: &[i64]) -> Made {
    let pads = call.integers(&[before, after].concat());
    call.emit_one(Pad::default(), &[Some(x), Some(pads)])
}

/// The maxima where they came from, zeros elsewhere.
pub fn max_unpool(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["kernel_shape", "pads", "strides"])?;
    let (x, at) = (call.required(0)?, call.required(1)?);
    let mut shape = call.extents(x)?;
    let axes = shape.len().saturating_sub(2);
    let kernel = per_axis(call, "kernel_shape", axes, 1)?;
    let strides = per_axis(call, "strides", axes, 1)?;
    let pads = per_axis(call, "pads", 2 * axes, 0)?;
    for a in 0..axes {
        let full = (shape[2 + a].max(1) - 1).saturating_mul(strides[a]).saturating_add(kernel[a]);
        shape[2 + a] = full.saturating_sub(pads[a].saturating_add(pads[axes + a]));
    }
    call.check_size(&shape)?;
    let count = shape.iter().product();
    let zeros = call.table(call.dtype(x), &[count], &vec![0.0; count])?;
    let (at, x) = (call.reshape(at, &[-1])?, call.reshape(x, &[-1])?);
    let flat = call.emit_one(ScatterElements::default(), &[Some(zeros), Some(at), Some(x)])?;
    let natural: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
    let mut made = call.reshape(flat, &natural)?;
    if call.input(2).is_some() {
        let wanted = call.known(2)?;
        if wanted.len() != natural.len() {
            return Err(call.error("output_shape needs an extent for every axis"));
        }
        let after: Vec<i64> =
            wanted.iter().zip(&natural).map(|(w, n)| w.saturating_sub(*n)).collect();
        made = extended(call, made, &vec![0; after.len()], &after)?;
    }
    Ok(vec![made])
}

/// The middle of a tensor, or the tensor in the middle of zeros.
pub fn center_crop_pad(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["axes"])?;
    let x = call.required(0)?;
    let (own, wanted) = (call.extents(x)?, call.known(1)?);
    let axes = if call.has("axes") { call.ints("axes") } else { (0..own.len() as i64).collect() };
    if axes.len() != wanted.len() {
        return Err(call.error("the shape needs an extent for every axis"));
    }
    let (mut before, mut after) = (vec![0; own.len()], vec![0; own.len()]);
    for (&axis, &wanted) in axes.iter().zip(&wanted) {
        let axis = call.axis_of(axis, own.len())?;
        let more = wanted.saturating_sub(own[axis] as i64);
        // Of an odd number of elements the smaller half goes first.
        before[axis] = if more < 0 { -(-more / 2) } else { more / 2 };
        after[axis] = more - before[axis];
    }
    Ok(vec![extended(call, x, &before, &after)?])
}

/// Positions of a regular grid under affine maps (Jaderberg et al. 2015).
pub fn affine_grid(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["align_corners"])?;
    let (theta, size) = (call.required(0)?, call.known(1)?);
    let extents: Option<Vec<usize>> = size.iter().map(|&v| usize::try_from(v).ok()).collect();
    let extents = extents.filter(|e| e.len() == 4 || e.len() == 5);
    let extents = extents.ok_or_else(|| call.error("the size must be that of images"))?;
    let spatial = &extents[2..];
    let axes = spatial.len();
    let count = lepton_tensor::checked_product(spatial).unwrap_or(usize::MAX);
    call.check_size(&[count, axes + 1])?;
    let aligned = call.int("align_corners", 0) != 0;
    let position = |i: usize, extent: usize| match (aligned, extent) {
        (true, 1) => -1.0,
        (true, _) => -1.0 + 2.0 * i as f64 / (extent - 1) as f64,
        (false, _) => (2 * i + 1) as f64 / extent as f64 - 1.0,
    };
    let mut values = Vec::with_capacity(count * (axes + 1));
    for point in 0..count {
        let mut rest = point;
        // The last axis comes first.
        for &extent in spatial.iter().rev() {
            values.push(position(rest % extent, extent));
            rest /= extent;
        }
        values.push(1.0);
    }
    let grid = call.table(call.dtype(theta), &[1, count, axes + 1], &values)?;
    let maps = call.transpose(theta, &[0, 2, 1])?;
    let made = call.product(grid, maps)?;
    let mut shape = vec![0i64];
    shape.extend(spatial.iter().map(|&d| d as i64));
    shape.push(axes as i64);
    Ok(vec![call.reshape(made, &shape)?])
}

/// A cache with new entries from a position of its own for each sequence.
pub fn tensor_scatter(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["axis", "mode"])?;
    let (cache, update) = (call.required(0)?, call.required(1)?);
    let axis = call.axis("axis", -2)?;
    let rank = call.fact(0)?.rank();
    if axis == 0 {
        return Err(call.error("the first axis is that of the sequences"));
    }
    let steps = call.extent_of(update, axis)?;
    let mut at = call.counting(steps)?;
    let mut along = vec![1i64; rank];
    along[axis] = -1;
    at = call.reshape(at, &along)?;
    if let Some(starts) = call.input(2) {
        let starts = call.cast(starts, DType::I64)?;
        let mut first = vec![1i64; rank];
        first[0] = -1;
        let starts = call.reshape(starts, &first)?;
        at = call.pair(B::Add, starts, at)?;
    }
    match call.text("mode", "linear").as_str() {
        "linear" => {}
        "circular" => {
            let extent = call.extent_of(cache, axis)?;
            at = call.pair(B::Mod, at, extent)?;
        }
        other => return Err(call.error(format!("unknown mode `{other}`"))),
    }
    let shape = call.shape_of(update)?;
    let at = call.expand(at, shape)?;
    let op = ScatterElements { axis: axis as i64, ..ScatterElements::default() };
    call.emit(op, &[Some(cache), Some(at), Some(update)])
}

/// Extents of a deformable convolution.
struct Deformed {
    image: [usize; 4],
    weights: [usize; 4],
    made: [usize; 2],
    offset_groups: usize,
}

impl Deformed {
    fn taps(&self) -> usize {
        self.weights[2] * self.weights[3]
    }

    /// Positions of the taps without offsets, y and x: `[1,taps,2,h,w]`.
    fn positions(&self, strides: &[usize], pads: &[usize], dilations: &[usize]) -> Vec<f64> {
        let [h, w] = self.made;
        let mut values = Vec::with_capacity(self.taps() * 2 * h * w);
        for tap in 0..self.taps() {
            let steps = [tap / self.weights[3], tap % self.weights[3]];
            for axis in 0..2 {
                let shift = steps[axis] as f64 * dilations[axis] as f64 - pads[axis] as f64;
                for point in 0..h * w {
                    let own = [point / w, point % w][axis];
                    values.push(own as f64 * strides[axis] as f64 + shift);
                }
            }
        }
        values
    }
}

/// A convolution whose taps move by offsets (Zhu et al. 2019): samples between pixels, then a
/// matrix product.
pub fn deform_conv(call: &mut Call<'_>) -> Results {
    let known = ["dilations", "group", "kernel_shape", "offset_group", "pads", "strides"];
    call.check_attributes(&[], &known)?;
    let four = |call: &Call<'_>, index: usize| -> Result<[usize; 4], FormatError> {
        let shape = call.extents(call.required(index)?)?;
        shape.try_into().map_err(|_| call.error("only images of two axes are supported"))
    };
    let (image, weights, offsets) = (four(call, 0)?, four(call, 1)?, four(call, 2)?);
    let count = |call: &Call<'_>, name| usize::try_from(call.int(name, 1)).unwrap_or(0);
    let (group, offset_groups) = (count(call, "group"), count(call, "offset_group"));
    let plan = Deformed { image, weights, made: [offsets[2], offsets[3]], offset_groups };
    call.check_size(&[weights[2], weights[3], 2, offsets[2], offsets[3]])?;
    let taps = plan.taps();
    let fits = group > 0
        && offset_groups > 0
        && image[1] % offset_groups == 0
        && image[1] == weights[1].saturating_mul(group)
        && weights[0] % group == 0
        && offsets[1] == offset_groups.saturating_mul(taps).saturating_mul(2);
    if !fits {
        return Err(call.error("its groups and shapes do not go together"));
    }
    let sampled = samples(call, &plan)?;
    let [n, h, w] = [image[0], plan.made[0], plan.made[1]].map(|v| v as i64);
    let depth = (weights[1] * taps) as i64;
    let columns = call.reshape(sampled, &[n, group as i64, depth, h * w])?;
    let (each, kernels) = ((weights[0] / group) as i64, call.required(1)?);
    let kernels = call.reshape(kernels, &[1, group as i64, each, depth])?;
    let product = call.product(kernels, columns)?;
    let mut y = call.reshape(product, &[n, weights[0] as i64, h, w])?;
    if let Some(bias) = call.input(3) {
        let bias = call.reshape(bias, &[-1, 1, 1])?;
        y = call.pair(B::Add, y, bias)?;
    }
    Ok(vec![call.map(U::Identity, y)?])
}

/// The image at every tap of every position: `[N·groups, C/groups, taps·h, w]`.
fn samples(call: &mut Call<'_>, plan: &Deformed) -> Made {
    let strides = per_axis(call, "strides", 2, 1)?;
    let pads = per_axis(call, "pads", 4, 0)?;
    let dilations = per_axis(call, "dilations", 2, 1)?;
    let (x, offsets) = (call.required(0)?, call.required(2)?);
    let dtype = call.dtype(x);
    let [n, c, height, width] = plan.image;
    let ([h, w], taps) = (plan.made, plan.taps());
    let groups = plan.offset_groups;
    let own = plan.positions(&strides, &pads, &dilations);
    let own = call.table(dtype, &[1, taps, 2, h, w], &own)?;
    let moved = [n * groups, taps, 2, h, w].map(|v| v as i64);
    let offsets = call.reshape(offsets, &moved)?;
    let at = call.pair(B::Add, own, offsets)?;
    // Pixel centres to the coordinates of a grid, where −1 and 1 are the edges.
    let extents = [height as f64, width as f64];
    let scale = call.table(dtype, &[1, 1, 2, 1, 1], &extents.map(|e| 2.0 / e))?;
    let shift = call.table(dtype, &[1, 1, 2, 1, 1], &extents.map(|e| 1.0 / e - 1.0))?;
    let at = call.pair(B::Mul, at, scale)?;
    let at = call.pair(B::Add, at, shift)?;
    let at = call.transpose(at, &[0, 1, 3, 4, 2])?;
    let at = call.picked(at, 4, &[1, 0])?;
    let grid = call.reshape(at, &[(n * groups) as i64, (taps * h) as i64, w as i64, 2])?;
    let parts = [n * groups, c / groups, height, width].map(|v| v as i64);
    let parts = call.reshape(x, &parts)?;
    let mut made = call.emit_one(GridSample::default(), &[Some(parts), Some(grid)])?;
    if let Some(mask) = call.input(4) {
        let shape = [n * groups, 1, taps * h, w].map(|v| v as i64);
        let mask = call.reshape(mask, &shape)?;
        made = call.pair(B::Mul, made, mask)?;
    }
    Ok(made)
}
