//! Lines of weights that are left, for AVX-512: up to 12 rows by one panel, the values of A
//! broadcast from memory as operands of the products.

use std::arch::x86_64::*;

use crate::sparse::{SparseMicro, SparseTile};
use crate::tile::BLOCK_STRIDE;

pub(crate) static MICRO_F32: SparseMicro<f32> = SparseMicro { rows: 12, tile: tile_f32 };
pub(crate) static MICRO_U8S8: SparseMicro<i32> = SparseMicro { rows: 12, tile: tile_u8s8 };

macro_rules! by_rows {
    ($kernel:ident: $($rows:literal)*) => { [$($kernel::<$rows>),*] };
}

static F32: [unsafe fn(&SparseTile<f32>); 12] = by_rows!(rows_f32: 1 2 3 4 5 6 7 8 9 10 11 12);
static U8S8: [unsafe fn(&SparseTile<i32>); 12] = by_rows!(rows_u8s8: 1 2 3 4 5 6 7 8 9 10 11 12);

/// # Safety
/// Needs AVX-512 F; rows are readable where the offsets say, lines for each offset; the
/// accumulators have room.
unsafe fn tile_f32(rows: usize, tile: &SparseTile<f32>) {
    // SAFETY: the caller's promise.
    unsafe { F32[rows - 1](tile) }
}

/// # Safety
/// As [`tile_f32`]; needs VNNI.
unsafe fn tile_u8s8(rows: usize, tile: &SparseTile<i32>) {
    // SAFETY: the caller's promise.
    unsafe { U8S8[rows - 1](tile) }
}

/// The rows of a tile.
///
/// # Safety
/// There are so many addresses.
unsafe fn rows<A, const ROWS: usize>(tile: &SparseTile<A>) -> [*const u8; ROWS] {
    // SAFETY: the caller's promise.
    std::array::from_fn(|r| unsafe { std::ptr::with_exposed_provenance(*tile.addresses.add(r)) })
}

/// # Safety
/// As [`tile_f32`].
#[target_feature(enable = "avx512f")]
unsafe fn rows_f32<const ROWS: usize>(tile: &SparseTile<f32>) {
    let mut sums = [_mm512_setzero_ps(); ROWS];
    let mut line = tile.lines;
    // SAFETY: the caller's promise.
    unsafe {
        let rows = rows::<f32, ROWS>(tile);
        for &offset in tile.offsets {
            let weights = _mm512_loadu_ps(line.cast());
            for r in 0..ROWS {
                let value = _mm512_set1_ps(*rows[r].add(offset as usize).cast::<f32>());
                sums[r] = _mm512_fmadd_ps(value, weights, sums[r]);
            }
            line = line.add(64);
        }
        for r in 0..ROWS {
            _mm512_storeu_ps(tile.accumulators.add(r * BLOCK_STRIDE), sums[r]);
        }
    }
}

/// # Safety
/// As [`tile_u8s8`].
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn rows_u8s8<const ROWS: usize>(tile: &SparseTile<i32>) {
    let mut sums = [_mm512_setzero_si512(); ROWS];
    let mut line = tile.lines;
    // SAFETY: the caller's promise.
    unsafe {
        let rows = rows::<i32, ROWS>(tile);
        for &offset in tile.offsets {
            let weights = _mm512_loadu_si512(line.cast());
            for r in 0..ROWS {
                let value = rows[r].add(offset as usize).cast::<i32>().read_unaligned();
                sums[r] = _mm512_dpbusd_epi32(sums[r], _mm512_set1_epi32(value), weights);
            }
            line = line.add(64);
        }
        for r in 0..ROWS {
            _mm512_storeu_epi32(tile.accumulators.add(r * BLOCK_STRIDE), sums[r]);
        }
    }
}
