//! Depthwise kernels for AVX-512, in f32 over pixels of f32 or bf16: up to 6 pixels by 64 channels.

use std::arch::x86_64::*;

use crate::depthwise::{DepthwiseTile, MicroDepthwiseF32};
use crate::tile::{BLOCK_STRIDE, PITCH};

pub(crate) static MICRO: MicroDepthwiseF32 = MicroDepthwiseF32 { rows: 6, panels: 4, tile };

type Kernel = unsafe fn(&DepthwiseTile);

macro_rules! by_rows {
    ($panels:literal, $masked:literal) => {
        [by_rows!($panels, $masked, false), by_rows!($panels, $masked, true)]
    };
    ($panels:literal, $masked:literal, $half:literal) => {
        [
            rows_by_panels::<1, $panels, $masked, $half>,
            rows_by_panels::<2, $panels, $masked, $half>,
            rows_by_panels::<3, $panels, $masked, $half>,
            rows_by_panels::<4, $panels, $masked, $half>,
            rows_by_panels::<5, $panels, $masked, $half>,
            rows_by_panels::<6, $panels, $masked, $half>,
        ]
    };
}

static TAIL: [[Kernel; 6]; 2] = by_rows!(1, true);
static ONE: [[Kernel; 6]; 2] = by_rows!(1, false);
static TWO: [[Kernel; 6]; 2] = by_rows!(2, false);
static FOUR: [[Kernel; 6]; 2] = by_rows!(4, false);

/// # Safety
/// Needs AVX-512 F; the tile's rows and weights are readable, its accumulators writable.
unsafe fn tile(rows: usize, tile: &DepthwiseTile) {
    let half = usize::from(tile.half);
    // SAFETY: the caller's promise.
    unsafe {
        match tile.channels / 16 {
            0 => TAIL[half][rows - 1](tile),
            1 => ONE[half][rows - 1](tile),
            2 => TWO[half][rows - 1](tile),
            _ => FOUR[half][rows - 1](tile),
        }
    }
}

/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn rows_by_panels<
    const ROWS: usize,
    const PANELS: usize,
    const MASKED: bool,
    const HALF: bool,
>(
    tile: &DepthwiseTile,
) {
    let mut sums = [[_mm512_setzero_ps(); PANELS]; ROWS];
    let mask: __mmask16 = if MASKED { (1 << tile.channels) - 1 } else { u16::MAX };
    // SAFETY: the caller's promise; the mask keeps a tail within its channels.
    unsafe {
        if tile.accumulate {
            for r in 0..ROWS {
                for p in 0..PANELS {
                    sums[r][p] = _mm512_loadu_ps(tile.accumulators.add(r * BLOCK_STRIDE + p * 16));
                }
            }
        }
        for tap in 0..tile.taps {
            let mut weights = [_mm512_setzero_ps(); PANELS];
            for p in 0..PANELS {
                let line = tile.weights.add(p * tile.panel_bytes + tap * 64);
                weights[p] = _mm512_loadu_ps(line.cast());
            }
            for r in 0..ROWS {
                let address = *tile.addresses.add(tap * PITCH + r);
                let row = std::ptr::with_exposed_provenance::<f32>(address);
                for p in 0..PANELS {
                    let values = if HALF {
                        let row = row.cast::<i16>().add(tile.channel + p * 16);
                        let halves = match MASKED {
                            true => _mm256_maskz_loadu_epi16(mask, row),
                            false => _mm256_loadu_epi16(row),
                        };
                        let wide = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves));
                        _mm512_castsi512_ps(wide)
                    } else if MASKED {
                        _mm512_maskz_loadu_ps(mask, row.add(tile.channel))
                    } else {
                        _mm512_loadu_ps(row.add(tile.channel + p * 16))
                    };
                    sums[r][p] = _mm512_fmadd_ps(values, weights[p], sums[r][p]);
                }
            }
        }
        for r in 0..ROWS {
            for p in 0..PANELS {
                let to = tile.accumulators.add(r * BLOCK_STRIDE + p * 16);
                _mm512_storeu_ps(to, sums[r][p]);
            }
        }
    }
}
