//! Depthwise kernels for AVX-512 over lines of output whose pixels lie evenly, f32 or bf16: up to 6
//! pixels by 64 channels, without a table of addresses.

use std::arch::x86_64::*;

use super::gemm_f32::store;
use crate::depthwise::{DepthwiseLine, MicroDepthwiseLine};
use crate::tile::BLOCK_STRIDE;

pub(crate) static MICRO: MicroDepthwiseLine = MicroDepthwiseLine { rows: 6, panels: 4, tile };

type Kernel = unsafe fn(&DepthwiseLine);

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
/// Needs AVX-512 F, BW and VL; as `DepthwiseLine` describes.
unsafe fn tile(rows: usize, line: &DepthwiseLine) {
    let half = usize::from(line.half);
    // SAFETY: the caller's promise.
    unsafe {
        match line.channels / 16 {
            0 => TAIL[half][rows - 1](line),
            1 => ONE[half][rows - 1](line),
            2 => TWO[half][rows - 1](line),
            _ => FOUR[half][rows - 1](line),
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
    call: &DepthwiseLine,
) {
    let mut sums = [[_mm512_setzero_ps(); PANELS]; ROWS];
    let mask: __mmask16 = if MASKED { (1 << call.channels) - 1 } else { u16::MAX };
    // SAFETY: the caller's promise; the mask keeps a tail within its channels.
    unsafe {
        for &(address, tap) in call.lines {
            let mut first =
                std::ptr::with_exposed_provenance::<u8>(address.wrapping_add(call.offset));
            let mut line = call.weights.add(tap * 64);
            for _ in 0..call.taps {
                let mut weights = [_mm512_setzero_ps(); PANELS];
                for p in 0..PANELS {
                    weights[p] = _mm512_loadu_ps(line.add(p * call.panel_bytes).cast());
                }
                for r in 0..ROWS {
                    let row = first.add(r * call.row_step);
                    for p in 0..PANELS {
                        let values = if HALF {
                            let row = row.cast::<i16>().add(p * 16);
                            let halves = match MASKED {
                                true => _mm256_maskz_loadu_epi16(mask, row),
                                false => _mm256_loadu_epi16(row),
                            };
                            let wide = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves));
                            _mm512_castsi512_ps(wide)
                        } else if MASKED {
                            _mm512_maskz_loadu_ps(mask, row.cast())
                        } else {
                            _mm512_loadu_ps(row.cast::<f32>().add(p * 16))
                        };
                        sums[r][p] = _mm512_fmadd_ps(values, weights[p], sums[r][p]);
                    }
                }
                first = first.wrapping_add(call.tap_step);
                line = line.add(64);
            }
        }
        if let Some(finish) = &call.finish {
            store!(finish, ROWS, PANELS, |r, p| sums[r][p]);
            return;
        }
        for r in 0..ROWS {
            for p in 0..PANELS {
                let to = call.accumulators.add(r * BLOCK_STRIDE + p * 16);
                _mm512_storeu_ps(to, sums[r][p]);
            }
        }
    }
}
