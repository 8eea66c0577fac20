//! bf16 tile kernels for AVX-512 BF16: up to 12 rows by 32 columns, 6 by 64, or 16 by 16.

use std::arch::x86_64::*;

use super::gemm_f32::store;
use super::gemm_u8s8::word;
use super::halves::{first_sums, store_halves};
use crate::finish::Movable;
use crate::panel::{PAIR_ROWS, PairMicro, PanelKernel, PanelMicro, PanelTile, PixelLine, pointer};
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

static PANEL: PanelMicro<f32> = PanelMicro {
    shared,
    even,
    tall: 16,
    pair: Some(PairMicro { shared: shared_pair, even: even_pair }),
};

macro_rules! of_rows {
    (even_rows, $panels:literal: $($rows:literal)*) => { [$(even_rows::<$rows, $panels>),*] };
    (shared_rows, $panels:literal, $step:literal: $($rows:literal)*) => {
        [$(shared_rows::<$rows, $panels, $step>),*]
    };
}

static SHARED: [PanelKernel<f32>; TILE_ROWS] =
    of_rows!(shared_rows, 1, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
static EVEN: [PanelKernel<f32>; 16] =
    of_rows!(even_rows, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
static SHARED_PAIR: [[PanelKernel<f32>; PAIR_ROWS]; 2] =
    [of_rows!(shared_rows, 2, 1: 1 2 3 4 5 6 7 8), of_rows!(shared_rows, 2, 2: 1 2 3 4 5 6 7 8)];
static EVEN_PAIR: [PanelKernel<f32>; PAIR_ROWS] = of_rows!(even_rows, 2: 1 2 3 4 5 6 7 8);

/// # Safety
/// As [`shared_rows`].
unsafe fn shared(rows: usize, tile: &PanelTile<f32>) {
    // SAFETY: the caller's promise.
    unsafe { SHARED[rows - 1](tile) }
}

/// # Safety
/// As [`even_rows`].
unsafe fn even(rows: usize, tile: &PanelTile<f32>) {
    // SAFETY: the caller's promise.
    unsafe { EVEN[rows - 1](tile) }
}

/// # Safety
/// As [`shared_rows`].
unsafe fn shared_pair(rows: usize, tile: &PanelTile<f32>) {
    // SAFETY: the caller's promise.
    unsafe { SHARED_PAIR[tile.pixel_step - 1][rows - 1](tile) }
}

/// # Safety
/// As [`even_rows`].
unsafe fn even_pair(rows: usize, tile: &PanelTile<f32>) {
    // SAFETY: the caller's promise.
    unsafe { EVEN_PAIR[rows - 1](tile) }
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
unsafe fn one(from: *const u8) -> __m512bh {
    // SAFETY: as above.
    unsafe { std::mem::transmute(_mm512_set1_epi32(from.cast::<u16>().read_unaligned().into())) }
}

/// A line of weights.
///
/// # Safety
/// As [`two`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn line_at(from: *const u8) -> __m512bh {
    // SAFETY: as above.
    unsafe { std::mem::transmute(_mm512_loadu_si512(from.cast())) }
}

/// Finishes the sums of one tile after the other: `$sums` names an array of registers to which
/// `$products` adds.
macro_rules! each_tile {
    ($tile:ident, $rows:expr, $panels:expr, |$sums:ident| $products:block) => {
        let mut finish = $tile.finish;
        let first = first_sums!(Some(&finish), $panels);
        for _ in 0..$tile.tiles {
            let mut $sums = [first; $rows];
            $products
            if finish.half_result {
                store_halves!(finish, $rows, $panels, $sums);
            } else {
                store!(finish, $rows, $panels, |r, p| $sums[r][p]);
            }
            finish.below($rows);
        }
    };
}

/// Rows, `STEP` pixels apart, whose three taps across share pixels.
///
/// # Safety
/// Needs AVX-512 F, BW, DQ, VL and BF16; the pixels of the tiles' lines of taps and the weights are
/// readable, what is finished is writable.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn shared_rows<const ROWS: usize, const PANELS: usize, const STEP: usize>(
    tile: &PanelTile<f32>,
) {
    let mut ahead = tile.ahead.cast::<i8>();
    let mut lines = tile.lines;
    let (tap_bytes, panel_bytes) = (tile.tap_bytes, tile.panel_bytes);
    // SAFETY: the caller's promise; one line of weights per tap, step and panel.
    unsafe {
        each_tile!(tile, ROWS, PANELS, |sums| {
            let mut weights = tile.weights;
            for _ in 0..tile.taps / 3 {
                let PixelLine { left, second, right, step } = *lines;
                let (mut left, mut right) = (pointer(left), pointer(right));
                let mut second = pointer(second);
                lines = lines.add(1);
                macro_rules! step {
                    ($elements:ident) => {
                        _mm_prefetch::<_MM_HINT_T1>(ahead);
                        ahead = ahead.wrapping_add(tile.ahead_step);
                        let pixel = |m: usize| match m {
                            0 => left,
                            _ if m == (ROWS - 1) * STEP + 2 => right,
                            _ => second.wrapping_add((m - 1) * step),
                        };
                        let mut taps = [[line_at(weights); PANELS]; 3];
                        for tap in 0..3 {
                            for p in 0..PANELS {
                                taps[tap][p] =
                                    line_at(weights.add(tap * tap_bytes + p * panel_bytes));
                            }
                        }
                        let mut values = [$elements(pixel(0)), $elements(pixel(1))];
                        for r in 0..ROWS {
                            let last = $elements(pixel(r * STEP + 2));
                            for p in 0..PANELS {
                                let mut sum = sums[r][p];
                                sum = _mm512_dpbf16_ps(sum, values[0], taps[0][p]);
                                sum = _mm512_dpbf16_ps(sum, values[1], taps[1][p]);
                                sums[r][p] = _mm512_dpbf16_ps(sum, last, taps[2][p]);
                            }
                            values = match STEP {
                                1 => [values[1], last],
                                _ if r + 1 == ROWS => values,
                                _ => [last, $elements(pixel(r * STEP + 3))],
                            };
                        }
                        weights = weights.add(64);
                    };
                }
                for _ in 0..tile.depth / 2 {
                    step!(two);
                    left = left.wrapping_add(4);
                    second = second.wrapping_add(4);
                    right = right.wrapping_add(4);
                }
                if !tile.depth.is_multiple_of(2) {
                    step!(one);
                }
                weights = weights.wrapping_add(2 * tap_bytes);
            }
        });
    }
}

/// Rows that lie evenly, by one or two panels.
///
/// # Safety
/// As [`shared_rows`], for the rows and taps of the tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn even_rows<const ROWS: usize, const PANELS: usize>(tile: &PanelTile<f32>) {
    let mut ahead = tile.ahead.cast::<i8>();
    let (row_step, tap_step) = (tile.row_step, tile.tap_step);
    let mut starts = tile.starts;
    // SAFETY: the caller's promise; one line of weights per tap, step and panel.
    unsafe {
        each_tile!(tile, ROWS, PANELS, |sums| {
            let (mut weights, mut tap) = (tile.weights, pointer(*starts));
            starts = starts.add(1);
            for _ in 0..tile.taps {
                let mut at = tap;
                macro_rules! step {
                    ($elements:ident) => {
                        _mm_prefetch::<_MM_HINT_T1>(ahead);
                        ahead = ahead.wrapping_add(tile.ahead_step);
                        let mut lines = [line_at(weights); PANELS];
                        for p in 0..PANELS {
                            lines[p] = line_at(weights.add(p * tile.panel_bytes));
                        }
                        for r in 0..ROWS {
                            let value = $elements(at.wrapping_add(r * row_step));
                            for p in 0..PANELS {
                                sums[r][p] = _mm512_dpbf16_ps(sums[r][p], value, lines[p]);
                            }
                        }
                        weights = weights.add(64);
                    };
                }
                let in_four = if PANELS > 1 { tile.depth / 8 } else { 0 };
                for _ in 0..in_four {
                    for _ in 0..4 {
                        step!(two);
                        at = at.wrapping_add(4);
                    }
                }
                for _ in 0..tile.depth / 2 - 4 * in_four {
                    step!(two);
                    at = at.wrapping_add(4);
                }
                if !tile.depth.is_multiple_of(2) {
                    step!(one);
                }
                tap = tap.wrapping_add(tap_step);
            }
        });
    }
}
