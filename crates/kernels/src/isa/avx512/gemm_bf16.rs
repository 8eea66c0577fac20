//! bf16 tile kernels for AVX-512 BF16: up to 12 rows by 32 columns, 6 by 64, or 16 by 16.

use std::arch::x86_64::*;

use super::gemm_f32::store;
use super::gemm_u8s8::word;
use super::halves::{first_sums, store_halves};
use super::panels::{of_rows, panel_kernels};
use crate::finish::Movable;
use crate::panel::{
    PAIR_ROWS, PairMicro, PanelKernel, PanelMicro, PanelTile, PixelLine, QUAD_ROWS, pointer,
};
use crate::tile::{BLOCK_STRIDE, Micro, TILE_ROWS, Tile};

pub(crate) static MICRO: Micro<f32> =
    Micro { panels: &[4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2], tile, panel: Some(&PANEL) };

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

/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn rows_by_panels<const ROWS: usize, const PANELS: usize>(tile: &Tile<f32>) {
    let mut line = tile.weights;
    let mut ahead = tile.ahead.cast::<i8>();
    // SAFETY: the caller's promise; one line of weights per step and panel. A register of bf16
    // pairs and one of integers are the same bits.
    unsafe {
        let first = first_sums!(&tile.finish, PANELS);
        let mut sums = [first; ROWS];
        if tile.accumulate {
            for r in 0..ROWS {
                for p in 0..PANELS {
                    let from = tile.accumulators.add(r * BLOCK_STRIDE + p * 16);
                    sums[r][p] = _mm512_add_ps(first[p], _mm512_loadu_ps(from));
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

/// Two elements in every lane.
///
/// # Safety
/// Needs AVX-512 F; the elements are readable.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn two(from: *const u8) -> __m512bh {
    // SAFETY: the caller's promise; a register of bf16 pairs and one of integers are the same bits.
    unsafe { std::mem::transmute(word(from)) }
}

/// One element, and zero, in every lane.
///
/// # Safety
/// As [`two`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn one(from: *const u8, _count: usize) -> __m512bh {
    // SAFETY: as above.
    unsafe { std::mem::transmute(_mm512_set1_epi32(from.cast::<u16>().read_unaligned().into())) }
}

/// A line of weights.
///
/// # Safety
/// As [`two`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn line(from: *const u8) -> __m512bh {
    // SAFETY: as above.
    unsafe { std::mem::transmute(_mm512_loadu_si512(from.cast())) }
}

/// Finishes the sums of one tile after the other: `$sums` names an array of registers to which
/// `$products` adds.
macro_rules! each_tile {
    (
        $tile:ident, $rows:expr, $panels:expr, |$sums:ident| $products:block,
        |$row:ident, $count:ident| $last:block
    ) => {
        let mut finish = $tile.finish;
        let first = first_sums!(Some(&finish), $panels);
        for _ in 0..$tile.tiles {
            let mut $sums = [first; $rows];
            $products
            let ($row, $count) = (0, $rows);
            $last
            if finish.half_result {
                store_halves!(finish, $rows, $panels, $sums);
            } else {
                store!(finish, $rows, $panels, |r, p| $sums[r][p]);
            }
            finish.below($rows);
        }
    };
}

panel_kernels!(
    f32,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16",
    2,
    each_tile,
    line,
    two,
    one,
    _mm512_dpbf16_ps
);
