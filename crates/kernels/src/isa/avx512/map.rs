//! Byte tables with AVX-512 VBMI.

use std::arch::x86_64::*;

/// `output[i] = table[input[i]]`, 64 at a time: two 128-entry permutes chosen by the top bit.
///
/// # Safety
/// Needs AVX-512 BW and VBMI. `count` bytes are readable at `input` and writable at `output`,
/// which are equal or apart.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(crate) unsafe fn table_vbmi(
    table: &[u8; 256],
    input: *const u8,
    output: *mut u8,
    count: usize,
) {
    // SAFETY: the table has four vectors; all offsets stay below `count`.
    unsafe {
        let part = |k: usize| _mm512_loadu_si512(table.as_ptr().add(64 * k).cast());
        let parts = [part(0), part(1), part(2), part(3)];
        for i in (0..count).step_by(64) {
            let left = count - i;
            let mask = if left < 64 { (1_u64 << left) - 1 } else { u64::MAX };
            let x = _mm512_maskz_loadu_epi8(mask, input.add(i).cast());
            let low = _mm512_permutex2var_epi8(parts[0], x, parts[1]);
            let high = _mm512_permutex2var_epi8(parts[2], x, parts[3]);
            let y = _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), low, high);
            _mm512_mask_storeu_epi8(output.add(i).cast(), mask, y);
        }
    }
}
