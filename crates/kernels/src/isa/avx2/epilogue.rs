//! Epilogues for AVX2; columns past the last whole vector go the portable way.

use std::arch::x86_64::*;

use crate::epilogue::{Block, DequantizeF32, EpilogueF32, Output, RequantizeU8, columns_of};
use crate::isa::portable;

/// Bias, residual and clamp.
///
/// # Safety
/// Needs AVX2. The block's accumulators are valid, and output and residual cover its rows and
/// columns.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn store_f32(block: &Block<f32>, epilogue: &EpilogueF32, output: &Output<f32>) {
    let (low, high) = epilogue.activation.bounds();
    let (low, high) = (_mm256_set1_ps(low), _mm256_set1_ps(high));
    let alpha = _mm256_set1_ps(epilogue.alpha);
    let bias = epilogue.bias.map(|bias| columns_of(block, bias));
    let whole = block.columns / 8 * 8;
    for c in (0..whole).step_by(8) {
        // SAFETY: columns c..c + 8 are inside the block, which the caller vouches for.
        unsafe {
            let offset = match bias {
                Some(bias) => _mm256_loadu_ps(bias.add(c)),
                None => _mm256_setzero_ps(),
            };
            for r in 0..block.rows {
                let accumulator = _mm256_loadu_ps(block.accumulators.add(r * block.stride + c));
                let mut value = _mm256_add_ps(_mm256_mul_ps(accumulator, alpha), offset);
                if let Some(residual) = &epilogue.residual {
                    let from = block.place(residual.pointer, residual.row_stride, r).add(c);
                    value = _mm256_add_ps(value, _mm256_loadu_ps(from));
                }
                // The operand order lets NaN through.
                let value = _mm256_min_ps(high, _mm256_max_ps(low, value));
                let to = block.place(output.pointer, output.row_stride, r).cast_mut();
                _mm256_storeu_ps(to.add(c), value);
            }
        }
    }
    if whole < block.columns {
        // SAFETY: the caller's promise.
        unsafe { portable::epilogue::store_f32(block, whole, epilogue, output) }
    }
}

/// Requantisation.
///
/// # Safety
/// As [`store_f32`].
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn store_u8(block: &Block<i32>, epilogue: &RequantizeU8, output: &Output<u8>) {
    let zero = f32::from(epilogue.zero_point);
    let low = _mm256_set1_ps(f32::from(epilogue.low) - zero);
    let high = _mm256_set1_ps(f32::from(epilogue.high) - zero);
    let zero_point = _mm256_set1_epi32(i32::from(epilogue.zero_point));
    let bias = columns_of(block, epilogue.bias);
    let multiplier = columns_of(block, epilogue.multiplier);
    let whole = block.columns / 8 * 8;
    for c in (0..whole).step_by(8) {
        // SAFETY: columns c..c + 8 are inside the block, which the caller vouches for.
        unsafe {
            let offset = _mm256_loadu_si256(bias.add(c).cast());
            let factor = _mm256_loadu_ps(multiplier.add(c));
            for r in 0..block.rows {
                let from = block.accumulators.add(r * block.stride + c);
                let sum = _mm256_add_epi32(_mm256_loadu_si256(from.cast()), offset);
                let mut value = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), factor);
                if let Some(residual) = &epilogue.residual {
                    let rows = &residual.rows;
                    let from = block.place(rows.pointer, rows.row_stride, r).add(c);
                    let steps = _mm256_sub_epi32(
                        _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())),
                        _mm256_set1_epi32(i32::from(residual.zero_point)),
                    );
                    let scale = _mm256_set1_ps(residual.scale);
                    let addend = _mm256_mul_ps(_mm256_cvtepi32_ps(steps), scale);
                    value = _mm256_add_ps(value, addend);
                }
                let value = _mm256_min_ps(high, _mm256_max_ps(low, value));
                const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
                let steps = _mm256_cvtps_epi32(_mm256_round_ps::<NEAREST>(value));
                let steps = _mm256_add_epi32(steps, zero_point);
                let words = _mm_packus_epi32(
                    _mm256_castsi256_si128(steps),
                    _mm256_extracti128_si256::<1>(steps),
                );
                let to = block.place(output.pointer, output.row_stride, r).cast_mut();
                _mm_storel_epi64(to.add(c).cast(), _mm_packus_epi16(words, words));
            }
        }
    }
    if whole < block.columns {
        // SAFETY: the caller's promise.
        unsafe { portable::epilogue::store_u8(block, whole, epilogue, output) }
    }
}

/// Turns the block into f32 in place: f32(acc + bias) · scale.
///
/// # Safety
/// Needs AVX2. The block's accumulators are valid.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn scale(block: &Block<i32>, epilogue: &DequantizeF32) {
    let bias = epilogue.bias_s32.map(|bias| columns_of(block, bias));
    let scale = columns_of(block, epilogue.scale);
    let whole = block.columns / 8 * 8;
    for c in (0..whole).step_by(8) {
        // SAFETY: columns c..c + 8 are inside the block, which the caller vouches for.
        unsafe {
            let offset = match bias {
                Some(bias) => _mm256_loadu_si256(bias.add(c).cast()),
                None => _mm256_setzero_si256(),
            };
            let factor = _mm256_loadu_ps(scale.add(c));
            for r in 0..block.rows {
                let at = block.accumulators.add(r * block.stride + c);
                let sum = _mm256_add_epi32(_mm256_loadu_si256(at.cast()), offset);
                let value = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), factor);
                _mm256_storeu_ps(at.cast(), value);
            }
        }
    }
    if whole < block.columns {
        // SAFETY: the caller's promise.
        unsafe { portable::epilogue::scale(block, whole, epilogue) }
    }
}
