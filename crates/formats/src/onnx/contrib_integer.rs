//! Operators of ONNX Runtime's domain `com.microsoft` over integers with their scales.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::cast::Cast;
use lepton_ir::ops::matmul::Gemm;
use lepton_ir::ops::onnx_integer::{DynamicQuantizeLinear, MatMulInteger};
use lepton_ir::ops::pool::PoolFunction;
use lepton_ir::ops::quantize::DequantizeLinear;
use lepton_ir::ops::unary::{Unary, UnaryFunction as U};
use lepton_tensor::DType;

use super::call::Call;
use super::quantised::{integer, real};
use super::rows;
use crate::error::FormatError;
use crate::steps::{Results, Steps};

/// A function of two dequantised tensors.
fn pair(call: &mut Call<'_>, function: B) -> Results {
    call.check_attributes(&[], &[])?;
    let (a, b) = (real(call, 0, 1)?, real(call, 3, 1)?);
    let y = call.pair(function, a, b)?;
    integer(call, y, 6)
}

/// Sum.
pub fn add(call: &mut Call<'_>) -> Results {
    pair(call, B::Add)
}

/// Product of elements.
pub fn mul(call: &mut Call<'_>) -> Results {
    pair(call, B::Mul)
}

/// A function of one dequantised element.
fn single(call: &mut Call<'_>, op: Unary) -> Results {
    let x = real(call, 0, 1)?;
    let y = call.emit_one(op, &[Some(x)])?;
    integer(call, y, 3)
}

/// Sigmoid.
pub fn sigmoid(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &[])?;
    single(call, Unary::new(U::Sigmoid))
}

/// Leaky rectifier.
pub fn leaky_relu(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["alpha"])?;
    single(call, Unary::with(U::LeakyRelu, call.float("alpha", 0.01), 0.0))
}

/// Mean over windows, or over the whole image.
fn pooled(call: &mut Call<'_>, global: bool) -> Results {
    if call.int("channels_last", 0) != 0 {
        return Err(call.error("channels as the last axis are not supported"));
    }
    let given = call.inputs.clone();
    let x = real(call, 0, 1)?;
    call.inputs = vec![Some(x)];
    let y = rows::pool(call, PoolFunction::Average, global)?[0];
    call.inputs = given;
    integer(call, y, 3)
}

/// Mean over windows.
pub fn average_pool(call: &mut Call<'_>) -> Results {
    pooled(call, false)
}

/// Mean over images.
pub fn global_average_pool(call: &mut Call<'_>) -> Results {
    pooled(call, true)
}

/// Tensors one after the other, each with its own scale, after those of the result.
pub fn concat(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["axis"])?;
    let mut parts = Vec::new();
    for index in (2..call.inputs.len()).step_by(3) {
        parts.push(real(call, index, 1)?);
    }
    let y = call.concat(&parts, call.int("axis", 0))?;
    integer(call, y, 0)
}

/// `alpha·(a·b + c)`, quantised where a scale of the result is given.
pub fn gemm(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["alpha", "transA", "transB"])?;
    let (trans_a, trans_b) = (call.int("transA", 0) != 0, call.int("transB", 0) != 0);
    let (a, b) = (real(call, 0, 1)?, real(call, 3, i64::from(!trans_b))?);
    let alpha = call.float("alpha", 1.0);
    let mut inputs = vec![Some(a), Some(b)];
    if let Some(bias) = call.input(6) {
        let scale = call.pair(B::Mul, call.required(1)?, call.required(4)?)?;
        let whole = call.cast(bias, DType::F32)?;
        inputs.push(Some(call.pair(B::Mul, whole, scale)?));
    }
    let op = Gemm { alpha, beta: alpha, trans_a, trans_b };
    let y = call.emit_one(op, &inputs)?;
    if call.input(7).is_some() { integer(call, y, 7) } else { Ok(vec![y]) }
}

/// A product of integers as reals, with a bias.
fn scaled_product(
    call: &mut Call<'_>,
    integers: [Option<ValueId>; 4],
    scales: [ValueId; 2],
    bias: Option<ValueId>,
) -> Results {
    let used = integers.iter().rposition(Option::is_some).map_or(2, |last| last + 1);
    let sum = call.emit_one(MatMulInteger {}, &integers[..used])?;
    let sum = call.emit_one(Cast { to: DType::F32 }, &[Some(sum)])?;
    let scale = call.pair(B::Mul, scales[0], scales[1])?;
    let mut y = call.pair(B::Mul, sum, scale)?;
    if let Some(bias) = bias {
        y = call.pair(B::Add, y, bias)?;
    }
    Ok(vec![y])
}

/// A product with weights of integers; the other operand is quantised by its range.
pub fn dynamic_matmul(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &[])?;
    let a = call.input(0);
    let parts = call.emit(DynamicQuantizeLinear {}, &[a])?;
    let &[a, scale, zero] = parts.as_slice() else { return Err(call.error("it has no scale")) };
    let (b, b_scale) = (call.input(1), call.required(2)?);
    let integers = [Some(a), b, Some(zero), call.input(3)];
    scaled_product(call, integers, [scale, b_scale], call.input(4))
}

/// A product of integers as reals.
pub fn matmul_to_float(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &[])?;
    let integers = [call.input(0), call.input(1), call.input(4), call.input(5)];
    let scales = [call.required(2)?, call.required(3)?];
    scaled_product(call, integers, scales, call.input(6))
}

/// Codes of `bits` bits, of which each byte of a constant holds several, the first lowest.
fn codes(call: &Call<'_>, index: usize, bits: usize, row: usize) -> Result<Vec<f64>, FormatError> {
    let tensor = call.graph.constant(call.required(index)?);
    let tensor = tensor.filter(|tensor| tensor.dtype() == DType::U8);
    let bytes = tensor.ok_or_else(|| call.error("its codes must be a constant of bytes"))?.bytes();
    let mask = ((1u16 << bits) - 1) as u8;
    let each = 8 / bits;
    let of_row = row.div_ceil(each).max(1);
    let unpack = |bytes: &[u8]| -> Vec<f64> {
        let code = |i: usize| f64::from(bytes[i / each] >> (i % each * bits) & mask);
        (0..row).map(code).collect()
    };
    Ok(bytes.chunks_exact(of_row).flat_map(unpack).collect())
}

/// A product with weights of a few bits, whose blocks have scales of their own: `x·wᵀ`, w `[N,K]`.
pub fn matmul_bits(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["K", "N", "bits", "block_size", "accuracy_level"])?;
    let count = |call: &Call<'_>, name| usize::try_from(call.int(name, 0)).unwrap_or(0);
    let (k, n, block) = (count(call, "K"), count(call, "N"), count(call, "block_size"));
    let bits = usize::try_from(call.int("bits", 4)).unwrap_or(0);
    let (dtype, middle) = match bits {
        2 => (DType::U2, 2.0),
        4 => (DType::U4, 8.0),
        8 => (DType::U8, 128.0),
        _ => return Err(call.error(format!("weights of {bits} bits are not supported"))),
    };
    if k == 0 || n == 0 || block == 0 || call.input(4).is_some() {
        return Err(call.error("its sizes must be given, and its groups in order"));
    }
    let (blocks, width) = (k.div_ceil(block), k.div_ceil(block).saturating_mul(block));
    let stored = call
        .graph
        .constant(call.required(1)?)
        .map_or(0usize, |tensor| tensor.len())
        .saturating_mul(8 / bits);
    if n.checked_mul(width).is_none_or(|count| count > stored) {
        return Err(call.error(format!("{stored} weights are not {n} rows of {width}")));
    }
    let weights = codes(call, 1, bits, width)?;
    let weights = call.table(dtype, &[n, width], &weights)?;
    let scales = call.reshape(call.required(2)?, &[n as i64, blocks as i64])?;
    let zeros = match call.input(3) {
        None => vec![middle; n * blocks],
        Some(id) if call.dtype(id) == DType::U8 => codes(call, 3, bits, blocks)?,
        Some(_) => return Err(call.error("zero points that are reals are not supported")),
    };
    let zeros = call.table(dtype, &[n, blocks], &zeros)?;
    let inputs = [Some(weights), Some(scales), Some(zeros)];
    let mut w = call.emit_one(DequantizeLinear { axis: 1 }, &inputs)?;
    if width > k {
        w = call.slice(w, 1, 0, k as i64)?;
    }
    let turned = call.transpose(w, &[1, 0])?;
    let mut y = call.product(call.required(0)?, turned)?;
    if let Some(bias) = call.input(5) {
        y = call.pair(B::Add, y, bias)?;
    }
    Ok(vec![y])
}
