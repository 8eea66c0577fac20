//! Normalisations that are several of Lepton's operators.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::cast::Cast;
use lepton_ir::ops::reduce::{Reduce, ReduceFunction};
use lepton_ir::ops::reshape::Reshape;
use lepton_ir::ops::shape_of::Shape;
use lepton_ir::ops::unary::UnaryFunction as U;

use super::call::Call;
use super::ops::Row;
use super::rows::direct;
use crate::error::FormatError;
use crate::steps::{Results, Steps};

fn reduced(
    call: &mut Call<'_>,
    function: ReduceFunction,
    x: ValueId,
    axes: ValueId,
) -> Result<ValueId, FormatError> {
    call.emit_one(Reduce::new(function), &[Some(x), Some(axes)])
}

/// `1/√(mean of squares + epsilon)` over `axes`.
fn inverse_root(
    call: &mut Call<'_>,
    x: ValueId,
    axes: ValueId,
    epsilon: f32,
) -> Result<ValueId, FormatError> {
    let dtype = call.graph.fact(x).dtype;
    let square = call.pair(B::Mul, x, x)?;
    let mean = reduced(call, ReduceFunction::Mean, square, axes)?;
    let epsilon = call.scalar(dtype, epsilon as f64)?;
    let sum = call.pair(B::Add, mean, epsilon)?;
    let root = call.map(U::Sqrt, sum)?;
    call.map(U::Reciprocal, root)
}

/// The axes from `axis` on, as a constant.
fn trailing(call: &mut Call<'_>) -> Result<ValueId, FormatError> {
    let first = call.axis("axis", -1)? as i64;
    let axes: Vec<i64> = (first..call.fact(0)?.rank() as i64).collect();
    Ok(call.integers(&axes))
}

/// Normalisation over the trailing axes; in steps where the mean or the deviation is wanted.
pub fn layer(call: &mut Call<'_>, row: &Row) -> Results {
    if call.result_count() <= 1 {
        return direct(call, row);
    }
    let (x, scale) = (call.required(0)?, call.required(1)?);
    let axes = trailing(call)?;
    let epsilon = call.float("epsilon", 1e-5);
    let mean = reduced(call, ReduceFunction::Mean, x, axes)?;
    let centred = call.pair(B::Sub, x, mean)?;
    let inverse = inverse_root(call, centred, axes, epsilon)?;
    let normal = call.pair(B::Mul, centred, inverse)?;
    let mut y = call.pair(B::Mul, normal, scale)?;
    if let Some(bias) = call.input(2) {
        y = call.pair(B::Add, y, bias)?;
    }
    Ok(vec![y, mean, inverse])
}

/// `x/√(mean of squares + epsilon)·scale` over the trailing axes (Zhang and Sennrich 2019).
pub fn root_mean_square(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["axis", "epsilon", "stash_type"])?;
    let (x, scale) = (call.required(0)?, call.required(1)?);
    let axes = trailing(call)?;
    let epsilon = call.float("epsilon", 1e-5);
    let inverse = inverse_root(call, x, axes, epsilon)?;
    let normal = call.pair(B::Mul, x, inverse)?;
    Ok(vec![call.pair(B::Mul, normal, scale)?])
}

/// `x/‖x‖` along one axis, with the 1- or 2-norm; 0 where the norm is.
pub fn norm(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["axis", "p"])?;
    let x = call.required(0)?;
    let axis = call.axis("axis", -1)? as i64;
    let function = if call.int("p", 2) == 1 { ReduceFunction::L1 } else { ReduceFunction::L2 };
    let axes = call.integers(&[axis]);
    let norm = reduced(call, function, x, axes)?;
    let to = call.fact(0)?.dtype;
    let zero = call.scalar(to, 0.0)?;
    let none = call.pair(B::Equal, norm, zero)?;
    let one = call.emit_one(Cast { to }, &[Some(none)])?;
    let norm = call.pair(B::Add, norm, one)?;
    Ok(vec![call.pair(B::Div, x, norm)?])
}

/// `(x − mean)/(deviation + 1e-9)` over given axes.
pub fn mean_variance(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["axes"])?;
    let x = call.required(0)?;
    let axes = if call.has("axes") { call.ints("axes") } else { vec![0, 2, 3] };
    let axes = call.integers(&axes);
    let mean = reduced(call, ReduceFunction::Mean, x, axes)?;
    let centred = call.pair(B::Sub, x, mean)?;
    let square = call.pair(B::Mul, centred, centred)?;
    let variance = reduced(call, ReduceFunction::Mean, square, axes)?;
    let deviation = call.map(U::Sqrt, variance)?;
    let dtype = call.graph.fact(x).dtype;
    let least = call.scalar(dtype, 1e-9)?;
    let deviation = call.pair(B::Add, deviation, least)?;
    Ok(vec![call.pair(B::Div, centred, deviation)?])
}

/// Normalisation of groups of channels; scale and bias per channel, as since version 21.
pub fn group(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["epsilon", "num_groups", "stash_type"])?;
    if call.version < 21 {
        return Err(call.error("GroupNormalization of operator sets before 21 is not supported"));
    }
    let x = call.required(0)?;
    let rank = call.fact(0)?.rank();
    let epsilon = call.float("epsilon", 1e-5);
    let shape = call.emit_one(Shape::default(), &[Some(x)])?;
    let groups = call.integers(&[0, call.int("num_groups", 1), -1]);
    let parts = call.emit_one(Reshape::default(), &[Some(x), Some(groups)])?;
    let axes = call.integers(&[2]);
    let mean = reduced(call, ReduceFunction::Mean, parts, axes)?;
    let centred = call.pair(B::Sub, parts, mean)?;
    let inverse = inverse_root(call, centred, axes, epsilon)?;
    let normal = call.pair(B::Mul, centred, inverse)?;
    let mut y = call.emit_one(Reshape { allow_zero: true }, &[Some(normal), Some(shape)])?;
    let mut channels = vec![1; rank.saturating_sub(1)];
    channels[0] = -1;
    for (index, function) in [(1, B::Mul), (2, B::Add)] {
        let (given, channels) = (call.required(index)?, call.integers(&channels));
        let aligned = call.emit_one(Reshape::default(), &[Some(given), Some(channels)])?;
        y = call.pair(function, y, aligned)?;
    }
    Ok(vec![y])
}
