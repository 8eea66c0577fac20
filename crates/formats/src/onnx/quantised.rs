//! Operators over integers with their scales, read as the same over reals between a
//! dequantisation and a quantisation, which is how Lepton's passes expect them.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::matmul::MatMul;
use lepton_ir::ops::quantize::{DequantizeLinear, QuantizeLinear};

use super::call::Call;
use super::ops::{Row, WINDOW};
use crate::error::FormatError;
use crate::steps::{Results, Steps};

/// Operand `index`, which `index + 1` and `index + 2` scale, as reals.
pub fn real(call: &mut Call<'_>, index: usize, axis: i64) -> Result<ValueId, FormatError> {
    let inputs = [call.input(index), call.input(index + 1), call.input(index + 2)];
    call.emit_one(DequantizeLinear { axis }, &inputs)
}

/// The reals `y` as integers scaled by operands `index` and `index + 1`.
pub fn integer(call: &mut Call<'_>, y: ValueId, index: usize) -> Results {
    let inputs = [Some(y), call.input(index), call.input(index + 1)];
    call.emit(QuantizeLinear::default(), &inputs)
}

/// Product of matrices: scales per tensor, per row of a or per column of b.
pub fn matmul(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &[])?;
    let (a, b) = (real(call, 0, -2)?, real(call, 3, -1)?);
    let product = call.emit_one(MatMul {}, &[Some(a), Some(b)])?;
    integer(call, product, 6)
}

/// Convolution; the scale of the bias is the product of those of x and w.
pub fn conv(call: &mut Call<'_>, row: &Row) -> Results {
    call.check_attributes(WINDOW, &["kernel_shape"])?;
    let op = call.built(row)?;
    let (x, w) = (real(call, 0, 1)?, real(call, 3, 0)?);
    let mut inputs = vec![Some(x), Some(w)];
    if let Some(bias) = call.input(8) {
        let scale = call.pair(B::Mul, call.required(4)?, call.required(1)?)?;
        let bias = call.emit_one(DequantizeLinear { axis: 0 }, &[Some(bias), Some(scale)])?;
        inputs.push(Some(bias));
    }
    let product = call.emit_one(op, &inputs)?;
    integer(call, product, 6)
}
