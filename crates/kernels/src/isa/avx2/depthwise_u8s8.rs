//! u8 × s8 depthwise kernels for AVX2: 2 pixels by 16 channels, exact by `vpmaddwd`.

use std::arch::x86_64::*;

use crate::depthwise::{DepthwiseRun, Interleave, MicroDepthwiseU8S8};
use crate::tile::BLOCK_STRIDE;

pub(crate) static MICRO: MicroDepthwiseU8S8 = MicroDepthwiseU8S8 { interleave, run };

/// # Safety
/// Needs AVX2. As `Interleave` describes.
#[target_feature(enable = "avx2")]
unsafe fn interleave(call: &Interleave) {
    for pixel in 0..call.pixels {
        for c in (0..call.channels).step_by(16) {
            let mut rows = [_mm_setzero_si128(); 4];
            for i in 0..4 {
                // SAFETY: whole vectors are inside the source; a tail is copied first.
                unsafe {
                    let from = call.sources[i].add(pixel * call.steps[i] + c);
                    let left = call.channels - c;
                    rows[i] =
                        if left >= 16 { _mm_loadu_si128(from.cast()) } else { tail(from, left) };
                }
            }
            let low = [_mm_unpacklo_epi8(rows[0], rows[1]), _mm_unpacklo_epi8(rows[2], rows[3])];
            let high = [_mm_unpackhi_epi8(rows[0], rows[1]), _mm_unpackhi_epi8(rows[2], rows[3])];
            let lines = [
                _mm_unpacklo_epi16(low[0], low[1]),
                _mm_unpackhi_epi16(low[0], low[1]),
                _mm_unpacklo_epi16(high[0], high[1]),
                _mm_unpackhi_epi16(high[0], high[1]),
            ];
            for q in 0..4 {
                // SAFETY: the target has whole panels for the channels.
                unsafe {
                    let to = call.target.add(pixel * call.target_step + c * 4 + q * 16);
                    _mm_storeu_si128(to.cast(), lines[q]);
                }
            }
        }
    }
}

/// Fewer than 16 bytes, filled up with zeros.
///
/// # Safety
/// Needs AVX2; `count` bytes are readable.
#[target_feature(enable = "avx2")]
unsafe fn tail(from: *const u8, count: usize) -> __m128i {
    let mut bytes = [0u8; 16];
    // SAFETY: the caller's promise.
    unsafe {
        std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count);
        _mm_loadu_si128(bytes.as_ptr().cast())
    }
}

/// # Safety
/// Needs AVX2; as `DepthwiseRun` describes.
#[target_feature(enable = "avx2")]
unsafe fn run(call: &DepthwiseRun) {
    for panel in 0..call.panels {
        let mut pixel = 0;
        // SAFETY: the caller's promise.
        unsafe {
            while pixel + 2 <= call.pixels {
                tile::<2>(call, pixel, panel);
                pixel += 2;
            }
            if pixel < call.pixels {
                tile::<1>(call, pixel, panel);
            }
        }
    }
}

/// # Safety
/// As [`run`].
#[target_feature(enable = "avx2")]
unsafe fn tile<const ROWS: usize>(call: &DepthwiseRun, pixel: usize, panel: usize) {
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
    let low_bytes = _mm256_set1_epi16(0x00ff);
    // SAFETY: the caller's promise.
    unsafe {
        let mut line = call.weights.add(panel * call.panel_bytes);
        for column in 0..call.kernel_columns {
            for group in 0..call.groups {
                let from = pixel * call.pixel_bytes
                    + column * call.column_bytes
                    + (group * call.panels + panel) * 64;
                for h in 0..2 {
                    let weights = _mm256_loadu_si256(line.add(h * 32).cast());
                    let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(weights));
                    let odd = _mm256_srai_epi16::<8>(weights);
                    for r in 0..ROWS {
                        let at = call.slots.add(from + r * call.pixel_bytes + h * 32);
                        let values = _mm256_loadu_si256(at.cast());
                        let value_even = _mm256_and_si256(values, low_bytes);
                        let value_odd = _mm256_srli_epi16::<8>(values);
                        let sum = _mm256_add_epi32(
                            _mm256_madd_epi16(value_even, even),
                            _mm256_madd_epi16(value_odd, odd),
                        );
                        sums[r][h] = _mm256_add_epi32(sums[r][h], sum);
                    }
                }
                line = line.add(64);
            }
        }
        for r in 0..ROWS {
            for h in 0..2 {
                let to = call.accumulators.add((pixel + r) * BLOCK_STRIDE + panel * 16 + h * 8);
                _mm256_storeu_si256(to.cast(), sums[r][h]);
            }
        }
    }
}
