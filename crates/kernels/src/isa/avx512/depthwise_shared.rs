//! Depthwise kernels for AVX-512 over neighbours in a line of output: a pixel of 16 channels is read,
//! and widened where it is bf16, once for all rows that it counts in.

use std::arch::x86_64::*;

use super::epilogue::hard_swish;
use crate::depthwise_shared::{MicroDepthwiseShared, SharedTile};
use crate::finish::InRegisters;
use crate::tile::PITCH;

type Kernel = unsafe fn(&SharedTile);

macro_rules! by_rows {
    ($taps:literal, $step:literal: $($rows:literal)*) => {
        [
            [$(neighbours::<$taps, $step, $rows, false>),*],
            [$(neighbours::<$taps, $step, $rows, true>),*],
        ]
    };
}

static THREE: [[Kernel; 8]; 2] = by_rows!(3, 1: 1 2 3 4 5 6 7 8);
static FIVE: [[Kernel; 8]; 2] = by_rows!(5, 1: 1 2 3 4 5 6 7 8);
static THREE_BY_TWO: [[Kernel; 4]; 2] = by_rows!(3, 2: 1 2 3 4);
static FIVE_BY_TWO: [[Kernel; 4]; 2] = by_rows!(5, 2: 1 2 3 4);

macro_rules! micro {
    ($kernels:ident) => {{
        /// # Safety
        /// As [`neighbours`]; at most as many rows as there are kernels.
        unsafe fn tile(rows: usize, tile: &SharedTile) {
            // SAFETY: the caller's promise.
            unsafe { $kernels[usize::from(tile.half)][rows - 1](tile) }
        }
        MicroDepthwiseShared { rows: $kernels[0].len(), tile }
    }};
}

/// The kernels for `taps` by `taps` taps and rows `step` pixels apart.
pub(crate) fn micro(taps: usize, step: usize) -> Option<MicroDepthwiseShared> {
    Some(match (taps, step) {
        (3, 1) => micro!(THREE),
        (3, 2) => micro!(THREE_BY_TWO),
        (5, 1) => micro!(FIVE),
        (5, 2) => micro!(FIVE_BY_TWO),
        _ => return None,
    })
}

/// All channels of `ROWS` neighbours with `TAPS` by `TAPS` taps, `STEP` pixels apart.
///
/// # Safety
/// Needs AVX-512 F, BW, VL and BF16. Pixels, weights, bias and residual are readable for all
/// channels, the output writable.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn neighbours<const TAPS: usize, const STEP: usize, const ROWS: usize, const HALF: bool>(
    tile: &SharedTile,
) {
    let channels = tile.finish.columns;
    for channel in (0..channels).step_by(16) {
        let left = channels - channel;
        let mask: __mmask16 = if left >= 16 { u16::MAX } else { (1 << left) - 1 };
        let mut sums = [_mm512_setzero_ps(); ROWS];
        // SAFETY: the caller's promise; the mask keeps a tail within its channels.
        unsafe {
            for line in 0..TAPS {
                let first_tap = (channel / 16 * TAPS + line) * TAPS;
                let mut weights = [_mm512_setzero_ps(); TAPS];
                for tap in 0..TAPS {
                    weights[tap] = _mm512_loadu_ps(tile.weights.add((first_tap + tap) * 16));
                }
                for pixel in 0..(ROWS - 1) * STEP + TAPS {
                    // The last row it counts in, and as which tap.
                    let row = if pixel / STEP < ROWS { pixel / STEP } else { ROWS - 1 };
                    let slot = (line * TAPS + pixel - row * STEP) * PITCH + row;
                    let address = *tile.addresses.add(slot);
                    let values = pixel_values::<HALF>(address, channel, mask);
                    for r in 0..ROWS {
                        if pixel >= r * STEP && pixel - r * STEP < TAPS {
                            sums[r] = _mm512_fmadd_ps(values, weights[pixel - r * STEP], sums[r]);
                        }
                    }
                }
            }
            match tile.finish.hard_swish {
                true => store::<ROWS, true>(&tile.finish, channel, mask, &sums),
                false => store::<ROWS, false>(&tile.finish, channel, mask, &sums),
            }
        }
    }
}

/// Sixteen channels of the pixel at an address.
///
/// # Safety
/// Needs AVX-512 F, BW and VL; the channels in the mask are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn pixel_values<const HALF: bool>(
    address: usize,
    channel: usize,
    mask: __mmask16,
) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        if HALF {
            let from = std::ptr::with_exposed_provenance::<i16>(address).add(channel);
            let wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        } else {
            let from = std::ptr::with_exposed_provenance::<f32>(address).add(channel);
            _mm512_maskz_loadu_ps(mask, from)
        }
    }
}

/// The epilogue of 16 channels of all rows.
///
/// # Safety
/// As [`neighbours`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn store<const ROWS: usize, const SWISH: bool>(
    finish: &InRegisters,
    channel: usize,
    mask: __mmask16,
    sums: &[__m512; ROWS],
) {
    let alpha = _mm512_set1_ps(finish.alpha);
    let (low, high) = (_mm512_set1_ps(finish.low), _mm512_set1_ps(finish.high));
    // SAFETY: the caller's promise.
    unsafe {
        let offset = match finish.bias.is_null() {
            true => _mm512_setzero_ps(),
            false => _mm512_maskz_loadu_ps(mask, finish.bias.add(channel)),
        };
        for r in 0..ROWS {
            let mut value = _mm512_add_ps(_mm512_mul_ps(sums[r], alpha), offset);
            if !finish.residual.is_null() {
                let from = finish.residual.add(r * finish.residual_stride + channel);
                value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, from));
            }
            // The operand order lets NaN through.
            let mut value = _mm512_min_ps(high, _mm512_max_ps(low, value));
            if SWISH {
                value = hard_swish(value);
            }
            let at = r * finish.output_stride + channel;
            if finish.half_result {
                let halves: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(value));
                _mm256_mask_storeu_epi16(finish.output.cast::<i16>().add(at), mask, halves);
            } else {
                _mm512_mask_storeu_ps(finish.output.add(at), mask, value);
            }
        }
    }
}
