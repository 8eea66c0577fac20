//! One element of a sequence through an LSTM or GRU: the product with the recurrent matrix and the
//! gates of sixteen units at a time, so that gates never leave registers. Threads divide a step by such
//! blocks of units.
//!
//! With one sequence the step is bound by reading the matrix from L2, so the fewer bytes the better:
//! f32, bf16, or [`PackedI16`] in fixed point. The first two are packed as a convolution's weights whose
//! taps are the gates: the lines of a block of units are neighbours.

mod fixed;
mod gates;
mod products;
#[cfg(test)]
mod tests;

pub use fixed::PackedI16;

use std::marker::PhantomData;
use std::ops::Range;

use crate::isa::Isa;
use crate::pack::{PANEL, PackedBf16, PackedF32, WeightOrder};
use crate::vector::{Vector, vectorised};
use fixed::FixedProducts;
use gates::{blend_block, gru_block, lstm_block, reset_block};
use products::Lines;

/// Units of a block.
pub const BLOCK_UNITS: usize = PANEL;

/// How to pack the recurrent matrix `[G·H, H]` of one direction.
pub fn recurrent_order(gates: usize, hidden: usize) -> WeightOrder {
    WeightOrder {
        columns: hidden,
        taps: gates,
        depth: hidden,
        column_stride: hidden,
        tap_stride: hidden * hidden,
        depth_stride: 1,
    }
}

/// The recurrent matrix in [`recurrent_order`].
#[derive(Clone, Copy, Debug)]
pub enum RecurrentMatrix<'a> {
    /// As f32.
    F32(&'a PackedF32),
    /// As bf16, half the bytes to read; sums are f32, and so is h. For an even number of units.
    Bf16(&'a PackedBf16),
    /// In fixed point, half the bytes to read; h is rounded to 2^-21 of its largest magnitude. Rows of
    /// states do not share what is read.
    I16(&'a PackedI16),
}

impl RecurrentMatrix<'_> {
    /// Units H.
    pub fn hidden(&self) -> usize {
        match self {
            RecurrentMatrix::F32(weights) => weights.columns(),
            RecurrentMatrix::Bf16(weights) => weights.columns(),
            RecurrentMatrix::I16(weights) => weights.hidden(),
        }
    }

    /// Blocks of [`BLOCK_UNITS`] units, the last one perhaps in part.
    pub fn blocks(&self) -> usize {
        self.hidden().div_ceil(BLOCK_UNITS)
    }

    /// Gates, and units as the depth of each.
    fn extents(&self) -> (usize, usize) {
        match self {
            RecurrentMatrix::F32(weights) => (weights.taps(), weights.depth()),
            RecurrentMatrix::Bf16(weights) => (weights.taps(), weights.depth()),
            RecurrentMatrix::I16(weights) => (weights.gates(), weights.hidden()),
        }
    }
}

/// A state `[N, H]` that several threads may write at once, each the units of its own blocks.
#[derive(Clone, Copy, Debug)]
pub struct SharedState<'a> {
    first: *mut f32,
    count: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

impl<'a> SharedState<'a> {
    /// A state of one thread.
    pub fn of(values: &'a mut [f32]) -> Self {
        SharedState { first: values.as_mut_ptr(), count: values.len(), borrow: PhantomData }
    }

    /// A state of `count` values from `first` on.
    ///
    /// # Safety
    /// The values live as long as `'a`, and meanwhile other threads write no unit that a step with this
    /// state reads or writes: those of its blocks, and of `scaled` in [`gru_blend`] all.
    pub unsafe fn at(first: *mut f32, count: usize) -> Self {
        SharedState { first, count, borrow: PhantomData }
    }
}

/// The operands of one step of `N` sequences.
#[derive(Clone, Debug)]
pub struct RecurrentStep<'a> {
    /// What its products may use.
    pub isa: Isa,
    /// The recurrent matrix.
    pub weights: RecurrentMatrix<'a>,
    /// The blocks of units that are computed.
    pub blocks: Range<usize>,
    /// Products with the input and their biases, `[N, G·H]`.
    pub product: &'a [f32],
    /// Added to products with h, `[G·H]`; used where the reset gate scales it.
    pub recurrent_bias: &'a [f32],
    /// The state before the step, `[N, H]`.
    pub h: &'a [f32],
    /// The state after the step, `[N, H]`.
    pub next: SharedState<'a>,
    /// The cell state of an LSTM before and after the step; update gates between [`gru_reset`] and
    /// [`gru_blend`]; `[N, H]`.
    pub cell: SharedState<'a>,
    /// h times reset gates between [`gru_reset`] and [`gru_blend`], `[N, H]`; others leave it alone.
    pub scaled: SharedState<'a>,
    /// The cell state of an LSTM stays within ± this; infinite where it is free.
    pub cell_bound: f32,
}

impl RecurrentStep<'_> {
    /// The number of sequences, once every length fits.
    fn check(&self, gates: usize) -> usize {
        let hidden = self.weights.hidden();
        assert_eq!(self.weights.extents(), (gates, hidden), "gates");
        let pairs = !matches!(self.weights, RecurrentMatrix::Bf16(_)) || hidden.is_multiple_of(2);
        assert!(pairs, "an even number of units");
        let batch = self.h.len() / hidden.max(1);
        let state = batch * hidden;
        assert!(self.h.len() == state && self.product.len() == gates * state, "products");
        assert!(self.next.count == state && self.cell.count == state, "states");
        assert!(self.blocks.end <= self.weights.blocks(), "blocks");
        batch
    }
}

vectorised! {
    /// One step of an LSTM with gates i, o, f, c.
    ///
    /// # Panics
    /// If the lengths do not fit the weights.
    pub fn lstm_step(isa, step: RecurrentStep<'_>) = lstm_any;
    /// One step of a GRU with gates z, r, h whose reset gate scales the product with h.
    ///
    /// # Panics
    /// If the lengths do not fit the weights.
    pub fn gru_step(isa, step: RecurrentStep<'_>) = gru_any;
    /// The first half of a step of a GRU with gates z, r, h whose reset gate scales h before the
    /// product: update gates into `cell`, reset gates times h into `scaled`.
    ///
    /// # Panics
    /// If the lengths do not fit the weights.
    pub fn gru_reset(isa, step: RecurrentStep<'_>) = gru_reset_any;
    /// The second half, once [`gru_reset`] ran for all blocks.
    ///
    /// # Panics
    /// If the lengths do not fit the weights.
    pub fn gru_blend(isa, step: RecurrentStep<'_>) = gru_blend_any;
}

/// `$block` for the step's blocks of units of `$ROWS` rows whose products `$products` gives.
macro_rules! all_blocks {
    ($block:ident, $V:ident, $step:expr, $row:expr, $ROWS:literal, $products:expr) => {{
        let products = $products;
        for block in $step.blocks.clone() {
            // SAFETY: the lengths were checked; rows and block are inside the step.
            unsafe {
                match $V::LANES {
                    16 => $block::<$V, _, $ROWS, 1>(&mut $step, &products, $row, block),
                    8 => $block::<$V, _, $ROWS, 2>(&mut $step, &products, $row, block),
                    _ => $block::<$V, _, $ROWS, 4>(&mut $step, &products, $row, block),
                }
            }
        }
    }};
}

/// `$block` over all rows and blocks of units, with products of `$states`, `[N, H]`, and `$gates` gates
/// from `$from` on: as many rows at once as registers hold, and where they are few, sums in several
/// parts so that additions overlap.
macro_rules! over_blocks {
    ($block:ident, $gates:literal from $from:literal, $V:ident, $step:expr, $batch:expr, $states:expr) => {{
        let (hidden, wide) = ($step.weights.hidden(), $V::LANES == 16);
        let first: *const f32 = $states;
        let mut row = 0;
        while row < $batch {
            // SAFETY: the row is inside the states.
            let states = unsafe { first.add(row * hidden) };
            let many = wide && $batch - row >= 4;
            macro_rules! lines {
                ($weights:expr, $half:literal) => {{
                    let view = $weights.view();
                    match (many, wide) {
                        (true, _) => {
                            let lines = Lines::<1, $half> { view, hidden, states };
                            all_blocks!($block, $V, $step, row, 4, lines);
                        }
                        (_, true) => {
                            let lines = Lines::<4, $half> { view, hidden, states };
                            all_blocks!($block, $V, $step, row, 1, lines);
                        }
                        _ => {
                            let lines = Lines::<1, $half> { view, hidden, states };
                            all_blocks!($block, $V, $step, row, 1, lines);
                        }
                    }
                    row += if many { 4 } else { 1 };
                }};
            }
            match $step.weights {
                RecurrentMatrix::F32(weights) => lines!(weights, false),
                RecurrentMatrix::Bf16(weights) => lines!(weights, true),
                RecurrentMatrix::I16(weights) => {
                    // SAFETY: a row of states has as many values as there are units.
                    let all = unsafe {
                        FixedProducts::of::<$V, $gates>(weights, &$step.blocks, states, $from)
                    };
                    all_blocks!($block, $V, $step, row, 1, all);
                    row += 1;
                }
            }
        }
    }};
}

/// `$block` over all blocks on tiles, where this machine has them and they serve the step.
macro_rules! on_tiles {
    ($block:ident, $V:ident, $step:expr, $batch:expr) => {{
        #[cfg(target_arch = "x86_64")]
        if $V::LANES == 16
            && let Some(tiles) = products::TilesOfState::of(&$step, $batch)
        {
            return all_blocks!($block, $V, $step, 0, 1, tiles);
        }
    }};
}

#[inline(always)]
fn lstm_any<V: Vector>(mut step: RecurrentStep<'_>) {
    let batch = step.check(4);
    on_tiles!(lstm_block, V, step, batch);
    over_blocks!(lstm_block, 4 from 0, V, step, batch, step.h.as_ptr());
}

#[inline(always)]
fn gru_any<V: Vector>(mut step: RecurrentStep<'_>) {
    let batch = step.check(3);
    assert_eq!(step.recurrent_bias.len(), 3 * step.weights.hidden(), "recurrent bias");
    on_tiles!(gru_block, V, step, batch);
    over_blocks!(gru_block, 3 from 0, V, step, batch, step.h.as_ptr());
}

#[inline(always)]
fn gru_reset_any<V: Vector>(mut step: RecurrentStep<'_>) {
    let batch = step.check(3);
    assert_eq!(step.scaled.count, step.h.len(), "scratch");
    over_blocks!(reset_block, 2 from 0, V, step, batch, step.h.as_ptr());
}

#[inline(always)]
fn gru_blend_any<V: Vector>(mut step: RecurrentStep<'_>) {
    let batch = step.check(3);
    assert_eq!(step.scaled.count, step.h.len(), "scratch");
    over_blocks!(blend_block, 1 from 2, V, step, batch, step.scaled.first);
}
