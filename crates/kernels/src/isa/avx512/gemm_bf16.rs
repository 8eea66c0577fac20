//! bf16 tile kernels for AVX-512 BF16: up to 12 rows by 32 columns, or 6 by 64.

use std::arch::x86_64::*;

use super::epilogue::hard_swish;
use super::gemm_f32::store;
use crate::tile::{BLOCK_STRIDE, Micro, Tile};

pub(crate) static MICRO: Micro<f32> =
    Micro { panels: &[4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2], tile, panel: None };

type Kernel = unsafe fn(&Tile<f32>);

macro_rules! by_rows {
    ($panels:literal: $($rows:literal)*) => {
        [$(rows_by_panels::<$rows, $panels>),*]
    };
}

static ONE: [Kernel; 12] = by_rows!(1: 1 2 3 4 5 6 7 8 9 10 11 12);
static TWO: [Kernel; 12] = by_rows!(2: 1 2 3 4 5 6 7 8 9 10 11 12);
static FOUR: [Kernel; 6] = by_rows!(4: 1 2 3 4 5 6);

/// # Safety
/// Needs AVX-512 F, BW, DQ, VL and BF16; the tile's rows and weights are readable, its accumulators
/// and what it finishes writable.
unsafe fn tile(rows: usize, panels: usize, tile: &Tile<f32>) {
    // SAFETY: the caller's promise.
    unsafe {
        match panels {
            1 => ONE[rows - 1](tile),
            2 => TWO[rows - 1](tile),
            _ => FOUR[rows - 1](tile),
        }
    }
}

/// The epilogue of a tile with results of bf16; see [`store!`] for why it is a macro.
macro_rules! store_halves {
    ($finish:ident, $rows:expr, $panels:expr, $sums:ident) => {
        let mask = |panel: usize| -> __mmask16 {
            let left = $finish.columns.saturating_sub(panel * 16);
            if left >= 16 { u16::MAX } else { (1 << left) - 1 }
        };
        if !$finish.addend.is_null() {
            for p in 0..$panels {
                let mut from = $finish.addend.cast::<i16>().wrapping_add(p * 16);
                for r in 0..$rows {
                    let halves = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask(p), from));
                    let wide = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves));
                    $sums[r][p] = _mm512_add_ps($sums[r][p], wide);
                    from = from.wrapping_add($finish.addend_stride);
                }
            }
        }
        let alpha = _mm512_set1_ps($finish.alpha);
        let (low, high) = (_mm512_set1_ps($finish.low), _mm512_set1_ps($finish.high));
        for p in 0..$panels {
            let offset = match $finish.bias.is_null() {
                true => _mm512_setzero_ps(),
                false => _mm512_maskz_loadu_ps(mask(p), $finish.bias.wrapping_add(p * 16)),
            };
            for r in 0..$rows {
                let value = _mm512_add_ps(_mm512_mul_ps($sums[r][p], alpha), offset);
                // The operand order lets NaN through.
                $sums[r][p] = _mm512_min_ps(high, _mm512_max_ps(low, value));
            }
        }
        if $finish.hard_swish {
            for p in 0..$panels {
                for r in 0..$rows {
                    $sums[r][p] = hard_swish($sums[r][p]);
                }
            }
        }
        let output = $finish.output.cast::<i16>();
        for p in 0..$panels {
            let mut to = output.wrapping_add(p * 16);
            let whole_pair = p % 2 == 0 && p + 1 < $panels && $finish.columns >= (p + 2) * 16;
            let second = p % 2 == 1 && $finish.columns >= (p + 1) * 16;
            for r in 0..$rows {
                if whole_pair {
                    let pair = _mm512_cvtne2ps_pbh($sums[r][(p + 1) % $panels], $sums[r][p]);
                    let pair: __m512i = std::mem::transmute(pair);
                    _mm512_storeu_epi16(to, pair);
                } else if !second {
                    let halves: __m256i = std::mem::transmute(_mm512_cvtneps_pbh($sums[r][p]));
                    _mm256_mask_storeu_epi16(to, mask(p), halves);
                }
                to = to.wrapping_add($finish.output_stride);
            }
        }
    };
}

/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn rows_by_panels<const ROWS: usize, const PANELS: usize>(tile: &Tile<f32>) {
    let mut sums = [[_mm512_setzero_ps(); PANELS]; ROWS];
    let mut line = tile.weights;
    let mut ahead = tile.ahead.cast::<i8>();
    // SAFETY: the caller's promise; one line of weights per step and panel. A register of bf16
    // pairs and one of integers are the same bits.
    unsafe {
        if tile.accumulate {
            for r in 0..ROWS {
                for p in 0..PANELS {
                    sums[r][p] = _mm512_loadu_ps(tile.accumulators.add(r * BLOCK_STRIDE + p * 16));
                }
            }
        }
        macro_rules! step {
            ($value:expr, $lines:expr) => {
                if $lines {
                    _mm_prefetch::<_MM_HINT_T1>(ahead);
                    ahead = ahead.wrapping_add(tile.ahead_step);
                }
                let mut weights = [_mm512_setzero_si512(); PANELS];
                for p in 0..PANELS {
                    weights[p] = _mm512_loadu_si512(line.add(p * tile.panel_bytes).cast());
                }
                for r in 0..ROWS {
                    let value: __m512bh = std::mem::transmute(_mm512_set1_epi32($value(r)));
                    for p in 0..PANELS {
                        let weights: __m512bh = std::mem::transmute(weights[p]);
                        sums[r][p] = _mm512_dpbf16_ps(sums[r][p], value, weights);
                    }
                }
                line = line.add(64);
            };
        }
        for tap in 0..tile.taps {
            let rows = tile.rows::<u16, ROWS>(tap);
            let mut k = 0;
            while k + 8 <= tile.depth {
                step!(|r: usize| rows[r].add(k).cast::<i32>().read_unaligned(), true);
                step!(|r: usize| rows[r].add(k + 2).cast::<i32>().read_unaligned(), true);
                step!(|r: usize| rows[r].add(k + 4).cast::<i32>().read_unaligned(), true);
                step!(|r: usize| rows[r].add(k + 6).cast::<i32>().read_unaligned(), true);
                k += 8;
            }
            while k + 2 <= tile.depth {
                step!(|r: usize| rows[r].add(k).cast::<i32>().read_unaligned(), false);
                k += 2;
            }
            if k < tile.depth {
                step!(|r: usize| i32::from(*rows[r].add(k)), false);
            }
        }
        if let Some(finish) = &tile.finish {
            if finish.half_result {
                store_halves!(finish, ROWS, PANELS, sums);
            } else {
                store!(finish, ROWS, PANELS, |r, p| sums[r][p]);
            }
            return;
        }
        for r in 0..ROWS {
            for p in 0..PANELS {
                let to = tile.accumulators.add(r * BLOCK_STRIDE + p * 16);
                _mm512_storeu_ps(to, sums[r][p]);
            }
        }
    }
}
