//! Windows over images whose channels are last, and images of another size.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::pad::Pad;
use lepton_ir::ops::pool::{Pool, PoolFunction};
use lepton_ir::ops::resize::{Coordinates, NearestMode, Resize, ResizeMode};
use lepton_ir::ops::unary::UnaryFunction as U;
use lepton_tensor::Layout;

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
pub fn average(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let made = pooled(call, x, PoolFunction::Average)?;
    Ok(vec![call.activated(made, 5)?])
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

/// Operands x and the height and width of the result.
fn resize(call: &mut Call<'_, '_>, op: Resize) -> Results {
    let x = call.real(0)?;
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
    call.emit(op, &[Some(x), None, None, Some(sizes)])
}

fn coordinates(align_corners: bool, half_pixel: bool) -> Coordinates {
    match (align_corners, half_pixel) {
        (true, _) => Coordinates::AlignCorners,
        (false, true) => Coordinates::HalfPixel,
        (false, false) => Coordinates::Asymmetric,
    }
}

/// `RESIZE_BILINEAR`
pub fn resize_bilinear(call: &mut Call<'_, '_>) -> Results {
    let coordinates = coordinates(call.flag(2)?, call.flag(3)?);
    resize(call, Resize { mode: ResizeMode::Linear, coordinates, ..Resize::default() })
}

/// `RESIZE_NEAREST_NEIGHBOR`
pub fn resize_nearest(call: &mut Call<'_, '_>) -> Results {
    let (align_corners, half_pixel) = (call.flag(0)?, call.flag(1)?);
    let nearest = match align_corners || half_pixel {
        true => NearestMode::RoundPreferCeil,
        false => NearestMode::Floor,
    };
    let coordinates = coordinates(align_corners, half_pixel);
    resize(call, Resize { coordinates, nearest, ..Resize::default() })
}
