//! Tile kernels in plain Rust.

use crate::conv::OffsetBatch;
use crate::finish::Sum;
use crate::offsets::PADDING;
use crate::pack::PANEL;
use crate::tile::{BLOCK_STRIDE, Micro, PITCH, Tile};

pub(crate) static MICRO_F32: Micro<f32> = Micro { panels: &[1; 4], tile: tile_f32, panel: None };
pub(crate) static MICRO_BF16: Micro<f32> = Micro { panels: &[1; 4], tile: tile_bf16, panel: None };
pub(crate) static MICRO_U8S8: Micro<i32> = Micro { panels: &[1; 4], tile: tile_u8s8, panel: None };

/// Turns offsets into addresses.
///
/// # Safety
/// `addresses` has room for all taps.
pub(crate) unsafe fn resolve(batch: &OffsetBatch, addresses: *mut usize) {
    for tap in 0..batch.taps {
        let offsets = &batch.offsets[tap * batch.tap_stride..][..batch.rows];
        for (i, &offset) in offsets.iter().enumerate() {
            let inside = batch.base.wrapping_add((offset as usize) << batch.shift);
            let address = if offset == PADDING { batch.padding } else { inside };
            // SAFETY: the caller's promise.
            unsafe { *addresses.add(tap * batch.pitch + i) = address };
        }
    }
}

/// The row a slot of the address table stands for.
///
/// # Safety
/// `tap` and `row` are inside the tile.
unsafe fn row_of<A: Sum, T>(tile: &Tile<A>, tap: usize, row: usize) -> *const T {
    // SAFETY: the caller's promise.
    std::ptr::with_exposed_provenance(unsafe { *tile.addresses.add(tap * PITCH + row) })
}

/// Adds or stores the sums of one tile.
///
/// # Safety
/// The accumulators have room for ROWS rows.
unsafe fn finish<const ROWS: usize, A: Sum>(
    tile: &Tile<A>,
    sums: &[[A; PANEL]; ROWS],
    add: impl Fn(A, A) -> A,
) {
    for (r, row) in sums.iter().enumerate() {
        for (c, &value) in row.iter().enumerate() {
            // SAFETY: r < ROWS, c < PANEL ≤ BLOCK_STRIDE.
            unsafe {
                let at = tile.accumulators.add(r * BLOCK_STRIDE + c);
                *at = if tile.accumulate { add(*at, value) } else { value };
            }
        }
    }
}

/// Calls the tile kernel compiled for a number of rows.
macro_rules! by_rows {
    ($kernel:ident, $rows:expr, $tile:expr) => {
        match $rows {
            1 => $kernel::<1>($tile),
            2 => $kernel::<2>($tile),
            3 => $kernel::<3>($tile),
            _ => $kernel::<4>($tile),
        }
    };
}

/// # Safety
/// The tile's rows and weights are readable, its accumulators writable.
unsafe fn tile_f32(rows: usize, _panels: usize, tile: &Tile<f32>) {
    // SAFETY: the caller's promise.
    unsafe { by_rows!(rows_f32, rows, tile) }
}

/// # Safety
/// The tile's rows and weights are readable, its accumulators writable.
unsafe fn rows_f32<const ROWS: usize>(tile: &Tile<f32>) {
    let mut sums = [[0.0f32; PANEL]; ROWS];
    let mut line = tile.weights.cast::<[f32; PANEL]>();
    // SAFETY: the caller's promise; one line of weights per step.
    unsafe {
        for tap in 0..tile.taps {
            let mut rows = [std::ptr::null::<f32>(); ROWS];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = row_of(tile, tap, r);
            }
            for k in 0..tile.depth {
                let weights = line.read();
                line = line.add(1);
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let value = *row.add(k);
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum += value * weight;
                    }
                }
            }
        }
        finish(tile, &sums, |a, b| a + b);
    }
}

/// # Safety
/// The tile's rows and weights are readable, its accumulators writable.
unsafe fn tile_u8s8(rows: usize, _panels: usize, tile: &Tile<i32>) {
    // SAFETY: the caller's promise.
    unsafe { by_rows!(rows_u8s8, rows, tile) }
}

/// # Safety
/// The tile's rows and weights are readable, its accumulators writable.
unsafe fn rows_u8s8<const ROWS: usize>(tile: &Tile<i32>) {
    let mut sums = [[0i32; PANEL]; ROWS];
    let mut line = tile.weights.cast::<[[i8; 4]; PANEL]>();
    // SAFETY: the caller's promise; one line of weights per step of four.
    unsafe {
        for tap in 0..tile.taps {
            let mut k = 0;
            while k < tile.depth {
                let weights = &*line;
                line = line.add(1);
                // A product fits 16 bits (255 · -128 = -32640), which vectorises well once the
                // weights lie column by column.
                let mut across = [[0i16; PANEL]; 4];
                for (i, across) in across.iter_mut().enumerate() {
                    for (to, weights) in across.iter_mut().zip(weights) {
                        *to = i16::from(weights[i]);
                    }
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let row = row_of::<_, u8>(tile, tap, r).add(k);
                    for (i, across) in across.iter().enumerate().take(tile.depth - k) {
                        let value = i16::from(*row.add(i));
                        for (sum, weight) in sums.iter_mut().zip(across) {
                            *sum += i32::from(value * weight);
                        }
                    }
                }
                k += 4;
            }
        }
        finish(tile, &sums, i32::wrapping_add);
    }
}

/// # Safety
/// The tile's rows and weights are readable, its accumulators writable.
unsafe fn tile_bf16(rows: usize, _panels: usize, tile: &Tile<f32>) {
    // SAFETY: the caller's promise.
    unsafe { by_rows!(rows_bf16, rows, tile) }
}

/// # Safety
/// The tile's rows and weights are readable, its accumulators writable.
unsafe fn rows_bf16<const ROWS: usize>(tile: &Tile<f32>) {
    let widen = |bits: u16| f32::from_bits(u32::from(bits) << 16);
    let mut sums = [[0.0f32; PANEL]; ROWS];
    let mut line = tile.weights.cast::<[[u16; 2]; PANEL]>();
    // SAFETY: the caller's promise; one line of weights per step of two.
    unsafe {
        for tap in 0..tile.taps {
            for k in (0..tile.depth).step_by(2) {
                let weights = &*line;
                line = line.add(1);
                for (r, sums) in sums.iter_mut().enumerate() {
                    let row = row_of::<_, u16>(tile, tap, r).add(k);
                    let second = if k + 1 < tile.depth { *row.add(1) } else { 0 };
                    let values = [widen(*row), widen(second)];
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum += values[0] * widen(weight[0]) + values[1] * widen(weight[1]);
                    }
                }
            }
        }
        finish(tile, &sums, |a, b| a + b);
    }
}
