//! u8 × s8 tile kernels for AVX2: up to 4 rows by 16 columns.
//!
//! `vpmaddubsw` may saturate (2 · 255 · 127 > 32767), so both factors are widened to 16 bits, even
//! and odd bytes apart, and `vpmaddwd` sums exactly.

use std::arch::x86_64::*;

use crate::tile::{BLOCK_STRIDE, Micro, PITCH, Tile};

pub(crate) static MICRO: Micro<i32> = Micro { panels: &[1; 4], tile, panel: None };

static KERNELS: [unsafe fn(&Tile<i32>); 4] =
    [rows_by_panel::<1>, rows_by_panel::<2>, rows_by_panel::<3>, rows_by_panel::<4>];

/// # Safety
/// Needs AVX2; the tile's rows and weights are readable, its accumulators writable.
unsafe fn tile(rows: usize, _panels: usize, tile: &Tile<i32>) {
    // SAFETY: the caller's promise.
    unsafe { KERNELS[rows - 1](tile) }
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
#[target_feature(enable = "avx2")]
unsafe fn rows_by_panel<const ROWS: usize>(tile: &Tile<i32>) {
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
    let low_bytes = _mm256_set1_epi16(0x00ff);
    let mut line = tile.weights;
    // SAFETY: the caller's promise; one line of weights per step.
    unsafe {
        if tile.accumulate {
            for r in 0..ROWS {
                for h in 0..2 {
                    let from = tile.accumulators.add(r * BLOCK_STRIDE + h * 8);
                    sums[r][h] = _mm256_loadu_si256(from.cast());
                }
            }
        }
        macro_rules! step {
            ($value:expr) => {
                let mut even = [_mm256_setzero_si256(); 2];
                let mut odd = [_mm256_setzero_si256(); 2];
                for h in 0..2 {
                    let weights = _mm256_loadu_si256(line.add(h * 32).cast());
                    even[h] = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(weights));
                    odd[h] = _mm256_srai_epi16::<8>(weights);
                }
                for r in 0..ROWS {
                    let value = _mm256_set1_epi32($value(r));
                    let value_even = _mm256_and_si256(value, low_bytes);
                    let value_odd = _mm256_srli_epi16::<8>(value);
                    for h in 0..2 {
                        let sum = _mm256_add_epi32(
                            _mm256_madd_epi16(value_even, even[h]),
                            _mm256_madd_epi16(value_odd, odd[h]),
                        );
                        sums[r][h] = _mm256_add_epi32(sums[r][h], sum);
                    }
                }
                line = line.add(64);
            };
        }
        for tap in 0..tile.taps {
            let mut rows = [std::ptr::null::<u8>(); ROWS];
            for r in 0..ROWS {
                let address = *tile.addresses.add(tap * PITCH + r);
                rows[r] = std::ptr::with_exposed_provenance(address);
            }
            let mut k = 0;
            while k + 4 <= tile.depth {
                step!(|r: usize| rows[r].add(k).cast::<i32>().read_unaligned());
                k += 4;
            }
            if k < tile.depth {
                step!(|r: usize| partial(rows[r].add(k), tile.depth - k));
            }
        }
        for r in 0..ROWS {
            for h in 0..2 {
                let to = tile.accumulators.add(r * BLOCK_STRIDE + h * 8);
                _mm256_storeu_si256(to.cast(), sums[r][h]);
            }
        }
    }
}
