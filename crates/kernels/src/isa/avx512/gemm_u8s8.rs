//! u8 × s8 tile kernels for AVX-512 VNNI: up to 12 rows by 32 columns, or 6 by 64.

use std::arch::x86_64::*;

use super::epilogue::{first_integers, store_integers};
use crate::tile::{BLOCK_STRIDE, Micro, PITCH, Tile};

pub(crate) static MICRO: Micro<i32> =
    Micro { panels: &[4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2], tile, narrow: Some(narrow) };

type Kernel = unsafe fn(&Tile<i32>);

macro_rules! by_rows {
    ($panels:literal: $($rows:literal)*) => {
        [
            [$(rows_by_panels::<$rows, $panels, 0>),*],
            [$(rows_by_panels::<$rows, $panels, 1>),*],
            [$(rows_by_panels::<$rows, $panels, 2>),*],
            [$(rows_by_panels::<$rows, $panels, 4>),*],
        ]
    };
}

static ONE: [[Kernel; 12]; 4] = by_rows!(1: 1 2 3 4 5 6 7 8 9 10 11 12);
static TWO: [[Kernel; 12]; 4] = by_rows!(2: 1 2 3 4 5 6 7 8 9 10 11 12);
static FOUR: [[Kernel; 6]; 4] = by_rows!(4: 1 2 3 4 5 6);

/// # Safety
/// Needs AVX-512 F, BW, DQ, VL and VNNI; the tile's rows and weights are readable, its accumulators
/// and what it finishes writable.
unsafe fn tile(rows: usize, panels: usize, tile: &Tile<i32>) {
    let ahead = tile.ahead_in_four.min(3);
    // SAFETY: the caller's promise.
    unsafe {
        match panels {
            1 => ONE[ahead][rows - 1](tile),
            2 => TWO[ahead][rows - 1](tile),
            _ => FOUR[ahead][rows - 1](tile),
        }
    }
}

/// Fewer than four bytes, as the low bytes of an i32.
///
/// # Safety
/// `count` bytes are readable.
unsafe fn partial(from: *const u8, count: usize) -> i32 {
    let mut value = 0;
    for i in 0..count {
        // SAFETY: the caller's promise.
        value |= u32::from(unsafe { *from.add(i) }) << (8 * i);
    }
    value as i32
}

/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn rows_by_panels<const ROWS: usize, const PANELS: usize, const AHEAD: usize>(
    tile: &Tile<i32>,
) {
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
                    ahead = ahead.wrapping_add(64);
                }
                let mut weights = [_mm512_setzero_si512(); PANELS];
                for p in 0..PANELS {
                    weights[p] = _mm512_loadu_si512(line.add(p * tile.panel_bytes).cast());
                }
                for r in 0..ROWS {
                    let value = _mm512_set1_epi32($value(r));
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
            while k + 16 <= tile.depth {
                step!(|r: usize| rows[r].add(k).cast::<i32>().read_unaligned(), AHEAD > 0);
                step!(|r: usize| rows[r].add(k + 4).cast::<i32>().read_unaligned(), AHEAD > 2);
                step!(|r: usize| rows[r].add(k + 8).cast::<i32>().read_unaligned(), AHEAD > 1);
                step!(|r: usize| rows[r].add(k + 12).cast::<i32>().read_unaligned(), AHEAD > 2);
                k += 16;
            }
            while k + 4 <= tile.depth {
                step!(|r: usize| rows[r].add(k).cast::<i32>().read_unaligned(), false);
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

/// The kernel for a line of output whose three taps across share pixels, one panel wide.
///
/// # Safety
/// As [`tile`].
unsafe fn narrow(rows: usize, tile: &Tile<i32>) {
    // SAFETY: the caller's promise.
    unsafe { NARROW[rows - 1](tile) }
}

static NARROW: [Kernel; 16] = [
    shared_rows::<1>,
    shared_rows::<2>,
    shared_rows::<3>,
    shared_rows::<4>,
    shared_rows::<5>,
    shared_rows::<6>,
    shared_rows::<7>,
    shared_rows::<8>,
    shared_rows::<9>,
    shared_rows::<10>,
    shared_rows::<11>,
    shared_rows::<12>,
    shared_rows::<13>,
    shared_rows::<14>,
    shared_rows::<15>,
    shared_rows::<16>,
];

/// # Safety
/// As [`narrow`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn shared_rows<const ROWS: usize>(tile: &Tile<i32>) {
    let tap_bytes = tile.panel_bytes / tile.taps;
    // SAFETY: the caller's promise; one line of weights per tap and step.
    unsafe {
        let mut sums = [first_integers!(&tile.finish, 1); ROWS];
        for line_of_taps in 0..tile.taps / 3 {
            // Pixel m is the first tap of row m; the last row's other taps are two more.
            let addresses = tile.addresses.add(line_of_taps * 3 * PITCH);
            let mut pixels = [std::ptr::null::<u8>(); 18];
            for m in 0..ROWS {
                pixels[m] = std::ptr::with_exposed_provenance(*addresses.add(m));
            }
            for t in 1..3 {
                let address = *addresses.add(t * PITCH + ROWS - 1);
                pixels[ROWS - 1 + t] = std::ptr::with_exposed_provenance(address);
            }
            let mut line = tile.weights.add(line_of_taps * 3 * tap_bytes);
            macro_rules! step {
                ($value:expr) => {
                    let weights = [
                        _mm512_loadu_si512(line.cast()),
                        _mm512_loadu_si512(line.add(tap_bytes).cast()),
                        _mm512_loadu_si512(line.add(2 * tap_bytes).cast()),
                    ];
                    let mut values = [_mm512_set1_epi32($value(0)), _mm512_set1_epi32($value(1))];
                    for m in 0..ROWS {
                        let next = _mm512_set1_epi32($value(m + 2));
                        let mut sum = sums[m][0];
                        sum = _mm512_dpbusd_epi32(sum, values[0], weights[0]);
                        sum = _mm512_dpbusd_epi32(sum, values[1], weights[1]);
                        sums[m] = [_mm512_dpbusd_epi32(sum, next, weights[2])];
                        values = [values[1], next];
                    }
                    line = line.add(64);
                };
            }
            let mut k = 0;
            while k + 16 <= tile.depth {
                step!(|m: usize| pixels[m].add(k).cast::<i32>().read_unaligned());
                step!(|m: usize| pixels[m].add(k + 4).cast::<i32>().read_unaligned());
                step!(|m: usize| pixels[m].add(k + 8).cast::<i32>().read_unaligned());
                step!(|m: usize| pixels[m].add(k + 12).cast::<i32>().read_unaligned());
                k += 16;
            }
            while k + 4 <= tile.depth {
                step!(|m: usize| pixels[m].add(k).cast::<i32>().read_unaligned());
                k += 4;
            }
            if k < tile.depth {
                step!(|m: usize| partial(pixels[m].add(k), tile.depth - k));
            }
        }
        if store_integers!(&tile.finish, ROWS, 1, sums) {
            return;
        }
        for m in 0..ROWS {
            _mm512_storeu_epi32(tile.accumulators.add(m * BLOCK_STRIDE), sums[m][0]);
        }
    }
}
