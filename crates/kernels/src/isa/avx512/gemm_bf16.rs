//! bf16 tile kernels for AVX-512 BF16: up to 14 rows by 32 columns, or 6 by 64.

use std::arch::x86_64::*;

use crate::tile::{BLOCK_STRIDE, Micro, PITCH, Tile};

pub(crate) static MICRO: Micro<f32> =
    Micro { panels: &[4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2], tile, narrow: None };

type Kernel = unsafe fn(&Tile<f32>);

macro_rules! by_rows {
    ($panels:literal: $($rows:literal)*) => { [$(rows_by_panels::<$rows, $panels>),*] };
}

static ONE: [Kernel; 14] = by_rows!(1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
static TWO: [Kernel; 14] = by_rows!(2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
static FOUR: [Kernel; 6] = by_rows!(4: 1 2 3 4 5 6);

/// # Safety
/// Needs AVX-512 BF16; the tile's rows and weights are readable, its accumulators writable.
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
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows_by_panels<const ROWS: usize, const PANELS: usize>(tile: &Tile<f32>) {
    let mut sums = [[_mm512_setzero_ps(); PANELS]; ROWS];
    let mut line = tile.weights;
    // SAFETY: the caller's promise; one line of weights per step and panel. A register of bf16
    // pairs and one of integers are the same bits.
    unsafe {
        if tile.accumulate {
            for r in 0..ROWS {
                for p in 0..PANELS {
                    sums[r][p] = _mm512_loadu_ps(tile.accumulators.add(r * BLOCK_STRIDE + p * 16));
                }
            }
        }
        macro_rules! step {
            ($value:expr) => {
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
            let mut rows = [std::ptr::null::<u16>(); ROWS];
            for r in 0..ROWS {
                let address = *tile.addresses.add(tap * PITCH + r);
                rows[r] = std::ptr::with_exposed_provenance(address);
            }
            let mut k = 0;
            while k + 8 <= tile.depth {
                step!(|r: usize| rows[r].add(k).cast::<i32>().read_unaligned());
                step!(|r: usize| rows[r].add(k + 2).cast::<i32>().read_unaligned());
                step!(|r: usize| rows[r].add(k + 4).cast::<i32>().read_unaligned());
                step!(|r: usize| rows[r].add(k + 6).cast::<i32>().read_unaligned());
                k += 8;
            }
            while k + 2 <= tile.depth {
                step!(|r: usize| rows[r].add(k).cast::<i32>().read_unaligned());
                k += 2;
            }
            if k < tile.depth {
                step!(|r: usize| i32::from(*rows[r].add(k)));
            }
        }
        for r in 0..ROWS {
            for p in 0..PANELS {
                let to = tile.accumulators.add(r * BLOCK_STRIDE + p * 16);
                _mm512_storeu_ps(to, sums[r][p]);
            }
        }
    }
}
