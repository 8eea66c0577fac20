//! Functions of elements, conversions of types, and integers that stand for reals.

use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::quantize::{DequantizeLinear, QuantizeLinear};
use lepton_ir::ops::select::Not;
use lepton_ir::ops::unary::{Unary, UnaryFunction as U};
use lepton_tensor::{DType, Tensor};

use super::call::{Call, Results};
use crate::steps::Steps;

/// A function of one element.
pub fn function(call: &mut Call<'_, '_>, function: U, alpha: f32, beta: f32) -> Results {
    let x = call.real(0)?;
    call.emit(Unary::with(function, alpha, beta), &[Some(x)])
}

/// A function of two elements, with the activation that may follow.
pub fn pair(call: &mut Call<'_, '_>, function: B) -> Results {
    let (a, b) = (call.real(0)?, call.real(1)?);
    let made = Steps::pair(call, function, a, b)?;
    Ok(vec![call.activated(made, 0)?])
}

/// Integers or short floats as f32.
pub fn dequantise(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let declared = call.result_info(0)?.dtype()?;
    Ok(vec![Steps::cast(call, x, declared)?])
}

/// Another element type; floats are truncated.
pub fn cast(call: &mut Call<'_, '_>) -> Results {
    let declared = call.result_info(0)?.dtype()?;
    let x = call.stored(0)?;
    Ok(vec![Steps::cast(call, x, declared)?])
}

/// The steps of 8 bits that training rounded to, between `min` and `max`.
pub fn fake_quantise(call: &mut Call<'_, '_>) -> Results {
    let (min, max) = (call.float(0, 0.0)?, call.float(1, 0.0)?);
    let (bits, narrow) = (call.int(2, 8)?, call.flag(3)?);
    if bits != 8 || narrow || !(min <= 0.0 && max >= 0.0 && max > min) {
        return Err(call.error(format!("{bits} bits from {min} to {max}; known: 8 bits around 0")));
    }
    let scale = (max - min) / 255.0;
    let zero = (-min / scale).round().clamp(0.0, 255.0) as u8;
    let x = call.real(0)?;
    let (scale, zero) = (Tensor::scalar(scale), Tensor::scalar(zero));
    let (scale, zero) = (call.constant(scale), call.constant(zero));
    let parameters = [Some(scale), Some(zero)];
    let op = QuantizeLinear { dtype: DType::U8, ..QuantizeLinear::default() };
    let bytes = call.emit_one(op, &[Some(x), parameters[0], parameters[1]])?;
    call.emit(DequantizeLinear::default(), &[Some(bytes), parameters[0], parameters[1]])
}

/// `x·Φ(x)`, or its approximation.
pub fn gelu(call: &mut Call<'_, '_>) -> Results {
    let approximate = call.flag(0)?;
    function(call, if approximate { U::GeluTanh } else { U::Gelu }, 0.0, 0.0)
}

/// x for x ≥ 0, else alpha·x.
pub fn leaky_relu(call: &mut Call<'_, '_>) -> Results {
    let alpha = call.float(0, 0.0)?;
    function(call, U::LeakyRelu, alpha, 0.0)
}

/// `¬x`
pub fn not(call: &mut Call<'_, '_>) -> Results {
    let x = call.stored(0)?;
    call.emit(Not {}, &[Some(x)])
}

/// `1/√x`
pub fn reciprocal_root(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let root = call.map(U::Sqrt, x)?;
    Ok(vec![call.map(U::Reciprocal, root)?])
}

/// `x²`
pub fn square(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    Ok(vec![Steps::pair(call, B::Mul, x, x)?])
}

/// `(a − b)²`
pub fn squared_difference(call: &mut Call<'_, '_>) -> Results {
    let (a, b) = (call.real(0)?, call.real(1)?);
    let difference = Steps::pair(call, B::Sub, a, b)?;
    Ok(vec![Steps::pair(call, B::Mul, difference, difference)?])
}

/// The sum of all operands.
pub fn add_all(call: &mut Call<'_, '_>) -> Results {
    let operands = call.reals()?;
    let [first, rest @ ..] = operands.as_slice() else {
        return Err(call.error("it has no operands"));
    };
    let mut sum = *first;
    for &operand in rest {
        sum = Steps::pair(call, B::Add, sum, operand)?;
    }
    Ok(vec![sum])
}

/// `a ≠ b`
pub fn not_equal(call: &mut Call<'_, '_>) -> Results {
    let (a, b) = (call.real(0)?, call.real(1)?);
    let equal = Steps::pair(call, B::Equal, a, b)?;
    call.emit(Not {}, &[Some(equal)])
}

/// The quotient rounded toward −∞.
pub fn floor_quotient(call: &mut Call<'_, '_>) -> Results {
    let (a, b) = (call.real(0)?, call.real(1)?);
    if call.dtype(a).is_float() {
        let quotient = Steps::pair(call, B::Div, a, b)?;
        return Ok(vec![call.map(U::Floor, quotient)?]);
    }
    // What remains has the sign of the divisor, so the division is exact.
    let rest = Steps::pair(call, B::Mod, a, b)?;
    let exact = Steps::pair(call, B::Sub, a, rest)?;
    Ok(vec![Steps::pair(call, B::Div, exact, b)?])
}
