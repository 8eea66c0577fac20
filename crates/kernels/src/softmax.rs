//! Softmax and its logarithm, along the last axis or any other.
//!
//! A line is read for its maximum, turned into exponentials while they are summed, and scaled.

use half::bf16;

use crate::functions;
use crate::real::Real;
use crate::reduce::{MaxLoose, SumExp, fold_slice, join_lanes};
use crate::vector::{Vector, vectorised};

/// Which function of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Softmax {
    /// e^x / Σ e^x.
    Plain,
    /// x − ln Σ e^x.
    Log,
}

/// Writes `x − ln Σ e^x`.
///
/// # Safety
/// `input` and `output` must have `columns` values, and be equal or apart.
#[inline(always)]
unsafe fn log_row<V: Vector>(input: *const f32, output: *mut f32, columns: usize) {
    // SAFETY: all offsets stay below `columns`; the slice is not used after the first write.
    unsafe {
        let values = std::slice::from_raw_parts(input, columns);
        let max: V = fold_slice(MaxLoose(V::splat(0.0)), values);
        let sum: V = fold_slice(SumExp(max), values);
        let log = functions::log(sum);
        for i in (0..columns).step_by(V::LANES) {
            let x = V::load_upto(input.add(i), columns - i) - max - log;
            x.store_upto(output.add(i), columns - i);
        }
    }
}

/// Rows that are worked on at once: what one waits for, the others have.
const AT_ONCE: usize = 4;

/// The first `count` values, then −∞.
///
/// # Safety
/// `count < LANES` values must be readable.
#[inline(always)]
unsafe fn load_tail<V: Vector>(pointer: *const f32, count: usize) -> V {
    // SAFETY: the caller's promise.
    let x = unsafe { V::load_first(pointer, count) };
    V::select(V::below(count), x, V::splat(f32::NEG_INFINITY))
}

/// Writes `e^(x − max)` of rows `columns` apart, and gives what each is to be multiplied by, in
/// every lane.
///
/// # Safety
/// `input` and `output` must have the values of all rows, and be equal or apart.
#[inline(always)]
unsafe fn powers<V: Vector, const ROWS: usize>(
    input: *const f32,
    output: *mut f32,
    columns: usize,
) -> [V; ROWS] {
    let left = columns % V::LANES;
    let whole = columns - left;
    let least = V::splat(f32::NEG_INFINITY);
    let (mut most, mut sums) = ([least; ROWS], [V::splat(0.0); ROWS]);
    // SAFETY: all offsets stay inside the rows.
    unsafe {
        for i in (0..whole).step_by(V::LANES) {
            for (r, most) in most.iter_mut().enumerate() {
                *most = most.max(V::load(input.add(r * columns + i)));
            }
        }
        for (r, most) in most.iter_mut().enumerate() {
            if left > 0 {
                *most = most.max(load_tail(input.add(r * columns + whole), left));
            }
            *most = join_lanes(MaxLoose(least), *most);
        }
        for i in (0..whole).step_by(V::LANES) {
            for r in 0..ROWS {
                let at = r * columns + i;
                let e = functions::exp_not_positive(V::load(input.add(at)) - most[r]);
                e.store(output.add(at));
                sums[r] = sums[r] + e;
            }
        }
        for r in 0..ROWS {
            if left > 0 {
                let at = r * columns + whole;
                let x = load_tail::<V>(input.add(at), left);
                let e = functions::exp_not_positive(x - most[r]);
                e.store_first(output.add(at), left);
                sums[r] = sums[r] + e;
            }
            sums[r] = V::splat(1.0) / join_lanes(SumExp(least), sums[r]);
        }
    }
    sums
}

/// Rows of which the exponentials go to `room`, which may be the input, and the results, f32 or bf16,
/// to `output`, which may be `room`.
///
/// # Safety
/// As [`powers`]; `output` must have the values of all rows.
#[inline(always)]
unsafe fn plain_rows<V: Vector, R: Real, const ROWS: usize>(
    input: *const f32,
    room: *mut f32,
    output: *mut R,
    columns: usize,
) {
    // SAFETY: the caller's promise; all offsets stay inside the rows. R is f32 where it is wide,
    // otherwise bf16.
    unsafe {
        let factors: [V; ROWS] = powers(input, room, columns);
        for (r, factor) in factors.into_iter().enumerate() {
            let (row, to) = (room.add(r * columns), output.add(r * columns));
            for i in (0..columns).step_by(V::LANES) {
                let (left, to) = (columns - i, to.add(i));
                let x = V::load_upto(row.add(i), left) * factor;
                match R::WIDE {
                    true => x.store_upto(to.cast(), left),
                    false => x.store_bf16_upto(to.cast(), left),
                }
            }
        }
    }
}

/// [`plain_rows`] of `count` rows, [`AT_ONCE`] and then one by one.
///
/// # Safety
/// As [`plain_rows`].
#[inline(always)]
unsafe fn all_plain_rows<V: Vector, R: Real>(
    input: *const f32,
    room: *mut f32,
    output: *mut R,
    [count, columns]: [usize; 2],
) {
    let together = count - count % AT_ONCE;
    // SAFETY: the caller's promise.
    unsafe {
        for row in (0..together).step_by(AT_ONCE) {
            let at = row * columns;
            plain_rows::<V, R, AT_ONCE>(input.add(at), room.add(at), output.add(at), columns);
        }
        for row in together..count {
            let at = row * columns;
            plain_rows::<V, R, 1>(input.add(at), room.add(at), output.add(at), columns);
        }
    }
}

/// # Safety
/// `input` and `output` must have `count` rows of `columns` values, and be equal or apart.
#[inline(always)]
unsafe fn rows<V: Vector>(
    kind: Softmax,
    input: *const f32,
    output: *mut f32,
    [count, columns]: [usize; 2],
) {
    // SAFETY: the caller's promise.
    unsafe {
        if kind == Softmax::Plain {
            return all_plain_rows::<V, f32>(input, output, output, [count, columns]);
        }
        for row in 0..count {
            log_row::<V>(input.add(row * columns), output.add(row * columns), columns);
        }
    }
}

#[inline(always)]
fn rows_rounded<V: Vector>(columns: usize, values: &mut [f32], output: &mut [bf16]) {
    assert_eq!(values.len(), output.len(), "one result for each value");
    let count = values.len().checked_div(columns).unwrap_or(0);
    let values = values.as_mut_ptr();
    // SAFETY: both have `count` rows and are apart.
    unsafe { all_plain_rows::<V, bf16>(values, values, output.as_mut_ptr(), [count, columns]) }
}

#[inline(always)]
fn rows_apart<V: Vector>(kind: Softmax, columns: usize, input: &[f32], output: &mut [f32]) {
    assert_eq!(input.len(), output.len(), "one result for each value");
    if (1..=SHORT).contains(&columns) {
        return short_rows::<V>(kind, columns, input, output);
    }
    let count = input.len().checked_div(columns).unwrap_or(0);
    // SAFETY: both have `count` rows and are apart.
    unsafe { rows::<V>(kind, input.as_ptr(), output.as_mut_ptr(), [count, columns]) }
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
    let count = values.len().checked_div(columns).unwrap_or(0);
    let values = values.as_mut_ptr();
    // SAFETY: `count` rows, equal to themselves.
    unsafe { rows::<V>(kind, values, values, [count, columns]) }
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
            let x = x.as_mut_ptr();
            plain_rows::<V, f32, 1>(x, x, x, columns);
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
    /// [`softmax`], rounded to bf16; leaves the exponentials in `values`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn softmax_to_bf16(isa, columns: usize, values: &mut [f32], output: &mut [bf16])
        = rows_rounded;
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
