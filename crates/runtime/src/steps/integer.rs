//! Steps over u8: integer convolution and linear layers, and the way in and out of integers.

use std::sync::Arc;

use lepton_ir::ops::binary::BinaryFunction;
use lepton_ir::ops::integer::{IntegerConv, IntegerEpilogue, IntegerLinear};
use lepton_ir::ops::lookup::IntegerBinary;
use lepton_ir::ops::quantize::{DequantizeLinear, QuantizeLinear};
use lepton_ir::{Graph, Node, ValueId};
use lepton_kernels::broadcast::Broadcast;
use lepton_kernels::conv::{GeometryError, Indirection};
use lepton_kernels::depthwise::{
    DepthwiseS8, DepthwiseTapsS8, depthwise_order, depthwise_u8s8, depthwise_u8s8_f32,
    padded_pixels,
};
use lepton_kernels::epilogue::{
    Activation, DequantizeF32, Output, RequantizeU8, Residual, ResidualU8, ThroughU8,
};
use lepton_kernels::gemm::{Input, gemm_u8s8_before, gemm_u8s8_f32, gemm_u8s8_through};
use lepton_kernels::grouped::{grouped_u8s8, grouped_u8s8_f32};
use lepton_kernels::map::{Unary, map_u8_table};
use lepton_kernels::pack::{PackedS8, TapsS8, WeightOrder};
use lepton_kernels::quantize::{
    QuantizedPair, Rounding, add_quantized, dequantize, multiply_quantized, quantize,
};
use lepton_kernels::sparse::{SparseLines, sparse_u8s8, sparse_u8s8_f32};
use lepton_kernels::stem::{Lines, MOST_U8, stem_u8s8, stem_u8s8_f32};
use lepton_tensor::DType;

use super::average::average;
use super::parts::{Extents, Part, over_parts};
use super::product::{Following, Next, activation, image_window, operand, refused};
use super::{Choice, Chosen, ELEMENT_WORK, is_f32, over_rows};
use crate::place::{Memory, Place};
use crate::plan::Builder;

/// Weights in the form of one kernel.
enum Weights {
    Dense(Arc<PackedS8>, Indirection),
    Sparse(Arc<SparseLines>, Indirection),
    /// One matrix for each group of so many channels.
    Grouped(Arc<Vec<PackedS8>>, Indirection, usize),
    Depthwise(DepthwiseS8),
    Stem(Arc<TapsS8>, Lines),
}

/// Everything an integer product needs at run time.
struct Product {
    weights: Weights,
    epilogue: IntegerEpilogue,
    activation: Activation,
    x: Place,
    bias: Place,
    multiplier: Place,
    residual: Option<Place>,
    table: Option<Place>,
    y: Place,
    padding: Arc<[u8]>,
    x_count: usize,
    row_count: usize,
    columns: usize,
    work: usize,
    /// What [`RequantizeU8::is_bounded`] says of the multipliers, where they are known.
    bounded: bool,
    next: Following,
}

impl Product {
    fn run(&self, memory: &Memory<'_>) {
        over_parts(memory, &self.extents(), |part| {
            if let Some(function) = self.through() {
                self.through_u8(memory, part, function);
            } else if self.epilogue.output == DType::U8 {
                self.to_u8(memory, part);
            } else {
                self.to_f32(memory, part);
            }
        });
    }

    fn extents(&self) -> Extents {
        let weight_bytes = match &self.weights {
            Weights::Dense(weights, _) => weights.bytes().len(),
            _ => 0,
        };
        Extents {
            rows: self.row_count,
            columns: self.columns,
            row_bytes: self.x_count,
            weight_bytes,
            work: self.work,
        }
    }

    /// The function of a u8 result, where it is no clamp.
    fn through(&self) -> Option<Unary> {
        (self.epilogue.output == DType::U8).then(|| self.activation.function()).flatten()
    }

    fn through_u8(&self, memory: &Memory<'_>, part: &Part, function: Unary) {
        let (rows, columns) = (part.rows.clone(), part.columns.clone());
        let next = part.of_next(Next::bytes(&self.next));
        let n = self.columns;
        let Weights::Dense(w, geometry) = &self.weights else { unreachable!("chosen") };
        // SAFETY: as in `to_u8`.
        unsafe {
            let epilogue = ThroughU8 {
                bias: memory.slice(self.bias, n),
                scale: memory.slice(self.multiplier, n),
                function,
                step: self.epilogue.step,
                zero_point: self.epilogue.zero as u8,
            };
            let output = Output { pointer: memory.write::<u8>(self.y), row_stride: n };
            let (base, padding) = (memory.read::<u8>(self.x), self.padding.as_ptr());
            let input = Input { base, rows: geometry, padding };
            let isa = memory.isa;
            gemm_u8s8_through(isa, &input, w, &epilogue, &output, rows, columns, next);
        }
    }

    fn to_u8(&self, memory: &Memory<'_>, part: &Part) {
        let (rows, columns) = (part.rows.clone(), part.columns.clone());
        let next = part.of_next(Next::bytes(&self.next));
        let (n, e) = (self.columns, &self.epilogue);
        let residual = self.residual.map(|place| ResidualU8 {
            rows: Residual { pointer: memory.read::<u8>(place), row_stride: n },
            scale: e.residual_scale,
            zero_point: e.residual_zero as u8,
        });
        // SAFETY: the plan holds `columns` of each vector and 256 entries of the table; the
        // geometry was checked against the planned shapes; row ranges are disjoint.
        unsafe {
            let epilogue = RequantizeU8 {
                bias: memory.slice(self.bias, n),
                multiplier: memory.slice(self.multiplier, n),
                residual,
                zero_point: e.zero as u8,
                low: e.low as u8,
                high: e.high as u8,
                table: self.table.map(|place| &*memory.read::<[u8; 256]>(place)),
                bounded: self.bounded,
            };
            let output = Output { pointer: memory.write::<u8>(self.y), row_stride: n };
            let (base, padding) = (memory.read::<u8>(self.x), self.padding.as_ptr());
            match &self.weights {
                Weights::Dense(w, geometry) => {
                    let input = Input { base, rows: geometry, padding };
                    let isa = memory.isa;
                    gemm_u8s8_before(isa, &input, w, &epilogue, &output, rows, columns, next);
                }
                Weights::Sparse(w, geometry) => {
                    let input = Input { base, rows: geometry, padding };
                    sparse_u8s8(memory.isa, &input, w, &epilogue, &output, rows);
                }
                Weights::Grouped(w, geometry, depth) => {
                    let input = Input { base, rows: geometry, padding };
                    grouped_u8s8(memory.isa, &input, w, *depth, &epilogue, &output, rows);
                }
                Weights::Stem(w, lines) => {
                    let image = (base, self.padding[0]);
                    stem_u8s8(memory.isa, image, lines, w, &epilogue, &output, rows, next);
                }
                Weights::Depthwise(w) => {
                    depthwise_u8s8(memory.isa, base, padding, w, &epilogue, &output, rows);
                }
            }
        }
    }

    fn to_f32(&self, memory: &Memory<'_>, part: &Part) {
        let (rows, columns) = (part.rows.clone(), part.columns.clone());
        let n = self.columns;
        let residual = self
            .residual
            .map(|place| Residual { pointer: memory.read::<f32>(place), row_stride: n });
        // SAFETY: as in `to_u8`.
        unsafe {
            let epilogue = DequantizeF32 {
                bias_s32: Some(memory.slice(self.bias, n)),
                scale: memory.slice(self.multiplier, n),
                bias: None,
                residual,
                activation: self.activation,
            };
            let output = Output { pointer: memory.write::<f32>(self.y), row_stride: n };
            let (base, padding) = (memory.read::<u8>(self.x), self.padding.as_ptr());
            match &self.weights {
                Weights::Dense(w, geometry) => {
                    let input = Input { base, rows: geometry, padding };
                    gemm_u8s8_f32(memory.isa, &input, w, &epilogue, &output, rows, columns);
                }
                Weights::Sparse(w, geometry) => {
                    let input = Input { base, rows: geometry, padding };
                    sparse_u8s8_f32(memory.isa, &input, w, &epilogue, &output, rows);
                }
                Weights::Grouped(w, geometry, depth) => {
                    let input = Input { base, rows: geometry, padding };
                    grouped_u8s8_f32(memory.isa, &input, w, *depth, &epilogue, &output, rows);
                }
                Weights::Stem(w, lines) => {
                    let image = (base, self.padding[0]);
                    stem_u8s8_f32(memory.isa, image, lines, w, &epilogue, &output, rows);
                }
                Weights::Depthwise(w) => {
                    depthwise_u8s8_f32(memory.isa, base, padding, w, &epilogue, &output, rows);
                }
            }
        }
    }
}

/// Dense weights, or the lines of them that are not zero, where that pays.
fn dense_or_lines(
    builder: &Builder<'_>,
    id: ValueId,
    dense: Arc<PackedS8>,
    rows: Indirection,
    row_count: usize,
) -> Weights {
    let isa = builder.demands.isa;
    let pack = || SparseLines::of_s8(isa, &dense).map(Arc::new);
    let lines = builder.packs.get_or_pack(id, "s8-lines", pack);
    match lines.as_ref().as_ref().filter(|lines| lines.pays_s8(isa, row_count)) {
        Some(lines) => Weights::Sparse(lines.clone(), rows),
        None => Weights::Dense(dense, rows),
    }
}

/// Integer convolution with constant weights.
pub(crate) fn conv(builder: &mut Builder<'_>, node: &Node, op: &IntegerConv) -> Choice {
    let (Some(x), Some(w), Some(y)) = (operand(node, 0), operand(node, 1), node.outputs[0]) else {
        return Ok(None);
    };
    let Some(weights) = builder.graph.constant(w).cloned() else { return Ok(None) };
    let (xs, ys) = (builder.shape(x), builder.shape(y));
    if xs.len() != 4 || xs.contains(&0) || ys.contains(&0) {
        return Ok(None);
    }
    let Some(geometry) = image_window(&op.conv(), weights.shape(), &xs) else { return Ok(None) };
    let Ok(epilogue) = op.epilogue() else { return Ok(None) };
    if let Some(chosen) = average(builder, node, op, &epilogue, &geometry) {
        return Ok(Some(chosen));
    }
    let Ok(values) = weights.as_slice::<i8>() else { return Ok(None) };
    let (taps, columns) = (geometry.taps(), weights.shape()[0]);
    let depth = weights.len() / (columns * taps).max(1);
    let depthwise = depth == 1 && op.group == columns && xs[3] == columns && op.group > 1;
    let packed = if depthwise {
        let order = depthwise_order(columns, taps, false);
        let order = DepthwiseTapsS8::order(&order, geometry.kernel);
        let pack = || DepthwiseTapsS8::pack(values, &order);
        let taps = builder.packs.get_or_load(w, "depthwise-s8", &order, pack);
        match DepthwiseS8::new(taps, &geometry, xs[3]) {
            Ok(made) => Weights::Depthwise(made),
            Err(GeometryError::KernelTooLarge { .. }) => return Ok(None),
            Err(error) => return Err(refused(builder, node, error)),
        }
    } else if let Some(lines) = Lines::of(&geometry, xs[3], MOST_U8).filter(|_| op.group == 1) {
        let order = lines.order(columns);
        let pack = || TapsS8::pack(values, &order);
        Weights::Stem(builder.packs.get_or_load(w, "stem-s8", &order, pack), lines)
    } else if op.group == 1 {
        let order = WeightOrder::ohwi(columns, taps, depth);
        let rows = Indirection::window(&geometry, xs[3]).map_err(|e| refused(builder, node, e))?;
        let pack = || PackedS8::pack(values, &order);
        let dense = builder.packs.get_or_load(w, "s8", &order, pack);
        dense_or_lines(builder, w, dense, rows, ys[0] * ys[1] * ys[2])
    } else {
        let each = columns / op.group.max(1);
        let order = WeightOrder::ohwi(each, taps, depth);
        let rows = Indirection::window(&geometry, xs[3]).map_err(|e| refused(builder, node, e))?;
        let pack = || {
            let groups = values.chunks_exact(each * taps * depth);
            groups.map(|part| PackedS8::pack(part, &order)).collect()
        };
        Weights::Grouped(
            builder.packs.get_or_load(w, "s8-groups", &(op.group, order), pack),
            rows,
            depth,
        )
    };
    let sizes = (ys[0] * ys[1] * ys[2], columns, weights.len());
    let kernel = match packed {
        Weights::Depthwise(_) => "depthwise-u8s8",
        Weights::Sparse(..) => "conv-sparse-u8s8",
        Weights::Stem(..) => "stem-u8s8",
        _ => "conv-u8s8",
    };
    let padded = if depthwise { padded_pixels(&geometry) } else { 1 };
    product(builder, node, kernel, packed, epilogue, op.x_zero as u8, sizes, padded)
}

/// Integer linear layer with constant weights.
pub(crate) fn linear(builder: &mut Builder<'_>, node: &Node, op: &IntegerLinear) -> Choice {
    let (Some(w), Some(y)) = (operand(node, 1), node.outputs[0]) else { return Ok(None) };
    let Some(weights) = builder.graph.constant(w).cloned() else { return Ok(None) };
    let Ok(values) = weights.as_slice::<i8>() else { return Ok(None) };
    let (depth, columns) = (weights.shape()[0], weights.shape()[1]);
    if builder.count(y) == 0 || depth == 0 {
        return Ok(None);
    }
    let order = WeightOrder::matrix(depth, columns);
    let packed = builder.packs.get_or_load(w, "s8", &order, || PackedS8::pack(values, &order));
    let Ok(epilogue) = op.epilogue() else { return Ok(None) };
    let sizes = (builder.count(y) / columns, columns, weights.len());
    let rows = Indirection::strided(depth);
    let through = epilogue.output == DType::U8
        && activation(&epilogue.activation).is_some_and(|f| f.function().is_some());
    let weights = match through {
        true => Weights::Dense(packed, rows),
        false => dense_or_lines(builder, w, packed, rows, builder.count(y) / columns),
    };
    let kernel = match weights {
        Weights::Sparse(..) => "linear-sparse-u8s8",
        _ => "linear-u8s8",
    };
    product(builder, node, kernel, weights, epilogue, 0, sizes, 1)
}

fn product(
    builder: &mut Builder<'_>,
    node: &Node,
    kernel: &'static str,
    weights: Weights,
    epilogue: IntegerEpilogue,
    x_zero: u8,
    (row_count, columns, weight_count): (usize, usize, usize),
    padded: usize,
) -> Choice {
    let next = match &weights {
        Weights::Dense(weights, _) => builder.follow(Next::Integer(weights.clone()), row_count),
        Weights::Stem(weights, _) => builder.follow(Next::StemInteger(weights.clone()), row_count),
        _ => Following::default(),
    };
    let x_count = operand(node, 0).map_or(0, |x| builder.count(x));
    let (Some(x), Some(bias), Some(multiplier), Some(y)) =
        (operand(node, 0), operand(node, 2), operand(node, 3), node.outputs[0])
    else {
        return Ok(None);
    };
    let Some(activation) = activation(&epilogue.activation) else { return Ok(None) };
    let depth = builder.shape(x).last().copied().unwrap_or(1);
    let factors = builder.graph.constant(multiplier).and_then(|factors| factors.as_slice().ok());
    let residual_scale = epilogue.residual_scale;
    let is_depthwise = matches!(weights, Weights::Depthwise(_));
    let product = Product {
        bounded: factors.is_some_and(|factors| RequantizeU8::is_bounded(factors, residual_scale)),
        next,
        weights,
        activation,
        x: builder.place(x),
        bias: builder.place(bias),
        multiplier: builder.place(multiplier),
        residual: operand(node, 4).map(|id| builder.place(id)),
        table: operand(node, 5).map(|id| builder.place(id)),
        y: builder.place(y),
        padding: builder.zero_points(x_zero, depth * padded + 64),
        x_count,
        row_count,
        columns,
        // Bytes are multiplied four times as fast, but for one channel at a time.
        work: row_count * weight_count / if is_depthwise { 1 } else { 4 },
        epilogue,
    };
    let run = Box::new(move |memory: &Memory<'_>| {
        product.run(memory);
        Ok(())
    });
    Ok(Some(Chosen::divided(kernel, run)))
}

/// Scale and zero point of a whole tensor, if they are constant.
pub(crate) fn parameters(graph: &Graph, node: &Node) -> Option<(f32, i64)> {
    let scale = graph.constant(operand(node, 1)?)?;
    let zero = match operand(node, 2) {
        None => 0,
        Some(id) => graph.constant(id)?.to_i64_vec().first().copied()?,
    };
    (scale.len() == 1).then_some(())?;
    Some((scale.as_slice::<f32>().ok()?[0], zero))
}

macro_rules! bytes_step {
    ($kernel:ident, $integer:ty, $from:ty, $to:ty, $x:ident, $y:ident, $count:ident, $p:ident) => {
        Box::new(move |memory: &Memory<'_>| {
            over_rows(memory, $count, $count * ELEMENT_WORK, |range| {
                // SAFETY: the plan holds `count` elements at both places, which are apart; ranges
                // are disjoint.
                let (input, output) = unsafe {
                    (
                        &memory.slice::<$from>($x, $count)[range.clone()],
                        memory.slice_mut::<$to>($y, range.start, range.len()),
                    )
                };
                $kernel(memory.isa, $p.0, $p.1 as $integer, input, output);
            });
            Ok(())
        })
    };
}

/// f32 to u8 or i8 with one scale.
pub(crate) fn quantize_linear(
    builder: &mut Builder<'_>,
    node: &Node,
    _op: &QuantizeLinear,
) -> Choice {
    let (Some(x), Some(y)) = (operand(node, 0), node.outputs[0]) else { return Ok(None) };
    let Some(p) = parameters(builder.graph, node).filter(|_| is_f32(builder, node, 0)) else {
        return Ok(None);
    };
    let (from, to, count) = (builder.place(x), builder.place(y), builder.count(x));
    let run: crate::plan::Run = match builder.graph.fact(y).dtype {
        DType::U8 => bytes_step!(quantize, u8, f32, u8, from, to, count, p),
        DType::I8 => bytes_step!(quantize, i8, f32, i8, from, to, count, p),
        _ => return Ok(None),
    };
    Ok(Some(Chosen::divided("quantize", run)))
}

/// u8 or i8 to f32 with one scale.
pub(crate) fn dequantize_linear(
    builder: &mut Builder<'_>,
    node: &Node,
    _op: &DequantizeLinear,
) -> Choice {
    let (Some(x), Some(y)) = (operand(node, 0), node.outputs[0]) else { return Ok(None) };
    let Some(p) = parameters(builder.graph, node) else { return Ok(None) };
    let (from, to, count) = (builder.place(x), builder.place(y), builder.count(x));
    let run: crate::plan::Run = match builder.graph.fact(x).dtype {
        DType::U8 => bytes_step!(dequantize, u8, u8, f32, from, to, count, p),
        DType::I8 => bytes_step!(dequantize, i8, i8, f32, from, to, count, p),
        _ => return Ok(None),
    };
    Ok(Some(Chosen::divided("dequantize", run)))
}

/// A sum or product of bytes.
pub(crate) fn pair(builder: &mut Builder<'_>, node: &Node, op: &IntegerBinary) -> Choice {
    let (Some(a), Some(b), Some(y)) = (operand(node, 0), operand(node, 1), node.outputs[0]) else {
        return Ok(None);
    };
    let own = |id, scale, zero: i64| (id, scale, zero as i32);
    let mut operands = [own(a, op.a_scale, op.a_zero), own(b, op.b_scale, op.b_zero)];
    // The kernel knows gates as second operands.
    if builder.count(a) < builder.count(b) {
        operands.reverse();
    }
    let [(a, scale_a, zero_a), (b, scale_b, zero_b)] = operands;
    let (shape, sa, sb) = (builder.shape(y), builder.shape(a), builder.shape(b));
    let Some(walk) = Broadcast::dense(&shape, [&sa, &sb]) else { return Ok(None) };
    let byte = |value: i64| u8::try_from(value).ok();
    let (Some(zero), Some(low), Some(high)) = (byte(op.zero), byte(op.low), byte(op.high)) else {
        return Ok(None);
    };
    let rounding = Rounding::clamped(zero, low, high);
    let how = QuantizedPair { scale_a, scale_b, zero_a, zero_b, rounding };
    let places = [a, b, y].map(|id| builder.place(id));
    let counts = [a, b, y].map(|id| builder.count(id));
    let product = op.function == BinaryFunction::Mul;
    let columns = shape.last().copied().unwrap_or(1).max(1);
    let run = Box::new(move |memory: &Memory<'_>| {
        over_rows(memory, counts[2] / columns, counts[2] * ELEMENT_WORK, |rows| {
            let range = rows.start * columns..rows.end * columns;
            // SAFETY: the plan holds these counts of bytes at the places; ranges of the output
            // are disjoint and the output is apart from both operands.
            let (a, b, output) = unsafe {
                (
                    memory.slice::<u8>(places[0], counts[0]),
                    memory.slice::<u8>(places[1], counts[1]),
                    memory.slice_mut::<u8>(places[2], range.start, range.len()),
                )
            };
            if product {
                multiply_quantized(memory.isa, how, &walk, range, a, b, output);
            } else {
                add_quantized(memory.isa, how, &walk, range, a, b, output);
            }
        });
        Ok(())
    });
    Ok(Some(Chosen::divided(if product { "multiply-u8" } else { "add-u8" }, run)))
}

/// A table of 256 bytes.
pub(crate) fn lookup(builder: &mut Builder<'_>, node: &Node) -> Choice {
    let (Some(x), Some(table), Some(y)) = (operand(node, 0), operand(node, 1), node.outputs[0])
    else {
        return Ok(None);
    };
    let (from, entries, to) = (builder.place(x), builder.place(table), builder.place(y));
    let count = builder.count(x);
    let run = Box::new(move |memory: &Memory<'_>| {
        over_rows(memory, count, count * ELEMENT_WORK, |range| {
            // SAFETY: the plan holds 256 entries and `count` bytes at places that are apart; ranges are
            // disjoint.
            unsafe {
                let table = &*memory.read::<[u8; 256]>(entries);
                let output = memory.slice_mut(to, range.start, range.len());
                map_u8_table(memory.isa, table, &memory.slice(from, count)[range], output);
            }
        });
        Ok(())
    });
    Ok(Some(Chosen::divided("table", run)))
}
