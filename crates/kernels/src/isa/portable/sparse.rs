//! Lines of weights that are left, in plain Rust.

use crate::pack::PANEL;
use crate::sparse::{SparseMicro, SparseTile};
use crate::tile::BLOCK_STRIDE;

pub(crate) static MICRO_F32: SparseMicro<f32> = SparseMicro { rows: 4, tile: tile_f32 };
pub(crate) static MICRO_U8S8: SparseMicro<i32> = SparseMicro { rows: 4, tile: tile_u8s8 };

/// # Safety
/// Rows are readable where the offsets say, lines for each offset; the accumulators have room.
unsafe fn tile_f32(rows: usize, tile: &SparseTile<f32>) {
    for r in 0..rows {
        // SAFETY: the caller's promise.
        unsafe {
            let row = std::ptr::with_exposed_provenance::<u8>(*tile.addresses.add(r));
            let mut sums = [0f32; PANEL];
            for (i, &offset) in tile.offsets.iter().enumerate() {
                let value = row.add(offset as usize).cast::<f32>().read_unaligned();
                let line = &*tile.lines.add(i * 64).cast::<[[u8; 4]; PANEL]>();
                for (sum, weight) in sums.iter_mut().zip(line) {
                    *sum += value * f32::from_le_bytes(*weight);
                }
            }
            tile.accumulators.add(r * BLOCK_STRIDE).cast::<[f32; PANEL]>().write_unaligned(sums);
        }
    }
}

/// # Safety
/// As [`tile_f32`].
unsafe fn tile_u8s8(rows: usize, tile: &SparseTile<i32>) {
    for r in 0..rows {
        // SAFETY: the caller's promise.
        unsafe {
            let row = std::ptr::with_exposed_provenance::<u8>(*tile.addresses.add(r));
            let mut sums = [0i32; PANEL];
            for (i, &offset) in tile.offsets.iter().enumerate() {
                let values = &*row.add(offset as usize).cast::<[u8; 4]>();
                let line = &*tile.lines.add(i * 64).cast::<[[i8; 4]; PANEL]>();
                for (sum, weights) in sums.iter_mut().zip(line) {
                    let product = |(&x, &w): (&u8, &i8)| i32::from(x) * i32::from(w);
                    *sum += values.iter().zip(weights).map(product).sum::<i32>();
                }
            }
            tile.accumulators.add(r * BLOCK_STRIDE).cast::<[i32; PANEL]>().write_unaligned(sums);
        }
    }
}
