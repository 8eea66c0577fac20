//! Operators that change or tell shapes.

use lepton_ir::ops::expand::{Expand, Tile};
use lepton_ir::ops::generate::Range;
use lepton_ir::ops::reshape::Squeeze;
use lepton_ir::ops::split::Split;
use lepton_ir::{Dim, ValueId};
use lepton_tensor::{DType, Tensor};

use super::call::{Call, Results};
use crate::error::FormatError;
use crate::steps::{Made, Steps};

/// Most parts of one operand.
const MAX_PARTS: usize = 4096;

/// `RESHAPE` to the shape in the second operand, or among the options.
pub fn reshape(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let given = call.ints(0)?;
    let shape = match call.has(1) {
        true => call.long(1)?,
        // What old converters write for a scalar.
        false if given == [0] => call.integers(&[]),
        false => call.integers(&given),
    };
    Ok(vec![call.reshape_as(x, shape)?])
}

/// `x` repeated to the shape in the second operand.
pub fn broadcast_to(call: &mut Call<'_, '_>) -> Results {
    let (x, shape) = (call.real(0)?, call.long(1)?);
    call.emit(Expand {}, &[Some(x), Some(shape)])
}

/// The operands one after the other.
pub fn concatenation(call: &mut Call<'_, '_>) -> Results {
    let parts = call.reals()?;
    let axis = i64::from(call.int(0, 0)?);
    let made = call.concat(&parts, axis)?;
    Ok(vec![call.activated(made, 1)?])
}

/// `x` with an axis of extent 1.
pub fn expand_dims(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let rank = call.rank(x) + 1;
    let axis = call.axis_operand(1, rank)?;
    Ok(vec![call.unsqueeze(x, &[axis as i64])?])
}

/// A tensor of the shape in the first operand, every element the second.
pub fn fill(call: &mut Call<'_, '_>) -> Results {
    let (shape, value) = (call.long(0)?, call.real(1)?);
    call.emit(Expand {}, &[Some(value), Some(shape)])
}

/// The operands along a new axis.
pub fn pack(call: &mut Call<'_, '_>) -> Results {
    let parts = call.reals()?;
    let first = *parts.first().ok_or_else(|| call.error("it has no operands"))?;
    let rank = call.rank(first) + 1;
    let axis = call.axis_of(i64::from(call.int(1, 0)?), rank)? as i64;
    let parts: Result<Vec<ValueId>, FormatError> =
        parts.into_iter().map(|part| call.unsqueeze(part, &[axis])).collect();
    Ok(vec![call.concat(&parts?, axis)?])
}

/// `start, start + delta, …` to before the limit.
pub fn range(call: &mut Call<'_, '_>) -> Results {
    let operands = [call.real(0)?, call.real(1)?, call.real(2)?];
    call.emit(Range {}, &operands.map(Some))
}

/// The number of axes.
pub fn rank(call: &mut Call<'_, '_>) -> Results {
    let x = call.stored(0)?;
    let rank = call.rank(x) as i32;
    Ok(vec![call.constant(Tensor::scalar(rank))])
}

/// The extents.
pub fn shape(call: &mut Call<'_, '_>) -> Results {
    let x = call.stored(0)?;
    let dims: Option<Vec<i64>> = call.fact(x).dims.iter().map(Dim::as_known).collect();
    match dims {
        Some(dims) => Ok(vec![call.integers(&dims)]),
        None => Ok(vec![call.shape_of(x)?]),
    }
}

fn parts_of(call: &mut Call<'_, '_>, x: ValueId, axis: usize, op: Split, sizes: &[i64]) -> Results {
    if op.parts.max(sizes.len()) > MAX_PARTS {
        return Err(call.error("it has too many parts"));
    }
    let sizes = (!sizes.is_empty()).then(|| call.integers(sizes));
    call.emit(Split { axis: axis as i64, ..op }, &[Some(x), sizes])
}

/// Equal parts: operands the axis and `x`.
pub fn split(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(1)?;
    let rank = call.rank(x);
    let axis = call.axis_operand(0, rank)?;
    let parts = call.extent(0, 0)?;
    parts_of(call, x, axis, Split { parts, ..Split::default() }, &[])
}

/// Parts of given lengths: operands `x`, the lengths (one may be −1, the rest) and the axis.
pub fn split_at(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let rank = call.rank(x);
    let axis = call.axis_operand(2, rank)?;
    let mut sizes = call.known(1)?;
    if let Some(open) = sizes.iter().position(|&size| size == -1) {
        let whole = call.fact(x).dims[axis].as_known();
        let whole = whole.ok_or_else(|| call.error("the extent of its axis must be known"))?;
        let others = sizes.iter().filter(|size| **size != -1);
        sizes[open] = others.fold(whole, |rest: i64, size| rest.saturating_sub(*size));
    }
    parts_of(call, x, axis, Split::default(), &sizes)
}

/// `x` without the axes among the options, or without any of extent 1.
pub fn squeeze(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let axes = call.ints(0)?;
    let axes = (!axes.is_empty()).then(|| call.integers(&axes));
    call.emit(Squeeze {}, &[Some(x), axes])
}

/// `x` repeated along each axis.
pub fn tile(call: &mut Call<'_, '_>) -> Results {
    let (x, repeats) = (call.real(0)?, call.long(1)?);
    call.emit(Tile::default(), &[Some(x), Some(repeats)])
}

/// `x` with its axes in another order.
pub fn transpose(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let rank = call.rank(x);
    let order: Result<Vec<usize>, FormatError> =
        call.known(1)?.into_iter().map(|axis| call.axis_of(axis, rank)).collect();
    let order = order?;
    Ok(vec![Steps::transpose(call, x, &order)?])
}

/// The slices along an axis, without it.
pub fn unpack(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let rank = call.rank(x);
    let axis = call.axis_of(i64::from(call.int(1, 0)?), rank)?;
    let parts = call.extent(0, 0)?;
    let parts = match parts {
        1 => vec![x],
        _ => parts_of(call, x, axis, Split { parts, ..Split::default() }, &[])?,
    };
    parts.into_iter().map(|part| without(call, part, axis)).collect()
}

/// `x` without an axis of extent 1.
pub fn without(call: &mut Call<'_, '_>, x: ValueId, axis: usize) -> Made {
    let axes = call.integers(&[axis as i64]);
    call.emit_one(Squeeze {}, &[Some(x), Some(axes)])
}

/// As many zeros.
pub fn zeros_like(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let dtype = call.dtype(x);
    let zero = match dtype {
        DType::Bool => call.constant(Tensor::scalar(lepton_tensor::Boolean::from(false))),
        dtype => call.scalar(dtype, 0.0)?,
    };
    let shape = call.shape_of(x)?;
    call.emit(Expand {}, &[Some(zero), Some(shape)])
}
