//! One element of a sequence through an LSTM or GRU: the product with the recurrent matrix and the
//! gates of sixteen units at a time, so that gates never leave registers.
//!
//! With one sequence the step is bound by reading the matrix from L2. It is packed as a
//! convolution's weights whose taps are the gates: the lines of a block of units are neighbours.

use crate::functions::{sigmoid, tanh};
use crate::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::isa::amx::recurrent as amx;
use crate::pack::{PANEL, PackedBf16, PackedF32, PanelView, WeightOrder};
use crate::vector::{Vector, vectorised};

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
}

impl RecurrentMatrix<'_> {
    /// Units H.
    pub fn hidden(&self) -> usize {
        match self {
            RecurrentMatrix::F32(weights) => weights.columns(),
            RecurrentMatrix::Bf16(weights) => weights.columns(),
        }
    }

    /// Gates, and units as the depth of each.
    fn extents(&self) -> (usize, usize) {
        match self {
            RecurrentMatrix::F32(weights) => (weights.taps(), weights.depth()),
            RecurrentMatrix::Bf16(weights) => (weights.taps(), weights.depth()),
        }
    }

    fn is_half(&self) -> bool {
        matches!(self, RecurrentMatrix::Bf16(_))
    }

    fn view(&self) -> PanelView {
        match self {
            RecurrentMatrix::F32(weights) => weights.view(),
            RecurrentMatrix::Bf16(weights) => weights.view(),
        }
    }
}

/// The operands of one step of `N` sequences.
#[derive(Debug)]
pub struct RecurrentStep<'a> {
    /// What its products may use.
    pub isa: Isa,
    /// The recurrent matrix.
    pub weights: RecurrentMatrix<'a>,
    /// Products with the input and their biases, `[N, G·H]`.
    pub product: &'a [f32],
    /// Added to products with h, `[G·H]`; used where the reset gate scales it.
    pub recurrent_bias: &'a [f32],
    /// The state before the step, `[N, H]`.
    pub h: &'a [f32],
    /// The state after the step, `[N, H]`.
    pub next: &'a mut [f32],
    /// The cell state of an LSTM before and after the step; otherwise scratch; `[N, H]`.
    pub cell: &'a mut [f32],
    /// Scratch of [`gru_step_reset_first`], `[N, H]`; others leave it alone.
    pub scaled: &'a mut [f32],
    /// The cell state of an LSTM stays within ± this; infinite where it is free.
    pub cell_bound: f32,
}

impl RecurrentStep<'_> {
    /// The number of sequences, once every length fits.
    fn check(&self, gates: usize) -> usize {
        let hidden = self.weights.hidden();
        assert_eq!(self.weights.extents(), (gates, hidden), "gates");
        assert!(!self.weights.is_half() || hidden.is_multiple_of(2), "an even number of units");
        let batch = self.h.len() / hidden.max(1);
        let state = batch * hidden;
        assert!(self.h.len() == state && self.product.len() == gates * state, "products");
        assert!(self.next.len() == state && self.cell.len() == state, "states");
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
    /// One step of a GRU with gates z, r, h whose reset gate scales h before the product.
    ///
    /// # Panics
    /// If the lengths do not fit the weights.
    pub fn gru_step_reset_first(isa, step: RecurrentStep<'_>) = gru_reset_first_any;
}

/// The state of a single sequence as tiles multiply it.
struct TilesOfState {
    parts: Vec<u16>,
}

#[cfg(target_arch = "x86_64")]
impl TilesOfState {
    /// `None` where there are no tiles, or they do not fit: whole tiles of bf16, one sequence.
    fn of(step: &RecurrentStep<'_>, batch: usize) -> Option<Self> {
        let whole = step.h.len().is_multiple_of(amx::TILE) && batch == 1;
        if !step.isa.has_amx() || !step.weights.is_half() || !whole {
            return None;
        }
        let mut parts = vec![0; step.h.len() * amx::PARTS];
        // SAFETY: the token proves tiles and AVX-512; the parts have their room.
        unsafe {
            amx::split(step.h, parts.as_mut_ptr());
            amx::configure();
        }
        Some(TilesOfState { parts })
    }

    /// What [`products`] gives, for a single row of three or four gates.
    ///
    /// # Safety
    /// The block is inside the weights, which are of bf16.
    #[inline(always)]
    unsafe fn products<V: Vector, const ROWS: usize, const GATES: usize, const PARTS: usize>(
        &self,
        view: &PanelView,
        hidden: usize,
        block: usize,
    ) -> [[[V; PARTS]; GATES]; ROWS] {
        let mut sums = [[[0.0; PANEL]; amx::PARTS]; 4];
        let first = view.weights.wrapping_add(block * view.panel_bytes());
        let (tiles, gate_bytes) = (hidden / amx::TILE, hidden / 2 * PANEL * 4);
        let parts = self.parts.as_ptr();
        // SAFETY: the tiles were configured; the caller's promise.
        unsafe { amx::products(parts, tiles, first, gate_bytes, GATES == 4, &mut sums) };
        let mut total = [[[V::splat(0.0); PARTS]; GATES]; ROWS];
        for g in 0..GATES {
            // SAFETY: 16 floats each.
            let [high, middle, low] =
                sums[g].each_ref().map(|row| unsafe { V::load(row.as_ptr()) });
            total[0][g][0] = high + (middle + low);
        }
        total
    }
}

impl Drop for TilesOfState {
    fn drop(&mut self) {
        // SAFETY: it was made where there are tiles.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            amx::release();
        }
    }
}

/// `$name::<V, ROWS, PARTS, SPLIT, HALF>` over all rows and blocks of units, by `$tiles` if there are
/// any: otherwise as many rows at once as registers hold, and where they are few, sums in several
/// parts so that additions overlap.
macro_rules! over_blocks {
    ($name:ident, $V:ident, $step:expr, $batch:expr, $tiles:expr) => {{
        let blocks = $step.weights.hidden().div_ceil(PANEL);
        let at_once = if $V::LANES == 16 { 4 } else { 1 };
        let tiles: Option<TilesOfState> = $tiles;
        let mut row = 0;
        while row < $batch {
            let together = $batch - row >= at_once && at_once > 1;
            for block in 0..blocks {
                macro_rules! call {
                    ($half:literal) => {
                        match ($V::LANES, together) {
                            (16, true) => $name::<$V, 4, 1, 1, $half>(&mut $step, row, block, None),
                            (16, false) => {
                                let tiles = tiles.as_ref();
                                $name::<$V, 1, 1, 4, $half>(&mut $step, row, block, tiles)
                            }
                            (8, _) => $name::<$V, 1, 2, 1, $half>(&mut $step, row, block, None),
                            _ => $name::<$V, 1, 4, 1, $half>(&mut $step, row, block, None),
                        }
                    };
                }
                // SAFETY: the lengths were checked; the block is inside the weights.
                unsafe { if $step.weights.is_half() { call!(true) } else { call!(false) } }
            }
            row += if together { at_once } else { 1 };
        }
    }};
}

/// Tiles for the products of a step, where this machine has them.
#[inline(always)]
fn tiles<V: Vector>(step: &RecurrentStep<'_>, batch: usize) -> Option<TilesOfState> {
    #[cfg(target_arch = "x86_64")]
    if V::LANES == 16 {
        return TilesOfState::of(step, batch);
    }
    let _ = (step, batch);
    None
}

#[inline(always)]
fn lstm_any<V: Vector>(mut step: RecurrentStep<'_>) {
    let batch = step.check(4);
    over_blocks!(lstm_block, V, step, batch, tiles::<V>(&step, batch));
}

#[inline(always)]
fn gru_any<V: Vector>(mut step: RecurrentStep<'_>) {
    let batch = step.check(3);
    assert_eq!(step.recurrent_bias.len(), 3 * step.weights.hidden(), "recurrent bias");
    over_blocks!(gru_block, V, step, batch, tiles::<V>(&step, batch));
}

#[inline(always)]
fn gru_reset_first_any<V: Vector>(mut step: RecurrentStep<'_>) {
    let batch = step.check(3);
    assert_eq!(step.scaled.len(), step.h.len(), "scratch");
    over_blocks!(reset_block, V, step, batch, None);
    over_blocks!(blend_block, V, step, batch, None);
}

/// The bits of a bf16 in the upper half of a word.
const HIGH_HALF: i32 = 0xffff_0000u32 as i32;

/// Products of `ROWS` states with `GATES` gates of a block of units from gate `first` on.
///
/// # Safety
/// `h` has the weights' depth for every row; gates and block are inside the weights.
#[inline(always)]
unsafe fn products<
    V: Vector,
    const ROWS: usize,
    const GATES: usize,
    const PARTS: usize,
    const SPLIT: usize,
    const HALF: bool,
>(
    view: &PanelView,
    hidden: usize,
    block: usize,
    first: usize,
    h: *const f32,
    tiles: Option<&TilesOfState>,
) -> [[[V; PARTS]; GATES]; ROWS] {
    #[cfg(target_arch = "x86_64")]
    if let (Some(tiles), true) = (tiles, HALF && GATES >= 3) {
        // SAFETY: the caller's promise; tiles are only there for one row of bf16.
        return unsafe { tiles.products::<V, ROWS, GATES, PARTS>(view, hidden, block) };
    }
    let _ = tiles;
    let gate_stride = if HALF { hidden / 2 } else { hidden } * PANEL;
    let mut sums = [[[[V::splat(0.0); PARTS]; GATES]; ROWS]; SPLIT];
    // SAFETY: the caller's promise.
    unsafe {
        let mut line =
            view.weights.cast::<f32>().add(block * view.panel_bytes() / 4 + first * gate_stride);
        let mut from = h;
        // What a line holds of each gate: one step along K, or two of bf16.
        macro_rules! multiply {
            ($part:expr) => {
                for r in 0..ROWS {
                    let value = V::splat(*from.add(r * hidden));
                    let next = if HALF { V::splat(*from.add(r * hidden + 1)) } else { value };
                    for g in 0..GATES {
                        for p in 0..PARTS {
                            let weights = V::load(line.add(g * gate_stride + p * V::LANES));
                            let sum = &mut $part[r][g][p];
                            if HALF {
                                let pair = weights.bits();
                                let even = V::from_bits(V::int_shift_left::<16>(pair));
                                let high = V::int_and(pair, V::int_splat(HIGH_HALF));
                                *sum = V::from_bits(high).mul_add(next, even.mul_add(value, *sum));
                            } else {
                                *sum = weights.mul_add(value, *sum);
                            }
                        }
                    }
                }
                line = line.add(PANEL);
                from = from.add(if HALF { 2 } else { 1 });
            };
        }
        let steps = if HALF { hidden / 2 } else { hidden };
        for _ in 0..steps / SPLIT {
            for part in &mut sums {
                multiply!(part);
            }
        }
        for _ in 0..steps % SPLIT {
            multiply!(sums[0]);
        }
    }
    added(&sums)
}

/// The sums of all parts.
#[inline(always)]
fn added<V: Vector, const ROWS: usize, const GATES: usize, const PARTS: usize>(
    sums: &[[[[V; PARTS]; GATES]; ROWS]],
) -> [[[V; PARTS]; GATES]; ROWS] {
    let mut total = sums[0];
    for sum in &sums[1..] {
        for r in 0..ROWS {
            for g in 0..GATES {
                for p in 0..PARTS {
                    total[r][g][p] = total[r][g][p] + sum[r][g][p];
                }
            }
        }
    }
    total
}

/// Calls `$body` for the units of a block: `$r` the row, `$p` the part, `$unit` the first of
/// `$count` units, `$at` their index in a state.
macro_rules! each_part {
    ($V:ident, $hidden:expr, $block:expr, $row:expr, |$r:ident, $p:ident, $unit:ident, $at:ident, $count:ident| $body:block) => {
        for $r in 0..ROWS {
            for $p in 0..PARTS {
                let $unit = $block * PANEL + $p * $V::LANES;
                if $unit < $hidden {
                    let $count = $hidden - $unit;
                    let $at = ($row + $r) * $hidden + $unit;
                    $body
                }
            }
        }
    };
}

/// # Safety
/// The step was checked for four gates; rows and block are inside it.
#[inline(always)]
unsafe fn lstm_block<
    V: Vector,
    const ROWS: usize,
    const PARTS: usize,
    const SPLIT: usize,
    const HALF: bool,
>(
    step: &mut RecurrentStep<'_>,
    row: usize,
    block: usize,
    tiles: Option<&TilesOfState>,
) {
    let view = step.weights.view();
    let hidden = step.weights.hidden();
    // SAFETY: the caller's promise; parts stay inside a state.
    unsafe {
        let h = step.h.as_ptr().add(row * hidden);
        let sums = products::<V, ROWS, 4, PARTS, SPLIT, HALF>(&view, hidden, block, 0, h, tiles);
        each_part!(V, hidden, block, row, |r, p, unit, at, count| {
            let product = step.product.as_ptr().add((row + r) * 4 * hidden + unit);
            let gate = |g: usize| V::load_upto(product.add(g * hidden), count) + sums[r][g][p];
            let cell = step.cell.as_mut_ptr().add(at);
            let kept = sigmoid(gate(2)) * V::load_upto(cell, count);
            let state = sigmoid(gate(0)).mul_add(tanh(gate(3)), kept);
            let state = state.clamp(V::splat(-step.cell_bound), V::splat(step.cell_bound));
            state.store_upto(cell, count);
            let value = sigmoid(gate(1)) * tanh(state);
            value.store_upto(step.next.as_mut_ptr().add(at), count);
        });
    }
}

/// # Safety
/// The step was checked for three gates and a recurrent bias; rows and block are inside it.
#[inline(always)]
unsafe fn gru_block<
    V: Vector,
    const ROWS: usize,
    const PARTS: usize,
    const SPLIT: usize,
    const HALF: bool,
>(
    step: &mut RecurrentStep<'_>,
    row: usize,
    block: usize,
    tiles: Option<&TilesOfState>,
) {
    let view = step.weights.view();
    let hidden = step.weights.hidden();
    // SAFETY: the caller's promise; parts stay inside a state.
    unsafe {
        let h = step.h.as_ptr().add(row * hidden);
        let sums = products::<V, ROWS, 3, PARTS, SPLIT, HALF>(&view, hidden, block, 0, h, tiles);
        each_part!(V, hidden, block, row, |r, p, unit, at, count| {
            let product = step.product.as_ptr().add((row + r) * 3 * hidden + unit);
            let from_x = |g: usize| V::load_upto(product.add(g * hidden), count);
            let bias = step.recurrent_bias.as_ptr().add(unit);
            let from_h = |g: usize| V::load_upto(bias.add(g * hidden), count) + sums[r][g][p];
            let update = sigmoid(from_x(0) + from_h(0));
            let reset = sigmoid(from_x(1) + from_h(1));
            let next = tanh(reset.mul_add(from_h(2), from_x(2)));
            let h = V::load_upto(step.h.as_ptr().add(at), count);
            update.mul_add(h - next, next).store_upto(step.next.as_mut_ptr().add(at), count);
        });
    }
}

/// Update gates into `cell`, reset gates times h into `scaled`.
///
/// # Safety
/// The step was checked for three gates and scratch; rows and block are inside it.
#[inline(always)]
unsafe fn reset_block<
    V: Vector,
    const ROWS: usize,
    const PARTS: usize,
    const SPLIT: usize,
    const HALF: bool,
>(
    step: &mut RecurrentStep<'_>,
    row: usize,
    block: usize,
    tiles: Option<&TilesOfState>,
) {
    let view = step.weights.view();
    let hidden = step.weights.hidden();
    // SAFETY: the caller's promise; parts stay inside a state.
    unsafe {
        let h = step.h.as_ptr().add(row * hidden);
        let sums = products::<V, ROWS, 2, PARTS, SPLIT, HALF>(&view, hidden, block, 0, h, tiles);
        each_part!(V, hidden, block, row, |r, p, unit, at, count| {
            let product = step.product.as_ptr().add((row + r) * 3 * hidden + unit);
            let gate = |g: usize| V::load_upto(product.add(g * hidden), count) + sums[r][g][p];
            sigmoid(gate(0)).store_upto(step.cell.as_mut_ptr().add(at), count);
            let h = V::load_upto(step.h.as_ptr().add(at), count);
            (sigmoid(gate(1)) * h).store_upto(step.scaled.as_mut_ptr().add(at), count);
        });
    }
}

/// The last gate from `scaled`, blended with h by the update gates in `cell`.
///
/// # Safety
/// As [`reset_block`], which ran for all blocks of the rows.
#[inline(always)]
unsafe fn blend_block<
    V: Vector,
    const ROWS: usize,
    const PARTS: usize,
    const SPLIT: usize,
    const HALF: bool,
>(
    step: &mut RecurrentStep<'_>,
    row: usize,
    block: usize,
    tiles: Option<&TilesOfState>,
) {
    let view = step.weights.view();
    let hidden = step.weights.hidden();
    // SAFETY: the caller's promise; parts stay inside a state.
    unsafe {
        let scaled = step.scaled.as_ptr().add(row * hidden);
        let sums =
            products::<V, ROWS, 1, PARTS, SPLIT, HALF>(&view, hidden, block, 2, scaled, tiles);
        each_part!(V, hidden, block, row, |r, p, unit, at, count| {
            let product = step.product.as_ptr().add(((row + r) * 3 + 2) * hidden + unit);
            let next = tanh(V::load_upto(product, count) + sums[r][0][p]);
            let update = V::load_upto(step.cell.as_ptr().add(at), count);
            let h = V::load_upto(step.h.as_ptr().add(at), count);
            update.mul_add(h - next, next).store_upto(step.next.as_mut_ptr().add(at), count);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 211) as f32 / 211.0 - 0.5).collect()
    }

    fn logistic(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    /// The product of a state with one row of the recurrent matrix.
    fn dot(r: &[f32], h: &[f64], row: usize) -> f64 {
        r[row * h.len()..][..h.len()].iter().zip(h).map(|(&r, h)| f64::from(r) * h).sum()
    }

    /// One sequence's next state and cell state by the definition.
    fn expected(
        kind: usize,
        r: &[f32],
        b: &[f32],
        x: &[f32],
        h: &[f32],
        [c, bound]: [f32; 2],
        j: usize,
    ) -> f64 {
        let size = h.len();
        let h: Vec<f64> = h.iter().map(|&v| f64::from(v)).collect();
        let x = |g: usize| f64::from(x[g * size + j]);
        let gate = |g: usize| x(g) + dot(r, &h, g * size + j);
        let bias = |g: usize| f64::from(b[g * size + j]);
        if kind == 0 {
            let cell = logistic(gate(2)) * f64::from(c) + logistic(gate(0)) * gate(3).tanh();
            let bound = f64::from(bound);
            return logistic(gate(1)) * cell.clamp(-bound, bound).tanh();
        }
        let update = logistic(gate(0) + if kind == 1 { bias(0) } else { 0.0 });
        let next = if kind == 1 {
            let reset = logistic(gate(1) + bias(1));
            (x(2) + reset * (dot(r, &h, 2 * size + j) + bias(2))).tanh()
        } else {
            let reset = |k: usize| {
                let product = dot(r, &h, size + k);
                logistic(product + f64::from(b[3 * size + k])) * h[k]
            };
            let scaled: Vec<f64> = (0..size).map(reset).collect();
            (x(2) + dot(r, &scaled, 2 * size + j)).tanh()
        };
        (1.0 - update) * next + update * h[j]
    }

    #[test]
    fn steps_follow_the_definition_on_every_set() {
        for (hidden, batch) in
            [(1, 1), (16, 1), (21, 1), (32, 1), (96, 1), (48, 5), (7, 4), (33, 9)]
        {
            for kind in 0..3 {
                let gates = if kind == 0 { 4 } else { 3 };
                let r = values(gates * hidden * hidden, kind);
                let x = values(batch * gates * hidden, 3);
                let (h, c) = (values(batch * hidden, 4), values(batch * hidden, 5));
                let bias = values(gates * hidden, 6);
                // Values that bf16 holds exactly.
                let r: Vec<f32> = r.iter().map(|&v| half::bf16::from_f32(v).to_f32()).collect();
                let order = recurrent_order(gates, hidden);
                let (wide, half) = (PackedF32::pack(&r, &order), PackedBf16::pack(&r, &order));
                let forms = [RecurrentMatrix::F32(&wide), RecurrentMatrix::Bf16(&half)];
                let forms = &forms[..if hidden % 2 == 0 { 2 } else { 1 }];
                let sets = Isa::available();
                for (&isa, &weights) in sets.iter().flat_map(|s| forms.iter().map(move |f| (s, f)))
                {
                    let (mut next, mut cell) = (vec![0.0; h.len()], c.clone());
                    let mut scaled = vec![0.0; h.len()];
                    let step = RecurrentStep {
                        isa,
                        weights,
                        product: &x,
                        recurrent_bias: &bias,
                        h: &h,
                        next: &mut next,
                        cell: &mut cell,
                        scaled: &mut scaled,
                        cell_bound: if batch == 5 { 0.1 } else { f32::INFINITY },
                    };
                    [lstm_step, gru_step, gru_step_reset_first][kind](isa, step);
                    for n in 0..batch {
                        let x = &x[n * gates * hidden..][..gates * hidden];
                        // The reset gate of every unit, for the form that scales h first.
                        let mut known = bias.clone();
                        if kind == 2 {
                            known.extend_from_slice(&x[hidden..2 * hidden]);
                        }
                        for j in 0..hidden {
                            let at = n * hidden + j;
                            let h = &h[n * hidden..][..hidden];
                            let bound = if batch == 5 { 0.1 } else { f32::INFINITY };
                            let want = expected(kind, &r, &known, x, h, [c[at], bound], j);
                            let error = (f64::from(next[at]) - want).abs();
                            assert!(error < 2e-6, "{isa} {kind} {hidden} {batch}: {error}");
                        }
                    }
                }
            }
        }
    }
}
