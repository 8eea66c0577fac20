//! Attention of one head: scores of a few rows stay in L1 from the first product to the second.

use std::cell::RefCell;

use crate::activations::{
    gemm_bf16_scratch, gemm_f32_scratch, pack_bf16, pack_f32, scratch_bf16, scratch_f32,
};
use crate::conv::Indirection;
use crate::epilogue::{EpilogueF32, Output, Residual};
use crate::gemm::Input;
use crate::isa::Isa;
use crate::real::Real;
use crate::softmax::{Softmax, softmax, softmax_to_bf16};

/// Rows of a matrix that lie evenly.
#[derive(Clone, Copy, Debug)]
pub struct HeadRows<T> {
    /// Element 0 of row 0.
    pub pointer: *const T,
    /// Elements between rows.
    pub stride: usize,
}

/// `softmax(scale·q·kᵀ + mask)·v` of one head.
#[derive(Clone, Copy, Debug)]
pub struct Head<T> {
    /// S rows of D.
    pub q: HeadRows<T>,
    /// T rows of D.
    pub k: HeadRows<T>,
    /// T rows of E.
    pub v: HeadRows<T>,
    /// S rows of T, or one row of T with a stride of 0.
    pub mask: Option<HeadRows<f32>>,
    /// Factor of the products of q and k.
    pub scale: f32,
    /// S, T, D and E.
    pub extents: [usize; 4],
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    /// Packed k and v, scores and their exponentials; kept, because a head takes microseconds.
    static ROOM: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Rows of scores that are worked on together: whole tiles of every instruction set.
const fn rows_together<T: Real>() -> usize {
    if T::WIDE { 24 } else { 32 }
}

/// Floats of room for a packed matrix.
fn scratch<T: Real>(depth: usize, columns: usize) -> usize {
    if T::WIDE { scratch_f32(depth, columns) } else { scratch_bf16(depth, columns) }
}

/// Packs `[depth, columns]`, or its transpose, for [`multiply`].
///
/// # Safety
/// The matrix is readable.
unsafe fn pack<T: Real>(
    isa: Isa,
    matrix: HeadRows<T>,
    transposed: bool,
    [depth, columns]: [usize; 2],
    room: &mut [f32],
) {
    let HeadRows { pointer, stride } = matrix;
    // SAFETY: the caller's promise; T is f32 where it is wide, otherwise bf16.
    unsafe {
        if T::WIDE {
            pack_f32(isa, pointer.cast(), stride, transposed, depth, columns, room);
        } else {
            pack_bf16(isa, pointer.cast(), stride, transposed, depth, columns, room);
        }
    }
}

/// `rows` rows of X by what [`pack`] packed of T, in the arithmetic of T.
///
/// # Safety
/// As [`crate::gemm::gemm_f32`]. R is f32 where T is.
unsafe fn multiply<T: Real, R: Real>(
    isa: Isa,
    from: HeadRows<T>,
    rows: usize,
    panels: &[f32],
    [depth, width]: [usize; 2],
    epilogue: &EpilogueF32,
    output: &Output<R>,
) {
    let places = &Indirection::strided(from.stride);
    let (rows, all) = (0..rows, 0..width);
    // SAFETY: the caller's promise.
    unsafe {
        if T::WIDE {
            let base = from.pointer.cast::<f32>();
            let input = Input { base, rows: places, padding: base };
            let output = Output { pointer: output.pointer.cast(), row_stride: output.row_stride };
            gemm_f32_scratch(isa, &input, panels, depth, width, epilogue, &output, rows, all);
        } else {
            let input = Input { base: from.pointer, rows: places, padding: from.pointer };
            gemm_bf16_scratch(isa, &input, panels, depth, width, epilogue, output, rows, all);
        }
    }
}

/// Computes the S rows of E of one head. Heads of bf16 are multiplied as bf16, with sums in f32;
/// the rows of their softmax are rounded to bf16 before they are multiplied.
///
/// # Panics
/// If q, k and v are f32 and the result is not.
///
/// # Safety
/// The rows of the head are readable; `output` covers S rows of E, which nobody else touches
/// meanwhile.
pub unsafe fn attention_head<T: Real, R: Real>(isa: Isa, head: &Head<T>, output: &Output<R>) {
    assert!(R::WIDE || !T::WIDE, "f32 gives f32");
    let [rows, columns, depth, width] = head.extents;
    if rows == 0 || columns == 0 || width == 0 {
        return;
    }
    let together = rows_together::<T>();
    let sizes = [
        scratch::<T>(depth, columns),
        scratch::<T>(columns, width),
        together * columns,
        together * columns,
    ];
    ROOM.with_borrow_mut(|room| {
        let lines = |floats: usize| floats.div_ceil(16);
        let needed = sizes.iter().copied().map(lines).sum();
        if room.len() < needed {
            room.resize(needed, Line([0.0; 16]));
        }
        let mut rest = room.as_mut_slice();
        let mut take = |floats: usize| -> &mut [f32] {
            let (taken, left) = std::mem::take(&mut rest).split_at_mut(lines(floats));
            rest = left;
            // SAFETY: a line is 16 floats without gaps.
            unsafe { std::slice::from_raw_parts_mut(taken.as_mut_ptr().cast(), taken.len() * 16) }
        };
        let [keys, values, scores, powers] = sizes.map(&mut take);
        // SAFETY: the caller's promise; the room has the sizes asked for.
        unsafe {
            pack(isa, head.k, true, [depth, columns], keys);
            pack(isa, head.v, false, [columns, width], values);
            for first in (0..rows).step_by(together) {
                let count = (rows - first).min(together);
                let mask = head.mask.map(|mask| Residual {
                    pointer: mask.pointer.add(first * mask.stride),
                    row_stride: mask.stride,
                });
                let epilogue =
                    EpilogueF32 { alpha: head.scale, residual: mask, ..EpilogueF32::default() };
                let q = HeadRows { pointer: head.q.pointer.add(first * head.q.stride), ..head.q };
                let to = Output { pointer: scores.as_mut_ptr(), row_stride: columns };
                let size = [depth, columns];
                multiply::<T, f32>(isa, q, count, keys, size, &epilogue, &to);
                let used = count * columns;
                if T::WIDE {
                    softmax(isa, Softmax::Plain, columns, &scores[..used], &mut powers[..used]);
                } else {
                    let halves = std::slice::from_raw_parts_mut(powers.as_mut_ptr().cast(), used);
                    softmax_to_bf16(isa, columns, &mut scores[..used], halves);
                }
                let weights = HeadRows { pointer: powers.as_ptr().cast::<T>(), stride: columns };
                let pointer = output.pointer.add(first * output.row_stride);
                let to = Output { pointer, row_stride: output.row_stride };
                let (plain, size) = (EpilogueF32::default(), [columns, width]);
                multiply::<T, R>(isa, weights, count, values, size, &plain, &to);
            }
        }
    });
}
