//! Depthwise kernels in plain Rust.

use half::bf16;

use crate::depthwise::{
    DepthwiseRun, DepthwiseTile, Interleave, MicroDepthwiseF32, MicroDepthwiseU8S8,
};
use crate::pack::PANEL;
use crate::tile::{BLOCK_STRIDE, PITCH};

pub(crate) static MICRO_F32: MicroDepthwiseF32 =
    MicroDepthwiseF32 { rows: 4, panels: 1, tile: tile_f32 };
pub(crate) static MICRO_U8S8: MicroDepthwiseU8S8 = MicroDepthwiseU8S8 { interleave, run };

/// Also the tail of the AVX2 kernel.
///
/// # Safety
/// The tile's rows and weights are readable, its accumulators writable.
pub(crate) unsafe fn tile_f32(rows: usize, tile: &DepthwiseTile) {
    for r in 0..rows {
        let mut sums = [0.0f32; PANEL];
        // SAFETY: the caller's promise.
        unsafe {
            for tap in 0..tile.taps {
                let weights = &*tile.weights.add(tap * 64).cast::<[f32; PANEL]>();
                let row = *tile.addresses.add(tap * PITCH + r);
                let row = std::ptr::with_exposed_provenance::<f32>(row);
                for c in 0..tile.channels {
                    let value = match tile.half {
                        true => row.cast::<bf16>().add(tile.channel + c).read().to_f32(),
                        false => *row.add(tile.channel + c),
                    };
                    sums[c] += value * weights[c];
                }
            }
            for (c, &sum) in sums.iter().enumerate() {
                let at = tile.accumulators.add(r * BLOCK_STRIDE + c);
                *at = if tile.accumulate { *at + sum } else { sum };
            }
        }
    }
}

/// # Safety
/// As `Interleave` describes.
unsafe fn interleave(call: &Interleave) {
    for pixel in 0..call.pixels {
        for (i, (source, step)) in call.sources.iter().zip(call.steps).enumerate() {
            for c in 0..call.channels {
                // SAFETY: the caller's promise.
                unsafe {
                    let value = *source.add(pixel * step + c);
                    *call.target.add(pixel * call.target_step + c * 4 + i) = value;
                }
            }
        }
    }
}

/// # Safety
/// As `DepthwiseRun` describes.
unsafe fn run(call: &DepthwiseRun) {
    for pixel in 0..call.pixels {
        for panel in 0..call.panels {
            let mut sums = [0i32; PANEL];
            // SAFETY: the caller's promise.
            unsafe {
                for column in 0..call.kernel_columns {
                    for group in 0..call.groups {
                        let slot = pixel * call.pixel_bytes + column * call.column_bytes;
                        let line = (group * call.panels + panel) * 64;
                        let values = &*call.slots.add(slot + line).cast::<[[u8; 4]; PANEL]>();
                        let line = panel * call.panel_bytes + (column * call.groups + group) * 64;
                        let weights = &*call.weights.add(line).cast::<[[i8; 4]; PANEL]>();
                        for ((sum, values), weights) in sums.iter_mut().zip(values).zip(weights) {
                            for (&value, &weight) in values.iter().zip(weights) {
                                *sum += i32::from(i16::from(value) * i16::from(weight));
                            }
                        }
                    }
                }
                let to = call.accumulators.add(pixel * BLOCK_STRIDE + panel * PANEL);
                to.cast::<[i32; PANEL]>().write(sums);
            }
        }
    }
}
