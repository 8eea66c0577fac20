//! Depthwise kernels for AVX-512 over neighbours in a line of output: a pixel of 16 channels is read,
//! and widened where it is bf16, once for all rows that it counts in.

use std::arch::x86_64::*;

use super::epilogue::each;
use crate::depthwise_shared::{MicroDepthwiseShared, SharedTile};

type Kernel = unsafe fn(&SharedTile);

macro_rules! by_rows {
    ($taps:literal, $step:literal: $($rows:literal)*) => {
        [
            [$(neighbours::<$taps, $step, $rows, false>),*],
            [$(neighbours::<$taps, $step, $rows, true>),*],
        ]
    };
}

static THREE: [[Kernel; 12]; 2] = by_rows!(3, 1: 1 2 3 4 5 6 7 8 9 10 11 12);
static FIVE: [[Kernel; 8]; 2] = by_rows!(5, 1: 1 2 3 4 5 6 7 8);
static THREE_BY_TWO: [[Kernel; 8]; 2] = by_rows!(3, 2: 1 2 3 4 5 6 7 8);
static FIVE_BY_TWO: [[Kernel; 6]; 2] = by_rows!(5, 2: 1 2 3 4 5 6);

/// A pixel beside the image.
static ZEROS: [f32; 16] = [0.0; 16];

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
    let pixels = (ROWS - 1) * STEP + TAPS;
    for channel in (0..channels).step_by(16) {
        let left = channels - channel;
        let mask: __mmask16 = if left >= 16 { u16::MAX } else { (1 << left) - 1 };
        // Only the first and the last pixels may be beside the image. Zeros are read for them: loads
        // that are masked from end to end are slow where nothing is mapped.
        let mut beside = [[false; 2]; 2];
        for i in 0..TAPS / 2 {
            let last = pixels - 1 - i;
            beside[i] = [!tile.inside.contains(&i), !tile.inside.contains(&last)];
        }
        let offset = tile.offset + channel * if HALF { 2 } else { 4 };
        let mut sums = [_mm512_setzero_ps(); ROWS];
        // SAFETY: the caller's promise; the mask keeps a tail within its channels.
        unsafe {
            let panel = tile.weights.add(channel * TAPS * TAPS);
            for &(address, first_tap) in &*tile.lines {
                let mut weights = [_mm512_setzero_ps(); TAPS];
                for tap in 0..TAPS {
                    weights[tap] = _mm512_loadu_ps(panel.add((first_tap + tap) * 16));
                }
                let address = address.wrapping_add(offset);
                let first = std::ptr::with_exposed_provenance::<u8>(address);
                each!(pixel in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 => {
                    if pixel < pixels {
                        let last = (pixels - 1).saturating_sub(pixel);
                        let zero = match pixel {
                            _ if pixel < TAPS / 2 => beside[pixel % 2][0],
                            _ if last < TAPS / 2 => beside[last % 2][1],
                            _ => false,
                        };
                        let from = first.wrapping_add(pixel * tile.pixel_step);
                        let from = if zero { ZEROS.as_ptr().cast() } else { from };
                        let values = pixel_values::<HALF>(from, mask);
                        for r in 0..ROWS {
                            if pixel >= r * STEP && pixel - r * STEP < TAPS {
                                let weights = weights[pixel - r * STEP];
                                sums[r] = _mm512_fmadd_ps(values, weights, sums[r]);
                            }
                        }
                    }
                });
            }
            store_rows!(&tile.finish, channel, mask, ROWS, sums);
        }
    }
}

/// Sixteen channels of a pixel, of which those in the mask are read.
///
/// # Safety
/// Needs AVX-512 F, BW and VL; the channels in the mask are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn pixel_values<const HALF: bool>(from: *const u8, mask: __mmask16) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        if HALF {
            let wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        } else {
            _mm512_maskz_loadu_ps(mask, from.cast())
        }
    }
}

/// The epilogue of 16 channels of `$rows` rows, at most 28: a macro, because sums that are passed on
/// leave their registers. `$finish` is an [`crate::finish::InRegisters`].
macro_rules! store_rows {
    ($finish:expr, $channel:expr, $mask:expr, $rows:expr, $sums:expr) => {
        let finish = $finish;
        match finish.gate {
            $crate::finish::Gate::Hard => $crate::isa::avx512::depthwise_shared::store_rows!(
                finish, $channel, $mask, $rows, $sums, $crate::isa::avx512::epilogue::hard_swish
            ),
            $crate::finish::Gate::Sigmoid => $crate::isa::avx512::depthwise_shared::store_rows!(
                finish, $channel, $mask, $rows, $sums, $crate::isa::avx512::halves::swish
            ),
            $crate::finish::Gate::Normal => $crate::isa::avx512::depthwise_shared::store_rows!(
                finish, $channel, $mask, $rows, $sums, $crate::isa::avx512::halves::gelu
            ),
            $crate::finish::Gate::Open => $crate::isa::avx512::depthwise_shared::store_rows!(
                finish, $channel, $mask, $rows, $sums, std::convert::identity
            ),
        }
    };
    ($finish:ident, $channel:expr, $mask:expr, $rows:expr, $sums:expr, $function:path) => {{
        let (channel, mask) = ($channel, $mask);
        let alpha = _mm512_set1_ps($finish.alpha);
        let (low, high) = (_mm512_set1_ps($finish.low), _mm512_set1_ps($finish.high));
        let offset = match $finish.bias.is_null() {
            true => _mm512_setzero_ps(),
            false => _mm512_maskz_loadu_ps(mask, $finish.bias.add(channel)),
        };
        $crate::isa::avx512::epilogue::each_row!(r in $rows => {
            let mut value = _mm512_add_ps(_mm512_mul_ps($sums[r], alpha), offset);
            if !$finish.residual.is_null() {
                let from = $finish.residual.add(r * $finish.residual_stride + channel);
                value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, from));
            }
            // The operand order lets NaN through.
            let value = $function(_mm512_min_ps(high, _mm512_max_ps(low, value)));
            let at = r * $finish.output_stride + channel;
            if $finish.half_result {
                let halves: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(value));
                _mm256_mask_storeu_epi16($finish.output.cast::<i16>().add(at), mask, halves);
            } else {
                _mm512_mask_storeu_ps($finish.output.add(at), mask, value);
            }
        });
    }};
}

pub(super) use store_rows;
