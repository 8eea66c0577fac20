//! f32 tile kernels for AVX-512: up to 12 rows by 32 columns, 6 by 64, or 28 by 16 or by 8.

use std::arch::x86_64::*;

use crate::finish::InRegisters;
use crate::panel::{PanelKernel, PanelMicro, PanelTile, PixelLine, pointer};
use crate::tile::{BLOCK_STRIDE, Micro, TILE_ROWS, Tile};

pub(crate) static MICRO: Micro<f32> =
    Micro { panels: &[4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2], tile, panel: Some(&PANEL) };

/// The epilogue of a tile of `$rows` rows by `$panels` panels, where `$sum` is a place among the
/// sums; a macro, because sums that are passed on leave their registers. So do those of loops that
/// are too long to be unrolled, which is why [`store_swish!`] is one of its own.
macro_rules! store {
    ($finish:ident, $rows:expr, $panels:expr, |$r:ident, $p:ident| $sum:expr) => {
        if $finish.gate == $crate::finish::Gate::Hard {
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
                $crate::isa::avx512::epilogue::each_row!($r in $rows => {
                    let mut value = _mm512_add_ps(_mm512_mul_ps($sum, alpha), offset);
                    if has_residual {
                        value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, from));
                        from = from.wrapping_add($finish.residual_stride);
                    }
                    // The operand order lets NaN through.
                    let value = _mm512_min_ps(high, _mm512_max_ps(low, value));
                    _mm512_mask_storeu_ps(to, mask, value);
                    to = to.wrapping_add($finish.output_stride);
                });
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
            $crate::isa::avx512::epilogue::each_row!($r in $rows => {
                let value = _mm512_add_ps(_mm512_mul_ps($sum, alpha), offset);
                $sum = $crate::isa::avx512::epilogue::hard_swish(value);
            });
        }
        for $p in 0..$panels {
            let mut to = $finish.output.wrapping_add($p * 16);
            $crate::isa::avx512::epilogue::each_row!($r in $rows => {
                _mm512_mask_storeu_ps(to, mask($p), $sum);
                to = to.wrapping_add($finish.output_stride);
            });
        }
    };
}

pub(super) use store;
pub(super) use store_swish;

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
/// Needs AVX-512 F; the tile's rows and weights are readable, its accumulators writable.
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
#[target_feature(enable = "avx512f")]
unsafe fn rows_by_panels<const ROWS: usize, const PANELS: usize>(tile: &Tile<f32>) {
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
                    ahead = ahead.wrapping_add(tile.ahead_step);
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
                step!(rows, k, true);
                step!(rows, k + 1, true);
                step!(rows, k + 2, true);
                step!(rows, k + 3, true);
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

/// The kernels of one panel.
static PANEL: PanelMicro<f32> = PanelMicro { shared, even, tall: TALL_ROWS, pair: None };
/// Most rows that lie evenly.
const TALL_ROWS: usize = 28;

macro_rules! of_rows {
    ($kernel:ident: $($rows:literal)*) => { [$($kernel::<$rows>),*] };
}

static SHARED: [PanelKernel<f32>; TILE_ROWS] =
    of_rows!(shared_rows: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
static EVEN: [PanelKernel<f32>; TALL_ROWS] = of_rows!(even_rows:
    1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28);

static PAIRS: [PanelKernel<f32>; TALL_ROWS / 2] =
    of_rows!(pairs_of_rows: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);

/// # Safety
/// As [`shared_rows`].
unsafe fn shared(rows: usize, tile: &PanelTile<f32>) {
    // SAFETY: the caller's promise.
    unsafe { SHARED[rows - 1](tile) }
}

/// Columns of rows that share a vector.
const HALF: usize = 8;
/// The furthest such rows are apart in bytes, so that half a vector holds two steps of both.
const NEIGHBOURS: usize = (HALF - 2) * 4;

/// # Safety
/// As [`even_rows`]; needs AVX-512 DQ and VL.
unsafe fn even(rows: usize, tile: &PanelTile<f32>) {
    let finish = &tile.finish;
    let adjoins = |stride: usize| finish.columns == HALF && stride == HALF;
    let adjoin = adjoins(finish.output_stride)
        && (finish.residual.is_null() || adjoins(finish.residual_stride));
    // SAFETY: the caller's promise.
    unsafe {
        if adjoin && rows.is_multiple_of(2) && tile.row_step <= NEIGHBOURS {
            return PAIRS[rows / 2 - 1](tile);
        }
        EVEN[rows - 1](tile)
    }
}

/// Rows whose three taps across share pixels.
///
/// # Safety
/// Needs AVX-512 F; the pixels of the tile's lines of taps and its weights are readable, what it
/// finishes is writable.
#[target_feature(enable = "avx512f")]
unsafe fn shared_rows<const ROWS: usize>(tile: &PanelTile<f32>) {
    let mut sums = [_mm512_setzero_ps(); ROWS];
    let (mut weights, mut ahead) = (tile.weights, tile.ahead.cast::<i8>());
    let tap_bytes = tile.tap_bytes;
    // SAFETY: the caller's promise; one line of weights per tap and step.
    unsafe {
        for line in 0..tile.taps / 3 {
            let PixelLine { left, second, right, step } = *tile.lines.add(line);
            let (mut left, mut right) = (pointer(left), pointer(right));
            let mut second = pointer(second);
            for _ in 0..tile.depth {
                _mm_prefetch::<_MM_HINT_T1>(ahead);
                ahead = ahead.wrapping_add(tile.ahead_step);
                let value = |m: usize| {
                    let from = match m {
                        0 => left,
                        _ if m == ROWS + 1 => right,
                        _ => second.wrapping_add((m - 1) * step),
                    };
                    _mm512_set1_ps(*from.cast::<f32>())
                };
                let lines = [
                    _mm512_loadu_ps(weights.cast()),
                    _mm512_loadu_ps(weights.add(tap_bytes).cast()),
                    _mm512_loadu_ps(weights.add(2 * tap_bytes).cast()),
                ];
                let mut values = [value(0), value(1)];
                for m in 0..ROWS {
                    let next = value(m + 2);
                    sums[m] = _mm512_fmadd_ps(values[0], lines[0], sums[m]);
                    sums[m] = _mm512_fmadd_ps(values[1], lines[1], sums[m]);
                    sums[m] = _mm512_fmadd_ps(next, lines[2], sums[m]);
                    values = [values[1], next];
                }
                weights = weights.add(64);
                left = left.wrapping_add(4);
                second = second.wrapping_add(4);
                right = right.wrapping_add(4);
            }
            weights = weights.wrapping_add(2 * tap_bytes);
        }
        let finish = &tile.finish;
        store!(finish, ROWS, 1, |m, _p| sums[m]);
    }
}

/// Rows that lie evenly.
///
/// # Safety
/// As [`shared_rows`], for the rows and taps of the tile.
#[target_feature(enable = "avx512f")]
unsafe fn even_rows<const ROWS: usize>(tile: &PanelTile<f32>) {
    let mut sums = [_mm512_setzero_ps(); ROWS];
    let (mut weights, mut ahead) = (tile.weights, tile.ahead.cast::<i8>());
    let (row_step, tap_step) = (tile.row_step, tile.tap_step);
    // SAFETY: the caller's promise; one line of weights per tap and step.
    unsafe {
        let mut first = pointer(tile.start);
        for _ in 0..tile.taps {
            let mut at = first;
            for _ in 0..tile.depth {
                _mm_prefetch::<_MM_HINT_T1>(ahead);
                ahead = ahead.wrapping_add(tile.ahead_step);
                let line = _mm512_loadu_ps(weights.cast());
                for r in 0..ROWS {
                    let value = _mm512_set1_ps(*at.wrapping_add(r * row_step).cast::<f32>());
                    sums[r] = _mm512_fmadd_ps(value, line, sums[r]);
                }
                weights = weights.add(64);
                at = at.wrapping_add(4);
            }
            first = first.wrapping_add(tap_step);
        }
        let finish = &tile.finish;
        store!(finish, ROWS, 1, |m, _p| sums[m]);
    }
}

/// Rows of eight columns that lie evenly and near each other, two in a vector: what is stored are
/// rows of sixteen.
///
/// # Safety
/// As [`even_rows`], for twice as many rows; needs AVX-512 DQ and VL.
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
unsafe fn pairs_of_rows<const PAIRS: usize>(tile: &PanelTile<f32>) {
    let mut sums = [_mm512_setzero_ps(); PAIRS];
    let (mut weights, mut ahead) = (tile.weights, tile.ahead.cast::<i8>());
    let (row_step, tap_step) = (tile.row_step, tile.tap_step);
    let apart = row_step / 4;
    // Where half a vector has the values of a step for both rows, and of the next.
    let lanes = _mm512_mask_set1_epi32(_mm512_setzero_si512(), 0xff00, apart as i32);
    let lanes = [lanes, _mm512_add_epi32(lanes, _mm512_set1_epi32(1))];
    let one: __mmask8 = 1 | 1 << apart;
    let finish = &tile.finish;
    let mut bias = [0.0f32; 2 * HALF];
    // SAFETY: the caller's promise; one line of weights per tap and step, values behind the last
    // step of a row are not read.
    unsafe {
        let mut first = pointer(tile.start);
        macro_rules! steps {
            ($at:ident, $mask:expr, $($step:literal)*) => {
                $(
                    _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add($step * tile.ahead_step));
                )*
                ahead = ahead.wrapping_add([$($step),*].len() * tile.ahead_step);
                let lines = [$(
                    _mm512_broadcast_f32x8(_mm256_loadu_ps(weights.add($step * 64).cast()))
                ),*];
                for pair in 0..PAIRS {
                    let from = $at.wrapping_add(pair * 2 * row_step).cast();
                    let values = _mm512_castps256_ps512(_mm256_maskz_loadu_ps($mask, from));
                    $(
                        let value = _mm512_permutexvar_ps(lanes[$step], values);
                        sums[pair] = _mm512_fmadd_ps(value, lines[$step], sums[pair]);
                    )*
                }
                weights = weights.add([$($step),*].len() * 64);
            };
        }
        for _ in 0..tile.taps {
            let mut at = first;
            for _ in 0..tile.depth / 2 {
                steps!(at, one | one << 1, 0 1);
                at = at.wrapping_add(8);
            }
            if !tile.depth.is_multiple_of(2) {
                steps!(at, one, 0);
            }
            first = first.wrapping_add(tap_step);
        }
        if !finish.bias.is_null() {
            let half = _mm256_loadu_ps(finish.bias);
            _mm512_storeu_ps(bias.as_mut_ptr(), _mm512_broadcast_f32x8(half));
        }
        let finish = &InRegisters {
            bias: bias.as_ptr(),
            columns: 2 * HALF,
            output_stride: 2 * HALF,
            residual_stride: 2 * HALF,
            ..*finish
        };
        store!(finish, PAIRS, 1, |m, _p| sums[m]);
    }
}
