//! How attributes and operands of operator sets 6 and newer become Lepton's operators.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::{Binary, BinaryFunction};
use lepton_ir::ops::cast::Cast;
use lepton_ir::ops::pool::{Pool, PoolFunction};
use lepton_ir::ops::pool_positions::PoolPositions;
use lepton_ir::ops::quantize::integer_range;
use lepton_ir::ops::reduce::{Reduce, ReduceFunction};
use lepton_ir::ops::reshape::{Flatten, Reshape};
use lepton_ir::ops::select::Clip;
use lepton_ir::ops::shape_of::Shape;
use lepton_ir::ops::softmax::Softmax;
use lepton_ir::ops::split::Split;
use lepton_ir::ops::unary::{Unary, UnaryFunction};
use lepton_ir::ops::window::AutoPad;
use lepton_tensor::{DType, Tensor};

use super::call::Call;
use super::families::Parameter;
use super::link::AUTO_PAD;
use super::ops::Row;
use super::tensor;
use crate::error::FormatError;
use crate::steps::{Results, Steps};

fn counts(call: &Call<'_>, name: &str) -> Result<Vec<usize>, FormatError> {
    let convert =
        |v: i64| usize::try_from(v).map_err(|_| call.error(format!("attribute `{name}` has {v}")));
    call.ints(name).into_iter().map(convert).collect()
}

fn auto_pad(call: &Call<'_>) -> Result<AutoPad, FormatError> {
    let given = call.text("auto_pad", "NOTSET");
    let found = AUTO_PAD.iter().find(|(word, _)| *word == given || given.is_empty());
    let padding = found.and_then(|(_, word)| AutoPad::from_word(word));
    padding.ok_or_else(|| call.error(format!("unknown auto_pad `{given}`")))
}

/// An operator that is the same in both.
pub fn direct(call: &mut Call<'_>, row: &Row) -> Results {
    let op = call.built(row)?;
    let inputs = call.inputs.clone();
    call.emit(op, &inputs)
}

/// Convolution; a fourth operand would be Lepton's residual.
pub fn conv(call: &mut Call<'_>, row: &Row) -> Results {
    if call.inputs.len() > 3 {
        return Err(call.error("takes at most 3 inputs"));
    }
    direct(call, row)
}

/// A function of one element.
pub fn unary(
    call: &mut Call<'_>,
    function: UnaryFunction,
    alpha: Parameter,
    beta: Parameter,
) -> Results {
    let known = [alpha, beta].map(|p| p.map_or("", |(name, _)| name));
    call.check_attributes(&[], &known)?;
    let value = |p: Parameter| p.map_or(0.0, |(name, default)| call.float(name, default));
    let op = Unary::with(function, value(alpha), value(beta));
    let x = call.input(0);
    call.emit(op, &[x])
}

/// A function of two elements, or of many from left to right.
pub fn binary(call: &mut Call<'_>, function: BinaryFunction) -> Results {
    let older: &[&str] = if call.version < 7 { &["fmod", "axis", "broadcast"] } else { &["fmod"] };
    call.check_attributes(&[], older)?;
    let mut sum = call.input(0);
    if call.inputs.len() == 1 {
        return call.emit(Unary::default(), &[sum]);
    }
    if call.version < 7 {
        align(call, function)?;
    }
    for index in 1..call.inputs.len() {
        let next = call.input(index);
        sum = Some(call.emit_one(Binary { function }, &[sum, next])?);
    }
    sum.map(|id| vec![id]).ok_or_else(|| call.error("it has no inputs"))
}

/// Before version 7 the axes of the second operand were those of the first from `axis` on.
fn align(call: &mut Call<'_>, function: BinaryFunction) -> Result<(), FormatError> {
    let (rank, own) = (call.fact(0)?.rank(), call.fact(1)?.rank());
    let axis = if function == BinaryFunction::Prelu && own == 1 { 1 } else { -1 };
    let axis = call.int("axis", axis);
    if axis < 0 || own == 0 || call.fact(1)?.count().is(1) {
        return Ok(());
    }
    let after = usize::try_from(axis).ok().and_then(|axis| rank.checked_sub(axis + own));
    let after = after.ok_or_else(|| call.error(format!("there is no axis {axis}")))?;
    let axes: Vec<i64> = (own as i64..(own + after) as i64).collect();
    if !axes.is_empty() {
        let second = call.required(1)?;
        call.inputs[1] = Some(call.unsqueeze(second, &axes)?);
    }
    Ok(())
}

/// Bounds as attributes (before 11) or operands; constants become one function.
pub fn clip(call: &mut Call<'_>, row: &Row) -> Results {
    let x = call.required(0)?;
    if call.version < 11 {
        let bounds = (call.float("min", f32::MIN), call.float("max", f32::MAX));
        return call.emit(Unary::with(UnaryFunction::Clip, bounds.0, bounds.1), &[Some(x)]);
    }
    let dtype = call.graph.fact(x).dtype;
    let known = |index: usize, default: f32| match call.input(index) {
        None => Some(default),
        Some(id) => call.graph.constant(id)?.to_f64_vec().first().map(|&v| v as f32),
    };
    let bounds = known(1, f32::NEG_INFINITY).zip(known(2, f32::INFINITY));
    if let Some((low, high)) = bounds.filter(|_| dtype == DType::F32) {
        return call.emit(Unary::with(UnaryFunction::Clip, low, high), &[Some(x)]);
    }
    direct(call, row)
}

/// Axes as an attribute (before 18, sums before 13) or an operand.
pub fn reduce(call: &mut Call<'_>, function: ReduceFunction) -> Results {
    call.check_attributes(&[], &["keepdims", "noop_with_empty_axes", "axes"])?;
    let keep_dims = call.int("keepdims", 1) != 0;
    let noop_if_empty = call.int("noop_with_empty_axes", 0) != 0;
    let inputs = [call.input(0), call.list("axes", 1)];
    let used = if inputs[1].is_some() { 2 } else { 1 };
    call.emit(Reduce { function, keep_dims, noop_if_empty }, &inputs[..used])
}

/// Every pooling operator.
pub fn pool(call: &mut Call<'_>, function: PoolFunction, global: bool) -> Results {
    const KNOWN: &[&str] = &[
        "p",
        "kernel_shape",
        "strides",
        "pads",
        "dilations",
        "auto_pad",
        "ceil_mode",
        "count_include_pad",
        "storage_order",
        "channels_last",
    ];
    call.check_attributes(&[], KNOWN)?;
    let mut op = Pool { function, global, p: call.int("p", 2), ..Pool::default() };
    if !op.global {
        op.kernel = counts(call, "kernel_shape")?;
        op.strides = counts(call, "strides")?;
        op.pads = counts(call, "pads")?;
        op.dilations = counts(call, "dilations")?;
        op.auto_pad = auto_pad(call)?;
        op.ceil = call.int("ceil_mode", 0) != 0;
        op.count_padding =
            op.function == PoolFunction::Average && call.int("count_include_pad", 0) != 0;
    }
    let x = call.input(0);
    if function != PoolFunction::Max || call.result_count() < 2 {
        return call.emit(op, &[x]);
    }
    let positions = PoolPositions {
        kernel: op.kernel.clone(),
        strides: op.strides.clone(),
        pads: op.pads.clone(),
        dilations: op.dilations.clone(),
        auto_pad: op.auto_pad,
        ceil: op.ceil,
        first_axis_fastest: call.int("storage_order", 0) != 0,
    };
    call.emit(positions, &[x])
}

/// Axes as an attribute (before 13) or an operand.
pub fn axes(call: &mut Call<'_>, row: &Row) -> Results {
    let op = call.built(row)?;
    let inputs = [call.input(0), call.list("axes", 1)];
    let used = if inputs[1].is_some() { 2 } else { 1 };
    call.emit(op, &inputs[..used])
}

/// Lengths as an attribute (before 13), an operand, or equal ones.
pub fn split(call: &mut Call<'_>, _: &Row) -> Results {
    let axis = call.int("axis", 0);
    let inputs = [call.input(0), call.list("split", 1)];
    if inputs[1].is_some() {
        return call.emit(Split { axis, parts: 0 }, &inputs);
    }
    let parts = call.int("num_outputs", call.proto.output.len() as i64);
    let parts = usize::try_from(parts).map_err(|_| call.error("negative num_outputs"))?;
    let extent = call.fact(0)?.dims.get(call.axis("axis", 0)?).and_then(|d| d.as_usize());
    let too_few =
        |extent: &usize| extent.div_ceil(parts.max(1)).saturating_mul(parts - 1) > *extent;
    if let Some(extent) = extent.filter(|extent| parts > 0 && too_few(extent)) {
        // More than the last part is shorter. There are as many results as parts.
        let length = extent.div_ceil(parts);
        let parts = parts.min(call.proto.output.len());
        let part = |i: usize| length.min(extent.saturating_sub(i * length)) as i64;
        let lengths: Vec<i64> = (0..parts).map(part).collect();
        let lengths = call.integers(&lengths);
        return call.emit(Split { axis, parts: 0 }, &[inputs[0], Some(lengths)]);
    }
    call.emit(Split { axis, parts }, &inputs[..1])
}

/// Along an axis since 13; before, over everything from the axis on.
pub fn softmax(call: &mut Call<'_>, row: &Row) -> Results {
    let x = call.input(0);
    if call.version >= 13 {
        return direct(call, row);
    }
    let log = row.name == "LogSoftmax";
    let axis = call.int("axis", 1);
    let rank = call.fact(0)?.rank() as i64;
    if axis == rank - 1 || axis == -1 {
        return call.emit(Softmax { axis: -1, log }, &[x]);
    }
    let flat = call.emit_one(Flatten { axis }, &[x])?;
    let soft = call.emit_one(Softmax { axis: -1, log }, &[Some(flat)])?;
    let shape = call.emit_one(Shape::default(), &[x])?;
    call.emit(Reshape { allow_zero: true }, &[Some(soft), Some(shape)])
}

/// To integers and back.
pub fn quantize(call: &mut Call<'_>, row: &Row) -> Results {
    check_blocks(call)?;
    let scale = call.fact(1)?.dtype;
    let precision = given_type(call.int("precision", 0));
    if precision.is_some_and(|dtype| dtype != scale && dtype != DType::F32) {
        return Err(call.error("another precision than that of the scale is not supported"));
    }
    if row.name == "DequantizeLinear" {
        let op = call.built(row)?;
        let inputs = call.inputs.clone();
        let made = call.emit(op, &inputs)?;
        return match given_type(call.int("output_dtype", 0)) {
            Some(to) if to != scale => call.emit(Cast { to }, &[Some(made[0])]),
            _ => Ok(made),
        };
    }
    let zero = call.input(2).map(|id| call.graph.fact(id).dtype);
    if call.int("saturate", 1) == 0
        && let Some(to) = zero.filter(|dtype| dtype.is_float())
    {
        let (x, scale) = (call.required(0)?, call.required(1)?);
        let ratio = call.pair(BinaryFunction::Div, x, scale)?;
        return call.emit(Cast { to }, &[Some(ratio)]);
    }
    direct(call, row)
}

/// An error unless the blocks are those that follow from the shapes of x and its scales.
fn check_blocks(call: &Call<'_>) -> Result<(), FormatError> {
    let block = call.int("block_size", 0);
    if block == 0 {
        return Ok(());
    }
    let axis = call.axis("axis", 1)?;
    let extents = [0, 1].map(|i| call.fact(i).ok().and_then(|f| f.dims.get(axis)?.as_known()));
    match extents {
        [Some(x), Some(scales)] if scales > 0 && (x - 1) / scales + 1 == block => Ok(()),
        _ => Err(call.error(format!("blocks of {block} do not go with the shapes of x and scale"))),
    }
}

/// Change of element type. Into floats of 8 bits ONNX saturates unless told not to.
pub fn cast(call: &mut Call<'_>, row: &Row) -> Results {
    let to = given_type(call.int("to", 0));
    let Some(to) = to else { return direct(call, row) };
    if to == DType::F8E8M0 && call.text("round_mode", "up") != "up" {
        return Err(call.error("powers of two are only rounded upwards"));
    }
    let x = call.required(0)?;
    converted(call, x, to)
}

/// `x` as `to`, saturated where the node does not forbid it.
pub fn converted(call: &mut Call<'_>, x: ValueId, to: DType) -> Results {
    let from = call.graph.fact(x).dtype;
    let mut x = x;
    let wide = from.is_float() && !from.is_coded();
    if wide && to.is_float() && to.bits() == 8 && call.int("saturate", 1) != 0 {
        let (low, high) = if to == DType::F8E8M0 {
            (2f64.powi(-127), if from == DType::F16 { 65504.0 } else { 2f64.powi(127) })
        } else {
            integer_range(to).map_err(|problem| call.error(problem.to_string()))?
        };
        let (low, high) = (call.scalar(from, low)?, call.scalar(from, high)?);
        x = call.emit_one(Clip {}, &[Some(x), Some(low), Some(high)])?;
    }
    call.emit(Cast { to }, &[Some(x)])
}

/// The element type of ONNX's number; `None` for 0 and for types that Lepton does not have.
pub fn given_type(number: i64) -> Option<DType> {
    tensor::dtype_of(i32::try_from(number).ok()?).ok()
}

/// Bounds as attributes (before 10) or operands.
pub fn slice(call: &mut Call<'_>, row: &Row) -> Results {
    if call.version >= 10 {
        return direct(call, row);
    }
    let op = call.built(row)?;
    let inputs =
        [call.input(0), call.list("starts", 1), call.list("ends", 2), call.list("axes", 3)];
    let used = if inputs[3].is_some() { 4 } else { 3 };
    call.emit(op, &inputs[..used])
}

/// Amounts as an attribute (before 11) or an operand.
pub fn pad(call: &mut Call<'_>, row: &Row) -> Results {
    if call.version >= 11 {
        return direct(call, row);
    }
    let op = call.built(row)?;
    let value = call.float("value", 0.0) as f64;
    let dtype = call.fact(0)?.dtype;
    let value = Tensor::from_f64_slice(dtype, Vec::new(), &[value])
        .map_err(|error| call.error(error.to_string()))?;
    let value = call.constant(value);
    let inputs = [call.input(0), call.list("pads", 1), Some(value)];
    call.emit(op, &inputs)
}

/// Normalisation with stored statistics; in training with those of the batch, and the stored ones
/// moved towards them.
pub fn batch_norm(call: &mut Call<'_>, row: &Row) -> Results {
    if call.int("spatial", 1) != 1 {
        return Err(call.error("statistics per position are not supported"));
    }
    if call.int("training_mode", 0) == 0 {
        return direct(call, row);
    }
    let x = call.required(0)?;
    let mut axes: Vec<i64> = (0..call.fact(0)?.rank() as i64).collect();
    axes.retain(|&axis| axis != 1);
    let mean = call.reduced(ReduceFunction::Mean, x, &axes, true)?;
    let centred = call.pair(BinaryFunction::Sub, x, mean)?;
    let square = call.pair(BinaryFunction::Mul, centred, centred)?;
    let variance = call.reduced(ReduceFunction::Mean, square, &axes, true)?;
    let (mean, variance) = (call.reshape(mean, &[-1])?, call.reshape(variance, &[-1])?);
    let op = call.built(row)?;
    let inputs = [Some(x), call.input(1), call.input(2), Some(mean), Some(variance)];
    let mut results = call.emit(op, &inputs)?;
    let momentum = f64::from(call.float("momentum", 0.9));
    for (index, of_batch) in [(3, mean), (4, variance)] {
        let stored = call.required(index)?;
        let (old, new) = (call.scaled(stored, momentum)?, call.scaled(of_batch, 1.0 - momentum)?);
        results.push(call.pair(BinaryFunction::Add, old, new)?);
    }
    Ok(results)
}
