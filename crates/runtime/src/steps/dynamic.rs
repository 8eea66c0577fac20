//! Steps that quantise their activations as they arrive, and multiply in integers.

use std::sync::Arc;

use lepton_ir::ops::dynamic::{DynamicConv, DynamicLinear};
use lepton_ir::ops::unary::Unary;
use lepton_ir::{Graph, Node, ValueId};
use lepton_kernels::conv::Indirection;
use lepton_kernels::epilogue::{Activation, DequantizeF32, Output, Residual};
use lepton_kernels::gemm::{Input, gemm_u8s8_f32};
use lepton_kernels::pack::{PackedS8, TapsS8, WeightOrder};
use lepton_kernels::quantize::{dynamic_parameters, quantize, range_f32};
use lepton_kernels::stem::{Lines, MOST_U8, stem_u8s8_f32};
use lepton_tensor::Layout;

use super::product::{activation, image_window, operand, refused};
use super::{Choice, Chosen, ELEMENT_WORK};
use crate::place::{Memory, Place};
use crate::plan::{Builder, Demands};
use crate::threads::share;

/// Floats of a cache line: threads write to different ones.
const LINE: usize = 16;

/// Bytes of padding a kernel may read behind the last channel.
const SLACK: usize = 64;

/// Weights in the form of one kernel.
enum Weights {
    Dense(Arc<PackedS8>, Box<Indirection>),
    Stem(Arc<TapsS8>, Lines),
}

/// Everything a dynamic product needs at run time.
struct Product {
    weights: Weights,
    /// Of the weights of each column.
    sums: Vec<i32>,
    activation: Activation,
    x: Place,
    x_count: usize,
    /// Channels of a pixel of x.
    depth: usize,
    w_scale: Place,
    bias: Option<Place>,
    residual: Option<Place>,
    y: Place,
    /// x as u8, padding, scale and correction of each column, and extremes of the parts of x.
    scratch: [Place; 5],
    padding: usize,
    /// True if a row of y needs no other row of x than its own.
    pointwise: bool,
    row_count: usize,
    columns: usize,
    work: usize,
}

impl Product {
    fn run(&self, memory: &Memory<'_>) {
        let count = self.x_count;
        let work = self.work.max(count * ELEMENT_WORK);
        let parts = memory.threads.parts(work).min(self.row_count);
        // Whole pixels, which are rows where a part needs no others.
        let pixels = count / self.depth;
        let own = |part| {
            let pixels = share(pixels, part, parts);
            pixels.start * self.depth..pixels.end * self.depth
        };
        memory.threads.run(parts, &|part| {
            // SAFETY: the plan holds `count` floats and a line for each thread; parts are disjoint.
            unsafe {
                let x = &memory.slice::<f32>(self.x, count)[own(part)];
                let extremes = memory.slice_mut::<f32>(self.scratch[4], part * LINE, 2);
                extremes.copy_from_slice(&range_f32(memory.isa, x));
            }
        });
        memory.threads.run(parts, &|part| {
            // SAFETY: as above; nobody writes extremes meanwhile.
            let extremes = unsafe { memory.slice::<f32>(self.scratch[4], parts * LINE) };
            let wider = |[low, high]: [f32; 2], of: &[f32]| [low.min(of[0]), high.max(of[1])];
            let range = extremes.chunks_exact(LINE).fold([0.0; 2], wider);
            let (scale, zero) = dynamic_parameters(range);
            // SAFETY: as above.
            unsafe {
                let own = own(part);
                let bytes = memory.slice_mut::<u8>(self.scratch[0], own.start, own.len());
                quantize(memory.isa, scale, zero, &memory.slice::<f32>(self.x, count)[own], bytes);
            }
            self.prepare(memory, part, scale, zero);
            if self.pointwise {
                self.multiply(memory, part, parts);
            }
        });
        if !self.pointwise {
            memory.threads.run(parts, &|part| self.multiply(memory, part, parts));
        }
    }

    /// Writes what a part needs of an x of this scale and zero point: padding, scales and corrections.
    fn prepare(&self, memory: &Memory<'_>, part: usize, scale: f32, zero: u8) {
        let n = self.columns;
        // SAFETY: the plan holds these counts for each thread at the places, which are all apart.
        let (padding, w_scale, scales, corrections) = unsafe {
            (
                memory.slice_mut::<u8>(self.scratch[1], part * self.padding, self.padding),
                memory.slice::<f32>(self.w_scale, n),
                memory.slice_mut::<f32>(self.scratch[2], part * n, n),
                memory.slice_mut::<i32>(self.scratch[3], part * n, n),
            )
        };
        padding.fill(zero);
        for (to, from) in scales.iter_mut().zip(w_scale) {
            *to = scale * from;
        }
        for (to, sum) in corrections.iter_mut().zip(&self.sums) {
            *to = sum.wrapping_mul(-i32::from(zero));
        }
    }

    /// The rows of a part.
    fn multiply(&self, memory: &Memory<'_>, part: usize, parts: usize) {
        let n = self.columns;
        let rows = share(self.row_count, part, parts);
        memory.watch.in_pieces(rows, self.work / parts, 1, |range| {
            // SAFETY: the plan holds these counts at the places; the geometry was checked against
            // the planned shapes; ranges of rows are disjoint.
            unsafe {
                let row = |place: Place| Residual { pointer: memory.read(place), row_stride: n };
                let all = |place: Place| memory.read::<u8>(place);
                let epilogue = DequantizeF32 {
                    bias_s32: Some(&memory.slice(self.scratch[3], (part + 1) * n)[part * n..]),
                    scale: &memory.slice(self.scratch[2], (part + 1) * n)[part * n..],
                    bias: self.bias.map(|place| memory.slice(place, n)),
                    residual: self.residual.map(row),
                    activation: self.activation,
                };
                let padding = all(self.scratch[1]).add(part * self.padding);
                let (isa, base) = (memory.isa, all(self.scratch[0]));
                let output = Output { pointer: memory.write::<f32>(self.y), row_stride: n };
                match &self.weights {
                    Weights::Dense(weights, rows) => {
                        let input = Input { base, rows, padding };
                        gemm_u8s8_f32(isa, &input, weights, &epilogue, &output, range, 0..n);
                    }
                    Weights::Stem(weights, lines) => {
                        let image = (base, *padding);
                        stem_u8s8_f32(isa, image, lines, weights, &epilogue, &output, range);
                    }
                }
            }
        });
    }
}

/// Bytes of x as u8, and for each thread of padding, of the scale and correction of each column, and of
/// extremes.
pub(crate) fn scratch_bytes(graph: &Graph, node: &Node, demands: Demands<'_>) -> Vec<usize> {
    let shape = |id: Option<ValueId>| graph.fact(id?).shape();
    let (x, y) = (shape(operand(node, 0)), shape(node.outputs[0]));
    let (Some(x), Some(y)) = (x, y) else { return Vec::new() };
    let columns = y.last().copied().unwrap_or(1);
    let each = [padding(&x), 4 * columns, 4 * columns, 4 * LINE];
    let shared = x.iter().product();
    std::iter::once(shared).chain(each.map(|bytes| bytes * demands.threads)).collect()
}

fn padding(x: &[usize]) -> usize {
    x.last().copied().unwrap_or(1) + SLACK
}

/// Convolution of channels-last images in one group.
pub(crate) fn conv(builder: &mut Builder<'_>, node: &Node, op: &DynamicConv) -> Choice {
    let (Some(x), Some(w), Some(y)) = (operand(node, 0), operand(node, 1), node.outputs[0]) else {
        return Ok(None);
    };
    let Some(weights) = builder.graph.constant(w).cloned() else { return Ok(None) };
    let (xs, ys) = (builder.shape(x), builder.shape(y));
    let served = op.layout == Layout::Nhwc && xs.len() == 4 && op.group == 1;
    if !served || xs.contains(&0) || ys.contains(&0) {
        return Ok(None);
    }
    let Some(geometry) = image_window(&op.conv(), weights.shape(), &xs) else { return Ok(None) };
    let (columns, taps) = (weights.shape()[0], geometry.taps());
    let Ok(values) = weights.as_slice::<i8>() else { return Ok(None) };
    if let Some(lines) = Lines::of(&geometry, xs[3], MOST_U8) {
        let order = lines.order(columns);
        let pack = || TapsS8::pack(values, &order);
        let taps = builder.packs.get_or_load(w, "stem-s8", &order, pack);
        let each = values.chunks_exact(values.len() / columns);
        let sums = each.map(|column| column.iter().map(|&weight| i32::from(weight)).sum());
        let layer = (Weights::Stem(taps, lines), sums.collect(), false);
        return product(builder, node, "stem-dynamic-u8s8", &op.activation, layer);
    }
    let rows = Indirection::window(&geometry, xs[3]).map_err(|e| refused(builder, node, e))?;
    let order = WeightOrder::ohwi(columns, taps, xs[3]);
    let layer = dense(builder, w, values, &order, rows, geometry.is_pointwise());
    product(builder, node, "conv-dynamic-u8s8", &op.activation, layer)
}

/// Linear layer.
pub(crate) fn linear(builder: &mut Builder<'_>, node: &Node, op: &DynamicLinear) -> Choice {
    let (Some(w), Some(y)) = (operand(node, 1), node.outputs[0]) else { return Ok(None) };
    let Some(weights) = builder.graph.constant(w).cloned() else { return Ok(None) };
    let (depth, columns) = (weights.shape()[0], weights.shape()[1]);
    if builder.count(y) == 0 || depth == 0 {
        return Ok(None);
    }
    let Ok(values) = weights.as_slice::<i8>() else { return Ok(None) };
    let order = WeightOrder::matrix(depth, columns);
    let layer = dense(builder, w, values, &order, Indirection::strided(depth), true);
    product(builder, node, "linear-dynamic-u8s8", &op.activation, layer)
}

/// Weights, the sums of their columns, and whether a row of y needs no other row of x than its own.
type Layer = (Weights, Vec<i32>, bool);

fn dense(
    builder: &Builder<'_>,
    w: ValueId,
    values: &[i8],
    order: &WeightOrder,
    rows: Indirection,
    pointwise: bool,
) -> Layer {
    let packed = builder.packs.get_or_load(w, "s8", order, || PackedS8::pack(values, order));
    let sums = packed.column_sums().to_vec();
    (Weights::Dense(packed, Box::new(rows)), sums, pointwise)
}

fn product(
    builder: &mut Builder<'_>,
    node: &Node,
    kernel: &'static str,
    function: &Unary,
    (weights, sums, pointwise): Layer,
) -> Choice {
    let [Some(x), Some(w), Some(w_scale)] = node.inputs[..3] else { return Ok(None) };
    let Some(y) = node.outputs[0] else { return Ok(None) };
    let Some(activation) = activation(function) else { return Ok(None) };
    let columns = builder.shape(y).last().copied().unwrap_or(1);
    if builder.count(w_scale) != columns {
        return Ok(None);
    }
    let row_count = builder.count(y) / columns;
    let place = |id: ValueId| builder.place(id);
    let product = Product {
        weights,
        sums,
        activation,
        x: place(x),
        x_count: builder.count(x),
        depth: builder.shape(x).last().copied().unwrap_or(1),
        w_scale: place(w_scale),
        bias: operand(node, 3).map(place),
        residual: operand(node, 4).map(place),
        y: place(y),
        scratch: [0, 1, 2, 3, 4].map(|i| builder.scratch(i)),
        padding: padding(&builder.shape(x)),
        pointwise,
        row_count,
        columns,
        work: row_count * builder.count(w) / 4,
    };
    let run = Box::new(move |memory: &Memory<'_>| {
        product.run(memory);
        Ok(())
    });
    Ok(Some(Chosen::divided(kernel, run)))
}
