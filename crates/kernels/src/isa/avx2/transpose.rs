//! Squares of elements transposed in registers with AVX2.
//!
//! All work the same way: pairs of rows are interleaved with ever wider elements.

use std::arch::x86_64::*;

/// Loads `N` rows of 16 bytes.
/// # Safety
/// They must be readable.
#[target_feature(enable = "avx2")]
unsafe fn load<const N: usize>(input: *const u8, stride: isize) -> [__m128i; N] {
    // SAFETY: as promised by the caller.
    std::array::from_fn(|i| unsafe { _mm_loadu_si128(input.offset(i as isize * stride).cast()) })
}

/// 16 × 16 bytes.
/// # Safety
/// The machine has AVX2; both squares are accessible.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn bytes_16x16(
    input: *const u8,
    input_stride: isize,
    output: *mut u8,
    output_stride: isize,
) {
    // Interleaving rows i and i + 8 four times rotates the bits of (row, column) by four places,
    // which swaps them.
    // SAFETY: as promised by the caller.
    unsafe {
        let mut rows: [__m128i; 16] = load(input, input_stride);
        for _ in 0..4 {
            let mut next = rows;
            for i in 0..8 {
                next[2 * i] = _mm_unpacklo_epi8(rows[i], rows[i + 8]);
                next[2 * i + 1] = _mm_unpackhi_epi8(rows[i], rows[i + 8]);
            }
            rows = next;
        }
        for (i, row) in rows.into_iter().enumerate() {
            _mm_storeu_si128(output.offset(i as isize * output_stride).cast(), row);
        }
    }
}

/// 8 × 8 elements of two bytes.
/// # Safety
/// The machine has AVX2; both squares are accessible.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn halves_8x8(
    input: *const u8,
    input_stride: isize,
    output: *mut u8,
    output_stride: isize,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        let mut rows: [__m128i; 8] = load(input, input_stride);
        for _ in 0..3 {
            let mut next = rows;
            for i in 0..4 {
                next[2 * i] = _mm_unpacklo_epi16(rows[i], rows[i + 4]);
                next[2 * i + 1] = _mm_unpackhi_epi16(rows[i], rows[i + 4]);
            }
            rows = next;
        }
        for (i, row) in rows.into_iter().enumerate() {
            _mm_storeu_si128(output.offset(i as isize * output_stride).cast(), row);
        }
    }
}

/// 8 × 8 elements of four bytes.
/// # Safety
/// The machine has AVX2; both squares are accessible.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn words_8x8(
    input: *const u8,
    input_stride: isize,
    output: *mut u8,
    output_stride: isize,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        // Rows i and i + 4 share a register, half and half, so that the interleaving, which stays
        // inside halves, needs no crossing later.
        let half = |row: isize, side: isize| {
            _mm_loadu_ps(input.offset(row * input_stride + side * 16).cast())
        };
        let pair = |row: isize, side: isize| {
            _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(half(row, side)), half(row + 4, side))
        };
        for side in 0..2 {
            let [a, b, c, d] = [0, 1, 2, 3].map(|row| pair(row, side));
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let rows = [
                _mm256_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low),
                _mm256_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low),
                _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
                _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
            ];
            for (i, row) in rows.into_iter().enumerate() {
                let place = output.offset((4 * side + i as isize) * output_stride);
                _mm256_storeu_ps(place.cast(), row);
            }
        }
    }
}
