//! f32 tile kernels for AVX-512: up to 14 rows by 32 columns, or 6 by 64.

use std::arch::x86_64::*;

use crate::tile::{BLOCK_STRIDE, Micro, PITCH, Tile};

pub(crate) static MICRO: Micro<f32> =
    Micro { panels: &[4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2], tile, narrow: Some(narrow) };

/// The epilogue of a tile of `$rows` rows by `$panels` panels, where `$sum` is a place among the
/// sums; a macro, because sums that are passed on leave their registers. So do those of loops that
/// are too long to be unrolled, which is why [`store_swish!`] is one of its own.
macro_rules! store {
    ($finish:ident, $rows:expr, $panels:expr, |$r:ident, $p:ident| $sum:expr) => {
        if $finish.hard_swish {
            $crate::isa::avx512::gemm_f32::store_swish!($finish, $rows, $panels, |$r, $p| $sum);
        } else {
            let alpha = _mm512_set1_ps($finish.alpha);
            let (low, high) = (_mm512_set1_ps($finish.low), _mm512_set1_ps($finish.high));
            let has_residual = !$finish.residual.is_null();
            for $p in 0..$panels {
                let left = $finish.columns.saturating_sub($p * 16);
                let mask = if left >= 16 { u16::MAX } else { (1 << left) - 1 };
                let offset = match $finish.bias.is_null() {
                    true => _mm512_setzero_ps(),
                    false => _mm512_maskz_loadu_ps(mask, $finish.bias.wrapping_add($p * 16)),
                };
                let mut from = $finish.residual.wrapping_add($p * 16);
                let mut to = $finish.output.wrapping_add($p * 16);
                for $r in 0..$rows {
                    let mut value = _mm512_add_ps(_mm512_mul_ps($sum, alpha), offset);
                    if has_residual {
                        value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, from));
                        from = from.wrapping_add($finish.residual_stride);
                    }
                    // The operand order lets NaN through.
                    let value = _mm512_min_ps(high, _mm512_max_ps(low, value));
                    _mm512_mask_storeu_ps(to, mask, value);
                    to = to.wrapping_add($finish.output_stride);
                }
            }
        }
    };
}

/// The same with the hard swish and without a residual.
macro_rules! store_swish {
    ($finish:ident, $rows:expr, $panels:expr, |$r:ident, $p:ident| $sum:expr) => {
        let alpha = _mm512_set1_ps($finish.alpha);
        let mask = |panel: usize| -> __mmask16 {
            let left = $finish.columns.saturating_sub(panel * 16);
            if left >= 16 { u16::MAX } else { (1 << left) - 1 }
        };
        for $p in 0..$panels {
            let offset = match $finish.bias.is_null() {
                true => _mm512_setzero_ps(),
                false => _mm512_maskz_loadu_ps(mask($p), $finish.bias.wrapping_add($p * 16)),
            };
            for $r in 0..$rows {
                let value = _mm512_add_ps(_mm512_mul_ps($sum, alpha), offset);
                $sum = $crate::isa::avx512::epilogue::hard_swish(value);
            }
        }
        for $p in 0..$panels {
            let mut to = $finish.output.wrapping_add($p * 16);
            for $r in 0..$rows {
                _mm512_mask_storeu_ps(to, mask($p), $sum);
                to = to.wrapping_add($finish.output_stride);
            }
        }
    };
}

pub(super) use store;
pub(super) use store_swish;

type Kernel = unsafe fn(&Tile<f32>);

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
/// Needs AVX-512 F; the tile's rows and weights are readable, its accumulators writable.
unsafe fn tile(rows: usize, panels: usize, tile: &Tile<f32>) {
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

/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx512f")]
unsafe fn rows_by_panels<const ROWS: usize, const PANELS: usize, const AHEAD: usize>(
    tile: &Tile<f32>,
) {
    let mut sums = [[_mm512_setzero_ps(); PANELS]; ROWS];
    let stride = tile.panel_bytes / 4;
    let mut line = tile.weights.cast::<f32>();
    let mut ahead = tile.ahead.cast::<i8>();
    // SAFETY: the caller's promise; one line of weights per step and panel.
    unsafe {
        if tile.accumulate {
            for r in 0..ROWS {
                for p in 0..PANELS {
                    sums[r][p] = _mm512_loadu_ps(tile.accumulators.add(r * BLOCK_STRIDE + p * 16));
                }
            }
        }
        macro_rules! step {
            ($rows:ident, $k:expr, $lines:expr) => {
                if $lines {
                    _mm_prefetch::<_MM_HINT_T1>(ahead);
                    ahead = ahead.wrapping_add(64);
                }
                let mut weights = [_mm512_setzero_ps(); PANELS];
                for p in 0..PANELS {
                    weights[p] = _mm512_loadu_ps(line.add(p * stride));
                }
                for r in 0..ROWS {
                    let value = _mm512_set1_ps(*$rows[r].add($k));
                    for p in 0..PANELS {
                        sums[r][p] = _mm512_fmadd_ps(value, weights[p], sums[r][p]);
                    }
                }
                line = line.add(16);
            };
        }
        for tap in 0..tile.taps {
            let rows = tile.rows::<f32, ROWS>(tap);
            let mut k = 0;
            while k + 4 <= tile.depth {
                step!(rows, k, AHEAD > 0);
                step!(rows, k + 1, AHEAD > 2);
                step!(rows, k + 2, AHEAD > 1);
                step!(rows, k + 3, AHEAD > 2);
                k += 4;
            }
            while k < tile.depth {
                step!(rows, k, false);
                k += 1;
            }
        }
        if let Some(finish) = &tile.finish {
            store!(finish, ROWS, PANELS, |r, p| sums[r][p]);
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

/// The kernel for a line of output whose three taps across share pixels, one panel wide.
///
/// # Safety
/// As [`tile`].
unsafe fn narrow(rows: usize, tile: &Tile<f32>) {
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
#[target_feature(enable = "avx512f")]
unsafe fn shared_rows<const ROWS: usize>(tile: &Tile<f32>) {
    let mut sums = [_mm512_setzero_ps(); ROWS];
    let tap_bytes = tile.panel_bytes / tile.taps;
    // SAFETY: the caller's promise; one line of weights per tap and step.
    unsafe {
        for line_of_taps in 0..tile.taps / 3 {
            // Pixel m is the first tap of row m; the last row's other taps are two more.
            let addresses = tile.addresses.add(line_of_taps * 3 * PITCH);
            let mut pixels = [std::ptr::null::<f32>(); 18];
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
                        _mm512_loadu_ps(line.cast()),
                        _mm512_loadu_ps(line.add(tap_bytes).cast()),
                        _mm512_loadu_ps(line.add(2 * tap_bytes).cast()),
                    ];
                    let mut values = [_mm512_set1_ps($value(0)), _mm512_set1_ps($value(1))];
                    for m in 0..ROWS {
                        let next = _mm512_set1_ps($value(m + 2));
                        sums[m] = _mm512_fmadd_ps(values[0], weights[0], sums[m]);
                        sums[m] = _mm512_fmadd_ps(values[1], weights[1], sums[m]);
                        sums[m] = _mm512_fmadd_ps(next, weights[2], sums[m]);
                        values = [values[1], next];
                    }
                    line = line.add(64);
                };
            }
            let mut k = 0;
            while k + 2 <= tile.depth {
                step!(|m: usize| *pixels[m].add(k));
                step!(|m: usize| *pixels[m].add(k + 1));
                k += 2;
            }
            if k < tile.depth {
                step!(|m: usize| *pixels[m].add(k));
            }
        }
        if let Some(finish) = &tile.finish {
            store!(finish, ROWS, 1, |m, _p| sums[m]);
            return;
        }
        for m in 0..ROWS {
            _mm512_storeu_ps(tile.accumulators.add(m * BLOCK_STRIDE), sums[m]);
        }
    }
}
