//! How attributes and operands of operator sets 7 and newer become Lepton's operators.

use lepton_ir::Attribute;
use lepton_ir::ops::binary::{Binary, BinaryFunction};
use lepton_ir::ops::concat::Concat;
use lepton_ir::ops::conv::Conv;
use lepton_ir::ops::matmul::{Gemm, MatMul};
use lepton_ir::ops::pool::{Pool, PoolFunction};
use lepton_ir::ops::quantize::{DequantizeLinear, QuantizeLinear};
use lepton_ir::ops::reduce::{Reduce, ReduceFunction};
use lepton_ir::ops::reshape::{Flatten, Reshape, Squeeze, Unsqueeze};
use lepton_ir::ops::shape_of::Shape;
use lepton_ir::ops::softmax::Softmax;
use lepton_ir::ops::split::Split;
use lepton_ir::ops::transpose::Transpose;
use lepton_ir::ops::unary::{Unary, UnaryFunction};
use lepton_ir::ops::window::AutoPad;
use lepton_tensor::{DType, Tensor};

use super::call::{Call, Results};
use super::ops::Parameter;
use super::tensor::dtype_of;
use crate::error::FormatError;

fn counts(call: &Call<'_>, name: &str) -> Result<Vec<usize>, FormatError> {
    let convert =
        |v: i64| usize::try_from(v).map_err(|_| call.error(format!("attribute `{name}` has {v}")));
    call.ints(name).into_iter().map(convert).collect()
}

fn auto_pad(call: &Call<'_>) -> Result<AutoPad, FormatError> {
    match call.text("auto_pad", "NOTSET").as_str() {
        "NOTSET" | "" => Ok(AutoPad::Explicit),
        "SAME_UPPER" => Ok(AutoPad::SameUpper),
        "SAME_LOWER" => Ok(AutoPad::SameLower),
        "VALID" => Ok(AutoPad::Valid),
        other => Err(call.error(format!("unknown auto_pad `{other}`"))),
    }
}

fn only_first(call: &Call<'_>) -> Result<(), FormatError> {
    if call.result_count() <= 1 {
        return Ok(());
    }
    Err(call.error("only its first result is supported; export without the others"))
}

/// A function of one element.
pub fn unary(
    call: &mut Call<'_>,
    function: UnaryFunction,
    alpha: Parameter,
    beta: Parameter,
) -> Results {
    only_first(call)?;
    let value = |p: Parameter| p.map_or(0.0, |(name, default)| call.float(name, default));
    let op = Unary::with(function, value(alpha), value(beta));
    let x = call.input(0);
    call.emit(op, &[x])
}

/// `Gelu` in both forms.
pub fn gelu(call: &mut Call<'_>) -> Results {
    let tanh = call.text("approximate", "none") == "tanh";
    let function = if tanh { UnaryFunction::GeluTanh } else { UnaryFunction::Gelu };
    unary(call, function, None, None)
}

/// A function of two elements, or of many from left to right.
pub fn binary(call: &mut Call<'_>, function: BinaryFunction) -> Results {
    let mut sum = call.input(0);
    if call.inputs.len() == 1 {
        return call.emit(Unary::default(), &[sum]);
    }
    for index in 1..call.inputs.len() {
        let next = call.input(index);
        sum = Some(call.emit_one(Binary { function }, &[sum, next])?);
    }
    sum.map(|id| vec![id]).ok_or_else(|| call.error("it has no inputs"))
}

/// Both remainders.
pub fn modulo(call: &mut Call<'_>) -> Results {
    let c_like = call.int("fmod", 0) != 0;
    binary(call, if c_like { BinaryFunction::Fmod } else { BinaryFunction::Mod })
}

/// Bounds as attributes (before 11) or operands; constants become one function.
pub fn clip(call: &mut Call<'_>) -> Results {
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
    let mut made = call.emit_one(Unary::default(), &[Some(x)])?;
    for (index, function) in [(1, BinaryFunction::Max), (2, BinaryFunction::Min)] {
        if let Some(bound) = call.input(index) {
            made = call.emit_one(Binary { function }, &[Some(made), Some(bound)])?;
        }
    }
    Ok(vec![made])
}

/// Axes as an attribute (before 18, sums before 13) or an operand.
pub fn reduce(call: &mut Call<'_>, function: ReduceFunction) -> Results {
    let keep_dims = call.int("keepdims", 1) != 0;
    let noop_if_empty = call.int("noop_with_empty_axes", 0) != 0;
    let inputs = [call.input(0), call.list("axes", 1)];
    let used = if inputs[1].is_some() { 2 } else { 1 };
    call.emit(Reduce { function, keep_dims, noop_if_empty }, &inputs[..used])
}

/// Every pooling operator; `kind` has the function and whether it is global.
pub fn pool(call: &mut Call<'_>, kind: Pool) -> Results {
    only_first(call)?;
    let mut op = Pool { p: call.int("p", 2), ..kind };
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
    call.emit(op, &[x])
}

/// Convolution.
pub fn conv(call: &mut Call<'_>) -> Results {
    let group = usize::try_from(call.int("group", 1)).unwrap_or(0);
    let op = Conv {
        strides: counts(call, "strides")?,
        pads: counts(call, "pads")?,
        dilations: counts(call, "dilations")?,
        group,
        auto_pad: auto_pad(call)?,
        ..Conv::default()
    };
    let inputs = call.inputs.clone();
    if inputs.len() > 3 {
        return Err(call.error("takes at most 3 inputs"));
    }
    call.emit(op, &inputs)
}

/// Matrix product.
pub fn matmul(call: &mut Call<'_>) -> Results {
    let inputs = call.inputs.clone();
    call.emit(MatMul {}, &inputs)
}

/// Scaled matrix product and sum.
pub fn gemm(call: &mut Call<'_>) -> Results {
    let op = Gemm {
        alpha: call.float("alpha", 1.0),
        beta: call.float("beta", 1.0),
        trans_a: call.int("transA", 0) != 0,
        trans_b: call.int("transB", 0) != 0,
    };
    let inputs = call.inputs.clone();
    call.emit(op, &inputs)
}

/// Reshape.
pub fn reshape(call: &mut Call<'_>) -> Results {
    let allow_zero = call.int("allowzero", 0) != 0;
    let inputs = call.inputs.clone();
    call.emit(Reshape { allow_zero }, &inputs)
}

/// Flatten.
pub fn flatten(call: &mut Call<'_>) -> Results {
    let axis = call.int("axis", 1);
    let x = call.input(0);
    call.emit(Flatten { axis }, &[x])
}

/// Axes as an attribute (before 13) or an operand.
pub fn squeeze(call: &mut Call<'_>) -> Results {
    let inputs = [call.input(0), call.list("axes", 1)];
    let used = if inputs[1].is_some() { 2 } else { 1 };
    call.emit(Squeeze {}, &inputs[..used])
}

/// Axes as an attribute (before 13) or an operand.
pub fn unsqueeze(call: &mut Call<'_>) -> Results {
    let inputs = [call.input(0), call.list("axes", 1)];
    call.emit(Unsqueeze {}, &inputs)
}

/// Lengths as an attribute (before 13), an operand, or equal ones.
pub fn split(call: &mut Call<'_>) -> Results {
    let axis = call.int("axis", 0);
    let inputs = [call.input(0), call.list("split", 1)];
    if inputs[1].is_some() {
        return call.emit(Split { axis, parts: 0 }, &inputs);
    }
    let parts = call.int("num_outputs", call.proto.output.len() as i64);
    let parts = usize::try_from(parts).map_err(|_| call.error("negative num_outputs"))?;
    call.emit(Split { axis, parts }, &inputs[..1])
}

/// Transpose.
pub fn transpose(call: &mut Call<'_>) -> Results {
    let permutation = counts(call, "perm")?;
    let x = call.input(0);
    call.emit(Transpose { permutation }, &[x])
}

/// Concatenation.
pub fn concat(call: &mut Call<'_>) -> Results {
    let axis = call.int("axis", 1);
    let inputs = call.inputs.clone();
    call.emit(Concat { axis }, &inputs)
}

/// Along an axis since 13; before, over everything from the axis on.
pub fn softmax(call: &mut Call<'_>) -> Results {
    let log = call.proto.op_type.as_deref() == Some("LogSoftmax");
    let x = call.input(0);
    if call.version >= 13 {
        let axis = call.int("axis", -1);
        return call.emit(Softmax { axis, log }, &[x]);
    }
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

/// Extents.
pub fn shape(call: &mut Call<'_>) -> Results {
    let op = Shape { start: call.int("start", 0), end: call.int("end", i64::MAX) };
    let x = call.input(0);
    call.emit(op, &[x])
}

/// To integers.
pub fn quantize(call: &mut Call<'_>) -> Results {
    if call.int("block_size", 0) != 0 {
        return Err(call.error("quantisation by blocks is not supported"));
    }
    let dtype = match call.int("output_dtype", 0) {
        0 => DType::U8,
        number => dtype_of(number as i32).map_err(|why| call.error(why))?,
    };
    let op = QuantizeLinear { axis: call.int("axis", 1), dtype };
    let inputs = call.inputs.clone();
    call.emit(op, &inputs)
}

/// From integers.
pub fn dequantize(call: &mut Call<'_>) -> Results {
    if call.int("block_size", 0) != 0 {
        return Err(call.error("quantisation by blocks is not supported"));
    }
    let op = DequantizeLinear { axis: call.int("axis", 1) };
    let inputs = call.inputs.clone();
    call.emit(op, &inputs)
}

/// Operators that have the same name and no attributes in both.
pub fn plain(call: &mut Call<'_>) -> Results {
    let op = call.op(&call.proto.op_type.clone().unwrap_or_default(), &[])?;
    let inputs = call.inputs.clone();
    call.emit(op, &inputs)
}

/// `Gather` and `GatherElements`.
pub fn gather(call: &mut Call<'_>) -> Results {
    let name = call.proto.op_type.clone().unwrap_or_default();
    let op = call.op(&name, &[("axis", Attribute::Int(call.int("axis", 0)))])?;
    let inputs = call.inputs.clone();
    call.emit(op, &inputs)
}

/// Bounds as attributes (before 10) or operands.
pub fn slice(call: &mut Call<'_>) -> Results {
    let op = call.op("Slice", &[])?;
    if call.version >= 10 {
        let inputs = call.inputs.clone();
        return call.emit(op, &inputs);
    }
    let inputs =
        [call.input(0), call.list("starts", 1), call.list("ends", 2), call.list("axes", 3)];
    let used = if inputs[3].is_some() { 4 } else { 3 };
    call.emit(op, &inputs[..used])
}

/// Amounts as an attribute (before 11) or an operand.
pub fn pad(call: &mut Call<'_>) -> Results {
    let mode = call.text("mode", "constant");
    let op = call.op("Pad", &[("mode", Attribute::Text(mode))])?;
    if call.version >= 11 {
        let inputs = call.inputs.clone();
        return call.emit(op, &inputs);
    }
    let value = call.float("value", 0.0) as f64;
    let dtype = call.fact(0)?.dtype;
    let value = Tensor::from_f64_slice(dtype, Vec::new(), &[value])
        .map_err(|error| call.error(error.to_string()))?;
    let value = call.constant(value);
    let inputs = [call.input(0), call.list("pads", 1), Some(value)];
    call.emit(op, &inputs)
}

/// Normalisations with recorded or instance statistics.
pub fn normalise(call: &mut Call<'_>) -> Results {
    only_first(call)?;
    if call.int("training_mode", 0) != 0 {
        return Err(call.error("training mode is not supported; export for inference"));
    }
    let name = call.proto.op_type.clone().unwrap_or_default();
    let op = call.op(&name, &[("epsilon", Attribute::Float(call.float("epsilon", 1e-5)))])?;
    let inputs = call.inputs.clone();
    call.emit(op, &inputs)
}
