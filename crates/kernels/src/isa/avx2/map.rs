//! Byte tables with AVX2.

use std::arch::x86_64::*;

/// `output[i] = table[input[i]]`, 32 at a time: 16 shuffles, each of which answers the bytes of
/// one high nibble and gives 0 for the others.
///
/// # Safety
/// Needs AVX2. `count` bytes are readable at `input` and writable at `output`, which are equal or
/// apart.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn table(table: &[u8; 256], input: *const u8, output: *mut u8, count: usize) {
    let whole = count - count % 32;
    // SAFETY: the table has 16 parts of 16 bytes; all offsets stay below `count`.
    unsafe {
        for i in (0..whole).step_by(32) {
            let x = _mm256_loadu_si256(input.add(i).cast());
            let mut y = _mm256_setzero_si256();
            for k in 0..16 {
                let part = _mm_loadu_si128(table.as_ptr().add(16 * k).cast());
                // The high nibble becomes 0 just for this part; adding 0x70 with saturation
                // then sets the top bit, which makes the shuffle give 0, for all others.
                let own = _mm256_xor_si256(x, _mm256_set1_epi8((k << 4) as i8));
                let index = _mm256_adds_epu8(own, _mm256_set1_epi8(0x70));
                let part = _mm256_broadcastsi128_si256(part);
                y = _mm256_or_si256(y, _mm256_shuffle_epi8(part, index));
            }
            _mm256_storeu_si256(output.add(i).cast(), y);
        }
        for i in whole..count {
            *output.add(i) = table[usize::from(*input.add(i))];
        }
    }
}
