//! Lines of pairs of bf16 from matrices of activations, with AVX-512.

use std::arch::x86_64::*;

use half::bf16;

use super::transpose::words_16x16;

/// Turns 16 rows of `depth` into lines, 16 steps of two elements at a time; returns how many lines
/// were written.
///
/// # Safety
/// Needs AVX-512 F; 16 rows of `depth`, `row_stride` apart, are readable, and a line of 64 bytes
/// writable for every two elements.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn transposed(
    from: *const bf16,
    row_stride: usize,
    depth: usize,
    lines: *mut u8,
) -> usize {
    let whole = depth / 32 * 16;
    for line in (0..whole).step_by(16) {
        // SAFETY: the caller's promise; 32 elements from twice the line on are below `depth`.
        unsafe {
            let square = from.add(line * 2).cast();
            words_16x16(square, (row_stride * 2) as isize, lines.add(line * 64), 64);
        }
    }
    whole
}

/// Lines of two rows of 16 each, interleaved; returns how many were written.
///
/// # Safety
/// Needs AVX-512 F; `depth` rows of 16, `row_stride` apart, are readable, and a line of 64 bytes
/// writable for every two of them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn interleaved(
    from: *const bf16,
    row_stride: usize,
    depth: usize,
    lines: *mut u8,
) -> usize {
    for line in 0..depth / 2 {
        // SAFETY: the caller's promise: rows 2 · line and the next are below `depth`.
        unsafe {
            let row = |row: usize| {
                let halves = _mm256_loadu_si256(from.add(row * row_stride).cast());
                _mm512_cvtepu16_epi32(halves)
            };
            let high = _mm512_slli_epi32::<16>(row(2 * line + 1));
            let pairs = _mm512_or_si512(row(2 * line), high);
            _mm512_storeu_si512(lines.add(line * 64).cast(), pairs);
        }
    }
    depth / 2
}
