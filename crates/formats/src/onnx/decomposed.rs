//! Operators of ONNX that are several of Lepton's.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::bits::{BitFunction, Bitwise};
use lepton_ir::ops::cast::Cast;
use lepton_ir::ops::gather::Gather;
use lepton_ir::ops::generate::ConstantOfShape;
use lepton_ir::ops::order::Arg;
use lepton_ir::ops::reshape::{Reshape, Unsqueeze};
use lepton_ir::ops::resize::{Coordinates, NearestMode, Resize, ResizeMode};
use lepton_ir::ops::select::{Not, Where};
use lepton_ir::ops::transpose::Transpose;
use lepton_ir::ops::unary::{Unary, UnaryFunction as U};
use lepton_tensor::{DType, Tensor};

use super::call::Call;
use super::rows;
use crate::error::FormatError;
use crate::steps::{Results, Steps};

/// Most positions of an axis that are written out as a constant.
const MAX_POSITIONS: i64 = 1 << 20;

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
    let count = call.scalar(dtype, count)?;
    Ok(vec![call.pair(B::Div, sum[0], count)?])
}

/// 1 − erf, which exporters of TensorFlow write although ONNX does not have it.
pub fn erfc(call: &mut Call<'_>) -> Results {
    let x = call.required(0)?;
    let dtype = call.fact(0)?.dtype;
    let (erf, one) = (call.map(U::Erf, x)?, call.scalar(dtype, 1.0)?);
    Ok(vec![call.pair(B::Sub, one, erf)?])
}

/// Not a number: unequal to itself.
pub fn is_nan(call: &mut Call<'_>) -> Results {
    let x = call.required(0)?;
    let same = call.pair(B::Equal, x, x)?;
    call.emit(Not {}, &[Some(same)])
}

/// Infinite, of either or of one sign.
pub fn is_inf(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["detect_negative", "detect_positive"])?;
    let x = call.required(0)?;
    let dtype = call.fact(0)?.dtype;
    let signs = (call.int("detect_negative", 1) != 0, call.int("detect_positive", 1) != 0);
    let x = match signs {
        (true, true) => call.map(U::Abs, x)?,
        (true, false) => call.map(U::Neg, x)?,
        (false, true) => x,
        (false, false) => {
            let different = call.pair(B::Less, x, x)?;
            return Ok(vec![different]);
        }
    };
    let infinity = call.scalar(dtype, f64::INFINITY)?;
    Ok(vec![call.pair(B::Equal, x, infinity)?])
}

/// `max(x, 0) + min(alpha·(e^(x/alpha) − 1), 0)`: alpha·elu(x/alpha).
pub fn celu(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["alpha"])?;
    let x = call.required(0)?;
    let alpha = call.float("alpha", 1.0);
    let dtype = call.fact(0)?.dtype;
    let factor = call.scalar(dtype, alpha as f64)?;
    let scaled = call.pair(B::Div, x, factor)?;
    let elu = call.emit_one(Unary::with(U::Elu, 1.0, 0.0), &[Some(scaled)])?;
    Ok(vec![call.pair(B::Mul, elu, factor)?])
}

/// Conversion to the type of the second operand.
pub fn cast_like(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["saturate", "round_mode"])?;
    let to = call.fact(1)?.dtype;
    let x = call.required(0)?;
    rows::converted(call, x, to)
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
    call.check_attributes(&[], &["blocksize", "mode"])?;
    let ([c, h, w], b) = image(call)?;
    let order = match call.text("mode", "DCR").as_str() {
        "DCR" => [0, 3, 5, 1, 2, 4],
        "CRD" => [0, 1, 3, 5, 2, 4],
        other => return Err(call.error(format!("unknown mode `{other}`"))),
    };
    if h % b != 0 || w % b != 0 {
        return Err(call.error(format!("{h}·{w} pixels are not blocks of {b}·{b}")));
    }
    let split = [0, c, h / b, b, w / b, b];
    rearrange(call, &split, &order, &[0, c * b * b, h / b, w / b])
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

/// Where the axis is `positions`, for every position along it: bool.
fn at_position(
    call: &mut Call<'_>,
    positions: ValueId,
    extent: i64,
    rank: usize,
    axis: usize,
) -> Result<ValueId, FormatError> {
    if !(0..=MAX_POSITIONS).contains(&extent) {
        return Err(call.error(format!("an axis of {extent} positions")));
    }
    let mut shape = vec![1; rank];
    shape[axis] = extent as usize;
    let all: Vec<i64> = (0..extent).collect();
    let all = Tensor::from_slice(shape, &all).map_err(|error| call.error(error.to_string()))?;
    let all = call.constant(all);
    call.pair(B::Equal, positions, all)
}

/// 1 at the first largest element along an axis, 0 elsewhere.
pub fn hardmax(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["axis"])?;
    if call.version < 13 {
        return Err(call.error("Hardmax of operator sets before 13 is not supported"));
    }
    let axis = call.axis("axis", -1)?;
    let fact = call.fact(0)?.clone();
    let extent = fact.dims[axis].as_known();
    let extent = extent.ok_or_else(|| call.error("the extent of its axis must be known"))?;
    let x = call.input(0);
    let largest = call.emit_one(Arg { axis: axis as i64, ..Arg::default() }, &[x])?;
    let truth = at_position(call, largest, extent, fact.rank(), axis)?;
    call.emit(Cast { to: fact.dtype }, &[Some(truth)])
}

/// `values[1]` where an index says so, else `values[0]`; the depth must be known.
pub fn one_hot(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["axis"])?;
    let (indices, values) = (call.required(0)?, call.required(2)?);
    let depth = call.graph.constant(call.required(1)?).map(Tensor::to_i64_vec);
    let Some(&[depth]) = depth.as_deref() else {
        return Err(call.error("the depth must be a constant"));
    };
    let rank = call.fact(0)?.rank() as i64 + 1;
    let axis = call.int("axis", -1);
    let axis = if axis < 0 { axis.saturating_add(rank) } else { axis };
    if !(0..rank).contains(&axis) {
        return Err(call.error("its axis is outside"));
    }
    let whole = call.emit_one(Cast { to: DType::I64 }, &[Some(indices)])?;
    let (zero, count) = (call.scalar(DType::I64, 0.0)?, call.scalar(DType::I64, depth as f64)?);
    let negative = call.pair(B::Less, whole, zero)?;
    let wrapped = call.pair(B::Add, whole, count)?;
    let whole = call.emit_one(Where {}, &[Some(negative), Some(wrapped), Some(whole)])?;
    let at = call.integers(&[axis]);
    let positions = call.emit_one(Unsqueeze {}, &[Some(whole), Some(at)])?;
    let truth = at_position(call, positions, depth, rank as usize, axis as usize)?;
    let mut choice = [zero; 2];
    for (index, chosen) in choice.iter_mut().enumerate() {
        let index = call.scalar(DType::I64, index as f64)?;
        *chosen = call.emit_one(Gather { axis: 0 }, &[Some(values), Some(index)])?;
    }
    call.emit(Where {}, &[Some(truth), Some(choice[1]), Some(choice[0])])
}

/// Outside training nothing happens, and the mask is true everywhere; in training only a ratio of
/// zero has a certain result.
pub fn dropout(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["ratio", "seed", "is_test"])?;
    if call.input(2).is_some() && call.known_truth(2) != Some(false) {
        let ratio = match call.input(1) {
            Some(ratio) => call.graph.constant(ratio).and_then(|t| t.to_f64_vec().first().copied()),
            None => Some(0.5),
        };
        if call.known_truth(2).is_none() {
            return Err(call.error("whether it trains must be known; export for inference"));
        }
        if ratio != Some(0.0) {
            return super::random::training_dropout(call);
        }
    }
    let x = call.required(0)?;
    let mut results = vec![call.map(U::Identity, x)?];
    if call.result_count() > 1 {
        let shape = call.shape_of(x)?;
        let yes = Tensor::from_bools([1], [true]).map_err(|e| call.error(e.to_string()))?;
        results.push(call.emit_one(ConstantOfShape { value: yes }, &[Some(shape)])?);
    }
    Ok(results)
}

/// Every bit the other way.
pub fn bitwise_not(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &[])?;
    let x = call.input(0);
    let ones = Tensor::from_i64_slice(call.fact(0)?.dtype, Vec::new(), &[-1]);
    let ones = ones.map_err(|error| call.error(error.to_string()))?;
    let ones = call.constant(ones);
    call.emit(Bitwise { function: BitFunction::Xor }, &[x, Some(ones)])
}

/// `a·sigmoid(alpha·a)·b` (Shazeer 2020).
pub fn swiglu(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["alpha"])?;
    let (a, b) = (call.input(0), call.required(1)?);
    let gate = call.emit_one(Unary::with(U::Silu, call.float("alpha", 1.0), 0.0), &[a])?;
    Ok(vec![call.pair(B::Mul, gate, b)?])
}
