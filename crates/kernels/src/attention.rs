//! Attention of one head: scores of a few rows stay in L1 from the first product to the second.

use std::cell::RefCell;

use crate::conv::Indirection;
use crate::epilogue::{EpilogueF32, Output, Residual};
use crate::gemm::{Input, gemm_f32_scratch, pack_f32, scratch_f32};
use crate::isa::Isa;
use crate::softmax::{Softmax, softmax};

/// Rows of a matrix that lie evenly.
#[derive(Clone, Copy, Debug)]
pub struct HeadRows {
    /// Element 0 of row 0.
    pub pointer: *const f32,
    /// Elements between rows.
    pub stride: usize,
}

/// `softmax(scale·q·kᵀ + mask)·v` of one head.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// S rows of D.
    pub q: HeadRows,
    /// T rows of D.
    pub k: HeadRows,
    /// T rows of E.
    pub v: HeadRows,
    /// S rows of T, or one row of T with a stride of 0.
    pub mask: Option<HeadRows>,
    /// Factor of the products of q and k.
    pub scale: f32,
    /// S, T, D and E.
    pub extents: [usize; 4],
}

/// Rows of scores that are worked on together: whole tiles of every instruction set.
const ROWS: usize = 24;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    /// Packed k and v, scores and their exponentials; kept, because a head takes microseconds.
    static ROOM: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Computes the S rows of E of one head.
///
/// # Safety
/// The rows of the head are readable; `output` covers S rows of E, which nobody else touches
/// meanwhile.
pub unsafe fn attention_head(isa: Isa, head: &Head, output: &Output<f32>) {
    let [rows, columns, depth, width] = head.extents;
    if rows == 0 || columns == 0 || width == 0 {
        return;
    }
    let lines = |floats: usize| floats.div_ceil(16);
    let sizes = [
        lines(scratch_f32(depth, columns)),
        lines(scratch_f32(columns, width)),
        lines(ROWS * columns),
        lines(ROWS * columns),
    ];
    ROOM.with_borrow_mut(|room| {
        let needed = sizes.iter().sum();
        if room.len() < needed {
            room.resize(needed, Line([0.0; 16]));
        }
        let mut rest = room.as_mut_slice();
        let mut take = |lines: usize| -> &mut [f32] {
            let (taken, left) = std::mem::take(&mut rest).split_at_mut(lines);
            rest = left;
            // SAFETY: a line is 16 floats without gaps.
            unsafe { std::slice::from_raw_parts_mut(taken.as_mut_ptr().cast(), lines * 16) }
        };
        let [keys, values, scores, powers] = sizes.map(&mut take);
        let (from_q, from_scores) =
            (Indirection::strided(head.q.stride), Indirection::strided(columns));
        // SAFETY: the caller's promise; the scratch has the sizes asked for.
        unsafe {
            pack_f32(isa, head.k.pointer, head.k.stride, true, depth, columns, keys);
            pack_f32(isa, head.v.pointer, head.v.stride, false, columns, width, values);
            for first in (0..rows).step_by(ROWS) {
                let count = (rows - first).min(ROWS);
                let base = head.q.pointer.add(first * head.q.stride);
                let input = Input { base, rows: &from_q, padding: base };
                let mask = head.mask.map(|mask| Residual {
                    pointer: mask.pointer.add(first * mask.stride),
                    row_stride: mask.stride,
                });
                let epilogue =
                    EpilogueF32 { alpha: head.scale, residual: mask, ..EpilogueF32::default() };
                let to = Output { pointer: scores.as_mut_ptr(), row_stride: columns };
                let all = 0..columns;
                gemm_f32_scratch(isa, &input, keys, depth, columns, &epilogue, &to, 0..count, all);
                let used = count * columns;
                softmax(isa, Softmax::Plain, columns, &scores[..used], &mut powers[..used]);
                let base = powers.as_ptr();
                let input = Input { base, rows: &from_scores, padding: base };
                let pointer = output.pointer.add(first * output.row_stride);
                let to = Output { pointer, row_stride: output.row_stride };
                let (plain, all) = (EpilogueF32::default(), 0..width);
                gemm_f32_scratch(isa, &input, values, columns, width, &plain, &to, 0..count, all);
            }
        }
    });
}
