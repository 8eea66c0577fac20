//! What becomes of the sums of a tile: stored from registers where the tile kernels can, otherwise
//! as blocks of accumulators.

use half::bf16;

use crate::epilogue::{
    Activation, Block, DequantizeF32, EpilogueF32, Output, RequantizeU8, Residual, ThroughU8,
    activate, add_halves, store_dequantized, store_real, store_u8,
};
use crate::isa::Isa;
use crate::map::{Written, map_f32_in_place, map_u8_table_in_place, store_through};
use crate::real::Real;

/// What sums are of.
pub(crate) trait Sum: Copy + 'static {
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
#[inline]
fn further<T>(pointer: *const T, elements: usize) -> *const T {
    if pointer.is_null() { pointer } else { pointer.wrapping_add(elements) }
}

impl Movable for InRegisters {
    #[inline]
    fn below(&mut self, rows: usize) {
        self.move_output(rows * self.output_stride);
        self.residual = further(self.residual, rows * self.residual_stride);
        self.addend = further(self.addend, rows * self.addend_stride);
    }

    #[inline]
    fn right(&mut self, columns: usize) {
        self.move_output(columns);
        self.bias = further(self.bias, columns);
        self.residual = further(self.residual, columns);
        self.addend = further(self.addend, columns);
        self.columns = self.columns.saturating_sub(columns);
    }
}

impl InRegisters {
    #[inline]
    fn move_output(&mut self, elements: usize) {
        self.output = match self.half_result {
            true => self.output.cast::<bf16>().wrapping_add(elements).cast(),
            false => self.output.wrapping_add(elements),
        };
    }
}

impl Movable for OfIntegers {
    #[inline]
    fn below(&mut self, rows: usize) {
        match self {
            OfIntegers::Bytes(bytes) => bytes.below(rows),
            OfIntegers::Reals(reals) => reals.below(rows),
        }
    }

    #[inline]
    fn right(&mut self, columns: usize) {
        match self {
            OfIntegers::Bytes(bytes) => bytes.right(columns),
            OfIntegers::Reals(reals) => reals.right(columns),
        }
    }
}

impl Movable for Requantized {
    #[inline]
    fn below(&mut self, rows: usize) {
        self.output = self.output.wrapping_add(rows * self.output_stride);
        self.residual = further(self.residual, rows * self.residual_stride);
    }

    #[inline]
    fn right(&mut self, columns: usize) {
        self.output = self.output.wrapping_add(columns);
        self.bias = self.bias.wrapping_add(columns);
        self.multiplier = self.multiplier.wrapping_add(columns);
        self.residual = further(self.residual, columns);
        self.columns = self.columns.saturating_sub(columns);
    }
}

impl Movable for Dequantized {
    #[inline]
    fn below(&mut self, rows: usize) {
        self.output = self.output.wrapping_add(rows * self.output_stride);
        self.residual = further(self.residual, rows * self.residual_stride);
    }

    #[inline]
    fn right(&mut self, columns: usize) {
        self.output = self.output.wrapping_add(columns);
        self.zero_terms = further(self.zero_terms, columns);
        self.scale = self.scale.wrapping_add(columns);
        self.bias = further(self.bias, columns);
        self.residual = further(self.residual, columns);
        self.columns = self.columns.saturating_sub(columns);
    }
}

/// What becomes of finished accumulators.
pub(crate) trait Finish<A: Sum> {
    /// What tile kernels from output [row, column] on do with the sums of so many columns, or of the
    /// first of them, while they are in registers, where they can: everywhere, or nowhere.
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
    /// What values are multiplied by; there is no residual where it is not open.
    pub gate: Gate,
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

/// A function of a value that tile kernels multiply it by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Gate {
    /// 1
    Open,
    /// min(max(x / 6 + 1 / 2, 0), 1)
    Hard,
    /// 1 / (1 + e^−x), for results that are rounded to bf16
    Sigmoid,
    /// Φ(x), for results that are rounded to bf16
    Normal,
}

impl Gate {
    /// That of an activation, for results of f32 (`wide`) or of bf16.
    pub fn of(activation: Activation, wide: bool) -> Self {
        match activation {
            Activation::HardSwish => Gate::Hard,
            Activation::Silu if !wide => Gate::Sigmoid,
            Activation::Gelu if !wide => Gate::Normal,
            _ => Gate::Open,
        }
    }
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
        (self.isa.has_avx512() && self.epilogue.bounded).then(|| {
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

/// [`store_through`] of every block.
#[derive(Clone, Copy)]
pub(crate) struct FinishThrough<'a> {
    isa: Isa,
    epilogue: &'a ThroughU8<'a>,
    output: &'a Output<u8>,
}

impl<'a> FinishThrough<'a> {
    /// # Safety
    /// The blocks it will be given are covered by the output.
    pub unsafe fn new(isa: Isa, epilogue: &'a ThroughU8, output: &'a Output<u8>) -> Self {
        FinishThrough { isa, epilogue, output }
    }
}

impl Finish<i32> for FinishThrough<'_> {
    fn in_registers(&self, _: [usize; 2], _: usize) -> Option<OfIntegers> {
        None
    }

    fn finish(&self, block: &Block<i32>, _stored: bool) {
        // SAFETY: promised to `new`.
        unsafe { store_through(self.isa, Written::new(block, self.epilogue, self.output)) }
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
        let open = Gate::of(epilogue.activation, R::WIDE) == Gate::Open;
        let registers = match R::WIDE {
            true => addend.is_none(),
            false => epilogue.residual.is_none(),
        };
        let late = !R::WIDE && function && open;
        let registers = registers && !late && isa.has_bf16();
        FinishReal { isa, epilogue, addend, output, registers }
    }

    /// What the tile kernels multiply by in registers.
    fn gate(&self) -> Gate {
        match self.epilogue.residual {
            None => Gate::of(self.epilogue.activation, R::WIDE),
            Some(_) => Gate::Open,
        }
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
            gate: self.gate(),
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
        if R::WIDE && self.gate() == Gate::Open {
            let (pointer, row_stride) = (self.output.pointer.cast::<f32>(), self.output.row_stride);
            let output = Output { pointer, row_stride };
            // SAFETY: promised to the constructors.
            unsafe { activate(self.isa, block, self.epilogue, &output) };
        }
    }
}
