//! Products of two activations: the right one is packed into scratch for every run.

use std::ops::Range;

use half::bf16;

use crate::epilogue::{EpilogueF32, Output};
use crate::finish::FinishReal;
use crate::gemm::{Input, gemm_bf16_direct, gemm_bf16_panels, gemm_f32_panels};
use crate::isa::{self, Isa};
use crate::pack::{PANEL, PackedBf16, PanelView};
use crate::real::Real;
use crate::tile::Ahead;

/// Floats of scratch that [`pack_f32`] needs for a K × N matrix.
pub fn scratch_f32(depth: usize, columns: usize) -> usize {
    depth * columns.next_multiple_of(PANEL)
}

/// Packs a matrix of activations into scratch for [`gemm_f32_scratch`]: `[K, N]` with rows
/// `row_stride` apart or, transposed, `[N, K]`.
///
/// # Panics
/// If the scratch is shorter than [`scratch_f32`].
///
/// # Safety
/// The matrix is readable.
pub unsafe fn pack_f32(
    isa: Isa,
    matrix: *const f32,
    row_stride: usize,
    transposed: bool,
    depth: usize,
    columns: usize,
    scratch: &mut [f32],
) {
    let scratch = &mut scratch[..scratch_f32(depth, columns)];
    if depth == 0 {
        return;
    }
    for (panel, lines) in scratch.chunks_exact_mut(depth * PANEL).enumerate() {
        let width = (columns - panel * PANEL).min(PANEL);
        // SAFETY: the panel's columns are inside the matrix; lines hold depth · PANEL floats.
        unsafe {
            if transposed {
                let from = matrix.add(panel * PANEL * row_stride);
                transpose_panel(isa, from, row_stride, depth, width, lines);
            } else {
                for (k, line) in lines.chunks_exact_mut(PANEL).enumerate() {
                    let from = matrix.add(k * row_stride + panel * PANEL);
                    std::ptr::copy_nonoverlapping(from, line.as_mut_ptr(), width);
                    line[width..].fill(0.0);
                }
            }
        }
    }
}

/// Turns `width` rows of `depth` floats into lines of [`PANEL`].
///
/// # Safety
/// The rows are readable.
unsafe fn transpose_panel(
    isa: Isa,
    from: *const f32,
    row_stride: usize,
    depth: usize,
    width: usize,
    lines: &mut [f32],
) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx2() && width == PANEL {
        // SAFETY: the token proves the instruction set; the rows are readable.
        done = unsafe { isa::avx2::gemm_f32::transpose_panel(from, row_stride, depth, lines) };
    }
    let _ = isa;
    for (k, line) in lines.chunks_exact_mut(PANEL).enumerate().skip(done) {
        for (n, value) in line.iter_mut().enumerate() {
            // SAFETY: row n < width of the matrix.
            *value = if n < width { unsafe { *from.add(n * row_stride + k) } } else { 0.0 };
        }
    }
}

/// [`crate::gemm::gemm_f32`] with one tap and B from [`pack_f32`]: both operands are activations.
///
/// # Panics
/// If columns or the epilogue's vectors do not fit, or the scratch is too short.
///
/// # Safety
/// As [`crate::gemm::gemm_f32`].
pub unsafe fn gemm_f32_scratch(
    isa: Isa,
    input: &Input<f32>,
    scratch: &[f32],
    depth: usize,
    width: usize,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    assert!(input.rows.taps() == 1 && scratch.len() >= scratch_f32(depth, width), "scratch");
    let weights = scratch.as_ptr().cast();
    let view = PanelView { weights, columns: width, taps: 1, depth, steps: depth, filled: 0 };
    let after = Ahead::nothing_far();
    // SAFETY: the caller's promise.
    unsafe { gemm_f32_panels(isa, input, &view, epilogue, output, rows, columns, after) }
}

/// Lines of K that a tile of bf16 needs for `depth` elements.
fn steps_bf16(depth: usize) -> usize {
    depth.next_multiple_of(PackedBf16::TILE) / 2
}

/// Floats of scratch that [`pack_bf16`] needs for a K × N matrix.
pub fn scratch_bf16(depth: usize, columns: usize) -> usize {
    steps_bf16(depth) * columns.next_multiple_of(PANEL)
}

/// Packs a matrix of activations into scratch for [`gemm_bf16_scratch`]: `[K, N]` with rows
/// `row_stride` apart or, transposed, `[N, K]`.
///
/// # Panics
/// If the scratch is shorter than [`scratch_bf16`].
///
/// # Safety
/// The matrix is readable.
pub unsafe fn pack_bf16(
    isa: Isa,
    matrix: *const bf16,
    row_stride: usize,
    transposed: bool,
    depth: usize,
    columns: usize,
    scratch: &mut [f32],
) {
    let scratch = &mut scratch[..scratch_bf16(depth, columns)];
    if depth == 0 {
        return;
    }
    let lines = scratch.as_mut_ptr().cast::<[[bf16; 2]; PANEL]>();
    let (step, column) = if transposed { (1, row_stride) } else { (row_stride, 1) };
    for panel in 0..columns.div_ceil(PANEL) {
        let width = (columns - panel * PANEL).min(PANEL);
        // SAFETY: the panel's columns are inside the matrix, its lines inside the scratch, whose
        // floats are pairs of bf16 as well.
        unsafe {
            let from = matrix.add(panel * PANEL * column);
            let lines = lines.add(panel * steps_bf16(depth));
            let mut done = 0;
            #[cfg(target_arch = "x86_64")]
            if isa.has_avx512() && width == PANEL {
                use isa::avx512::pairs;
                let form = if transposed { pairs::transposed } else { pairs::interleaved };
                done = form(from, row_stride, depth, lines.cast());
            }
            let _ = isa;
            for line in done..steps_bf16(depth) {
                for n in 0..PANEL {
                    let element = |k: usize| match k < depth && n < width {
                        true => *from.add(k * step + n * column),
                        false => bf16::ZERO,
                    };
                    (*lines.add(line))[n] = [element(2 * line), element(2 * line + 1)];
                }
            }
        }
    }
}

/// [`crate::gemm::gemm_bf16`] with one tap and B from [`pack_bf16`].
///
/// # Panics
/// If columns or the epilogue's vectors do not fit, or the scratch is too short.
///
/// # Safety
/// As [`crate::gemm::gemm_f32`].
pub unsafe fn gemm_bf16_scratch<T: Real, R: Real>(
    isa: Isa,
    input: &Input<T>,
    scratch: &[f32],
    depth: usize,
    width: usize,
    epilogue: &EpilogueF32,
    output: &Output<R>,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    assert!(input.rows.taps() == 1 && scratch.len() >= scratch_bf16(depth, width), "scratch");
    let (weights, steps) = (scratch.as_ptr().cast(), steps_bf16(depth));
    let view = PanelView { weights, columns: width, taps: 1, depth, steps, filled: 0 };
    let after = Ahead::nothing_far();
    // SAFETY: the caller's promise.
    unsafe {
        let finish = FinishReal::of_halves(isa, epilogue, None, output);
        if T::WIDE || isa.has_amx() {
            return gemm_bf16_panels(isa, input, &view, depth, rows, columns, after, finish);
        }
        let used = depth.div_ceil(2);
        let view = PanelView { steps: used, filled: steps - used, ..view };
        gemm_bf16_direct(isa, input, &view, rows, columns, after, finish);
    }
}
