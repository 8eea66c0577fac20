//! Walks down decision trees, eight to a register; up to four registers wait for their loads together.

use std::arch::x86_64::*;

use crate::trees::{EQUAL, FLAGS, Forest, LANES, Lanes, MISSING};

/// Registers of one round.
const GROUPS: usize = 4;

/// Takes each walk to its leaf.
///
/// # Safety
/// The machine has AVX2. The walks start at nodes of the forest, which has no sets, and x has
/// every feature of every row.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn walk(forest: &Forest, x: &[f32], lanes: &mut Lanes) {
    for first in (0..lanes.count.min(LANES)).step_by(8 * GROUPS) {
        // SAFETY: the caller's promise.
        unsafe { round(forest, x, lanes, first) };
    }
}

/// Takes the walks of the lanes from `first` on.
///
/// # Safety
/// As [`walk`].
#[target_feature(enable = "avx2")]
unsafe fn round(forest: &Forest, x: &[f32], lanes: &mut Lanes, first: usize) {
    let shift = _mm_cvtsi32_si128((forest.feature_bits + FLAGS) as i32);
    let features = _mm256_set1_epi32(((1u64 << forest.feature_bits) - 1) as i32);
    let [missing, equal] = [MISSING, EQUAL].map(|v| _mm256_set1_epi32(v as i32));
    let zero = _mm256_setzero_si256();
    let nodes: *const i32 = forest.nodes.as_ptr().cast();
    // SAFETY: the caller's promise; links of nodes lead to nodes, and lanes at leaves load nothing
    // of x and stay where they are.
    unsafe {
        let load =
            |list: &[u32], g: usize| _mm256_loadu_si256(list.as_ptr().add(first + 8 * g).cast());
        let mut at: [__m256i; GROUPS] = std::array::from_fn(|g| load(&lanes.at, g));
        let rows: [__m256i; GROUPS] = std::array::from_fn(|g| load(&lanes.rows, g));
        let mut found = [zero; GROUPS];
        loop {
            let mut open = zero;
            for g in 0..GROUPS {
                let splits = _mm256_i32gather_epi32::<8>(nodes, at[g]);
                let links = _mm256_i32gather_epi32::<8>(nodes.add(1), at[g]);
                let leaf = _mm256_cmpeq_epi32(links, zero);
                let active = _mm256_xor_si256(leaf, _mm256_set1_epi32(-1));
                let feature =
                    _mm256_and_si256(_mm256_srli_epi32::<{ FLAGS as i32 }>(links), features);
                let value = _mm256_mask_i32gather_ps::<4>(
                    _mm256_setzero_ps(),
                    x.as_ptr(),
                    _mm256_add_epi32(rows[g], feature),
                    _mm256_castsi256_ps(active),
                );
                let split = _mm256_castsi256_ps(splits);
                let fails = _mm256_cmp_ps::<_CMP_NLE_UQ>(value, split);
                let differs = _mm256_cmp_ps::<_CMP_NEQ_UQ>(value, split);
                let asked = _mm256_cmpeq_epi32(_mm256_and_si256(links, equal), equal);
                let fails = _mm256_blendv_ps(fails, differs, _mm256_castsi256_ps(asked));
                let absent = _mm256_cmp_ps::<_CMP_UNORD_Q>(value, value);
                let kept = _mm256_cmpeq_epi32(_mm256_and_si256(links, missing), missing);
                let absent = _mm256_and_si256(_mm256_castps_si256(absent), kept);
                let fails = _mm256_andnot_si256(absent, _mm256_castps_si256(fails));
                let fails = _mm256_and_si256(fails, active);
                at[g] = _mm256_add_epi32(at[g], _mm256_srl_epi32(links, shift));
                // A lane that fails holds −1.
                at[g] = _mm256_sub_epi32(at[g], fails);
                found[g] = splits;
                open = _mm256_or_si256(open, active);
            }
            if _mm256_testz_si256(open, open) != 0 {
                break;
            }
        }
        for (g, found) in found.into_iter().enumerate() {
            _mm256_storeu_si256(lanes.at.as_mut_ptr().add(first + 8 * g).cast(), found);
        }
    }
}
