//! bf16 depthwise kernels for AVX-512 BF16 along a line of output, or two: pairs of lines of the image
//! are multiplied at a time, and a column is read once, for all pixels that it counts in.

use std::arch::x86_64::*;

use super::epilogue::each;
use super::gemm_f32::store;
use super::halves::{first_sums, store_halves};
use crate::depthwise_columns::{ColumnTile, LINE_ROWS, MicroColumns};
use crate::finish::{Gate, InRegisters, Movable};
use crate::tile::BLOCK_STRIDE;

macro_rules! micro {
    ($taps:literal, $step:literal, $sums:literal, $($lines:literal: $pairs:literal)*) => {{
        /// # Safety
        /// As [`lines`].
        unsafe fn tile(pixels: usize, count: usize, tile: &ColumnTile<f32>) {
            // SAFETY: the caller's promise.
            unsafe {
                match count {
                    $($lines => lines::<$taps, $step, $lines, $pairs, $sums>(pixels, tile),)*
                    _ => unreachable!("so many lines"),
                }
            }
        }
        MicroColumns { pixels: usize::MAX, tile }
    }};
}

/// The kernels for `taps` by `taps` taps and pixels `step` columns apart.
pub(crate) fn micro(taps: usize, step: usize) -> Option<MicroColumns<f32>> {
    Some(match (taps, step) {
        (3, 1) => micro!(3, 1, 3, 1: 2 2: 2),
        (3, 2) => micro!(3, 2, 2, 1: 2),
        (5, 1) => micro!(5, 1, 5, 1: 3 2: 3),
        (5, 2) => micro!(5, 2, 3, 1: 3),
        _ => return None,
    })
}

/// Sixteen channels of two lines of the image, interleaved; the second is zeros where there is none.
///
/// # Safety
/// Needs AVX-512 BW and VL. The channels in the mask are readable at the sources, all of them where
/// there is no `TAIL`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn interleaved<const TAIL: bool>(
    first: *const u8,
    second: Option<*const u8>,
    mask: __mmask16,
) -> __m512i {
    let order: [u16; 32] = const {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 32 {
            order[i] = (i % 2 * 16 + i / 2) as u16;
            i += 1;
        }
        order
    };
    // SAFETY: the caller's promise.
    unsafe {
        let order = _mm512_loadu_si512(order.as_ptr().cast());
        let load = |from: *const u8| match TAIL {
            true => _mm256_maskz_loadu_epi16(mask, from.cast()),
            false => _mm256_loadu_epi16(from.cast()),
        };
        let mut rows = _mm512_zextsi256_si512(load(first));
        if let Some(second) = second {
            rows = _mm512_inserti64x4::<1>(rows, load(second));
        }
        _mm512_permutexvar_epi16(order, rows)
    }
}

/// The weights of two rows of a kernel's column, interleaved; rows outside the kernel are zeros.
///
/// # Safety
/// Needs AVX-512 F; the taps' weights are readable.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn pair<const TAPS: usize>(panel: *const u8, column: usize, first: isize) -> __m512i {
    let row = |row: isize| match usize::try_from(row) {
        // SAFETY: the caller's promise.
        Ok(row) if row < TAPS => unsafe {
            _mm512_loadu_si512(panel.add((row * TAPS + column) * 64).cast())
        },
        _ => _mm512_setzero_si512(),
    };
    _mm512_or_si512(_mm512_srli_epi32::<16>(row(first)), row(first + 1))
}

/// The weights of all columns of a kernel, by lines of output.
///
/// # Safety
/// Needs AVX-512 F; the panel's weights are readable.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn columns<const TAPS: usize, const LINES: usize, const PAIRS: usize>(
    panel: *const u8,
) -> [[[__m512i; PAIRS]; TAPS]; LINES] {
    let mut weights = [[[_mm512_setzero_si512(); PAIRS]; TAPS]; LINES];
    for line in 0..LINES {
        for tap in 0..TAPS {
            for i in 0..PAIRS {
                let first = 2 * i as isize - line as isize;
                // SAFETY: the caller's promise.
                weights[line][tap][i] = unsafe { pair::<TAPS>(panel, tap, first) };
            }
        }
    }
    weights
}

/// Sixteen channels of `$pixels` pixels of each line from `$channel` on: `$put` finishes the sum of
/// one, which began as `$bias`. The sums of neighbours pass from column to column; columns beside the
/// image add nothing. A macro, because sums that are passed on leave their registers. Capitals are
/// those of [`lines`].
macro_rules! along {
    (
        $pixels:ident, $tile:ident, $channel:ident, $bias:expr, $tail:ident,
        |$line:ident, $pixel:ident, $sums:ident| $put:block
    ) => {
        let left = $tile.channels - $channel;
        let mask: __mmask16 = if left >= 16 { u16::MAX } else { (1 << left) - 1 };
        let panel = $tile.weights.add($channel / 16 * $tile.panel_bytes);
        let weights = columns::<TAPS, LINES, PAIRS>(panel);
        let (inside, step) = ($tile.inside.clone(), $tile.offsets[1]);
        // Pixels before the first: theirs are only the columns that the first ones need, too.
        let before = (TAPS - STEP).div_ceil(STEP);
        let mut column = (TAPS - STEP).wrapping_sub(before * STEP);
        let offset = step.wrapping_mul(column).wrapping_add($channel * 2);
        let mut sources = $tile.sources.map(|source| source.wrapping_add(offset));
        let first: [__m512; 1] = $bias;
        let mut all = [[first; LINES]; SUMS];
        for at in 0..$pixels + before {
            for m in 0..STEP {
                if inside.contains(&column) {
                    let mut values = [_mm512_setzero_si512(); PAIRS];
                    for i in 0..PAIRS {
                        let second = (2 * i + 1 < TAPS + LINES - 1).then(|| sources[2 * i + 1]);
                        values[i] = interleaved::<$tail>(sources[2 * i], second, mask);
                    }
                    for k in 0..SUMS {
                        let tap = (TAPS - STEP + m).wrapping_sub(k * STEP);
                        if tap < TAPS {
                            for line in 0..LINES {
                                for i in 0..PAIRS {
                                    // A register of bf16 pairs and one of integers are the same bits.
                                    all[k][line] = [_mm512_dpbf16_ps(
                                        all[k][line][0],
                                        std::mem::transmute::<__m512i, __m512bh>(values[i]),
                                        std::mem::transmute::<__m512i, __m512bh>(
                                            weights[line][tap][i],
                                        ),
                                    )];
                                }
                            }
                        }
                    }
                }
                column = column.wrapping_add(1);
                for source in &mut sources {
                    *source = source.wrapping_add(step);
                }
            }
            if at >= before {
                let $pixel = at - before;
                each!($line in 0 1 => {
                    if $line < LINES {
                        let mut $sums = [all[0][$line]];
                        $put
                    }
                });
            }
            for k in 1..SUMS {
                all[k - 1] = all[k];
            }
            all[SUMS - 1] = [first; LINES];
        }
    };
}

/// Some channels whose results are bf16 and whose sums are not multiplied before their `GATE`.
///
/// # Safety
/// As [`lines`]; `finish` is that of the tile.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn plain<
    const TAPS: usize,
    const STEP: usize,
    const LINES: usize,
    const PAIRS: usize,
    const SUMS: usize,
    const GATE: u8,
    const TAIL: bool,
>(
    pixels: usize,
    tile: &ColumnTile<f32>,
    channel: usize,
    finish: [&InRegisters; 2],
) {
    let gate = match GATE {
        OPEN => Gate::Open,
        HARD => Gate::Hard,
        _ => Gate::Sigmoid,
    };
    let known = |finish: &InRegisters| {
        let mut known = InRegisters {
            alpha: 1.0,
            gate,
            half_result: true,
            residual: std::ptr::null(),
            addend: std::ptr::null(),
            ..*finish
        };
        known.right(channel);
        InRegisters { columns: if TAIL { known.columns } else { 16 }, ..known }
    };
    let mut finish = finish.map(known);
    // SAFETY: the caller's promise; the mask keeps a tail within its channels.
    unsafe {
        let bias = first_sums!(Some(&finish[0]), 1);
        along!(pixels, tile, channel, bias, TAIL, |line, _pixel, sums| {
            let end = &mut finish[line];
            store_halves!(end, 1, 1, sums);
            end.below(1);
        });
    }
}

/// Some channels, however they are finished.
///
/// # Safety
/// As [`lines`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn any<
    const TAPS: usize,
    const STEP: usize,
    const LINES: usize,
    const PAIRS: usize,
    const SUMS: usize,
>(
    pixels: usize,
    tile: &ColumnTile<f32>,
    channel: usize,
) {
    let mut finish = tile.finish;
    finish.iter_mut().flatten().for_each(|finish| finish.right(channel));
    const TAIL: bool = true;
    // SAFETY: the caller's promise; the mask keeps a tail within its channels.
    unsafe {
        let bias = first_sums!(&finish[0], 1);
        along!(pixels, tile, channel, bias, TAIL, |line, pixel, sums| {
            if let Some(end) = &mut finish[line] {
                if end.half_result {
                    store_halves!(end, 1, 1, sums);
                } else {
                    store!(end, 1, 1, |r, p| sums[r][p]);
                }
                end.below(1);
            } else {
                let row = (line * LINE_ROWS + pixel) * BLOCK_STRIDE;
                _mm512_storeu_ps(tile.accumulators.add(row + channel), sums[0][0]);
            }
        });
    }
}

const OPEN: u8 = Gate::Open as u8;
const HARD: u8 = Gate::Hard as u8;
const SIGMOID: u8 = Gate::Sigmoid as u8;

/// All channels of `pixels` neighbours, `STEP` columns apart, in `LINES` lines of output; kernels of
/// `TAPS` by `TAPS` taps, which read `PAIRS` times two lines of the image. A column counts in `SUMS`
/// pixels at most.
///
/// # Safety
/// Needs AVX-512 F, BW, DQ, VL and BF16. Pixels, padding and weights are readable for all channels,
/// what is finished is there, accumulators are writable where nothing is.
unsafe fn lines<
    const TAPS: usize,
    const STEP: usize,
    const LINES: usize,
    const PAIRS: usize,
    const SUMS: usize,
>(
    pixels: usize,
    tile: &ColumnTile<f32>,
) {
    for channel in (0..tile.channels).step_by(16) {
        let tail = tile.channels - channel < 16;
        macro_rules! plain {
            ($ends:expr, $gate:ident) => {
                match tail {
                    false => plain::<TAPS, STEP, LINES, PAIRS, SUMS, $gate, false>(
                        pixels, tile, channel, $ends,
                    ),
                    true => plain::<TAPS, STEP, LINES, PAIRS, SUMS, $gate, true>(
                        pixels, tile, channel, $ends,
                    ),
                }
            };
        }
        // SAFETY: the caller's promise.
        unsafe {
            match &tile.finish {
                [Some(first), Some(second)]
                    if first.half_result && first.alpha == 1.0 && first.gate != Gate::Normal =>
                {
                    match first.gate {
                        Gate::Hard => plain!([first, second], HARD),
                        Gate::Sigmoid => plain!([first, second], SIGMOID),
                        _ => plain!([first, second], OPEN),
                    }
                }
                _ => any::<TAPS, STEP, LINES, PAIRS, SUMS>(pixels, tile, channel),
            }
        }
    }
}
