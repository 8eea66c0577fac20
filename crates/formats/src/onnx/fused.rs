//! Writing the rows, and the forms that only Lepton has: sums and activations inside products,
//! channels as the last axis.

use lepton_ir::Op;
use lepton_ir::ops::conv::Conv;
use lepton_ir::ops::matmul::Linear;
use lepton_ir::ops::normalize::BatchNormalization;
use lepton_ir::ops::pool::{Pool, PoolFunction};
use lepton_ir::ops::pool_positions::PoolPositions;
use lepton_ir::ops::rnn::{Direction, RNN, RecurrentActivation};
use lepton_ir::ops::unary::{Unary, UnaryFunction};
use lepton_tensor::{DType, Layout};

use super::emit::{Emit, Written};
use super::families::POOL;
use super::functions::{applied, ending};
use super::link::{int, ints, word, words};
use super::ops::Row;
use super::proto::AttributeProto;
use crate::error::FormatError;

/// An operator that is the same in both.
pub fn direct(emit: &mut Emit<'_>, row: &Row) -> Written {
    let op = emit.node.op.clone();
    let attributes = emit.attributes(row, &op)?;
    let inputs = emit.inputs.clone();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    emit.last(row.name, &inputs, attributes)
}

/// To integers: the zero point, where there is one, decides the type.
pub fn quantize(emit: &mut Emit<'_>, row: &Row) -> Written {
    let mut op = emit.node.op.clone();
    if let (Op::QuantizeLinear(op), true) = (&mut op, emit.has(2)) {
        op.dtype = DType::U8;
    }
    let mut attributes = emit.attributes(row, &op)?;
    let (x, scale) = (emit.fact(0)?.dims.clone(), emit.fact(1)?.dims.clone());
    if x.len() == scale.len() && x != scale {
        let axis = match &op {
            Op::QuantizeLinear(op) => op.axis,
            Op::DequantizeLinear(op) => op.axis,
            _ => 0,
        };
        let axis = if axis < 0 { axis + x.len() as i64 } else { axis } as usize;
        let extents = [&x, &scale].map(|dims| dims.get(axis).and_then(|d| d.as_known()));
        let [Some(extent), Some(blocks)] = extents else {
            return Err(emit.error("the length of its blocks is not known"));
        };
        attributes.push(int("block_size", (extent - 1).max(0) / blocks.max(1) + 1));
    }
    let inputs = emit.inputs.clone();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    emit.last(row.name, &inputs, attributes)
}

/// Operators that are younger than the operator set that is written.
pub fn newer(emit: &mut Emit<'_>, _: &Row) -> Written {
    Err(emit.error("ONNX has it only in an operator set newer than the one that is written"))
}

/// Shifts of unsigned integers; those of signed ones are newer.
pub fn shift(emit: &mut Emit<'_>, row: &Row) -> Written {
    if emit.fact(0)?.dtype.is_signed_integer() { newer(emit, row) } else { direct(emit, row) }
}

/// Pooling that says where the maxima lie.
pub fn pool_positions(emit: &mut Emit<'_>, op: &PoolPositions) -> Written {
    let mut attributes = pool_attributes(&op.pool());
    if op.first_axis_fastest {
        attributes.push(int("storage_order", 1));
    }
    let x = emit.inputs[0].clone();
    if emit.outputs[0].is_empty() {
        emit.outputs[0] = emit.writer.fresh();
    }
    emit.last("MaxPool", &[&x], attributes)
}

/// Recurrent layers; the number of hidden units must be said.
pub fn recurrent(emit: &mut Emit<'_>, row: &Row) -> Written {
    let hidden = emit.fact(2)?.dims.last().and_then(|d| d.as_known());
    let hidden = hidden.ok_or_else(|| emit.error("the number of hidden units is not known"))?;
    let op = emit.node.op.clone();
    let plain = match &op {
        Op::RNN(op) => Op::RNN(RNN { activation: RecurrentActivation::Tanh, ..op.clone() }),
        other => other.clone(),
    };
    let mut attributes = emit.attributes(row, &plain)?;
    attributes.push(int("hidden_size", hidden));
    if let Op::RNN(op) = &op {
        let directions = if op.direction == Direction::Bidirectional { 2 } else { 1 };
        attributes.push(words("activations", &vec![op.activation.word(); directions]));
    }
    let inputs = emit.inputs.clone();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    emit.last(row.name, &inputs, attributes)
}

/// From the last axis to the second (`to_front`), or back.
fn permutation(rank: usize, to_front: bool) -> Vec<AttributeProto> {
    let rank = rank as i64;
    let order = if to_front {
        [0, rank - 1].into_iter().chain(1..rank - 1).collect()
    } else {
        [0].into_iter().chain(2..rank).chain([1]).collect()
    };
    vec![ints("perm", order)]
}

/// A step that makes the results, unless `rest` says that more follow.
fn end_or_step(
    emit: &mut Emit<'_>,
    rest: bool,
    name: &str,
    inputs: &[&str],
    attributes: Vec<AttributeProto>,
) -> Result<String, FormatError> {
    if rest {
        return Ok(emit.step(name, inputs, attributes));
    }
    emit.last(name, inputs, attributes)?;
    Ok(String::new())
}

/// The sum with the residual, the activation and the transposition that follow a product.
fn epilogue(
    emit: &mut Emit<'_>,
    product: String,
    residual: &str,
    activation: &Unary,
    back: Option<Vec<AttributeProto>>,
) -> Written {
    let mut value = product;
    let active = activation.function != UnaryFunction::Identity;
    if !residual.is_empty() {
        let more = active || back.is_some();
        value = end_or_step(emit, more, "Add", &[&value, residual], Vec::new())?;
    }
    match back {
        None if active => ending(emit, activation, &value),
        None => Ok(()),
        Some(permutation) => {
            if active {
                value = applied(emit, activation, &value)?;
            }
            emit.last("Transpose", &[&value], permutation)
        }
    }
}

/// Convolution with all that Lepton does in one.
pub fn conv(emit: &mut Emit<'_>, row: &Row) -> Written {
    let Op::Conv(op) = &emit.node.op else { return direct(emit, row) };
    same_types(emit)?;
    let plain = Conv { layout: Layout::Nchw, activation: Unary::default(), ..op.clone() };
    let attributes = emit.attributes(row, &plain.into())?;
    let rank = emit.fact(0)?.rank();
    let mut names = emit.inputs.clone();
    names.resize(4, String::new());
    let [mut x, mut w, b, residual] = names.try_into().expect("there are four");
    let last = op.layout == Layout::Nhwc;
    if last {
        x = emit.step("Transpose", &[&x], permutation(rank, true));
        w = emit.step("Transpose", &[&w], permutation(rank, true));
    }
    let active = op.activation.function != UnaryFunction::Identity;
    let inputs = [x.as_str(), &w, &b];
    if !last && residual.is_empty() && !active {
        return emit.last("Conv", &inputs, attributes);
    }
    let mut product = emit.step("Conv", &inputs, attributes);
    let mut back = last.then(|| permutation(rank, false));
    if last && !residual.is_empty() {
        product = emit.step("Transpose", &[&product], permutation(rank, false));
        back = None;
    }
    epilogue(emit, product, &residual, &op.activation.clone(), back)
}

/// Linear layers.
pub fn linear(emit: &mut Emit<'_>, op: &Linear) -> Written {
    if emit.has(4) {
        return Err(emit.error("codes in groups are a form of the engine"));
    }
    same_types(emit)?;
    let mut names = emit.inputs.clone();
    names.resize(4, String::new());
    let [x, w, b, residual] = names.try_into().expect("there are four");
    let active = op.activation.function != UnaryFunction::Identity;
    let after_bias = active || !residual.is_empty();
    let rest = after_bias || !b.is_empty();
    let mut value = end_or_step(emit, rest, "MatMul", &[&x, &w], Vec::new())?;
    if !b.is_empty() {
        value = end_or_step(emit, after_bias, "Add", &[&value, &b], Vec::new())?;
    }
    epilogue(emit, value, &residual, &op.activation, None)
}

/// Weights shorter than the activations are a form of the engine.
fn same_types(emit: &Emit<'_>) -> Written {
    if emit.fact(0)?.dtype == emit.fact(1)?.dtype {
        return Ok(());
    }
    Err(emit.error("ONNX needs weights of the type of the activations"))
}

/// Normalisation over stored statistics.
pub fn channels_last(emit: &mut Emit<'_>, row: &Row) -> Written {
    let Op::BatchNormalization(op) = &emit.node.op else { return direct(emit, row) };
    let plain = BatchNormalization { layout: Layout::Nchw, ..op.clone() };
    let attributes = emit.attributes(row, &plain.into())?;
    let mut names = emit.inputs.clone();
    if op.layout == Layout::Nchw {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        return emit.last(row.name, &names, attributes);
    }
    let rank = emit.fact(0)?.rank();
    names[0] = emit.step("Transpose", &[&names[0]], permutation(rank, true));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let made = emit.step(row.name, &names, attributes);
    emit.last("Transpose", &[&made], permutation(rank, false))
}

/// Parts of given lengths, or equal ones.
pub fn split(emit: &mut Emit<'_>, row: &Row) -> Written {
    let mut attributes = emit.attributes(row, &emit.node.op.clone())?;
    let inputs = emit.inputs.clone();
    let lengths = emit.has(1);
    attributes.retain(|attribute| !lengths || attribute.name.as_deref() != Some("num_outputs"));
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    emit.last("Split", &inputs, attributes)
}

/// Pooling.
pub fn pool(emit: &mut Emit<'_>, op: &Pool) -> Written {
    let row = POOL.iter().find(|row| row.1 == op.function && row.2 == op.global);
    let Some(&(name, ..)) = row else { return Err(emit.error("ONNX has no such pooling")) };
    let attributes = pool_attributes(op);
    let x = emit.inputs[0].clone();
    if op.layout == Layout::Nchw {
        return emit.last(name, &[&x], attributes);
    }
    let rank = emit.fact(0)?.rank();
    let x = emit.step("Transpose", &[&x], permutation(rank, true));
    let made = emit.step(name, &[&x], attributes);
    emit.last("Transpose", &[&made], permutation(rank, false))
}

fn pool_attributes(op: &Pool) -> Vec<AttributeProto> {
    let mut attributes = Vec::new();
    if op.function == lepton_ir::ops::pool::PoolFunction::Lp {
        attributes.push(int("p", op.p));
    }
    if op.global {
        return attributes;
    }
    let lists = [
        ("kernel_shape", &op.kernel),
        ("strides", &op.strides),
        ("pads", &op.pads),
        ("dilations", &op.dilations),
    ];
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        attributes.push(ints(name, list.iter().map(|&v| v as i64).collect()));
    }
    let found = super::link::AUTO_PAD.iter().find(|pair| pair.1 == op.auto_pad.word());
    attributes.extend(found.filter(|p| p.0 != "NOTSET").map(|pair| word("auto_pad", pair.0)));
    if op.ceil {
        attributes.push(int("ceil_mode", 1));
    }
    if op.count_padding && op.function == PoolFunction::Average {
        attributes.push(int("count_include_pad", 1));
    }
    attributes
}
