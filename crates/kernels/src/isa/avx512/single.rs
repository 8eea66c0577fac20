//! Products of one row, for AVX-512.

use std::arch::x86_64::*;

use super::epilogue::{each, first_integers, store_integers};
use super::gemm_f32::store;
use super::gemm_u8s8::{partial, word};
use crate::finish::{InRegisters, Movable, OfIntegers};
use crate::pack::PANEL;
use crate::single::SingleRow;

/// Panels of f32 weights in 24 bits.
///
/// # Safety
/// Needs AVX-512 F; the row and the panels' lines are readable, what is finished writable.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn panels_24(single: &SingleRow<f32>, mut finish: InRegisters) {
    let SingleRow { row, depth, mut lines, panels, .. } = *single;
    let rest = depth % 4;
    let mut last = [0.0f32; 4];
    // SAFETY: the caller's promise; a line of scales and three lines for four steps.
    unsafe {
        last.as_mut_ptr().copy_from_nonoverlapping(row.add(depth - rest), rest);
        for _ in 0..panels {
            let scale = _mm512_loadu_ps(lines.cast());
            lines = lines.add(64);
            let mut sums = [_mm512_setzero_ps(); 4];
            macro_rules! steps {
                ($from:expr) => {
                    let first = _mm512_loadu_si512(lines.cast());
                    let second = _mm512_loadu_si512(lines.add(64).cast());
                    let third = _mm512_loadu_si512(lines.add(128).cast());
                    // The exclusive or of all three.
                    let fourth = _mm512_ternarylogic_epi32::<0x96>(
                        _mm512_slli_epi32::<24>(first),
                        _mm512_slli_epi32::<16>(second),
                        _mm512_slli_epi32::<8>(third),
                    );
                    let words = [first, second, third, fourth];
                    for i in 0..4 {
                        let value = _mm512_set1_ps(*$from.add(i));
                        sums[i] = _mm512_fmadd_ps(value, _mm512_cvtepi32_ps(words[i]), sums[i]);
                    }
                    lines = lines.add(192);
                };
            }
            for group in 0..depth / 4 {
                steps!(row.add(group * 4));
            }
            if rest > 0 {
                steps!(last.as_ptr());
            }
            let halves = [_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])];
            let mut sum = _mm512_mul_ps(_mm512_add_ps(halves[0], halves[1]), scale);
            store!(finish, 1, 1, |_row, _panel| sum);
            finish.right(PANEL);
        }
    }
}

/// Panels of s8 weights, four sums to each, so that products do not wait for each other.
///
/// # Safety
/// Needs AVX-512 F, BW, DQ, VL and VNNI; the row and the panels' lines are readable, what is
/// finished writable.
pub(crate) unsafe fn panels_u8s8(single: &SingleRow<u8>, finish: OfIntegers) {
    // SAFETY: the caller's promise.
    unsafe {
        match single.ahead_step {
            0 => panels_of_bytes::<false>(single, finish),
            _ => panels_of_bytes::<true>(single, finish),
        }
    }
}

/// # Safety
/// As [`panels_u8s8`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn panels_of_bytes<const AHEAD: bool>(single: &SingleRow<u8>, mut finish: OfIntegers) {
    let SingleRow { row, depth, lines, mut panels, ahead, ahead_step } = *single;
    let (mut line, mut ahead) = (lines, ahead.cast::<i8>());
    // SAFETY: the caller's promise; one line for each word of the row and panel.
    unsafe {
        macro_rules! step {
            ($sum:expr, $value:expr) => {
                if AHEAD {
                    _mm_prefetch::<_MM_HINT_T1>(ahead);
                    ahead = ahead.wrapping_add(ahead_step);
                }
                $sum = _mm512_dpbusd_epi32($sum, $value, _mm512_loadu_si512(line.cast()));
                line = line.add(64);
            };
        }
        macro_rules! panels {
            ($panels:literal) => {
                let mut sums = [first_integers!(Some(&finish), $panels)];
                each!(p in 0 1 2 3 => {
                    if p < $panels {
                        let mut parts = [_mm512_setzero_si512(); 4];
                        parts[0] = sums[0][p];
                        let mut k = 0;
                        while k + 16 <= depth {
                            for i in 0..4 {
                                step!(parts[i], word(row.add(k + i * 4)));
                            }
                            k += 16;
                        }
                        while k + 4 <= depth {
                            step!(parts[0], word(row.add(k)));
                            k += 4;
                        }
                        if k < depth {
                            step!(parts[0], partial(row.add(k), depth - k));
                        }
                        let first = _mm512_add_epi32(parts[0], parts[1]);
                        let second = _mm512_add_epi32(parts[2], parts[3]);
                        sums[0][p] = _mm512_add_epi32(first, second);
                    }
                });
                let stored = store_integers!(Some(&finish), 1, $panels, sums);
                debug_assert!(stored);
                finish.right($panels * PANEL);
                panels -= $panels;
            };
        }
        while panels >= 4 {
            panels!(4);
        }
        while panels > 0 {
            panels!(1);
        }
    }
}
