//! Walks down decision trees, 16 to a register; up to four registers wait for their loads together.

use std::arch::x86_64::*;

use crate::trees::{EQUAL, FLAGS, Forest, Lanes, MISSING};

/// Takes each walk to its leaf.
///
/// # Safety
/// The machine has AVX-512 F and DQ. The walks start at nodes of the forest, which has no sets,
/// and x has every feature of every row.
#[target_feature(enable = "avx512f,avx512dq")]
pub(crate) unsafe fn walk(forest: &Forest, x: &[f32], lanes: &mut Lanes) {
    // SAFETY: the caller's promise.
    unsafe {
        match (lanes.count.div_ceil(16), forest.equals) {
            (0 | 1, false) => groups::<1, false>(forest, x, lanes),
            (2, false) => groups::<2, false>(forest, x, lanes),
            (3, false) => groups::<3, false>(forest, x, lanes),
            (_, false) => groups::<4, false>(forest, x, lanes),
            (_, true) => groups::<4, true>(forest, x, lanes),
        }
    }
}

/// # Safety
/// As [`walk`].
#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn groups<const G: usize, const EQUALS: bool>(
    forest: &Forest,
    x: &[f32],
    lanes: &mut Lanes,
) {
    let shift = _mm_cvtsi32_si128((forest.feature_bits + FLAGS) as i32);
    let features = _mm512_set1_epi32(((1u64 << forest.feature_bits) - 1) as i32);
    let [missing, equal, one] = [MISSING, EQUAL, 1].map(|v| _mm512_set1_epi32(v as i32));
    let splits_first = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    let links_first = _mm512_add_epi32(splits_first, one);
    let nodes: *const i64 = forest.nodes.as_ptr().cast();
    // SAFETY: the caller's promise; links of nodes lead to nodes, and lanes at leaves load nothing
    // of x and stay where they are.
    unsafe {
        let load = |list: &[u32], g: usize| _mm512_loadu_si512(list.as_ptr().add(16 * g).cast());
        let mut at = [_mm512_setzero_si512(); G];
        let (mut rows, mut found) = (at, at);
        for g in 0..G {
            at[g] = load(&lanes.at, g);
            rows[g] = load(&lanes.rows, g);
        }
        loop {
            let mut open = 0;
            for g in 0..G {
                let low = _mm512_i32gather_epi64::<8>(_mm512_castsi512_si256(at[g]), nodes);
                let high =
                    _mm512_i32gather_epi64::<8>(_mm512_extracti64x4_epi64::<1>(at[g]), nodes);
                let splits = _mm512_permutex2var_epi32(low, splits_first, high);
                let links = _mm512_permutex2var_epi32(low, links_first, high);
                let active = _mm512_test_epi32_mask(links, links);
                let feature = _mm512_and_si512(_mm512_srli_epi32::<FLAGS>(links), features);
                let place = _mm512_add_epi32(rows[g], feature);
                let zero = _mm512_setzero_ps();
                let value = _mm512_mask_i32gather_ps::<4>(zero, active, place, x.as_ptr());
                let split = _mm512_castsi512_ps(splits);
                let mut fails = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(value, split);
                if EQUALS {
                    let differs = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(value, split);
                    let asked = _mm512_test_epi32_mask(links, equal);
                    fails = (fails & !asked) | (differs & asked);
                }
                let absent = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
                fails &= !_mm512_mask_test_epi32_mask(absent, links, missing);
                let distance = _mm512_srl_epi32(links, shift);
                at[g] = _mm512_add_epi32(at[g], distance);
                at[g] = _mm512_mask_add_epi32(at[g], fails & active, at[g], one);
                found[g] = splits;
                open |= active;
            }
            if open == 0 {
                break;
            }
        }
        for g in 0..G {
            _mm512_storeu_si512(lanes.at.as_mut_ptr().add(16 * g).cast(), found[g]);
        }
    }
}
