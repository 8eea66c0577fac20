//! u8 × s8 tile kernels for AVX-512 VNNI: up to 12 rows by 32 columns, 6 by 64, or 16 by 16.

use std::arch::x86_64::*;

use super::epilogue::{byte_factors, first_integers, store_bytes, store_integers, store_reals};
use crate::finish::{Movable, OfIntegers};
use crate::panel::{PAIR_ROWS, PairMicro, PanelKernel, PanelMicro, PanelTile, PixelLine, pointer};
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

/// The kernels of one panel, and of two.
static PANEL: PanelMicro<i32> = PanelMicro {
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

static SHARED: [PanelKernel<i32>; TILE_ROWS] =
    of_rows!(shared_rows, 1, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
static EVEN: [PanelKernel<i32>; 16] =
    of_rows!(even_rows, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
static SHARED_PAIR: [[PanelKernel<i32>; PAIR_ROWS]; 2] =
    [of_rows!(shared_rows, 2, 1: 1 2 3 4 5 6 7 8), of_rows!(shared_rows, 2, 2: 1 2 3 4 5 6 7 8)];
static EVEN_PAIR: [PanelKernel<i32>; PAIR_ROWS] = of_rows!(even_rows, 2: 1 2 3 4 5 6 7 8);

/// # Safety
/// As [`shared_rows`].
unsafe fn shared(rows: usize, tile: &PanelTile<i32>) {
    // SAFETY: the caller's promise.
    unsafe { SHARED[rows - 1](tile) }
}

/// # Safety
/// As [`even_rows`].
unsafe fn even(rows: usize, tile: &PanelTile<i32>) {
    // SAFETY: the caller's promise.
    unsafe { EVEN[rows - 1](tile) }
}

/// # Safety
/// As [`shared_rows`].
unsafe fn shared_pair(rows: usize, tile: &PanelTile<i32>) {
    // SAFETY: the caller's promise.
    unsafe { SHARED_PAIR[tile.pixel_step - 1][rows - 1](tile) }
}

/// # Safety
/// As [`even_rows`].
unsafe fn even_pair(rows: usize, tile: &PanelTile<i32>) {
    // SAFETY: the caller's promise.
    unsafe { EVEN_PAIR[rows - 1](tile) }
}

/// Finishes the sums of one tile after the other: `$sums` names an array of registers that begins
/// as the columns' first integers, and to which `$products` adds.
macro_rules! each_tile {
    ($tile:ident, $rows:expr, $panels:expr, |$sums:ident| $products:block) => {
        let first = first_integers!(Some(&$tile.finish), $panels);
        match $tile.finish {
            OfIntegers::Bytes(mut finish) => {
                let factors = byte_factors!(finish, $panels);
                for _ in 0..$tile.tiles {
                    let mut $sums = [first; $rows];
                    $products
                    store_bytes!(finish, factors, $rows, $panels, $sums);
                    finish.below($rows);
                }
            }
            OfIntegers::Reals(mut finish) => {
                for _ in 0..$tile.tiles {
                    let mut $sums = [first; $rows];
                    $products
                    store_reals!(finish, $rows, $panels, $sums);
                    finish.below($rows);
                }
            }
        }
    };
}

/// Rows, `STEP` pixels apart, whose three taps across share pixels.
///
/// # Safety
/// Needs AVX-512 F, BW, DQ, VL and VNNI; the pixels of the tiles' lines of taps and the weights are
/// readable, what is finished is writable.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn shared_rows<const ROWS: usize, const PANELS: usize, const STEP: usize>(
    tile: &PanelTile<i32>,
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
                    ($word:expr) => {
                        _mm_prefetch::<_MM_HINT_T1>(ahead);
                        ahead = ahead.wrapping_add(tile.ahead_step);
                        let pixel = |m: usize| match m {
                            0 => left,
                            _ if m == (ROWS - 1) * STEP + 2 => right,
                            _ => second.wrapping_add((m - 1) * step),
                        };
                        let mut taps = [[_mm512_setzero_si512(); PANELS]; 3];
                        for tap in 0..3 {
                            for p in 0..PANELS {
                                let line = weights.add(tap * tap_bytes + p * panel_bytes);
                                taps[tap][p] = _mm512_loadu_si512(line.cast());
                            }
                        }
                        let mut values = [$word(pixel(0)), $word(pixel(1))];
                        for r in 0..ROWS {
                            let last = $word(pixel(r * STEP + 2));
                            for p in 0..PANELS {
                                let mut sum = sums[r][p];
                                sum = _mm512_dpbusd_epi32(sum, values[0], taps[0][p]);
                                sum = _mm512_dpbusd_epi32(sum, values[1], taps[1][p]);
                                sums[r][p] = _mm512_dpbusd_epi32(sum, last, taps[2][p]);
                            }
                            values = match STEP {
                                1 => [values[1], last],
                                _ if r + 1 == ROWS => values,
                                _ => [last, $word(pixel(r * STEP + 3))],
                            };
                        }
                        weights = weights.add(64);
                    };
                }
                for _ in 0..tile.depth / 4 {
                    step!(word);
                    left = left.wrapping_add(4);
                    second = second.wrapping_add(4);
                    right = right.wrapping_add(4);
                }
                if !tile.depth.is_multiple_of(4) {
                    step!(|from| partial(from, tile.depth % 4));
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn even_rows<const ROWS: usize, const PANELS: usize>(tile: &PanelTile<i32>) {
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
                    ($word:expr) => {
                        _mm_prefetch::<_MM_HINT_T1>(ahead);
                        ahead = ahead.wrapping_add(tile.ahead_step);
                        let mut lines = [_mm512_setzero_si512(); PANELS];
                        for p in 0..PANELS {
                            lines[p] = _mm512_loadu_si512(weights.add(p * tile.panel_bytes).cast());
                        }
                        for r in 0..ROWS {
                            let value = $word(at.wrapping_add(r * row_step));
                            for p in 0..PANELS {
                                sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], value, lines[p]);
                            }
                        }
                        weights = weights.add(64);
                    };
                }
                let in_four = if PANELS > 1 { tile.depth / 16 } else { 0 };
                for _ in 0..in_four {
                    for _ in 0..4 {
                        step!(word);
                        at = at.wrapping_add(4);
                    }
                }
                for _ in 0..tile.depth / 4 - 4 * in_four {
                    step!(word);
                    at = at.wrapping_add(4);
                }
                if !tile.depth.is_multiple_of(4) {
                    step!(|from| partial(from, tile.depth % 4));
                }
                tap = tap.wrapping_add(tap_step);
            }
        });
    }
}
