//! Epilogues for AVX-512; masks for column tails.

use std::arch::x86_64::*;

use crate::epilogue::{Block, DequantizeF32, EpilogueF32, Output, RequantizeU8, columns_of};

/// Mask of the columns of a block's vector that starts at `column`.
fn mask_at(columns: usize, column: usize) -> __mmask16 {
    if columns - column >= 16 { u16::MAX } else { (1 << (columns - column)) - 1 }
}

/// Bias, residual and clamp.
///
/// # Safety
/// Needs AVX-512 F. The block's accumulators are valid, and output and residual cover its rows and
/// columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn store_f32(block: &Block<f32>, epilogue: &EpilogueF32, output: &Output<f32>) {
    let (low, high) = epilogue.activation.bounds();
    let (low, high) = (_mm512_set1_ps(low), _mm512_set1_ps(high));
    let alpha = _mm512_set1_ps(epilogue.alpha);
    let bias = epilogue.bias.map(|bias| columns_of(block, bias));
    let mut c = 0;
    while c < block.columns {
        let mask = mask_at(block.columns, c);
        // SAFETY: masks keep every access inside the block, which the caller vouches for.
        unsafe {
            let offset = match bias {
                Some(bias) => _mm512_maskz_loadu_ps(mask, bias.add(c)),
                None => _mm512_setzero_ps(),
            };
            for r in 0..block.rows {
                let accumulator = _mm512_loadu_ps(block.accumulators.add(r * block.stride + c));
                let mut value = _mm512_add_ps(_mm512_mul_ps(accumulator, alpha), offset);
                if let Some(residual) = &epilogue.residual {
                    let from = block.place(residual.pointer, residual.row_stride, r).add(c);
                    value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, from));
                }
                // The operand order lets NaN through.
                let value = _mm512_min_ps(high, _mm512_max_ps(low, value));
                let to = block.place(output.pointer, output.row_stride, r).cast_mut();
                _mm512_mask_storeu_ps(to.add(c), mask, value);
            }
        }
        c += 16;
    }
}

/// Requantisation.
///
/// # Safety
/// As [`store_f32`], with AVX-512 BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn store_u8(block: &Block<i32>, epilogue: &RequantizeU8, output: &Output<u8>) {
    let zero = f32::from(epilogue.zero_point);
    let low = _mm512_set1_ps(f32::from(epilogue.low) - zero);
    let high = _mm512_set1_ps(f32::from(epilogue.high) - zero);
    let zero_point = _mm512_set1_epi32(i32::from(epilogue.zero_point));
    let bias = columns_of(block, epilogue.bias);
    let multiplier = columns_of(block, epilogue.multiplier);
    let mut c = 0;
    while c < block.columns {
        let mask = mask_at(block.columns, c);
        // SAFETY: masks keep every access inside the block, which the caller vouches for.
        unsafe {
            let offset = _mm512_maskz_loadu_epi32(mask, bias.add(c));
            let factor = _mm512_maskz_loadu_ps(mask, multiplier.add(c));
            for r in 0..block.rows {
                let sum = _mm512_loadu_epi32(block.accumulators.add(r * block.stride + c));
                let sum = _mm512_cvtepi32_ps(_mm512_add_epi32(sum, offset));
                let mut value = _mm512_mul_ps(sum, factor);
                if let Some(residual) = &epilogue.residual {
                    let rows = &residual.rows;
                    let from = block.place(rows.pointer, rows.row_stride, r).add(c);
                    let bytes = _mm_maskz_loadu_epi8(mask, from.cast());
                    let steps = _mm512_sub_epi32(
                        _mm512_cvtepu8_epi32(bytes),
                        _mm512_set1_epi32(i32::from(residual.zero_point)),
                    );
                    let scale = _mm512_set1_ps(residual.scale);
                    let addend = _mm512_mul_ps(_mm512_cvtepi32_ps(steps), scale);
                    value = _mm512_add_ps(value, addend);
                }
                let value = _mm512_min_ps(high, _mm512_max_ps(low, value));
                const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
                let steps = _mm512_cvt_roundps_epi32::<NEAREST>(value);
                let bytes = _mm512_cvtepi32_epi8(_mm512_add_epi32(steps, zero_point));
                let to = block.place(output.pointer, output.row_stride, r).cast_mut();
                _mm_mask_storeu_epi8(to.add(c).cast(), mask, bytes);
            }
        }
        c += 16;
    }
}

/// Turns the block into f32 in place: f32(acc + bias) · scale.
///
/// # Safety
/// Needs AVX-512 F. The block's accumulators are valid, whole vectors of them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn scale(block: &Block<i32>, epilogue: &DequantizeF32) {
    let bias = epilogue.bias_s32.map(|bias| columns_of(block, bias));
    let scale = columns_of(block, epilogue.scale);
    let mut c = 0;
    while c < block.columns {
        let mask = mask_at(block.columns, c);
        // SAFETY: masks keep every access inside the block, which the caller vouches for.
        unsafe {
            let offset = match bias {
                Some(bias) => _mm512_maskz_loadu_epi32(mask, bias.add(c)),
                None => _mm512_setzero_si512(),
            };
            let factor = _mm512_maskz_loadu_ps(mask, scale.add(c));
            for r in 0..block.rows {
                let at = block.accumulators.add(r * block.stride + c);
                let sum = _mm512_add_epi32(_mm512_loadu_epi32(at), offset);
                let value = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), factor);
                _mm512_storeu_ps(at.cast(), value);
            }
        }
        c += 16;
    }
}

/// Addresses of `offsets` (in elements of `1 << shift` bytes), or `padding` where marked.
///
/// # Safety
/// Needs AVX-512 F. `addresses` has room for all.
#[target_feature(enable = "avx512f,avx512vl")]
pub(crate) unsafe fn resolve(
    offsets: &[i32],
    base: usize,
    padding: usize,
    shift: u32,
    addresses: *mut usize,
) {
    let shift = _mm_cvtsi32_si128(shift as i32);
    let base = _mm512_set1_epi64(base as i64);
    let padding = _mm512_set1_epi64(padding as i64);
    let mut i = 0;
    while i < offsets.len() {
        let left = offsets.len() - i;
        let mask = if left >= 8 { u8::MAX } else { (1 << left) - 1 };
        // SAFETY: masked to the slice, and to as much room in `addresses`.
        unsafe {
            let elements = _mm256_maskz_loadu_epi32(mask, offsets.as_ptr().add(i));
            let inside =
                _mm256_cmpneq_epi32_mask(elements, _mm256_set1_epi32(crate::conv::PADDING));
            let bytes = _mm512_sll_epi64(_mm512_cvtepi32_epi64(elements), shift);
            let address = _mm512_mask_add_epi64(padding, inside, base, bytes);
            _mm512_mask_storeu_epi64(addresses.add(i).cast(), mask, address);
        }
        i += 8;
    }
}
