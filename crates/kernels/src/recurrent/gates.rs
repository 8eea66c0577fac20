//! The gates of a block of sixteen units from their products, one function for each kind of step.

use super::RecurrentStep;
use super::products::Products;
use crate::functions::{sigmoid, tanh};
use crate::pack::PANEL;
use crate::vector::Vector;

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

/// A function over the `$gates` gates from `$first` on of a block of units in `ROWS` rows: what it
/// does with each part, once their sums are known.
macro_rules! block_of_units {
    ($(#[$attribute:meta])* fn $name:ident, $gates:literal gates from $first:literal:
        |$V:ident, $step:ident, $hidden:ident, $sums:ident, $row:ident, $r:ident, $p:ident, $unit:ident, $at:ident, $count:ident| $body:block) => {
        $(#[$attribute])*
        ///
        /// # Safety
        /// The step was checked for its gates, the rows' states are what `products` was made of, and
        /// rows and block are inside the step.
        #[inline(always)]
        pub(super) unsafe fn $name<$V: Vector, P: Products, const ROWS: usize, const PARTS: usize>(
            $step: &mut RecurrentStep<'_>,
            products: &P,
            $row: usize,
            block: usize,
        ) {
            let $hidden = $step.weights.hidden();
            // SAFETY: the caller's promise; parts stay inside a state.
            unsafe {
                let $sums = products.of::<$V, ROWS, $gates, PARTS>(block, $first);
                each_part!($V, $hidden, block, $row, |$r, $p, $unit, $at, $count| $body);
            }
        }
    };
}

block_of_units! {
    /// Cell state and h of an LSTM.
    fn lstm_block, 4 gates from 0: |V, step, hidden, sums, row, r, p, unit, at, count| {
        let product = step.product.as_ptr().add((row + r) * 4 * hidden + unit);
        let gate = |g: usize| V::load_upto(product.add(g * hidden), count) + sums[r][g][p];
        let cell = step.cell.first.add(at);
        let kept = sigmoid(gate(2)) * V::load_upto(cell, count);
        let state = sigmoid(gate(0)).mul_add(tanh(gate(3)), kept);
        let state = state.clamp(V::splat(-step.cell_bound), V::splat(step.cell_bound));
        state.store_upto(cell, count);
        let value = sigmoid(gate(1)) * tanh(state);
        value.store_upto(step.next.first.add(at), count);
    }
}

block_of_units! {
    /// h of a GRU whose reset gate scales the product with h.
    fn gru_block, 3 gates from 0: |V, step, hidden, sums, row, r, p, unit, at, count| {
        let product = step.product.as_ptr().add((row + r) * 3 * hidden + unit);
        let from_x = |g: usize| V::load_upto(product.add(g * hidden), count);
        let bias = step.recurrent_bias.as_ptr().add(unit);
        let from_h = |g: usize| V::load_upto(bias.add(g * hidden), count) + sums[r][g][p];
        let update = sigmoid(from_x(0) + from_h(0));
        let reset = sigmoid(from_x(1) + from_h(1));
        let next = tanh(reset.mul_add(from_h(2), from_x(2)));
        let h = V::load_upto(step.h.as_ptr().add(at), count);
        update.mul_add(h - next, next).store_upto(step.next.first.add(at), count);
    }
}

block_of_units! {
    /// Update gates into `cell`, reset gates times h into `scaled`.
    fn reset_block, 2 gates from 0: |V, step, hidden, sums, row, r, p, unit, at, count| {
        let product = step.product.as_ptr().add((row + r) * 3 * hidden + unit);
        let gate = |g: usize| V::load_upto(product.add(g * hidden), count) + sums[r][g][p];
        sigmoid(gate(0)).store_upto(step.cell.first.add(at), count);
        let h = V::load_upto(step.h.as_ptr().add(at), count);
        (sigmoid(gate(1)) * h).store_upto(step.scaled.first.add(at), count);
    }
}

block_of_units! {
    /// The last gate, whose products are of `scaled`, blended with h by the update gates in `cell`,
    /// after [`reset_block`] ran for all blocks of the rows.
    fn blend_block, 1 gates from 2: |V, step, hidden, sums, row, r, p, unit, at, count| {
        let product = step.product.as_ptr().add(((row + r) * 3 + 2) * hidden + unit);
        let next = tanh(V::load_upto(product, count) + sums[r][0][p]);
        let update = V::load_upto(step.cell.first.add(at), count);
        let h = V::load_upto(step.h.as_ptr().add(at), count);
        update.mul_add(h - next, next).store_upto(step.next.first.add(at), count);
    }
}
