//! Epilogues in plain Rust; also the tails of the AVX2 ones.

use crate::epilogue::{Block, DequantizeF32, EpilogueF32, Output, RequantizeU8, clamp, columns_of};

/// Bias, residual and clamp of columns `first..` of the block.
///
/// # Safety
/// The block's accumulators are valid, and output and residual cover its rows and columns.
pub(crate) unsafe fn store_f32(
    block: &Block<f32>,
    first: usize,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
) {
    let (low, high) = epilogue.activation.bounds();
    let bias = epilogue.bias.map(|bias| columns_of(block, bias));
    for r in 0..block.rows {
        // SAFETY: the caller's promise.
        unsafe {
            let from = block.accumulators.add(r * block.stride);
            let to = block.place(output.pointer, output.row_stride, r).cast_mut();
            let residual = epilogue.residual.map(|x| block.place(x.pointer, x.row_stride, r));
            for c in first..block.columns {
                let mut value = *from.add(c) * epilogue.alpha;
                value += bias.map_or(0.0, |bias| *bias.add(c));
                if let Some(residual) = residual {
                    value += *residual.add(c);
                }
                *to.add(c) = clamp(value, low, high);
            }
        }
    }
}

/// Requantisation of columns `first..` of the block.
///
/// # Safety
/// As [`store_f32`].
pub(crate) unsafe fn store_u8(
    block: &Block<i32>,
    first: usize,
    epilogue: &RequantizeU8,
    output: &Output<u8>,
) {
    // Adding and taking away 1.5 · 2^23 rounds half to even for magnitudes below 2^22, and
    // compiles to two additions everywhere.
    const ROUNDER: f32 = 12_582_912.0;
    let zero = f32::from(epilogue.zero_point);
    let (low, high) = (f32::from(epilogue.low) - zero, f32::from(epilogue.high) - zero);
    let bias = columns_of(block, epilogue.bias);
    let multiplier = columns_of(block, epilogue.multiplier);
    for r in 0..block.rows {
        // SAFETY: the caller's promise.
        unsafe {
            let from = block.accumulators.add(r * block.stride);
            let to = block.place(output.pointer, output.row_stride, r).cast_mut();
            for c in first..block.columns {
                let sum = (*from.add(c)).wrapping_add(*bias.add(c));
                let mut value = sum as f32 * *multiplier.add(c);
                if let Some(residual) = &epilogue.residual {
                    let row = block.place(residual.rows.pointer, residual.rows.row_stride, r);
                    let steps = i32::from(*row.add(c)) - i32::from(residual.zero_point);
                    value += steps as f32 * residual.scale;
                }
                let rounded = clamp(value, low, high) + ROUNDER - ROUNDER;
                *to.add(c) = (rounded as i32 + i32::from(epilogue.zero_point)) as u8;
            }
        }
    }
}

/// Turns columns `first..` of the block into f32 in place: f32(acc + bias) · scale.
///
/// # Safety
/// The block's accumulators are valid.
pub(crate) unsafe fn scale(block: &Block<i32>, first: usize, epilogue: &DequantizeF32) {
    let bias = epilogue.bias_s32.map(|bias| columns_of(block, bias));
    let scale = columns_of(block, epilogue.scale);
    for r in 0..block.rows {
        // SAFETY: the caller's promise.
        unsafe {
            let row = block.accumulators.add(r * block.stride);
            for c in first..block.columns {
                let sum = (*row.add(c)).wrapping_add(bias.map_or(0, |bias| *bias.add(c)));
                *row.add(c).cast::<f32>() = sum as f32 * *scale.add(c);
            }
        }
    }
}
