//! Products whose quantised weights have a zero point other than zero, as older models have.
//!
//! The engine's integer products take int8 weights around zero; weights less their zero point need
//! nine bits. They are the sum of two int8 tensors, the second of which is zero but for the few
//! channels that hold the extremes, so those channels are read twice: exact, at the cost of a few
//! more channels. Depthwise weights, which have no channels to add, become reals that are integers:
//! sums of their products stay exact in f32 up to 2²⁴.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::conv::Conv;
use lepton_ir::ops::quantize::{DequantizeLinear, QuantizeLinear};
use lepton_tensor::{DType, Tensor};

use super::call::Call;
use super::rounded;
use super::schema::TensorInfo;
use crate::error::FormatError;
use crate::steps::{Made, Steps};

/// Weights less their zero point.
struct Centred {
    values: Vec<i64>,
    shape: Vec<usize>,
}

/// The weights of operand 1 less their zero point, if that is not zero and x is quantised.
fn centred(call: &mut Call<'_, '_>) -> Result<Option<Centred>, FormatError> {
    let info = call.info(1)?;
    let stored = call.stored(1)?;
    let [zero] = info.zero[..] else { return Ok(None) };
    let short = matches!(info.dtype()?, DType::U8 | DType::I8) && info.scale.len() == 1;
    // The middle of u8 is what int8 calls zero.
    let plain = zero == if info.dtype()? == DType::U8 { 128 } else { 0 };
    let constant = call.graph_ref().constant(stored);
    let fits = short && !plain && call.info(0).is_ok_and(TensorInfo::is_byte);
    let Some(w) = constant.filter(|w| fits && !w.is_empty()) else {
        return Ok(None);
    };
    let values = w.to_i64_vec().into_iter().map(|w| w - zero).collect();
    Ok(Some(Centred { values, shape: w.shape().to_vec() }))
}

/// `x` rounded to the integers of operand 0, which it holds already.
fn requantised(call: &mut Call<'_, '_>, x: ValueId) -> Made {
    let info = call.info(0)?;
    let (scale, zero) = (info.scales(), info.zeros()?);
    let (scale, zero) = (call.constant(scale), call.constant(zero));
    let parameters = [Some(scale), Some(zero)];
    let op = QuantizeLinear::default();
    let bytes = call.emit_one(op, &[Some(x), parameters[0], parameters[1]])?;
    let op = DequantizeLinear::default();
    call.emit_one(op, &[Some(bytes), parameters[0], parameters[1]])
}

/// x and w of a product that sums over the last axis of both, w in int8 around zero; `None` where
/// the weights of the file are so already.
pub fn widened(call: &mut Call<'_, '_>) -> Result<Option<[ValueId; 2]>, FormatError> {
    let Some(Centred { values, mut shape }) = centred(call)? else { return Ok(None) };
    let Some(&channels) = shape.last().filter(|&&channels| channels > 0) else { return Ok(None) };
    let near = |w: i64| w.clamp(i64::from(i8::MIN), i64::from(i8::MAX));
    let mut is_wide = vec![false; channels];
    for (i, &w) in values.iter().enumerate() {
        is_wide[i % channels] |= near(w) != w;
    }
    let wide: Vec<i64> = (0..channels as i64).filter(|&c| is_wide[c as usize]).collect();
    let mut bytes = Vec::with_capacity(values.len() / channels * (channels + wide.len()));
    for row in values.chunks_exact(channels) {
        bytes.extend(row.iter().map(|&w| near(w) as i8));
        bytes.extend(wide.iter().map(|&c| (row[c as usize] - near(row[c as usize])) as i8));
    }
    let last = shape.len() - 1;
    shape[last] += wide.len();
    let w = Tensor::from_slice(shape, &bytes).map_err(|error| call.error(error.to_string()))?;
    let scale = call.info(1)?.scale[0];
    let operands = [w, Tensor::scalar(scale), Tensor::scalar(0i8)].map(|t| Some(call.constant(t)));
    let w = call.emit_one(DequantizeLinear { axis: 0 }, &operands)?;
    let mut x = call.real(0)?;
    if !wide.is_empty() {
        let axis = call.rank(x) as i64 - 1;
        let again = call.picked(x, axis, &wide)?;
        let again = requantised(call, again)?;
        x = call.concat(&[x, again], axis)?;
        x = requantised(call, x)?;
    }
    Ok(Some([x, w]))
}

/// A depthwise convolution over integers as reals; `None` where the weights are around zero.
pub fn depthwise(call: &mut Call<'_, '_>, conv: &Conv) -> Result<Option<ValueId>, FormatError> {
    let Some(Centred { values, shape }) = centred(call)? else { return Ok(None) };
    let &[1, height, width, filters] = shape.as_slice() else { return Ok(None) };
    let taps = height * width;
    let w: Vec<f32> =
        (0..values.len()).map(|i| values[i % taps * filters + i / taps] as f32).collect();
    let w = Tensor::from_slice([filters, height, width, 1], &w);
    let w = w.map_err(|error| call.error(error.to_string()))?;
    let w = call.constant(w);
    let (stored, zero) = (call.stored(0)?, call.info(0)?.zeros()?);
    let operands = [Tensor::scalar(1f32), zero].map(|tensor| Some(call.constant(tensor)));
    let x =
        call.emit_one(DequantizeLinear::default(), &[Some(stored), operands[0], operands[1]])?;
    let bias = match call.has(2) {
        true => {
            let bias = call.stored(2)?;
            Some(call.cast(bias, DType::F32)?)
        }
        false => None,
    };
    let sums = call.emit_one(conv.clone(), &[Some(x), Some(w), bias])?;
    let step = call.info(0)?.scale[0] * call.info(1)?.scale[0];
    if let Some(made) = rounded::sums(call, sums, step, 4)? {
        return Ok(Some(made));
    }
    let step = call.scalar(DType::F32, f64::from(step))?;
    let made = call.pair(B::Mul, sums, step)?;
    call.activated(made, 4).map(Some)
}
