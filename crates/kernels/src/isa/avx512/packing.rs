//! Bytes of results for AVX-512: packed from four vectors, and stored row by row.

use std::arch::x86_64::*;

/// Four vectors of steps from the zero point become bytes.
#[derive(Clone, Copy)]
pub(crate) struct Packing {
    zero_point: __m512i,
    lowest: __m512i,
    highest: __m512i,
    /// The zero point is zero and every byte is a result: packing alone bounds them.
    plain: bool,
    /// Packing works within 128-bit lanes; this puts the double words back in order.
    order: __m512i,
}

impl Packing {
    /// For results from `low` to `high`.
    ///
    /// # Safety
    /// Needs AVX-512 BW.
    #[inline(always)]
    pub unsafe fn new(zero_point: u8, low: u8, high: u8) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            Packing {
                zero_point: _mm512_set1_epi16(i16::from(zero_point)),
                lowest: _mm512_set1_epi8(low as i8),
                highest: _mm512_set1_epi8(high as i8),
                plain: (zero_point, low, high) == (0, 0, u8::MAX),
                order: _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
            }
        }
    }

    /// The bytes of four vectors, one vector after the other.
    ///
    /// # Safety
    /// Needs AVX-512 BW.
    #[inline(always)]
    pub unsafe fn bytes(&self, a: __m512i, b: __m512i, c: __m512i, d: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            let (low, high) = (_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            let bytes = if self.plain {
                _mm512_packus_epi16(low, high)
            } else {
                let low = _mm512_adds_epi16(low, self.zero_point);
                let high = _mm512_adds_epi16(high, self.zero_point);
                let bytes = _mm512_max_epu8(_mm512_packus_epi16(low, high), self.lowest);
                _mm512_min_epu8(bytes, self.highest)
            };
            _mm512_permutexvar_epi32(self.order, bytes)
        }
    }
}

/// Stores the bytes of `rows` rows of `PANELS` vectors each, of which `columns` count.
///
/// # Safety
/// Needs AVX-512 BW and VL; the rows, `stride` apart, are writable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn put<const PANELS: usize>(
    bytes: __m512i,
    rows: usize,
    columns: usize,
    to: *mut u8,
    stride: usize,
) {
    let whole = columns >= PANELS * 16;
    let mask = if whole { u64::MAX } else { (1 << columns) - 1 };
    let row = |i: usize| to.wrapping_add(i * stride).cast::<i8>();
    // SAFETY: the caller's promise; masks keep tails within their rows.
    unsafe {
        if PANELS == 4 {
            match whole {
                true => _mm512_storeu_epi8(row(0), bytes),
                false => _mm512_mask_storeu_epi8(row(0), mask, bytes),
            }
        } else if PANELS == 2 {
            let halves = [_mm512_castsi512_si256(bytes), _mm512_extracti64x4_epi64::<1>(bytes)];
            for (i, half) in halves.into_iter().enumerate().take(rows) {
                match whole {
                    true => _mm256_storeu_epi8(row(i), half),
                    false => _mm256_mask_storeu_epi8(row(i), mask as u32, half),
                }
            }
        } else if whole && stride == 16 && rows == 4 {
            _mm512_storeu_epi8(row(0), bytes);
        } else if (columns, stride, rows) == (8, 8, 4) {
            let even = _mm512_setr_epi64(0, 2, 4, 6, 0, 2, 4, 6);
            let bytes = _mm512_permutexvar_epi64(even, bytes);
            _mm256_storeu_epi8(row(0), _mm512_castsi512_si256(bytes));
        } else {
            let quarters = [
                _mm512_castsi512_si128(bytes),
                _mm512_extracti32x4_epi32::<1>(bytes),
                _mm512_extracti32x4_epi32::<2>(bytes),
                _mm512_extracti32x4_epi32::<3>(bytes),
            ];
            for (i, quarter) in quarters.into_iter().enumerate().take(rows) {
                match whole {
                    true => _mm_storeu_epi8(row(i), quarter),
                    false => _mm_mask_storeu_epi8(row(i), mask as u16, quarter),
                }
            }
        }
    }
}
