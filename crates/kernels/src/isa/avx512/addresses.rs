//! Where the rows of a tile lie.

use std::arch::x86_64::*;

use crate::conv::OffsetBatch;
use crate::offsets::PADDING;

/// Turns offsets into addresses.
///
/// # Safety
/// Needs AVX-512 F and VL. `addresses` has room for all taps, and for eights of rows if the batch is
/// whole.
#[target_feature(enable = "avx512f,avx512vl")]
pub(crate) unsafe fn resolve(batch: &OffsetBatch, addresses: *mut usize) {
    assert!((batch.taps - 1) * batch.tap_stride + batch.rows <= batch.offsets.len());
    let shift = _mm_cvtsi32_si128(batch.shift as i32);
    let base = _mm512_set1_epi64(batch.base as i64);
    let padding = _mm512_set1_epi64(batch.padding as i64);
    let marker = _mm256_set1_epi32(PADDING);
    for first in (0..batch.rows).step_by(8) {
        let left = batch.rows - first;
        let mask = if left >= 8 { u8::MAX } else { (1 << left) - 1 };
        // SAFETY: masked to the batch's rows, which the assertion and the caller vouch for.
        unsafe {
            let mut from = batch.offsets.as_ptr().add(first);
            let mut to = addresses.add(first);
            for _ in 0..batch.taps {
                let elements = _mm256_maskz_loadu_epi32(mask, from);
                let inside = _mm256_cmpneq_epi32_mask(elements, marker);
                let bytes = _mm512_sll_epi64(_mm512_cvtepi32_epi64(elements), shift);
                let address = _mm512_mask_add_epi64(padding, inside, base, bytes);
                match batch.whole {
                    true => _mm512_storeu_epi64(to.cast(), address),
                    false => _mm512_mask_storeu_epi64(to.cast(), mask, address),
                }
                from = from.wrapping_add(batch.tap_stride);
                to = to.wrapping_add(batch.pitch);
            }
        }
    }
}
