//! Long short-term memory in fixed point: bytes in and out, a cell of 16 bits. The scales between
//! them follow from those of the file's tensors, in f32 as the interpreter computes them.

use lepton_ir::ops::integer_rnn::IntegerLSTM;
use lepton_ir::{Graph, ValueId};
use lepton_tensor::{DType, Element, Tensor};

use super::call::{Call, Results};
use super::recurrent::{BIAS, FROM_H, FROM_X, PEEPHOLES, time_first};
use super::schema::TensorInfo;
use crate::error::FormatError;
use crate::steps::Steps;

/// Operands of the projection and of the two states.
const PROJECTION: usize = 16;
const PROJECTION_BIAS: usize = 17;
const HIDDEN_STATE: usize = 18;
const CELL_STATE: usize = 19;
/// Which intermediate tensor says how the hidden state before a projection is quantised.
const HIDDEN: usize = 4;

/// True if the layer at hand computes in integers.
pub fn serves(call: &Call<'_, '_>) -> Result<bool, FormatError> {
    let is = |operand: usize, dtype: DType| -> Result<bool, FormatError> {
        let info = call.info(operand)?;
        Ok(info.is_quantised() && info.dtype()? == dtype)
    };
    Ok(is(0, DType::I8)? && is(FROM_X[2], DType::I8)? && is(CELL_STATE, DType::I16)?)
}

/// The one scale of a tensor, and the integer for zero.
fn parameters(call: &Call<'_, '_>, info: &TensorInfo) -> Result<(f32, i64), FormatError> {
    let zero = info.zero.first().copied().unwrap_or(0);
    match info.scale[..] {
        [scale] if scale > 0.0 && scale.is_finite() && (-128..=127).contains(&zero) => {
            Ok((scale, zero))
        }
        _ => Err(call.error(format!("`{}` must have one positive scale", info.name))),
    }
}

/// The elements of a constant operand.
fn constant<T: Element>(call: &mut Call<'_, '_>, operand: usize) -> Result<Vec<T>, FormatError> {
    let value = call.stored(operand)?;
    let graph: &Graph = call.graph_ref();
    let found = graph.constant(value).and_then(|tensor| tensor.as_slice::<T>().ok());
    let found = found.map(<[T]>::to_vec);
    found.ok_or_else(|| call.error(format!("input {operand} must be a constant {}", T::DTYPE)))
}

fn stored<T: Element>(
    call: &mut Call<'_, '_>,
    shape: &[usize],
    values: &[T],
) -> Result<Option<ValueId>, FormatError> {
    let tensor = Tensor::from_slice(shape, values);
    let tensor = tensor.map_err(|error| call.error(error.to_string()))?;
    Ok(Some(call.constant(tensor)))
}

/// The power of two that a scale is.
fn power_of(call: &Call<'_, '_>, scale: f32) -> Result<i64, FormatError> {
    let power = scale.log2().round();
    match 2f32.powf(power) == scale {
        true => Ok(power as i64),
        false => Err(call.error(format!("the cell's scale {scale} is not a power of two"))),
    }
}

/// Rows of all gates, each with its scale times `scale`, in steps of 2⁻¹²; `bias` gets minus
/// `zero` times the sums of the rows.
struct Product {
    weights: Vec<i8>,
    scales: Vec<f32>,
    bias: Vec<i32>,
    /// Length of a row.
    width: usize,
}

fn product(
    call: &mut Call<'_, '_>,
    operands: &[usize],
    (scale, zero): (f32, i64),
) -> Result<Product, FormatError> {
    let shape = call.info(operands[0])?.extents()?;
    let [rows, width] = shape[..] else {
        return Err(call.error("its weights must have two axes"));
    };
    let mut made = Product { weights: Vec::new(), scales: Vec::new(), bias: Vec::new(), width };
    for &operand in operands {
        let info = call.info(operand)?;
        if info.extents()? != shape || rows * width == 0 {
            return Err(call.error("the weights of its gates differ in their extents"));
        }
        let (own, _) = parameters(call, info)?;
        made.scales.push(own * scale / STEP);
        let weights: Vec<i8> = constant(call, operand)?;
        for row in weights.chunks_exact(width) {
            let sum: i64 = row.iter().map(|&weight| i64::from(weight)).sum();
            made.bias.push((-zero * sum) as i32);
        }
        made.weights.extend(weights);
    }
    Ok(made)
}

/// The step of a gate's sum, Q3.12.
const STEP: f32 = 1.0 / 4096.0;

/// What was given as `bound` in whole steps, towards zero; 0 where there is none.
fn bound(given: f32, scale: f32, most: f32) -> i64 {
    if given > 0.0 { (given / scale).min(most) as i64 } else { 0 }
}

/// A layer over a sequence.
pub fn layer(call: &mut Call<'_, '_>) -> Results {
    if (20..24).any(|operand| call.has(operand)) {
        return Err(call.error("normalised gates are not supported"));
    }
    let coupled = !call.has(FROM_X[0]);
    let first = usize::from(coupled);
    let x = parameters(call, call.info(0)?)?;
    let h = parameters(call, call.info(HIDDEN_STATE)?)?;
    let from_x = product(call, &FROM_X[first..], x)?;
    let from_h = product(call, &FROM_H[first..], h)?;
    let mut bias = from_x.bias;
    let mut own = Vec::with_capacity(bias.len());
    for &operand in &BIAS[first..] {
        own.extend(constant::<i32>(call, operand)?);
    }
    if own.len() != bias.len() || from_h.bias.len() != bias.len() {
        return Err(call.error("its gates differ in their number of units"));
    }
    bias.iter_mut().zip(own).for_each(|(sum, own)| *sum = sum.wrapping_add(own));
    bias.extend(from_h.bias);
    let (cell_scale, _) = parameters(call, call.info(CELL_STATE)?)?;
    let (hidden_scale, hidden_zero) = parameters(call, call.intermediate(HIDDEN)?)?;
    let fraction = 1.0 / 32768.0;
    let mut op = IntegerLSTM {
        coupled,
        x_scales: from_x.scales,
        h_scales: from_h.scales,
        hidden_scale: fraction / hidden_scale * fraction,
        hidden_zero,
        zero: h.1,
        cell_power: power_of(call, cell_scale)?,
        cell_bound: bound(call.float(1, 0.0)?, cell_scale, 32767.0),
        ..IntegerLSTM::default()
    };
    let rows = bias.len() / 2;
    let w = stored(call, &[rows, from_x.width], &from_x.weights)?;
    let r = stored(call, &[rows, from_h.width], &from_h.weights)?;
    let b = stored(call, &[2 * rows], &bias)?;
    let mut inputs = vec![None, w, r, b, peepholes(call, &mut op, cell_scale)?];
    inputs.extend(projection(call, &mut op, hidden_scale, h.0)?);
    let time_major = call.flag(3)?;
    let stored_x = call.stored(0)?;
    inputs[0] = Some(time_first(call, stored_x, time_major)?);
    let y = call.emit_one(op, &inputs)?;
    Ok(vec![time_first(call, y, time_major)?])
}

/// The weights of the cell into the gates, if the file has them.
fn peepholes(
    call: &mut Call<'_, '_>,
    op: &mut IntegerLSTM,
    cell_scale: f32,
) -> Result<Option<ValueId>, FormatError> {
    if !call.has(PEEPHOLES[1]) {
        return Ok(None);
    }
    let mut all = Vec::new();
    for &operand in &PEEPHOLES[usize::from(op.coupled)..] {
        let (own, _) = parameters(call, call.info(operand)?)?;
        op.peephole_scales.push(cell_scale * own / STEP);
        all.extend(constant::<i16>(call, operand)?);
    }
    stored(call, &[all.len()], &all)
}

/// The projection of the hidden state and its bias, if the file has them.
fn projection(
    call: &mut Call<'_, '_>,
    op: &mut IntegerLSTM,
    hidden_scale: f32,
    scale: f32,
) -> Result<Vec<Option<ValueId>>, FormatError> {
    if !call.has(PROJECTION) {
        return Ok(Vec::new());
    }
    let info = call.info(PROJECTION)?;
    let (own, _) = parameters(call, info)?;
    let shape = info.extents()?;
    let weights: Vec<i8> = constant(call, PROJECTION)?;
    let units = shape.get(1).copied().unwrap_or(0).max(1);
    let sums = weights.chunks(units).map(|row| row.iter().map(|&w| i64::from(w)).sum::<i64>());
    let mut bias: Vec<i32> = sums.map(|sum| (-op.hidden_zero * sum) as i32).collect();
    if call.has(PROJECTION_BIAS) {
        let given: Vec<i32> = constant(call, PROJECTION_BIAS)?;
        bias.iter_mut().zip(given).for_each(|(sum, given)| *sum = sum.wrapping_add(given));
    }
    op.projection_scale = own * hidden_scale / scale;
    op.bound = bound(call.float(2, 0.0)?, scale, 127.0);
    let weights = stored(call, &shape, &weights)?;
    Ok(vec![weights, stored(call, &[bias.len()], &bias)?])
}
