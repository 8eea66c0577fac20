//! u8 × s8 tile kernels for AVX-512 VNNI: up to 12 rows by 32 columns, 6 by 64, or 16 by 16.

use std::arch::x86_64::*;

use super::epilogue::{byte_factors, first_integers, store_bytes, store_integers, store_reals};
use super::panels::{of_rows, panel_kernels};
use crate::finish::{Movable, OfIntegers};
use crate::panel::{
    PAIR_ROWS, PairMicro, PanelKernel, PanelMicro, PanelTile, PixelLine, QUAD_ROWS, pointer,
};
use crate::tile::{BLOCK_STRIDE, Micro, TILE_ROWS, Tile};

pub(crate) static MICRO: Micro<i32> =
    Micro { panels: &[4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2], tile, panel: Some(&PANEL) };

type Kernel = unsafe fn(&Tile<i32>);

macro_rules! by_rows {
    ($panels:literal: $($rows:literal)*) => {
        [$(rows_by_panels::<$rows, $panels>),*]
    };
}

static ONE: [Kernel; 12] = by_rows!(1: 1 2 3 4 5 6 7 8 9 10 11 12);
static TWO: [Kernel; 12] = by_rows!(2: 1 2 3 4 5 6 7 8 9 10 11 12);
static FOUR: [Kernel; 6] = by_rows!(4: 1 2 3 4 5 6);

/// # Safety
/// Needs AVX-512 F, BW, DQ, VL and VNNI; the tile's rows and weights are readable, its accumulators
/// and what it finishes writable.
unsafe fn tile(rows: usize, panels: usize, tile: &Tile<i32>) {
    // SAFETY: the caller's promise.
    unsafe {
        match panels {
            1 => ONE[rows - 1](tile),
            2 => TWO[rows - 1](tile),
            _ => FOUR[rows - 1](tile),
        }
    }
}

/// Fewer than four bytes, and zeros, in every lane.
///
/// # Safety
/// Needs AVX-512 BW and VL; `count` bytes are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn partial(from: *const u8, count: usize) -> __m512i {
    let mask: __mmask16 = (1 << count) - 1;
    // SAFETY: the caller's promise; the mask keeps the rest from being read.
    _mm512_broadcastd_epi32(unsafe { _mm_maskz_loadu_epi8(mask, from.cast()) })
}

/// Four bytes in every lane.
///
/// # Safety
/// Needs AVX-512 F; the bytes are readable.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn word(from: *const u8) -> __m512i {
    // SAFETY: the caller's promise.
    _mm512_set1_epi32(unsafe { from.cast::<i32>().read_unaligned() })
}

/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn rows_by_panels<const ROWS: usize, const PANELS: usize>(tile: &Tile<i32>) {
    let mut line = tile.weights;
    let mut ahead = tile.ahead.cast::<i8>();
    // SAFETY: the caller's promise; one line of weights per step and panel.
    unsafe {
        let first = first_integers!(&tile.finish, PANELS);
        let mut sums = [first; ROWS];
        if tile.accumulate {
            for r in 0..ROWS {
                for p in 0..PANELS {
                    let from = tile.accumulators.add(r * BLOCK_STRIDE + p * 16);
                    sums[r][p] = _mm512_add_epi32(first[p], _mm512_loadu_epi32(from));
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
                    let value = $value(r);
                    for p in 0..PANELS {
                        sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], value, weights[p]);
                    }
                }
                line = line.add(64);
            };
        }
        for tap in 0..tile.taps {
            let rows = tile.rows::<u8, ROWS>(tap);
            let mut k = 0;
            while PANELS > 1 && k + 16 <= tile.depth {
                step!(|r: usize| word(rows[r].add(k)), true);
                step!(|r: usize| word(rows[r].add(k + 4)), true);
                step!(|r: usize| word(rows[r].add(k + 8)), true);
                step!(|r: usize| word(rows[r].add(k + 12)), true);
                k += 16;
            }
            while k + 4 <= tile.depth {
                step!(|r: usize| word(rows[r].add(k)), PANELS == 1);
                k += 4;
            }
            if k < tile.depth {
                step!(|r: usize| partial(rows[r].add(k), tile.depth - k), false);
            }
        }
        if store_integers!(&tile.finish, ROWS, PANELS, sums) {
            return;
        }
        for r in 0..ROWS {
            for p in 0..PANELS {
                let to = tile.accumulators.add(r * BLOCK_STRIDE + p * 16);
                _mm512_storeu_epi32(to, sums[r][p]);
            }
        }
    }
}

/// A line of weights.
///
/// # Safety
/// Needs AVX-512 F; the line is readable.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn line(from: *const u8) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_loadu_si512(from.cast()) }
}

/// Finishes the sums of one tile after the other: `$sums` names an array of registers that begins
/// as the columns' first integers, and to which `$products` adds, and `$last` for some rows.
macro_rules! each_tile {
    (
        $tile:ident, $rows:expr, $panels:expr, |$sums:ident| $products:block,
        |$row:ident, $count:ident| $last:block
    ) => {
        let first = first_integers!(Some(&$tile.finish), $panels);
        match $tile.finish {
            OfIntegers::Bytes(mut finish) => {
                let factors = byte_factors!(finish, $panels);
                for _ in 0..$tile.tiles {
                    let mut $sums = [first; $rows];
                    $products
                    store_bytes!(
                        finish, factors, $rows, $panels, $sums, |$row, $count| $last
                    );
                    finish.below($rows);
                }
            }
            OfIntegers::Reals(mut finish) => {
                for _ in 0..$tile.tiles {
                    let mut $sums = [first; $rows];
                    $products
                    let ($row, $count) = (0, $rows);
                    $last
                    store_reals!(finish, $rows, $panels, $sums);
                    finish.below($rows);
                }
            }
        }
    };
}

panel_kernels!(
    i32,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni",
    4,
    each_tile,
    line,
    word,
    partial,
    _mm512_dpbusd_epi32
);
