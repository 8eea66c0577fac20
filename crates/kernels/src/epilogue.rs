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

    /// True for what [`InRegisters`] does besides clamping.
    pub(crate) fn is_hard_swish(self) -> bool {
        self == Activation::HardSwish
    }

    /// The function that is applied to finished rows where it is not a clamp.
    pub(crate) fn function(self) -> Option<Unary> {
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
    unsafe fn runs<U>(&self, output: &Output<U>, mut each: impl FnMut(&mut [U])) {
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

/// What sums are of.
pub(crate) trait Sum: Copy {
    /// What a tile kernel does with them while they are in registers.
    type InRegisters: Copy + Movable;
    /// Bytes of an element of what depthwise kernels multiply column by column: bf16 or u8.
    const ELEMENT_BYTES: usize;
}

impl Sum for f32 {
    type InRegisters = InRegisters;
    const ELEMENT_BYTES: usize = 2;
}

impl Sum for i32 {
    type InRegisters = OfIntegers;
    const ELEMENT_BYTES: usize = 1;
}

/// What is done with a tile's sums, for another tile of the same output.
pub(crate) trait Movable {
    /// So many rows further down.
    fn below(&mut self, rows: usize);
    /// So many columns, of those that were left, further right.
    fn right(&mut self, columns: usize);
}

/// A pointer that may be null, so many elements further on.
fn further<T>(pointer: *const T, elements: usize) -> *const T {
    if pointer.is_null() { pointer } else { pointer.wrapping_add(elements) }
}

impl Movable for InRegisters {
    fn below(&mut self, rows: usize) {
        self.move_output(rows * self.output_stride);
        self.residual = further(self.residual, rows * self.residual_stride);
        self.addend = further(self.addend, rows * self.addend_stride);
    }

    fn right(&mut self, columns: usize) {
        self.move_output(columns);
        self.bias = further(self.bias, columns);
        self.residual = further(self.residual, columns);
        self.addend = further(self.addend, columns);
        self.columns = self.columns.saturating_sub(columns);
    }
}

impl InRegisters {
    fn move_output(&mut self, elements: usize) {
        self.output = match self.half_result {
            true => self.output.cast::<bf16>().wrapping_add(elements).cast(),
            false => self.output.wrapping_add(elements),
        };
    }
}

impl Movable for OfIntegers {
    fn below(&mut self, rows: usize) {
        match self {
            OfIntegers::Bytes(bytes) => {
                bytes.output = bytes.output.wrapping_add(rows * bytes.output_stride);
                bytes.residual = further(bytes.residual, rows * bytes.residual_stride);
            }
            OfIntegers::Reals(reals) => {
                reals.output = reals.output.wrapping_add(rows * reals.output_stride);
                reals.residual = further(reals.residual, rows * reals.residual_stride);
            }
        }
    }

    fn right(&mut self, columns: usize) {
        match self {
            OfIntegers::Bytes(bytes) => {
                bytes.output = bytes.output.wrapping_add(columns);
                bytes.bias = bytes.bias.wrapping_add(columns);
                bytes.multiplier = bytes.multiplier.wrapping_add(columns);
                bytes.residual = further(bytes.residual, columns);
                bytes.columns = bytes.columns.saturating_sub(columns);
            }
            OfIntegers::Reals(reals) => {
                reals.output = reals.output.wrapping_add(columns);
                reals.zero_terms = further(reals.zero_terms, columns);
                reals.scale = reals.scale.wrapping_add(columns);
                reals.bias = further(reals.bias, columns);
                reals.residual = further(reals.residual, columns);
                reals.columns = reals.columns.saturating_sub(columns);
            }
        }
    }
}

/// What becomes of finished accumulators.
pub(crate) trait Finish<A: Sum> {
    /// What tile kernels from output [row, column] on do with the sums of so many columns, or of the
    /// first of them, while they are in registers, where they can.
    fn in_registers(&self, place: [usize; 2], columns: usize) -> Option<A::InRegisters> {
        let _ = (place, columns);
        None
    }

    /// Takes a block, whose accumulators are only valid if they were not `stored` from registers.
    fn finish(&self, block: &Block<A>, stored: bool);
}

impl<A: Sum, F: Fn(&Block<A>)> Finish<A> for F {
    fn finish(&self, block: &Block<A>, _stored: bool) {
        self(block);
    }
}

/// The f32 epilogue of one tile: activation bounds, and pointers to the tile's part of each
/// operand, null where there is none.
#[derive(Clone, Copy)]
pub(crate) struct InRegisters {
    pub alpha: f32,
    pub low: f32,
    pub high: f32,
    /// Values are multiplied by min(max(value / 6 + 1 / 2, 0), 1), and there is no residual.
    pub hard_swish: bool,
    pub bias: *const f32,
    pub residual: *const f32,
    pub residual_stride: usize,
    /// Added before everything else; only with a `half_result`.
    pub addend: *const bf16,
    pub addend_stride: usize,
    pub output: *mut f32,
    pub output_stride: usize,
    /// Results are rounded to bf16: the output is of them, and so are its strides. Products have
    /// no residual then.
    pub half_result: bool,
    /// Columns that are left, those of the tile and more.
    pub columns: usize,
}

/// What a tile kernel does with sums of integers in registers.
#[derive(Clone, Copy)]
pub(crate) enum OfIntegers {
    Bytes(Requantized),
    Reals(Dequantized),
}

/// [`DequantizeF32`] for one tile, but for functions that are no clamp: pointers to the tile's part
/// of each operand, null where there is none.
#[derive(Clone, Copy)]
pub(crate) struct Dequantized {
    pub zero_terms: *const i32,
    pub scale: *const f32,
    pub bias: *const f32,
    pub residual: *const f32,
    pub residual_stride: usize,
    pub low: f32,
    pub high: f32,
    pub output: *mut f32,
    pub output_stride: usize,
    /// Columns that are left, those of the tile and more.
    pub columns: usize,
}

/// [`store_dequantized`], from registers where the tile kernels can.
#[derive(Clone, Copy)]
pub(crate) struct FinishDequantized<'a> {
    isa: Isa,
    epilogue: &'a DequantizeF32<'a>,
    output: &'a Output<f32>,
}

impl<'a> FinishDequantized<'a> {
    /// # Safety
    /// The blocks it will be given are covered by output and residual.
    pub unsafe fn new(isa: Isa, epilogue: &'a DequantizeF32, output: &'a Output<f32>) -> Self {
        FinishDequantized { isa, epilogue, output }
    }
}

impl Finish<i32> for FinishDequantized<'_> {
    fn in_registers(&self, place: [usize; 2], columns: usize) -> Option<OfIntegers> {
        let [row, column] = place;
        let DequantizeF32 { bias_s32, scale, bias, residual, activation } = *self.epilogue;
        let (low, high) = activation.bounds();
        let (residual, residual_stride) = part_of(residual, place);
        let all = column..column + columns;
        let output_stride = self.output.row_stride;
        self.isa.has_avx512().then(|| {
            OfIntegers::Reals(Dequantized {
                zero_terms: bias_s32.map_or(std::ptr::null(), |terms| terms[all.clone()].as_ptr()),
                scale: scale[all.clone()].as_ptr(),
                bias: bias.map_or(std::ptr::null(), |bias| bias[all].as_ptr()),
                residual,
                residual_stride,
                low,
                high,
                output: self.output.pointer.wrapping_add(row * output_stride + column),
                output_stride,
                columns,
            })
        })
    }

    fn finish(&self, block: &Block<i32>, stored: bool) {
        // SAFETY: promised to `new`.
        unsafe {
            match (stored, self.epilogue.activation.function()) {
                (false, _) => store_dequantized(self.isa, block, self.epilogue, self.output),
                (true, None) => {}
                (true, Some(function)) => {
                    block.runs(self.output, |run| map_f32_in_place(self.isa, function, run));
                }
            }
        }
    }
}

/// [`RequantizeU8`] for one tile: pointers to the tile's part of each operand.
#[derive(Clone, Copy)]
pub(crate) struct Requantized {
    pub bias: *const i32,
    pub multiplier: *const f32,
    /// Null where there is none.
    pub residual: *const u8,
    pub residual_stride: usize,
    pub residual_scale: f32,
    pub residual_zero_point: u8,
    pub zero_point: u8,
    pub low: u8,
    pub high: u8,
    pub output: *mut u8,
    pub output_stride: usize,
    /// Columns that are left, those of the tile and more.
    pub columns: usize,
}

/// [`store_u8`], from registers where the tile kernels can.
#[derive(Clone, Copy)]
pub(crate) struct FinishU8<'a> {
    isa: Isa,
    epilogue: &'a RequantizeU8<'a>,
    output: &'a Output<u8>,
}

impl<'a> FinishU8<'a> {
    /// # Safety
    /// The blocks it will be given are covered by output and residual.
    pub unsafe fn new(isa: Isa, epilogue: &'a RequantizeU8, output: &'a Output<u8>) -> Self {
        FinishU8 { isa, epilogue, output }
    }
}

impl Finish<i32> for FinishU8<'_> {
    fn in_registers(&self, place: [usize; 2], columns: usize) -> Option<OfIntegers> {
        let [row, column] = place;
        let RequantizeU8 { bias, multiplier, residual, zero_point, low, high, .. } = *self.epilogue;
        let (from, residual_stride) = part_of(residual.map(|residual| residual.rows), place);
        let output_stride = self.output.row_stride;
        self.isa.has_avx512().then(|| {
            OfIntegers::Bytes(Requantized {
                bias: bias[column..column + columns].as_ptr(),
                multiplier: multiplier[column..column + columns].as_ptr(),
                residual: from,
                residual_stride,
                residual_scale: residual.map_or(0.0, |residual| residual.scale),
                residual_zero_point: residual.map_or(0, |residual| residual.zero_point),
                zero_point,
                low,
                high,
                output: self.output.pointer.wrapping_add(row * output_stride + column),
                output_stride,
                columns,
            })
        })
    }

    fn finish(&self, block: &Block<i32>, stored: bool) {
        // SAFETY: promised to `new`.
        unsafe {
            match (stored, self.epilogue.table) {
                (false, _) => store_u8(self.isa, block, self.epilogue, self.output),
                (true, None) => {}
                (true, Some(table)) => {
                    block.runs(self.output, |run| map_u8_table_in_place(self.isa, table, run));
                }
            }
        }
    }
}

/// [`store_real`], from registers where the tile kernels can.
pub(crate) struct FinishReal<'a, R> {
    isa: Isa,
    epilogue: &'a EpilogueF32<'a>,
    addend: Option<&'a Residual<bf16>>,
    output: &'a Output<R>,
    /// True where the tile kernels can.
    registers: bool,
}

impl<'a> FinishReal<'a, f32> {
    /// What becomes of products of f32.
    ///
    /// # Safety
    /// The blocks it will be given are covered by output and residual.
    pub unsafe fn new(isa: Isa, epilogue: &'a EpilogueF32, output: &'a Output<f32>) -> Self {
        FinishReal { isa, epilogue, addend: None, output, registers: isa.has_avx512() }
    }
}

impl<'a, R: Real> FinishReal<'a, R> {
    /// What becomes of products of bf16.
    ///
    /// # Safety
    /// The blocks it will be given are covered by output, residual and addend.
    pub unsafe fn of_halves(
        isa: Isa,
        epilogue: &'a EpilogueF32,
        addend: Option<&'a Residual<bf16>>,
        output: &'a Output<R>,
    ) -> Self {
        let function = epilogue.activation.function().is_some();
        let registers = match R::WIDE {
            true => addend.is_none(),
            false => epilogue.residual.is_none(),
        };
        let late = !R::WIDE && function && !epilogue.activation.is_hard_swish();
        let registers = registers && !late && isa.has_bf16();
        FinishReal { isa, epilogue, addend, output, registers }
    }

    /// True where the tile kernels apply the activation to what is in registers.
    fn swishes(&self) -> bool {
        self.epilogue.activation.is_hard_swish() && self.epilogue.residual.is_none()
    }

    /// Stores a block from its accumulators.
    pub fn store(&self, block: &Block<f32>) {
        // SAFETY: promised to the constructors.
        unsafe {
            if let Some(addend) = self.addend {
                add_halves(self.isa, block, addend);
            }
            store_real(self.isa, block, self.epilogue, self.output);
        }
    }
}

/// Where a matrix has the element at a place, or null, and its stride.
fn part_of<T>(matrix: Option<Residual<T>>, [row, column]: [usize; 2]) -> (*const T, usize) {
    matrix.map_or((std::ptr::null(), 0), |matrix| {
        let stride = matrix.row_stride;
        (matrix.pointer.wrapping_add(row * stride + column), stride)
    })
}

impl<R: Real> Finish<f32> for FinishReal<'_, R> {
    fn in_registers(&self, place: [usize; 2], columns: usize) -> Option<InRegisters> {
        if !self.registers {
            return None;
        }
        let EpilogueF32 { alpha, bias, residual, activation } = *self.epilogue;
        let (low, high) = activation.bounds();
        let [row, column] = place;
        let part = |bias: &[f32]| bias[column..column + columns].as_ptr();
        let (residual, residual_stride) = part_of(residual, place);
        let (addend, addend_stride) = part_of(self.addend.copied(), place);
        let output_stride = self.output.row_stride;
        Some(InRegisters {
            alpha,
            low,
            high,
            hard_swish: self.swishes(),
            bias: bias.map_or(std::ptr::null(), part),
            residual,
            residual_stride,
            addend,
            addend_stride,
            output: self.output.pointer.wrapping_add(row * output_stride + column).cast(),
            output_stride,
            half_result: !R::WIDE,
            columns,
        })
    }

    fn finish(&self, block: &Block<f32>, stored: bool) {
        if !stored {
            return self.store(block);
        }
        if R::WIDE && !self.swishes() {
            let (pointer, row_stride) = (self.output.pointer.cast::<f32>(), self.output.row_stride);
            let output = Output { pointer, row_stride };
            // SAFETY: promised to the constructors.
            unsafe { activate(self.isa, block, self.epilogue, &output) };
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
unsafe fn activate(isa: Isa, block: &Block<f32>, epilogue: &EpilogueF32, output: &Output<f32>) {
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
