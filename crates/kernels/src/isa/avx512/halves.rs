//! Epilogues of tiles with results of bf16 for AVX-512 BF16: sums are finished where they are.

use std::arch::x86_64::*;
use std::f32::consts::LOG2_E;

/// x · min(max(x / 6 + 1 / 2, 0), 1)
#[inline(always)]
pub(super) fn hard_swish(x: __m512) -> __m512 {
    // SAFETY: only functions with AVX-512 call this.
    unsafe {
        let share = _mm512_fmadd_ps(x, _mm512_set1_ps(1.0 / 6.0), _mm512_set1_ps(0.5));
        // The operand order lets NaN through.
        let share = _mm512_min_ps(_mm512_set1_ps(1.0), _mm512_max_ps(_mm512_setzero_ps(), share));
        _mm512_mul_ps(x, share)
    }
}

/// x / (1 + 2^power), relative error 3e-6 where the power is finite. The polynomial is a minimax fit
/// of 2^f for f in 0..1.
#[inline(always)]
fn over_power(x: __m512, power: __m512) -> __m512 {
    // SAFETY: only functions with AVX-512 DQ call this.
    unsafe {
        let fraction = _mm512_reduce_ps::<_MM_FROUND_TO_NEG_INF>(power);
        let mut value = _mm512_set1_ps(0.013_534_168);
        value = _mm512_fmadd_ps(value, fraction, _mm512_set1_ps(0.052_011_464));
        value = _mm512_fmadd_ps(value, fraction, _mm512_set1_ps(0.241_442_75));
        value = _mm512_fmadd_ps(value, fraction, _mm512_set1_ps(0.693_003_8));
        value = _mm512_fmadd_ps(value, fraction, _mm512_set1_ps(1.000_002_6));
        let power = _mm512_scalef_ps(value, power);
        _mm512_div_ps(x, _mm512_add_ps(power, _mm512_set1_ps(1.0)))
    }
}

/// x / (1 + e^−x)
#[inline(always)]
pub(super) fn swish(x: __m512) -> __m512 {
    // SAFETY: only functions with AVX-512 call this.
    over_power(x, unsafe { _mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E)) })
}

/// x · Φ(x), relative error 1e-4 above −5, where it is −1.4e-6, and absolute 2e-6 below. The polynomial
/// of x² is a minimax fit of log2(1 / Φ(x) − 1) / x.
#[inline(always)]
pub(super) fn gelu(x: __m512) -> __m512 {
    // SAFETY: only functions with AVX-512 call this.
    unsafe {
        // The operand order lets NaN through.
        let x = _mm512_max_ps(_mm512_set1_ps(-5.0), x);
        let square = _mm512_min_ps(_mm512_set1_ps(25.0), _mm512_mul_ps(x, x));
        let mut value = _mm512_set1_ps(-1.787_466_6e-9);
        value = _mm512_fmadd_ps(value, square, _mm512_set1_ps(1.708_087e-7));
        value = _mm512_fmadd_ps(value, square, _mm512_set1_ps(-6.355_471e-6));
        value = _mm512_fmadd_ps(value, square, _mm512_set1_ps(1.015_143_7e-4));
        value = _mm512_fmadd_ps(value, square, _mm512_set1_ps(4.156_264_8e-4));
        value = _mm512_fmadd_ps(value, square, _mm512_set1_ps(-0.105_607_95));
        value = _mm512_fmadd_ps(value, square, _mm512_set1_ps(-2.301_652));
        over_power(x, _mm512_mul_ps(x, value))
    }
}

/// Where the sums of a tile begin, for `$panels` panels: as the bias where [`store_halves!`] will
/// not multiply them. `$finish` is an optional [`crate::finish::InRegisters`].
macro_rules! first_sums {
    ($finish:expr, $panels:expr) => {{
        let mut first = [_mm512_setzero_ps(); $panels];
        if let Some(finish) = $finish
            && finish.half_result
            && finish.alpha == 1.0
            && !finish.bias.is_null()
        {
            for p in 0..$panels {
                let left = finish.columns.saturating_sub(p * 16);
                let mask: __mmask16 = if left >= 16 { u16::MAX } else { (1 << left) - 1 };
                first[p] = _mm512_maskz_loadu_ps(mask, finish.bias.wrapping_add(p * 16));
            }
        }
        first
    }};
}

/// The epilogue of a tile of `$rows` rows (at most 28) by `$panels` panels (1, 2 or 4) of sums that
/// began with [`first_sums!`]: a macro, because sums that are passed on leave their registers.
/// `$finish` is a [`crate::finish::InRegisters`] with results of bf16.
macro_rules! store_halves {
    ($finish:ident, $rows:expr, $panels:expr, $sums:ident) => {
        use $crate::finish::Gate;
        use $crate::isa::avx512::epilogue::{each, each_row};
        use $crate::isa::avx512::halves::{gelu, hard_swish, swish};
        macro_rules! each_sum {
            (|$sum:ident| $value:expr) => {
                each!(p in 0 1 2 3 => {
                    if p < $panels {
                        each_row!(r in $rows => {
                            let $sum = $sums[r][p];
                            $sums[r][p] = $value;
                        });
                    }
                });
            };
        }
        let mask = |panel: usize| -> __mmask16 {
            let left = $finish.columns.saturating_sub(panel * 16);
            if left >= 16 { u16::MAX } else { (1 << left) - 1 }
        };
        if !$finish.addend.is_null() {
            each!(p in 0 1 2 3 => {
                if p < $panels {
                    let addend = $finish.addend.cast::<i16>().wrapping_add(p * 16);
                    each_row!(r in $rows => {
                        let from = addend.wrapping_add(r * $finish.addend_stride);
                        let halves = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask(p), from));
                        let wide = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves));
                        $sums[r][p] = _mm512_add_ps($sums[r][p], wide);
                    });
                }
            });
        }
        if $finish.alpha != 1.0 {
            let alpha = _mm512_set1_ps($finish.alpha);
            each!(p in 0 1 2 3 => {
                if p < $panels {
                    let offset = match $finish.bias.is_null() {
                        true => _mm512_setzero_ps(),
                        false => _mm512_maskz_loadu_ps(mask(p), $finish.bias.wrapping_add(p * 16)),
                    };
                    each_row!(r in $rows => {
                        $sums[r][p] = _mm512_fmadd_ps($sums[r][p], alpha, offset);
                    });
                }
            });
        }
        match $finish.gate {
            Gate::Open => {
                // The operand order lets NaN through.
                if $finish.low > f32::NEG_INFINITY {
                    let low = _mm512_set1_ps($finish.low);
                    each_sum!(|sum| _mm512_max_ps(low, sum));
                }
                if $finish.high < f32::INFINITY {
                    let high = _mm512_set1_ps($finish.high);
                    each_sum!(|sum| _mm512_min_ps(high, sum));
                }
            }
            Gate::Hard => {
                each_sum!(|sum| hard_swish(sum));
            }
            Gate::Sigmoid => {
                each_sum!(|sum| swish(sum));
            }
            Gate::Normal => {
                each_sum!(|sum| gelu(sum));
            }
        }
        let output = $finish.output.cast::<i16>();
        let panels: usize = $panels;
        if panels == 1 {
            each_row!(r in $rows => {
                let halves: __m256i = std::mem::transmute(_mm512_cvtneps_pbh($sums[r][0]));
                let to = output.wrapping_add(r * $finish.output_stride);
                _mm256_mask_storeu_epi16(to, mask(0), halves);
            });
        }
        each!(pair in 0 1 => {
            if pair < panels / 2 {
                let (first, second) = (2 * pair, (2 * pair + 1) % panels);
                let left = $finish.columns.saturating_sub(pair * 32);
                let mask: __mmask32 = if left >= 32 { u32::MAX } else { (1 << left) - 1 };
                each_row!(r in $rows => {
                    let halves = _mm512_cvtne2ps_pbh($sums[r][second], $sums[r][first]);
                    let halves: __m512i = std::mem::transmute(halves);
                    let to = output.wrapping_add(r * $finish.output_stride + pair * 32);
                    _mm512_mask_storeu_epi16(to, mask, halves);
                });
            }
        });
    };
}

pub(super) use {first_sums, store_halves};
