//! f32 depthwise kernels for AVX2 with FMA: up to 4 pixels by 16 channels.

use std::arch::x86_64::*;

use crate::depthwise::{DepthwiseTile, MicroDepthwiseF32};
use crate::isa::portable;
use crate::tile::{BLOCK_STRIDE, PITCH};

pub(crate) static MICRO: MicroDepthwiseF32 = MicroDepthwiseF32 { rows: 4, panels: 1, tile };

/// # Safety
/// Needs AVX2 and FMA; the tile's rows and weights are readable, its accumulators writable.
unsafe fn tile(rows: usize, tile: &DepthwiseTile) {
    // SAFETY: the caller's promise.
    unsafe {
        match (tile.channels, rows) {
            _ if tile.half => portable::depthwise::tile_f32(rows, tile),
            (..16, _) => portable::depthwise::tile_f32(rows, tile),
            (_, 1) => panel_of_rows::<1>(tile),
            (_, 2) => panel_of_rows::<2>(tile),
            (_, 3) => panel_of_rows::<3>(tile),
            (_, _) => panel_of_rows::<4>(tile),
        }
    }
}

/// # Safety
/// As [`tile`], for 16 channels.
#[target_feature(enable = "avx2,fma")]
unsafe fn panel_of_rows<const ROWS: usize>(tile: &DepthwiseTile) {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    // SAFETY: the caller's promise.
    unsafe {
        if tile.accumulate {
            for r in 0..ROWS {
                for h in 0..2 {
                    sums[r][h] = _mm256_loadu_ps(tile.accumulators.add(r * BLOCK_STRIDE + h * 8));
                }
            }
        }
        for tap in 0..tile.taps {
            let line = tile.weights.add(tap * 64).cast::<f32>();
            let weights = [_mm256_loadu_ps(line), _mm256_loadu_ps(line.add(8))];
            for r in 0..ROWS {
                let address = *tile.addresses.add(tap * PITCH + r);
                let row = std::ptr::with_exposed_provenance::<f32>(address).add(tile.channel);
                for h in 0..2 {
                    let values = _mm256_loadu_ps(row.add(h * 8));
                    sums[r][h] = _mm256_fmadd_ps(values, weights[h], sums[r][h]);
                }
            }
        }
        for r in 0..ROWS {
            for h in 0..2 {
                _mm256_storeu_ps(tile.accumulators.add(r * BLOCK_STRIDE + h * 8), sums[r][h]);
            }
        }
    }
}
