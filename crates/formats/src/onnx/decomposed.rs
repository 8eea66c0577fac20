//! Operators of ONNX that are several of Lepton's.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::{Binary, BinaryFunction as B};
use lepton_ir::ops::cast::Cast;
use lepton_ir::ops::reshape::Reshape;
use lepton_ir::ops::resize::{Coordinates, NearestMode, Resize, ResizeMode};
use lepton_ir::ops::select::Not;
use lepton_ir::ops::transpose::Transpose;
use lepton_ir::ops::unary::{Unary, UnaryFunction as U};
use lepton_tensor::{DType, Tensor};

use super::call::{Call, Results};
use super::rows;
use crate::error::FormatError;

fn scalar(call: &mut Call<'_>, dtype: DType, value: f64) -> Result<ValueId, FormatError> {
    let tensor = Tensor::from_f64_slice(dtype, Vec::new(), &[value]);
    let tensor = tensor.map_err(|error| call.error(error.to_string()))?;
    Ok(call.constant(tensor))
}

fn pair(call: &mut Call<'_>, f: B, a: ValueId, b: ValueId) -> Result<ValueId, FormatError> {
    call.emit_one(Binary::new(f), &[Some(a), Some(b)])
}

/// `Gelu` in both forms.
pub fn gelu(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["approximate"])?;
    let function = match call.text("approximate", "none").as_str() {
        "tanh" => U::GeluTanh,
        "none" => U::Gelu,
        other => return Err(call.error(format!("unknown approximation `{other}`"))),
    };
    let x = call.input(0);
    call.emit(Unary::new(function), &[x])
}

/// Both remainders.
pub fn modulo(call: &mut Call<'_>) -> Results {
    let c_like = call.int("fmod", 0) != 0;
    rows::binary(call, if c_like { B::Fmod } else { B::Mod })
}

/// The mean of several tensors.
pub fn mean(call: &mut Call<'_>) -> Results {
    let count = call.inputs.len() as f64;
    let sum = rows::binary(call, B::Add)?;
    let dtype = call.fact(0)?.dtype;
    let count = scalar(call, dtype, count)?;
    Ok(vec![pair(call, B::Div, sum[0], count)?])
}

/// Not a number: unequal to itself.
pub fn is_nan(call: &mut Call<'_>) -> Results {
    let x = call.required(0)?;
    let same = pair(call, B::Equal, x, x)?;
    call.emit(Not {}, &[Some(same)])
}

/// Infinite, of either or of one sign.
pub fn is_inf(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["detect_negative", "detect_positive"])?;
    let x = call.required(0)?;
    let dtype = call.fact(0)?.dtype;
    let signs = (call.int("detect_negative", 1) != 0, call.int("detect_positive", 1) != 0);
    let x = match signs {
        (true, true) => call.emit_one(Unary::new(U::Abs), &[Some(x)])?,
        (true, false) => call.emit_one(Unary::new(U::Neg), &[Some(x)])?,
        (false, true) => x,
        (false, false) => {
            let different = pair(call, B::Less, x, x)?;
            return Ok(vec![different]);
        }
    };
    let infinity = scalar(call, dtype, f64::INFINITY)?;
    Ok(vec![pair(call, B::Equal, x, infinity)?])
}

/// `max(x, 0) + min(alpha·(e^(x/alpha) − 1), 0)`: alpha·elu(x/alpha).
pub fn celu(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["alpha"])?;
    let x = call.required(0)?;
    let alpha = call.float("alpha", 1.0);
    let dtype = call.fact(0)?.dtype;
    let factor = scalar(call, dtype, alpha as f64)?;
    let scaled = pair(call, B::Div, x, factor)?;
    let elu = call.emit_one(Unary::with(U::Elu, 1.0, 0.0), &[Some(scaled)])?;
    Ok(vec![pair(call, B::Mul, elu, factor)?])
}

/// Conversion to the type of the second operand.
pub fn cast_like(call: &mut Call<'_>) -> Results {
    let to = call.fact(1)?.dtype;
    let x = call.input(0);
    call.emit(Cast { to }, &[x])
}

/// `x [N,C,H,W]`, whose C, H and W are known: reshaped, transposed, reshaped.
fn rearrange(call: &mut Call<'_>, split: &[i64], order: &[usize], merged: &[i64]) -> Results {
    let x = call.input(0);
    let split = call.integers(split);
    let parts = call.emit_one(Reshape::default(), &[x, Some(split)])?;
    let turned = call.emit_one(Transpose { permutation: order.to_vec() }, &[Some(parts)])?;
    let merged = call.integers(merged);
    call.emit(Reshape::default(), &[Some(turned), Some(merged)])
}

fn image(call: &Call<'_>) -> Result<([i64; 3], i64), FormatError> {
    let block = call.int("blocksize", 0);
    let fact = call.fact(0)?;
    let known: Option<Vec<i64>> = fact.dims.iter().skip(1).map(|d| d.as_known()).collect();
    match known.as_deref() {
        Some(&[c, h, w]) if block > 0 && block < 1 << 16 => Ok(([c, h, w], block)),
        _ => Err(call.error("channels, height, width and block size must be known")),
    }
}

/// Blocks of channels become blocks of pixels.
pub fn depth_to_space(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["blocksize", "mode"])?;
    let ([c, h, w], b) = image(call)?;
    if c % (b * b) != 0 {
        return Err(call.error(format!("{c} channels are not blocks of {b}·{b}")));
    }
    let rest = c / (b * b);
    let merged = [0, rest, h * b, w * b];
    match call.text("mode", "DCR").as_str() {
        "DCR" => rearrange(call, &[0, b, b, rest, h, w], &[0, 3, 4, 1, 5, 2], &merged),
        "CRD" => rearrange(call, &[0, rest, b, b, h, w], &[0, 1, 4, 2, 5, 3], &merged),
        other => Err(call.error(format!("unknown mode `{other}`"))),
    }
}

/// Blocks of pixels become blocks of channels.
pub fn space_to_depth(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["blocksize"])?;
    let ([c, h, w], b) = image(call)?;
    if h % b != 0 || w % b != 0 {
        return Err(call.error(format!("{h}·{w} pixels are not blocks of {b}·{b}")));
    }
    let split = [0, c, h / b, b, w / b, b];
    rearrange(call, &split, &[0, 3, 5, 1, 2, 4], &[0, c * b * b, h / b, w / b])
}

/// `Upsample`, and `Resize` of version 10: positions are indices divided by the scale, rounded
/// down.
pub fn upsample(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["mode", "scales"])?;
    let mode = match call.text("mode", "nearest").as_str() {
        "nearest" => ResizeMode::Nearest,
        "linear" | "bilinear" => ResizeMode::Linear,
        other => return Err(call.error(format!("mode `{other}` is not supported"))),
    };
    let op = Resize {
        mode,
        coordinates: Coordinates::Asymmetric,
        nearest: NearestMode::Floor,
        ..Resize::default()
    };
    let given = call.attribute("scales").map(|a| a.floats.clone());
    let scales = match given {
        Some(values) => Some(call.constant(Tensor::vector(&values))),
        None => call.input(1),
    };
    let x = call.input(0);
    call.emit(op, &[x, None, scales])
}
