//! Softmax and its logarithm, along the last axis or any other.
//!
//! A line is read for its maximum, turned into exponentials while they are summed, and scaled.

use crate::functions;
use crate::reduce::{MaxLoose, SumExp, fold_slice};
use crate::vector::{Vector, vectorised};

/// Which function of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Softmax {
    /// e^x / Σ e^x.
    Plain,
    /// x − ln Σ e^x.
    Log,
}

/// # Safety
/// `input` and `output` must have `columns` values, and be equal or apart.
#[inline(always)]
unsafe fn row<V: Vector>(kind: Softmax, input: *const f32, output: *mut f32, columns: usize) {
    // SAFETY: all offsets stay below `columns`; the slice is not used after the first write.
    unsafe {
        let zero = V::splat(0.0);
        let max: V = fold_slice(MaxLoose(zero), std::slice::from_raw_parts(input, columns));
        if kind == Softmax::Log {
            let values = std::slice::from_raw_parts(input, columns);
            let sum: V = fold_slice(SumExp(max), values);
            let log = functions::log(sum);
            for i in (0..columns).step_by(V::LANES) {
                let x = V::load_upto(input.add(i), columns - i) - max - log;
                x.store_upto(output.add(i), columns - i);
            }
            return;
        }
        let mut sums = [zero; 2];
        let mut i = 0;
        while i + 2 * V::LANES <= columns {
            for (k, sum) in sums.iter_mut().enumerate() {
                let at = i + k * V::LANES;
                let e = functions::exp_not_positive(V::load(input.add(at)) - max);
                e.store(output.add(at));
                *sum = *sum + e;
            }
            i += 2 * V::LANES;
        }
        let mut total = (sums[0] + sums[1]).sum();
        while i < columns {
            let left = columns - i;
            let e = functions::exp_not_positive(V::load_upto(input.add(i), left) - max);
            e.store_upto(output.add(i), left);
            total +=
                std::slice::from_raw_parts(output.add(i), left.min(V::LANES)).iter().sum::<f32>();
            i += V::LANES;
        }
        scale_row(V::splat(1.0 / total), output, columns);
    }
}

/// # Safety
/// `values` must have `columns` values.
#[inline(always)]
unsafe fn scale_row<V: Vector>(factor: V, values: *mut f32, columns: usize) {
    for i in (0..columns).step_by(V::LANES) {
        // SAFETY: all offsets stay below `columns`.
        unsafe {
            let x = V::load_upto(values.add(i), columns - i) * factor;
            x.store_upto(values.add(i), columns - i);
        }
    }
}

#[inline(always)]
fn rows_apart<V: Vector>(kind: Softmax, columns: usize, input: &[f32], output: &mut [f32]) {
    assert_eq!(input.len(), output.len(), "one result for each value");
    if (1..=SHORT).contains(&columns) {
        return short_rows::<V>(kind, columns, input, output);
    }
    for (x, y) in input.chunks_exact(columns.max(1)).zip(output.chunks_exact_mut(columns.max(1))) {
        // SAFETY: both rows have `columns` values and are apart.
        unsafe { row::<V>(kind, x.as_ptr(), y.as_mut_ptr(), columns) }
    }
}

/// Rows this short would leave most of a vector empty.
const SHORT: usize = 8;
/// Short rows that are worked on together, one to a lane.
const TOGETHER: usize = 64;

/// Short rows, turned on their side.
#[inline(always)]
fn short_rows<V: Vector>(kind: Softmax, columns: usize, input: &[f32], output: &mut [f32]) {
    let (mut from, mut to) = ([0.0; SHORT * TOGETHER], [0.0; SHORT * TOGETHER]);
    let block = (columns * TOGETHER).max(1);
    for (x, y) in input.chunks(block).zip(output.chunks_mut(block)) {
        for (row, values) in x.chunks_exact(columns).enumerate() {
            for (column, &value) in values.iter().enumerate() {
                from[column * TOGETHER + row] = value;
            }
        }
        strided::<V>(kind, columns, TOGETHER, &from[..block], &mut to[..block]);
        for (row, values) in y.chunks_exact_mut(columns).enumerate() {
            for (column, value) in values.iter_mut().enumerate() {
                *value = to[column * TOGETHER + row];
            }
        }
    }
}

#[inline(always)]
fn rows_in_place<V: Vector>(kind: Softmax, columns: usize, values: &mut [f32]) {
    if (1..=SHORT).contains(&columns) {
        // The same sums in the same order as for rows that are apart.
        let mut copy = [0.0; SHORT * TOGETHER];
        for block in values.chunks_mut(columns * TOGETHER) {
            let copy = &mut copy[..block.len()];
            copy.copy_from_slice(block);
            short_rows::<V>(kind, columns, copy, block);
        }
        return;
    }
    for x in values.chunks_exact_mut(columns.max(1)) {
        // SAFETY: one row, equal to itself.
        unsafe { row::<V>(kind, x.as_ptr(), x.as_mut_ptr(), columns) }
    }
}

#[inline(always)]
fn rows_masked<V: Vector>(columns: usize, scale: f32, mask: &[f32], values: &mut [f32]) {
    let scale = V::splat(scale);
    let mut mask_rows = mask.chunks_exact(columns.max(1)).cycle();
    assert!(columns == 0 || mask.len() >= columns, "at least one row of mask");
    for x in values.chunks_exact_mut(columns.max(1)) {
        let Some(mask) = mask_rows.next() else { return };
        // SAFETY: both rows have `columns` values.
        unsafe {
            for i in (0..columns).step_by(V::LANES) {
                let m = V::load_upto(mask.as_ptr().add(i), columns - i);
                let y = V::load_upto(x.as_ptr().add(i), columns - i).mul_add(scale, m);
                y.store_upto(x.as_mut_ptr().add(i), columns - i);
            }
            row::<V>(Softmax::Plain, x.as_ptr(), x.as_mut_ptr(), columns);
        }
    }
}

#[inline(always)]
fn strided<V: Vector>(kind: Softmax, axis: usize, inner: usize, input: &[f32], output: &mut [f32]) {
    assert_eq!(input.len(), output.len(), "one result for each value");
    let block = (axis * inner).max(1);
    for (x, y) in input.chunks_exact(block).zip(output.chunks_exact_mut(block)) {
        for column in (0..inner).step_by(V::LANES) {
            let left = inner - column;
            // SAFETY: rows of `inner` values inside the blocks.
            unsafe {
                let from = x.as_ptr().add(column);
                let (mut max, mut sum) = (V::splat(f32::NEG_INFINITY), V::splat(0.0));
                for i in 0..axis {
                    max = max.max(V::load_upto(from.add(i * inner), left));
                }
                for i in 0..axis {
                    let e =
                        functions::exp_not_positive(V::load_upto(from.add(i * inner), left) - max);
                    sum = sum + e;
                    if kind == Softmax::Plain {
                        e.store_upto(y.as_mut_ptr().add(i * inner + column), left);
                    }
                }
                let (factor, log) = (V::splat(1.0) / sum, functions::log(sum));
                for i in 0..axis {
                    let place = y.as_mut_ptr().add(i * inner + column);
                    let value = match kind {
                        Softmax::Plain => V::load_upto(place, left) * factor,
                        Softmax::Log => V::load_upto(from.add(i * inner), left) - max - log,
                    };
                    value.store_upto(place, left);
                }
            }
        }
    }
}

vectorised! {
    /// Rows of `columns` values each. A row with NaN, or of nothing but −∞, gives NaN.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn softmax(isa, kind: Softmax, columns: usize, input: &[f32], output: &mut [f32])
        = rows_apart;
    /// [`softmax`] over its own input.
    pub fn softmax_in_place(isa, kind: Softmax, columns: usize, values: &mut [f32])
        = rows_in_place;
    /// `softmax(scale x + mask)` over its own input, as attention needs it; `mask` has one or
    /// several rows, used in turn and again from the first.
    ///
    /// # Panics
    /// If the mask has less than one row.
    pub fn softmax_masked(isa, columns: usize, scale: f32, mask: &[f32], values: &mut [f32])
        = rows_masked;
    /// Along the middle axis of (outer, `axis`, `inner`).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn softmax_strided(isa, kind: Softmax, axis: usize, inner: usize, input: &[f32],
        output: &mut [f32]) = strided;
}
