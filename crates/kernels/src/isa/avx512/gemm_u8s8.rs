//! u8 × s8 tile kernels for AVX-512 VNNI: up to 12 rows by 32 columns, 6 by 64, or 28 by 16.

use std::arch::x86_64::*;

use super::epilogue::{first_integers, store_integers};
use crate::panel::{EvenRows, PanelKernel, PanelMicro, PanelTile, PixelLine, TALL_ROWS, pointer};
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

/// The kernels of one panel.
static PANEL: PanelMicro<i32> = PanelMicro { shared, even };

macro_rules! of_rows {
    ($kernel:ident: $($rows:literal)*) => { [$($kernel::<$rows>),*] };
}

static SHARED: [PanelKernel<i32>; TILE_ROWS] =
    of_rows!(shared_rows: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
static EVEN: [PanelKernel<i32>; TALL_ROWS] = of_rows!(even_rows:
    1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28);

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

/// Rows whose three taps across share pixels.
///
/// # Safety
/// Needs AVX-512 F, BW, DQ, VL and VNNI; the pixels of the tile's lines of taps and its weights are
/// readable, what it finishes is writable.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn shared_rows<const ROWS: usize>(tile: &PanelTile<i32>) {
    let (mut weights, mut ahead) = (tile.weights, tile.ahead.cast::<i8>());
    let tap_bytes = tile.tap_bytes;
    // SAFETY: the caller's promise; one line of weights per tap and step.
    unsafe {
        let mut sums = [first_integers!(Some(&tile.finish), 1); ROWS];
        for line in 0..tile.taps / 3 {
            let PixelLine { left, second, right, step } = *tile.lines.add(line);
            let (mut left, mut right) = (pointer(left), pointer(right));
            let mut second = pointer(second);
            macro_rules! step {
                ($word:expr) => {
                    _mm_prefetch::<_MM_HINT_T1>(ahead);
                    ahead = ahead.wrapping_add(tile.ahead_step);
                    let pixel = |m: usize| match m {
                        0 => left,
                        _ if m == ROWS + 1 => right,
                        _ => second.wrapping_add((m - 1) * step),
                    };
                    let lines = [
                        _mm512_loadu_si512(weights.cast()),
                        _mm512_loadu_si512(weights.add(tap_bytes).cast()),
                        _mm512_loadu_si512(weights.add(2 * tap_bytes).cast()),
                    ];
                    let mut values = [$word(pixel(0)), $word(pixel(1))];
                    for m in 0..ROWS {
                        let next = $word(pixel(m + 2));
                        let mut sum = sums[m][0];
                        sum = _mm512_dpbusd_epi32(sum, values[0], lines[0]);
                        sum = _mm512_dpbusd_epi32(sum, values[1], lines[1]);
                        sums[m] = [_mm512_dpbusd_epi32(sum, next, lines[2])];
                        values = [values[1], next];
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
        let stored = store_integers!(Some(&tile.finish), ROWS, 1, sums);
        debug_assert!(stored);
    }
}

/// Rows that lie evenly.
///
/// # Safety
/// As [`shared_rows`], for the rows and taps of the tile.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn even_rows<const ROWS: usize>(tile: &PanelTile<i32>) {
    let (mut weights, mut ahead) = (tile.weights, tile.ahead.cast::<i8>());
    let EvenRows { first, row_step, tap_step } = tile.even;
    let mut first = pointer(first);
    // SAFETY: the caller's promise; one line of weights per tap and step.
    unsafe {
        let mut sums = [first_integers!(Some(&tile.finish), 1); ROWS];
        for _ in 0..tile.taps {
            let mut at = first;
            macro_rules! step {
                ($word:expr) => {
                    _mm_prefetch::<_MM_HINT_T1>(ahead);
                    ahead = ahead.wrapping_add(tile.ahead_step);
                    let line = _mm512_loadu_si512(weights.cast());
                    for r in 0..ROWS {
                        let value = $word(at.wrapping_add(r * row_step));
                        sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], value, line);
                    }
                    weights = weights.add(64);
                };
            }
            for _ in 0..tile.depth / 4 {
                step!(word);
                at = at.wrapping_add(4);
            }
            if !tile.depth.is_multiple_of(4) {
                step!(|from| partial(from, tile.depth % 4));
            }
            first = first.wrapping_add(tap_step);
        }
        let stored = store_integers!(Some(&tile.finish), ROWS, 1, sums);
        debug_assert!(stored);
    }
}
