//! Weights in groups of 4 and 8 bits for AVX-512: codes of 4 bits are looked up as floats by
//! permutations, which ignore all but the lowest four bits of an index.

use std::arch::x86_64::*;

use crate::groups::Part;
use crate::pack::PANEL;
use crate::tile::BLOCK_STRIDE;

/// The panels that are multiplied together, of those left.
pub(crate) fn panels(rows: usize, left: usize) -> usize {
    match (rows, left) {
        (1, 4..) => 4,
        (_, 2..) => 2,
        _ => 1,
    }
}

/// Sums of up to four rows by up to four panels, into accumulators. `row_sums` has the sum of
/// each group of each row, read where there are zero points.
///
/// # Safety
/// Needs AVX-512 F; the part has so many panels, rows are readable for its depth, and the
/// accumulators have room.
pub(crate) unsafe fn multiply(
    part: &Part,
    rows: usize,
    panels: usize,
    addresses: &[*const f32; 4],
    row_sums: *const f32,
    accumulators: *mut f32,
) {
    macro_rules! by_size {
        ($($rows:literal, $panels:literal;)*) => {
            match (rows, panels, part.bits) {
                $(
                    ($rows, $panels, 4) => {
                        codes::<$rows, $panels, 4>(part, addresses, row_sums, accumulators)
                    }
                    ($rows, $panels, _) => {
                        codes::<$rows, $panels, 8>(part, addresses, row_sums, accumulators)
                    }
                )*
                _ => unreachable!("sizes from `panels`"),
            }
        };
    }
    // SAFETY: the caller's promise.
    unsafe { by_size!(1, 1; 1, 2; 1, 4; 2, 1; 2, 2; 3, 1; 3, 2; 4, 1; 4, 2;) }
}

/// What codes of 4 bits stand for.
#[target_feature(enable = "avx512f")]
fn table() -> __m512 {
    let codes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm512_cvtepi32_ps(_mm512_sub_epi32(codes, _mm512_set1_epi32(8)))
}

/// Eight steps of 16 codes as floats, one after the other: `$body` with `$value` for panel `$p`
/// and step `$j`.
macro_rules! eight_steps {
    ($bits:expr, $panels:expr, $codes:expr, $stride:expr, $table:expr,
     |$j:ident, $p:ident, $value:ident| $body:block) => {
        let mut words = [_mm512_setzero_si512(); $panels];
        if $bits == 4 {
            for p in 0..$panels {
                words[p] = _mm512_loadu_si512($codes.add(p * $stride).cast());
            }
        }
        macro_rules! step {
            ($step:literal) => {
                for $p in 0..$panels {
                    let $j = $step;
                    let $value = if $bits == 4 {
                        _mm512_permutexvar_ps(_mm512_srli_epi32::<{ 4 * $step }>(words[$p]), $table)
                    } else {
                        let bytes = $codes.add($p * $stride + $step * PANEL);
                        let bytes = _mm_loadu_si128(bytes.cast());
                        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
                    };
                    $body
                }
            };
        }
        step!(0);
        step!(1);
        step!(2);
        step!(3);
        step!(4);
        step!(5);
        step!(6);
        step!(7);
    };
}

/// # Safety
/// As [`multiply`].
#[target_feature(enable = "avx512f")]
unsafe fn codes<const ROWS: usize, const PANELS: usize, const BITS: usize>(
    part: &Part,
    addresses: &[*const f32; 4],
    row_sums: *const f32,
    accumulators: *mut f32,
) {
    let table = table();
    let (stride, parameters) = (part.panel_bytes, part.groups * PANEL);
    let mut totals = [[_mm512_setzero_ps(); PANELS]; ROWS];
    let mut codes = part.codes;
    // SAFETY: the caller's promise.
    unsafe {
        for group in 0..part.groups {
            let mut sums = [[_mm512_setzero_ps(); PANELS]; ROWS];
            for k in (group * part.group..(group + 1) * part.group).step_by(8) {
                eight_steps!(BITS, PANELS, codes, stride, table, |j, p, value| {
                    for r in 0..ROWS {
                        let x = _mm512_set1_ps(*addresses[r].add(k + j));
                        sums[r][p] = _mm512_fmadd_ps(x, value, sums[r][p]);
                    }
                });
                codes = codes.add(8 * PANEL * BITS / 8);
            }
            for p in 0..PANELS {
                let at = p * parameters + group * PANEL;
                let scale = _mm512_loadu_ps(part.scales.add(at));
                for r in 0..ROWS {
                    let mut sum = sums[r][p];
                    if !part.zeros.is_null() {
                        let zero = _mm512_loadu_ps(part.zeros.add(at));
                        let all = _mm512_set1_ps(*row_sums.add(r * part.groups + group));
                        sum = _mm512_fnmadd_ps(all, zero, sum);
                    }
                    totals[r][p] = _mm512_fmadd_ps(sum, scale, totals[r][p]);
                }
            }
        }
        for r in 0..ROWS {
            for p in 0..PANELS {
                _mm512_storeu_ps(accumulators.add(r * BLOCK_STRIDE + p * PANEL), totals[r][p]);
            }
        }
    }
}

/// Panels as f32: (code − zero) · scale.
///
/// # Safety
/// Needs AVX-512 F; the part has so many panels, and `to` room for them.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn unpack(part: &Part, panels: usize, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        match part.bits {
            4 => unpack_codes::<4>(part, panels, to),
            _ => unpack_codes::<8>(part, panels, to),
        }
    }
}

/// # Safety
/// As [`unpack`].
#[target_feature(enable = "avx512f")]
unsafe fn unpack_codes<const BITS: usize>(part: &Part, panels: usize, mut to: *mut f32) {
    let table = table();
    // SAFETY: the caller's promise.
    unsafe {
        for panel in 0..panels {
            let mut codes = part.codes.add(panel * part.panel_bytes);
            for group in 0..part.groups {
                let at = (panel * part.groups + group) * PANEL;
                let scale = _mm512_loadu_ps(part.scales.add(at));
                let zero = match part.zeros.is_null() {
                    true => _mm512_setzero_ps(),
                    false => _mm512_loadu_ps(part.zeros.add(at)),
                };
                for _ in 0..part.group / 8 {
                    eight_steps!(BITS, 1, codes, 0, table, |j, _p, value| {
                        let weight = _mm512_mul_ps(_mm512_sub_ps(value, zero), scale);
                        _mm512_storeu_ps(to.add(j * PANEL), weight);
                    });
                    codes = codes.add(8 * PANEL * BITS / 8);
                    to = to.add(8 * PANEL);
                }
            }
        }
    }
}
