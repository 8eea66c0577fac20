//! What happens to accumulators on their way out: bias, residual, activation, requantisation.
//!
//! Integer epilogues are exact formulas in separately rounded f32 steps (no fused multiply-add), so
//! every instruction set gives the same bits.

use half::bf16;

use crate::isa::{self, Isa};
use crate::map::{Unary, map_f32_in_place, map_u8_table_in_place};
use crate::quantize::f32_to_bf16;
use crate::real::Real;
use crate::tile::BLOCK_STRIDE;

/// The function applied to a finished f32 value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// x
    None,
    /// max(x, 0)
    Relu,
    /// min(max(x, low), high)
    Clip {
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
    /// x where positive, else slope · x
    LeakyRelu {
        /// Slope of the negative side.
        slope: f32,
    },
    /// 1 / (1 + e⁻ˣ)
    Sigmoid,
    /// x · sigmoid(x)
    Silu,
    /// min(max(alpha · x + beta, 0), 1)
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Offset.
        beta: f32,
    },
    /// x · min(max(x + 3, 0), 6) / 6
    HardSwish,
    /// tanh x
    Tanh,
    /// x · Φ(x), by the error function
    Gelu,
    /// The tanh approximation of GELU
    GeluTanh,
}

impl Activation {
    /// Bounds to clamp to in registers; infinite where the activation is not a clamp.
    pub(crate) fn bounds(self) -> (f32, f32) {
        match self {
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Clip { low, high } => (low, high),
            _ => (f32::NEG_INFINITY, f32::INFINITY),
        }
    }

    /// The function that is applied to finished rows where it is not a clamp.
    pub fn function(self) -> Option<Unary> {
        Some(match self {
            Activation::None | Activation::Relu | Activation::Clip { .. } => return None,
            Activation::LeakyRelu { slope } => Unary::LeakyRelu { alpha: slope },
            Activation::Sigmoid => Unary::Sigmoid,
            Activation::Silu => Unary::Silu,
            Activation::HardSigmoid { alpha, beta } => Unary::HardSigmoid { alpha, beta },
            Activation::HardSwish => Unary::HardSwish,
            Activation::Tanh => Unary::Tanh,
            Activation::Gelu => Unary::Gelu,
            Activation::GeluTanh => Unary::GeluTanh,
        })
    }
}

/// Clamp that lets NaN through, as the vector forms do.
pub(crate) fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// Rows to add to the result, of the same shape as the output.
#[derive(Clone, Copy, Debug)]
pub struct Residual<T> {
    /// Element of row 0, column 0.
    pub pointer: *const T,
    /// Elements between rows.
    pub row_stride: usize,
}

/// Where results go. Rows may be further apart than they are long, so that a concatenation is
/// written in place.
#[derive(Clone, Copy, Debug)]
pub struct Output<T> {
    /// Element of row 0, column 0.
    pub pointer: *mut T,
    /// Elements between rows.
    pub row_stride: usize,
}

/// f32 accumulators to f32: activation(acc · alpha + bias\[n\] + residual).
#[derive(Clone, Copy, Debug)]
pub struct EpilogueF32<'a> {
    /// Factor of the product.
    pub alpha: f32,
    /// One value per column.
    pub bias: Option<&'a [f32]>,
    /// Added before the activation.
    pub residual: Option<Residual<f32>>,
    /// Applied last.
    pub activation: Activation,
}

impl Default for EpilogueF32<'_> {
    fn default() -> Self {
        EpilogueF32 { alpha: 1.0, bias: None, residual: None, activation: Activation::None }
    }
}

/// A u8 residual: (r − zero_point) · scale is added, in steps of the output's scale.
#[derive(Clone, Copy, Debug)]
pub struct ResidualU8 {
    /// The rows.
    pub rows: Residual<u8>,
    /// The residual's scale divided by the output's.
    pub scale: f32,
    /// The residual's zero point.
    pub zero_point: u8,
}

/// s32 accumulators to u8.
///
/// f = f32(acc + bias\[n\]) · multiplier\[n\]; with a residual f += f32(r − zero) · scale;
/// f is clamped to \[low − zero_point, high − zero_point\], rounded half to even, and zero_point
/// added; last, the table is looked up.
#[derive(Clone, Copy, Debug)]
pub struct RequantizeU8<'a> {
    /// Bias with the zero-point terms folded in, one per column.
    pub bias: &'a [i32],
    /// Input scale · weight scale / output scale, one per column; finite.
    pub multiplier: &'a [f32],
    /// Added before the clamp.
    pub residual: Option<ResidualU8>,
    /// The output's zero point.
    pub zero_point: u8,
    /// Smallest result (the zero point, for ReLU).
    pub low: u8,
    /// Largest result.
    pub high: u8,
    /// Any function of one u8.
    pub table: Option<&'a [u8; 256]>,
    /// What [`RequantizeU8::is_bounded`] says.
    pub bounded: bool,
}

impl RequantizeU8<'_> {
    /// True where no f leaves the integers of 32 bits, so that it may be clamped after it is
    /// rounded.
    pub fn is_bounded(multiplier: &[f32], residual_scale: f32) -> bool {
        multiplier.iter().all(|factor| factor.abs() < 0.5)
            && residual_scale.abs() < (1 << 20) as f32
    }
}

/// s32 accumulators to u8 through a function: function(f32(acc + bias\[n\]) · scale\[n\]) / step,
/// rounded half to even, plus the zero point, within 0 to 255. The function may differ in its last digits
/// from one instruction set to another, so that a result may be a step off.
#[derive(Clone, Copy, Debug)]
pub struct ThroughU8<'a> {
    /// Bias with the zero-point terms folded in, one per column.
    pub bias: &'a [i32],
    /// Input scale · weight scale, one per column; finite.
    pub scale: &'a [f32],
    /// What the reals go through.
    pub function: Unary,
    /// The output's scale.
    pub step: f32,
    /// The output's zero point.
    pub zero_point: u8,
}

/// s32 accumulators to f32: activation(f32(acc + bias_s32\[n\]) · scale\[n\] + bias\[n\] +
/// residual).
#[derive(Clone, Copy, Debug)]
pub struct DequantizeF32<'a> {
    /// Zero-point terms, one per column.
    pub bias_s32: Option<&'a [i32]>,
    /// Input scale · weight scale, one per column; finite.
    pub scale: &'a [f32],
    /// One value per column.
    pub bias: Option<&'a [f32]>,
    /// Added before the activation.
    pub residual: Option<Residual<f32>>,
    /// Applied last.
    pub activation: Activation,
}

/// A block of finished accumulators and its place in the output.
#[derive(Clone, Copy)]
pub(crate) struct Block<T> {
    pub accumulators: *mut T,
    /// Elements between the block's rows.
    pub stride: usize,
    pub rows: usize,
    pub columns: usize,
    /// Output row of the block's first row.
    pub row: usize,
    /// Output column of the block's first column.
    pub column: usize,
}

impl<T> Block<T> {
    /// A tile's block of [rows, columns] at output [row, column].
    pub fn new(accumulators: *mut T, [row, column]: [usize; 2], size: [usize; 2]) -> Self {
        let [rows, columns] = size;
        Block { accumulators, stride: BLOCK_STRIDE, rows, columns, row, column }
    }

    /// Address of the block's element (row, column) in a matrix of the output's shape.
    ///
    /// # Safety
    /// The matrix covers the block.
    pub unsafe fn place<U>(&self, matrix: *const U, row_stride: usize, row: usize) -> *const U {
        // SAFETY: promised by the caller.
        unsafe { matrix.add((self.row + row) * row_stride + self.column) }
    }
}

impl<T> Block<T> {
    /// Hands out the block's part of the output as runs: its rows, or all of them as one.
    ///
    /// # Safety
    /// The output covers the block and is initialised there.
    pub unsafe fn runs<U>(&self, output: &Output<U>, mut each: impl FnMut(&mut [U])) {
        let whole = self.columns == output.row_stride;
        let (runs, length) =
            if whole { (1, self.rows * self.columns) } else { (self.rows, self.columns) };
        for r in 0..runs {
            // SAFETY: the caller's promise.
            unsafe {
                let first = self.place(output.pointer, output.row_stride, r).cast_mut();
                each(std::slice::from_raw_parts_mut(first, length));
            }
        }
    }
}

/// The slice of a per-column vector that belongs to the block, as a pointer.
pub(crate) fn columns_of<T, U>(block: &Block<T>, values: &[U]) -> *const U {
    values[block.column..block.column + block.columns].as_ptr()
}

/// Stores a block of f32 accumulators.
///
/// # Safety
/// The block's accumulators are valid, and output and residual cover its rows and columns.
pub(crate) unsafe fn store_f32(
    isa: Isa,
    block: &Block<f32>,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
) {
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if isa.has_avx512() {
            isa::avx512::epilogue::store_f32(block, epilogue, output);
        } else if isa.has_avx2() {
            isa::avx2::epilogue::store_f32(block, epilogue, output);
        } else {
            isa::portable::epilogue::store_f32(block, 0, epilogue, output);
        }
        #[cfg(not(target_arch = "x86_64"))]
        isa::portable::epilogue::store_f32(block, 0, epilogue, output);
        activate(isa, block, epilogue, output);
    }
}

/// Applies an activation that is no clamp to a block of the output.
///
/// # Safety
/// The output covers the block.
pub(crate) unsafe fn activate(
    isa: Isa,
    block: &Block<f32>,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
) {
    if let Some(function) = epilogue.activation.function() {
        // SAFETY: the caller's promise.
        unsafe { block.runs(output, |run| map_f32_in_place(isa, function, run)) };
    }
}

/// Stores a block of s32 accumulators as u8.
///
/// # Safety
/// As [`store_f32`].
pub(crate) unsafe fn store_u8(
    isa: Isa,
    block: &Block<i32>,
    epilogue: &RequantizeU8,
    output: &Output<u8>,
) {
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if isa.has_avx512() {
            isa::avx512::epilogue::store_u8(block, epilogue, output);
        } else if isa.has_avx2() {
            isa::avx2::epilogue::store_u8(block, epilogue, output);
        } else {
            isa::portable::epilogue::store_u8(block, 0, epilogue, output);
        }
        #[cfg(not(target_arch = "x86_64"))]
        isa::portable::epilogue::store_u8(block, 0, epilogue, output);
        if let Some(table) = epilogue.table {
            block.runs(output, |run| map_u8_table_in_place(isa, table, run));
        }
    }
}

/// Stores a block of s32 accumulators as f32.
///
/// # Safety
/// As [`store_f32`].
pub(crate) unsafe fn store_dequantized(
    isa: Isa,
    block: &Block<i32>,
    epilogue: &DequantizeF32,
    output: &Output<f32>,
) {
    let rest = EpilogueF32 {
        alpha: 1.0,
        bias: epilogue.bias,
        residual: epilogue.residual,
        activation: epilogue.activation,
    };
    // SAFETY: the token proves the instruction set; the rest is the caller's promise. The
    // accumulators become f32 in place.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if isa.has_avx512() {
            isa::avx512::epilogue::scale(block, epilogue);
        } else if isa.has_avx2() {
            isa::avx2::epilogue::scale(block, epilogue);
        } else {
            isa::portable::epilogue::scale(block, 0, epilogue);
        }
        #[cfg(not(target_arch = "x86_64"))]
        isa::portable::epilogue::scale(block, 0, epilogue);
        let scaled = Block {
            accumulators: block.accumulators.cast::<f32>(),
            stride: block.stride,
            rows: block.rows,
            columns: block.columns,
            row: block.row,
            column: block.column,
        };
        store_f32(isa, &scaled, &rest, output);
    }
}

/// Stores a block of s32 accumulators as they are, with an optional bias.
///
/// # Safety
/// As [`store_f32`].
pub(crate) unsafe fn store_s32(block: &Block<i32>, bias: Option<&[i32]>, output: &Output<i32>) {
    let bias = bias.map(|values| columns_of(block, values));
    for r in 0..block.rows {
        // SAFETY: the caller's promise.
        unsafe {
            let from = block.accumulators.add(r * block.stride);
            let to = block.place(output.pointer, output.row_stride, r).cast_mut();
            match bias {
                None => std::ptr::copy_nonoverlapping(from, to, block.columns),
                Some(bias) => {
                    for c in 0..block.columns {
                        *to.add(c) = (*from.add(c)).wrapping_add(*bias.add(c));
                    }
                }
            }
        }
    }
}

/// Adds rows of bf16 to a block's accumulators.
///
/// # Safety
/// The block's accumulators are valid, and the addend covers its rows and columns.
pub(crate) unsafe fn add_halves(isa: Isa, block: &Block<f32>, addend: &Residual<bf16>) {
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if isa.has_avx512() {
            return isa::avx512::epilogue::add_halves(block, addend);
        }
        let _ = isa;
        for r in 0..block.rows {
            let from = block.place(addend.pointer, addend.row_stride, r);
            for c in 0..block.columns {
                *block.accumulators.add(r * block.stride + c) += from.add(c).read().to_f32();
            }
        }
    }
}

/// Stores a block of f32 accumulators as f32 or, rounded after the epilogue, as bf16.
///
/// # Safety
/// As [`store_f32`].
pub(crate) unsafe fn store_real<R: Real>(
    isa: Isa,
    block: &Block<f32>,
    epilogue: &EpilogueF32,
    output: &Output<R>,
) {
    // SAFETY: the caller's promise; finished values replace the accumulators.
    unsafe {
        if R::WIDE {
            let output =
                Output { pointer: output.pointer.cast::<f32>(), row_stride: output.row_stride };
            return store_f32(isa, block, epilogue, &output);
        }
        let output =
            Output { pointer: output.pointer.cast::<bf16>(), row_stride: output.row_stride };
        #[cfg(target_arch = "x86_64")]
        if isa.has_avx512() && isa.has_bf16() {
            if epilogue.activation.function().is_none() {
                return isa::avx512::epilogue::store_bf16(block, epilogue, &output);
            }
            finish_in_place(isa, block, epilogue);
            return isa::avx512::epilogue::store_bf16(block, &EpilogueF32::default(), &output);
        }
        finish_in_place(isa, block, epilogue);
        for r in 0..block.rows {
            let from =
                std::slice::from_raw_parts(block.accumulators.add(r * block.stride), block.columns);
            let to = block.place(output.pointer, output.row_stride, r).cast_mut();
            f32_to_bf16(isa, from, std::slice::from_raw_parts_mut(to, block.columns));
        }
    }
}

/// [`store_f32`] onto the block's own accumulators.
///
/// # Safety
/// As [`store_f32`].
unsafe fn finish_in_place(isa: Isa, block: &Block<f32>, epilogue: &EpilogueF32) {
    let bias = epilogue.bias.map(|bias| &bias[block.column..block.column + block.columns]);
    let residual = epilogue.residual.map(|residual| Residual {
        // SAFETY: the residual covers the block.
        pointer: unsafe { block.place(residual.pointer, residual.row_stride, 0) },
        ..residual
    });
    let local = Block { row: 0, column: 0, ..*block };
    let output = Output { pointer: block.accumulators, row_stride: block.stride };
    // SAFETY: as promised by the caller; the output is the accumulators themselves, which every
    // epilogue reads before it writes.
    unsafe { store_f32(isa, &local, &EpilogueF32 { bias, residual, ..*epilogue }, &output) }
}
