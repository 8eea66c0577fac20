//! Reductions, and what depends on an order along an axis.

use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::find::Unique;
use lepton_ir::ops::order::{Arg, ArgFunction, CumSum, TopK};
use lepton_ir::ops::reduce::ReduceFunction as R;
use lepton_ir::ops::softmax::Softmax;
use lepton_ir::ops::unary::UnaryFunction as U;
use lepton_tensor::{DType, Tensor};

use super::call::{Call, Results};
use crate::steps::Steps;

/// What a length is at least, where something is divided by it.
const LEAST_LENGTH: f64 = 1e-6;

/// A reduction over the axes in the second operand.
pub fn reduced(call: &mut Call<'_, '_>, function: R) -> Results {
    let x = call.real(0)?;
    let axes = call.known(1)?;
    let keep = call.flag(0)?;
    if axes.is_empty() {
        return Ok(vec![x]);
    }
    Ok(vec![Steps::reduced(call, function, x, &axes, keep)?])
}

fn truths(call: &mut Call<'_, '_>, function: R) -> Results {
    let x = call.stored(0)?;
    let axes = call.known(1)?;
    let keep = call.flag(0)?;
    if axes.is_empty() {
        return Ok(vec![x]);
    }
    let numbers = call.cast(x, DType::I32)?;
    let made = Steps::reduced(call, function, numbers, &axes, keep)?;
    Ok(vec![call.cast(made, DType::Bool)?])
}

/// True where all elements are.
pub fn all(call: &mut Call<'_, '_>) -> Results {
    truths(call, R::Min)
}

/// True where any element is.
pub fn any(call: &mut Call<'_, '_>) -> Results {
    truths(call, R::Max)
}

fn extreme(call: &mut Call<'_, '_>, function: ArgFunction) -> Results {
    let x = call.stored(0)?;
    let rank = call.rank(x);
    let axis = call.axis_operand(1, rank)? as i64;
    call.emit(Arg { function, axis, keep_dims: false, ..Arg::default() }, &[Some(x)])
}

/// Where the largest element along an axis is.
pub fn arg_max(call: &mut Call<'_, '_>) -> Results {
    extreme(call, ArgFunction::Max)
}

/// Where the smallest element along an axis is.
pub fn arg_min(call: &mut Call<'_, '_>) -> Results {
    extreme(call, ArgFunction::Min)
}

/// Sums of all elements up to each.
pub fn running_sum(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let axis = call.long(1)?;
    let (exclusive, reverse) = (call.flag(0)?, call.flag(1)?);
    call.emit(CumSum { exclusive, reverse, product: false }, &[Some(x), Some(axis)])
}

/// `x/max(√Σx², 10⁻⁶)` along the last axis.
pub fn unit_length(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let squares = call.pair(B::Mul, x, x)?;
    let sum = Steps::reduced(call, R::Sum, squares, &[-1], true)?;
    let length = call.map(U::Sqrt, sum)?;
    let dtype = call.dtype(x);
    let least = call.scalar(dtype, LEAST_LENGTH)?;
    let length = call.pair(B::Max, length, least)?;
    let made = call.pair(B::Div, x, length)?;
    Ok(vec![call.activated(made, 0)?])
}

/// `SOFTMAX` of `beta·x` along the last axis.
pub fn softmax(call: &mut Call<'_, '_>) -> Results {
    let mut x = call.real(0)?;
    let beta = call.float(0, 0.0)?;
    if beta != 1.0 {
        x = call.scaled(x, f64::from(beta))?;
    }
    call.emit(Softmax::default(), &[Some(x)])
}

/// The logarithm of a softmax along the last axis.
pub fn log_softmax(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    call.emit(Softmax { log: true, ..Softmax::default() }, &[Some(x)])
}

/// The largest elements along the last axis, and where they are.
pub fn largest(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let count = match call.known(1)?[..] {
        [count] => call.constant(Tensor::vector(&[count])),
        _ => return Err(call.error("the number of elements must be one integer")),
    };
    call.emit(TopK::default(), &[Some(x), Some(count)])
}

/// The distinct elements in the order they occur, and which of them each element is.
pub fn unique(call: &mut Call<'_, '_>) -> Results {
    let x = call.stored(0)?;
    let made = call.emit(Unique { sorted: false, ..Unique::default() }, &[Some(x)])?;
    Ok(vec![made[0], made[2]])
}
