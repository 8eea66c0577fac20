//! Bytes that the interpreter's delegate, XNNPACK, rounds in one way and the reals in between would
//! round in another.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::gather::Gather;
use lepton_ir::ops::quantize::{DequantizeLinear, QuantizeLinear};
use lepton_ir::ops::unary::{Unary, UnaryFunction};
use lepton_tensor::{DType, Tensor};

use super::call::{Call, Results};
use super::fixed;
use super::schema::TensorInfo;
use crate::error::FormatError;
use crate::steps::{Made, Steps};

/// Reals counted in steps of the result, as its bytes.
fn bytes(call: &mut Call<'_, '_>, steps: ValueId, result: &TensorInfo) -> Made {
    let operands = [Tensor::scalar(1f32), result.zeros()?].map(|t| Some(call.constant(t)));
    let op = QuantizeLinear { axis: 0, dtype: result.dtype()? };
    call.emit_one(op, &[Some(steps), operands[0], operands[1]])
}

/// Integer sums, each worth `step`, as the bytes of the result behind an activation: one factor
/// takes them to steps of the result, so they are rounded once before the last time. `None` where
/// the result is no byte or the activation more than a clamp.
pub fn sums(
    call: &mut Call<'_, '_>,
    sums: ValueId,
    step: f32,
    activation: usize,
) -> Result<Option<ValueId>, FormatError> {
    let result = call.result_info(0)?;
    let activation = call.activation(activation)?;
    let clamps = matches!(
        activation.function,
        UnaryFunction::Identity | UnaryFunction::Relu | UnaryFunction::Clip
    );
    if !result.is_byte() || !clamps {
        return Ok(None);
    }
    let scale = result.scale[0];
    let factor = call.scalar(DType::F32, f64::from(step / scale))?;
    let mut steps = call.pair(B::Mul, sums, factor)?;
    if activation.function != UnaryFunction::Identity {
        let (low, high) = (activation.alpha / scale, activation.beta / scale);
        steps = call.emit_one(Unary::with(activation.function, low, high), &[Some(steps)])?;
    }
    bytes(call, steps, result).map(Some)
}

/// `QUANTIZE`. Between bytes of the same type the factor has eight bits behind the point, and halves
/// go up.
pub fn quantise(call: &mut Call<'_, '_>) -> Results {
    let (given, result) = (call.info(0)?, call.result_info(0)?);
    let same = given.is_byte() && result.is_byte() && given.dtype()? == result.dtype()?;
    let factor = if same { given.scale[0] / result.scale[0] } else { 1.0 };
    if factor == 1.0 || !(1.0 / 256.0..=128.0).contains(&factor) {
        return Ok(vec![call.real(0)?]);
    }
    let factor = (factor * 256.0).round_ties_even() / 256.0;
    let x = call.stored(0)?;
    let operands = [Tensor::scalar(factor), given.zeros()?].map(|t| Some(call.constant(t)));
    let steps = call.emit_one(DequantizeLinear::default(), &[Some(x), operands[0], operands[1]])?;
    // Less than the distance from any other result to the nearest half.
    let up = call.scalar(DType::F32, 1.0 / 1024.0)?;
    let steps = call.pair(B::Add, steps, up)?;
    Ok(vec![bytes(call, steps, result)?])
}

/// `HARD_SWISH`: between bytes of the same type a table, in the standard form of one: `Gather` at
/// the bytes, which are unsigned for that.
pub fn hard_swish(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let (given, result) = (call.info(0)?, call.result_info(0)?);
    let same = given.is_byte() && result.is_byte() && given.dtype()? == result.dtype()?;
    let least = if given.dtype()? == DType::I8 { -128 } else { 0 };
    let Some(table) = same.then(|| fixed::hard_swish(given, result, least)).flatten() else {
        return call.emit(Unary::new(UnaryFunction::HardSwish), &[Some(x)]);
    };
    let unsigned = |byte: i32| (byte - least) as u8;
    let table: Vec<u8> = table.into_iter().map(unsigned).collect();
    let zero = |info: &TensorInfo| unsigned(info.zero.first().map_or(0, |&zero| zero as i32));
    let mut parameters = |info: &TensorInfo| {
        let (scale, zero) = (Tensor::scalar(info.scale[0]), Tensor::scalar(zero(info)));
        [Some(call.constant(scale)), Some(call.constant(zero))]
    };
    let ([scale, zero], made) = (parameters(given), parameters(result));
    let bytes = call.emit_one(QuantizeLinear::default(), &[Some(x), scale, zero])?;
    let places = call.cast(bytes, DType::I64)?;
    let table = call.constant(Tensor::vector(&table));
    let bytes = call.emit_one(Gather { axis: 0 }, &[Some(table), Some(places)])?;
    let [scale, zero] = made;
    call.emit(DequantizeLinear::default(), &[Some(bytes), scale, zero])
}
