//! Squares of elements transposed in registers with AVX-512.

use std::arch::x86_64::*;

/// 16 × 16 elements of four bytes.
/// # Safety
/// The machine has AVX-512 F; both squares are accessible.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn words_16x16(
    input: *const u8,
    input_stride: isize,
    output: *mut u8,
    output_stride: isize,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        // For each quarter of the columns, rows i, i + 4, i + 8 and i + 12 share a register, so
        // that the interleaving, which stays inside quarters, needs no crossing later.
        let quarter = |row: isize, side: isize| {
            _mm_loadu_ps(input.offset(row * input_stride + side * 16).cast())
        };
        let four = |row: isize, side: isize| {
            let mut all = _mm512_castps128_ps512(quarter(row, side));
            all = _mm512_insertf32x4::<1>(all, quarter(row + 4, side));
            all = _mm512_insertf32x4::<2>(all, quarter(row + 8, side));
            _mm512_insertf32x4::<3>(all, quarter(row + 12, side))
        };
        for side in 0..4 {
            let [a, b, c, d] = [0, 1, 2, 3].map(|row| four(row, side));
            let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let rows = [
                _mm512_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low),
                _mm512_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low),
                _mm512_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
                _mm512_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
            ];
            for (i, row) in rows.into_iter().enumerate() {
                let place = output.offset((4 * side + i as isize) * output_stride);
                _mm512_storeu_ps(place.cast(), row);
            }
        }
    }
}
