//! Windows over images whose channels are last, and images of another size.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::pad::Pad;
use lepton_ir::ops::pool::{Pool, PoolFunction};
use lepton_ir::ops::resize::{Coordinates, NearestMode, Resize, ResizeMode};
use lepton_ir::ops::unary::{Unary, UnaryFunction as U};
use lepton_ir::ops::window::AutoPad;
use lepton_tensor::{DType, Layout};

use super::call::{Call, Results};
use super::products::padding;
use crate::error::FormatError;
use crate::steps::{Made, Steps};

/// Most channels to a side that a local normalisation sums.
const MAX_RADIUS: i32 = 64;

fn pool(call: &Call<'_, '_>, function: PoolFunction) -> Result<Pool, FormatError> {
    Ok(Pool {
        function,
        kernel: vec![call.extent(4, 0)?, call.extent(3, 0)?],
        strides: vec![call.extent(2, 0)?, call.extent(1, 0)?],
        auto_pad: padding(call, 0)?,
        layout: Layout::Nhwc,
        ..Pool::default()
    })
}

fn pooled(call: &mut Call<'_, '_>, x: ValueId, function: PoolFunction) -> Made {
    let op = pool(call, function)?;
    call.emit_one(op, &[Some(x)])
}

/// The mean of each window, padding not counted.
///
/// Means of integers that stand for reals are rounded with halves away from the integer 0, which
/// shows where a window may have an even number of elements; then the integers are averaged.
pub fn average(call: &mut Call<'_, '_>) -> Results {
    let op = pool(call, PoolFunction::Average)?;
    let odd = op.kernel.iter().all(|extent| extent % 2 == 1) && op.auto_pad == AutoPad::Valid;
    let info = call.info(0)?;
    let same = info.scale == call.result_info(0)?.scale && info.scale.len() == 1;
    if info.is_quantised() && same && !odd && call.word(5)? <= 3 {
        return average_of_integers(call, op);
    }
    let x = call.real(0)?;
    let made = pooled(call, x, PoolFunction::Average)?;
    Ok(vec![call.activated(made, 5)?])
}

fn average_of_integers(call: &mut Call<'_, '_>, op: Pool) -> Results {
    let stored = call.stored(0)?;
    let dtype = call.dtype(stored);
    let (bounds, info) = (call.activation(5)?.bounds(), call.info(0)?);
    let x = call.cast(stored, DType::F32)?;
    let mean = call.emit_one(op, &[Some(x)])?;
    let size = if dtype.is_signed_integer() { call.map(U::Abs, mean)? } else { mean };
    let size = call.shifted(size, 0.5)?;
    let mut rounded = call.map(U::Floor, size)?;
    if dtype.is_signed_integer() {
        let sign = call.map(U::Sign, mean)?;
        rounded = call.pair(B::Mul, rounded, sign)?;
    }
    if let Some((low, high)) = bounds.filter(|bounds| bounds.0.is_finite()) {
        let zero = info.zero.first().map_or(0.0, |&zero| zero as f32);
        let [low, high] = [low, high].map(|real| zero + (real / info.scale[0]).round());
        rounded = call.emit_one(Unary::with(U::Clip, low, high), &[Some(rounded)])?;
    }
    Ok(vec![call.cast(rounded, dtype)?])
}

/// The largest element of each window.
pub fn max(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let made = pooled(call, x, PoolFunction::Max)?;
    Ok(vec![call.activated(made, 5)?])
}

/// The root of the mean of the squares in each window.
pub fn root_mean_square(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let squares = call.pair(B::Mul, x, x)?;
    let mean = pooled(call, squares, PoolFunction::Average)?;
    let root = call.map(U::Sqrt, mean)?;
    Ok(vec![call.activated(root, 5)?])
}

/// `x/(bias + alpha·Σ x²)^beta`, the sum over the channels at most `radius` away.
pub fn local_response(call: &mut Call<'_, '_>) -> Results {
    let radius = call.int(0, 0)?;
    if !(0..=MAX_RADIUS).contains(&radius) {
        return Err(call.error(format!("a radius of {radius}")));
    }
    let (bias, alpha, beta) = (call.float(1, 0.0)?, call.float(2, 0.0)?, call.float(3, 0.0)?);
    let x = call.real(0)?;
    let last = call.rank(x).checked_sub(1).ok_or_else(|| call.error("its operand has no axes"))?;
    let squares = call.pair(B::Mul, x, x)?;
    let (pads, axes) = (call.integers(&[radius as i64; 2]), call.integers(&[last as i64]));
    let wide = call.emit_one(Pad::default(), &[Some(squares), Some(pads), None, Some(axes)])?;
    let mut sum: Option<ValueId> = None;
    for offset in 0..=2 * radius as i64 {
        let back = offset - 2 * radius as i64;
        let end = if back == 0 { i64::MAX } else { back };
        let part = call.slice(wide, last, offset, end)?;
        sum = Some(match sum {
            Some(sum) => call.pair(B::Add, sum, part)?,
            None => part,
        });
    }
    let sum = sum.ok_or_else(|| call.error("it sums nothing"))?;
    let scaled = call.scaled(sum, f64::from(alpha))?;
    let base = call.shifted(scaled, f64::from(bias))?;
    let dtype = call.dtype(x);
    let exponent = call.scalar(dtype, f64::from(beta))?;
    let divisor = call.pair(B::Pow, base, exponent)?;
    Ok(vec![call.pair(B::Div, x, divisor)?])
}

/// `x` with the height and width that operand 1 says.
fn resize(call: &mut Call<'_, '_>, x: ValueId, op: Resize) -> Made {
    if call.rank(x) != 4 {
        return Err(call.error("its operand must have four axes"));
    }
    let image = call.long(1)?;
    let shape = call.shape_of(x)?;
    let (batch, channels) = (call.slice(shape, 0, 0, 1)?, call.slice(shape, 0, 3, 4)?);
    let known = crate::steps::known(call.graph_ref(), image).map(|tensor| tensor.to_i64_vec());
    let dims = call.fact(x).dims.clone();
    let sizes = match (known.as_deref(), dims[0].as_known(), dims[3].as_known()) {
        (Some(&[height, width]), Some(n), Some(c)) => call.integers(&[n, height, width, c]),
        _ => call.concat(&[batch, image, channels], 0)?,
    };
    call.emit_one(op, &[Some(x), None, None, Some(sizes)])
}

fn coordinates(align_corners: bool, half_pixel: bool) -> Coordinates {
    match (align_corners, half_pixel) {
        (true, _) => Coordinates::AlignCorners,
        (false, true) => Coordinates::HalfPixel,
        (false, false) => Coordinates::Asymmetric,
    }
}

/// `RESIZE_BILINEAR`
///
/// Between integers that stand for reals halves are rounded up, and they are frequent: the integers
/// are interpolated.
pub fn resize_bilinear(call: &mut Call<'_, '_>) -> Results {
    let coordinates = coordinates(call.flag(2)?, call.flag(3)?);
    let op = Resize { mode: ResizeMode::Linear, coordinates, ..Resize::default() };
    let (info, result) = (call.info(0)?, call.result_info(0)?);
    let same = (&info.scale, &info.zero, info.kind) == (&result.scale, &result.zero, result.kind);
    if !(info.is_quantised() && same && info.scale.len() == 1) {
        let x = call.real(0)?;
        return Ok(vec![resize(call, x, op)?]);
    }
    let stored = call.stored(0)?;
    let dtype = call.dtype(stored);
    let x = call.cast(stored, DType::F32)?;
    let made = resize(call, x, op)?;
    let mut rounded = call.shifted(made, 0.5)?;
    if dtype.is_signed_integer() {
        rounded = call.map(U::Floor, rounded)?;
    }
    Ok(vec![call.cast(rounded, dtype)?])
}

/// `RESIZE_NEAREST_NEIGHBOR`
pub fn resize_nearest(call: &mut Call<'_, '_>) -> Results {
    let (align_corners, half_pixel) = (call.flag(0)?, call.flag(1)?);
    let nearest = match align_corners || half_pixel {
        true => NearestMode::RoundPreferCeil,
        false => NearestMode::Floor,
    };
    let coordinates = coordinates(align_corners, half_pixel);
    let x = call.real(0)?;
    Ok(vec![resize(call, x, Resize { coordinates, nearest, ..Resize::default() })?])
}
