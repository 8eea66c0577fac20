//! f32 tile kernels for AVX2 with FMA: up to 6 rows by 16 columns.

use std::arch::x86_64::*;

use crate::tile::{BLOCK_STRIDE, Micro, PITCH, Tile};

pub(crate) static MICRO: Micro<f32> = Micro { panels: &[1; 6], tile, panel: None };

static KERNELS: [unsafe fn(&Tile<f32>); 6] = [
    rows_by_panel::<1>,
    rows_by_panel::<2>,
    rows_by_panel::<3>,
    rows_by_panel::<4>,
    rows_by_panel::<5>,
    rows_by_panel::<6>,
];

/// # Safety
/// Needs AVX2 and FMA; the tile's rows and weights are readable, its accumulators writable.
unsafe fn tile(rows: usize, _panels: usize, tile: &Tile<f32>) {
    // SAFETY: the caller's promise.
    unsafe { KERNELS[rows - 1](tile) }
}

/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx2,fma")]
unsafe fn rows_by_panel<const ROWS: usize>(tile: &Tile<f32>) {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    let mut line = tile.weights.cast::<f32>();
    // SAFETY: the caller's promise; one line of weights per step.
    unsafe {
        if tile.accumulate {
            for r in 0..ROWS {
                for h in 0..2 {
                    sums[r][h] = _mm256_loadu_ps(tile.accumulators.add(r * BLOCK_STRIDE + h * 8));
                }
            }
        }
        macro_rules! step {
            ($rows:ident, $k:expr) => {
                let weights = [_mm256_loadu_ps(line), _mm256_loadu_ps(line.add(8))];
                for r in 0..ROWS {
                    let value = _mm256_broadcast_ss(&*$rows[r].add($k));
                    sums[r][0] = _mm256_fmadd_ps(value, weights[0], sums[r][0]);
                    sums[r][1] = _mm256_fmadd_ps(value, weights[1], sums[r][1]);
                }
                line = line.add(16);
            };
        }
        for tap in 0..tile.taps {
            let mut rows = [std::ptr::null::<f32>(); ROWS];
            for r in 0..ROWS {
                let address = *tile.addresses.add(tap * PITCH + r);
                rows[r] = std::ptr::with_exposed_provenance(address);
            }
            let mut k = 0;
            while k + 4 <= tile.depth {
                step!(rows, k);
                step!(rows, k + 1);
                step!(rows, k + 2);
                step!(rows, k + 3);
                k += 4;
            }
            while k < tile.depth {
                step!(rows, k);
                k += 1;
            }
        }
        for r in 0..ROWS {
            for h in 0..2 {
                _mm256_storeu_ps(tile.accumulators.add(r * BLOCK_STRIDE + h * 8), sums[r][h]);
            }
        }
    }
}

/// Turns 16 rows into lines of 16, eight steps at a time; returns how many lines were written.
///
/// # Safety
/// Needs AVX2; `depth` floats of 16 rows are readable.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn transpose_panel(
    from: *const f32,
    row_stride: usize,
    depth: usize,
    lines: &mut [f32],
) -> usize {
    let whole = depth / 8 * 8;
    assert!(lines.len() >= whole * 16);
    for k in (0..whole).step_by(8) {
        for half in 0..2 {
            let mut rows = [_mm256_setzero_ps(); 8];
            for r in 0..8 {
                // SAFETY: rows half · 8 + r < 16, steps k..k + 8 ≤ depth.
                rows[r] = unsafe { _mm256_loadu_ps(from.add((half * 8 + r) * row_stride + k)) };
            }
            let mut pairs = [_mm256_setzero_ps(); 8];
            for i in 0..4 {
                pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
                pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
            }
            // Steps 0 and 4, 1 and 5, 2 and 6, 3 and 7 of rows 0..4, then of rows 4..8.
            let mut quads = [_mm256_setzero_ps(); 8];
            for i in 0..2 {
                let p = &pairs[4 * i..];
                quads[4 * i] = _mm256_shuffle_ps::<0x44>(p[0], p[2]);
                quads[4 * i + 1] = _mm256_shuffle_ps::<0xee>(p[0], p[2]);
                quads[4 * i + 2] = _mm256_shuffle_ps::<0x44>(p[1], p[3]);
                quads[4 * i + 3] = _mm256_shuffle_ps::<0xee>(p[1], p[3]);
            }
            for i in 0..4 {
                let low = _mm256_permute2f128_ps::<0x20>(quads[i], quads[i + 4]);
                let high = _mm256_permute2f128_ps::<0x31>(quads[i], quads[i + 4]);
                // SAFETY: lines k + i and k + i + 4 are below `whole`.
                unsafe {
                    let to = lines.as_mut_ptr().add((k + i) * 16 + half * 8);
                    _mm256_storeu_ps(to, low);
                    _mm256_storeu_ps(to.add(4 * 16), high);
                }
            }
        }
    }
    whole
}
