//! u8 × s8 depthwise kernels for AVX-512 VNNI and VBMI over neighbours in a line of output.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::columns::{by_pixels, by_size, micro};
use super::epilogue::{byte_factors, each, first_integers, store_bytes, store_integers};
use crate::depthwise_columns::{ColumnTile, Here, LINE_ROWS, MicroColumns};
use crate::finish::{Movable, OfIntegers};
use crate::tile::BLOCK_STRIDE;

by_size!(i32, 1, 2, 1 2 3 4 5 6 7 8);

/// Sixteen channels of four lines of the image, a double word for each channel.
///
/// # Safety
/// Needs AVX-512 BW, VL and VBMI. The channels in the mask are readable at the first `LINES`
/// sources.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
unsafe fn interleaved(sources: [*const u8; 4], lines: usize, mask: __mmask16) -> __m512i {
    let order: [u8; 64] = const {
        let mut order = [0; 64];
        let mut i = 0;
        while i < 64 {
            order[i] = (i % 4 * 16 + i / 4) as u8;
            i += 1;
        }
        order
    };
    // SAFETY: the caller's promise.
    unsafe {
        let order = _mm512_loadu_si512(order.as_ptr().cast());
        let load = |line: usize| match mask {
            u16::MAX => _mm_loadu_epi8(sources[line].cast()),
            _ => _mm_maskz_loadu_epi8(mask, sources[line].cast()),
        };
        let mut rows = _mm512_zextsi128_si512(load(0));
        if lines > 1 {
            rows = _mm512_inserti32x4::<1>(rows, load(1));
        }
        if lines > 2 {
            rows = _mm512_inserti32x4::<2>(rows, load(2));
        }
        if lines > 3 {
            rows = _mm512_inserti32x4::<3>(rows, load(3));
        }
        _mm512_permutexvar_epi8(order, rows)
    }
}

/// The weights of a kernel's column for a line of output: those of the second line are one line
/// of the image further down.
///
/// # Safety
/// Needs AVX-512 F; `GROUPS` lines of weights are readable.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn column<const GROUPS: usize>(from: *const u8, line: usize) -> [__m512i; GROUPS] {
    let mut weights = [_mm512_setzero_si512(); GROUPS];
    for g in 0..GROUPS {
        // SAFETY: the caller's promise.
        weights[g] = unsafe { _mm512_loadu_si512(from.add(g * 64).cast()) };
    }
    if line == 0 {
        return weights;
    }
    let mut moved = [_mm512_setzero_si512(); GROUPS];
    for g in 0..GROUPS {
        moved[g] = _mm512_slli_epi32::<8>(weights[g]);
        if g > 0 {
            moved[g] = _mm512_or_si512(moved[g], _mm512_srli_epi32::<24>(weights[g - 1]));
        }
    }
    moved
}

/// The weights of all columns of a kernel.
///
/// # Safety
/// Needs AVX-512 F; the panel's lines are readable.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn columns<const TAPS: usize, const LINES: usize, const GROUPS: usize>(
    panel: *const u8,
) -> [[[__m512i; GROUPS]; TAPS]; LINES] {
    let mut weights = [[[_mm512_setzero_si512(); GROUPS]; TAPS]; LINES];
    for line in 0..LINES {
        for tap in 0..TAPS {
            // SAFETY: the caller's promise.
            weights[line][tap] = unsafe { column::<GROUPS>(panel.add(tap * GROUPS * 64), line) };
        }
    }
    weights
}

/// Sixteen channels of a column of pixels, four lines of the image at a time.
///
/// # Safety
/// As [`neighbours`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
unsafe fn pixels<const GROUPS: usize>(
    here: &Here,
    (at, offset): (usize, usize),
    image_lines: usize,
    mask: __mmask16,
) -> [__m512i; GROUPS] {
    let mut values = [_mm512_setzero_si512(); GROUPS];
    if !here.inside.contains(&at) {
        let pixel = [here.padding; 4];
        // SAFETY: the caller's promise.
        return [unsafe { interleaved(pixel, 4, mask) }; GROUPS];
    }
    for g in 0..GROUPS {
        let mut sources = [here.padding; 4];
        for i in 0..4 {
            let line = g * 4 + i;
            if line < image_lines {
                sources[i] = here.sources[line].wrapping_add(offset);
            }
        }
        // SAFETY: the caller's promise.
        values[g] = unsafe { interleaved(sources, (image_lines - g * 4).min(4), mask) };
    }
    values
}

/// Adds the products of sixteen channels of one tile to `$sums`: a macro, because sums that are passed
/// on leave their registers. Capitals are those of [`neighbours`].
macro_rules! add_products {
    ($sums:ident, $here:ident, $tile:ident, $weights:ident, $mask:ident) => {
        // Otherwise every pixel of the image gets a pointer of its own that moves from tile to tile.
        let offsets = black_box(&$tile.offsets);
        each!(at in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 => {
            if at < (PIXELS - 1) * STEP + TAPS {
                let lines = TAPS + LINES - 1;
                let values = pixels::<GROUPS>(&$here, (at, offsets[at]), lines, $mask);
                each!(pixel in 0 1 2 3 4 5 6 7 => {
                    let tap = at.wrapping_sub(pixel * STEP);
                    if pixel < PIXELS && tap < TAPS {
                        for line in 0..LINES {
                            for g in 0..GROUPS {
                                let (sum, taps) = ($sums[line][pixel][0], $weights[line][tap][g]);
                                $sums[line][pixel] = [_mm512_dpbusd_epi32(sum, values[g], taps)];
                            }
                        }
                    }
                });
            }
        });
    };
}

/// All channels of `PIXELS` neighbours, `STEP` columns apart, in `LINES` lines of output, and of the
/// tiles beside them; kernels of `TAPS` by `TAPS` taps, which read `GROUPS` times four lines of the
/// image.
///
/// # Safety
/// Needs AVX-512 F, BW, DQ, VL, VNNI and VBMI. Pixels, padding and weights are readable for all
/// channels, what is finished is there, accumulators are writable where nothing is.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi")]
unsafe fn neighbours<
    const TAPS: usize,
    const STEP: usize,
    const LINES: usize,
    const GROUPS: usize,
    const PIXELS: usize,
>(
    tile: &ColumnTile<i32>,
) {
    let bytes = match &tile.finish {
        [Some(OfIntegers::Bytes(above)), Some(OfIntegers::Bytes(below))] => Some([*above, *below]),
        _ => None,
    };
    for channel in (0..tile.channels).step_by(16) {
        let left = tile.channels - channel;
        let mask: __mmask16 = if left >= 16 { u16::MAX } else { (1 << left) - 1 };
        // SAFETY: the caller's promise; the mask keeps a tail within its channels.
        unsafe {
            let panel = tile.weights.add(channel / 16 * tile.panel_bytes);
            let weights = columns::<TAPS, LINES, GROUPS>(panel);
            macro_rules! tiles {
                ($first:expr, |$line:ident, $sums:ident, $place:ident| $put:block) => {
                    let first = $first;
                    let mut here = Here::of(tile, channel);
                    for $place in 0..tile.tiles {
                        let mut sums = [[first; PIXELS]; LINES];
                        add_products!(sums, here, tile, weights, mask);
                        each!($line in 0 1 => {
                            if $line < LINES {
                                let mut $sums = sums[$line];
                                $put
                            }
                        });
                        here.advance(tile, PIXELS * STEP);
                    }
                };
            }
            if let Some([mut above, mut below]) = bytes {
                above.right(channel);
                below.right(channel);
                let bias = [_mm512_maskz_loadu_epi32(mask, above.bias)];
                let factors = byte_factors!(above, 1);
                tiles!(bias, |line, sums, _place| {
                    let end = if line == 0 { &mut above } else { &mut below };
                    store_bytes!(end, factors, PIXELS, 1, sums);
                    end.below(PIXELS);
                });
            } else {
                let mut finish = tile.finish;
                finish.iter_mut().flatten().for_each(|finish| finish.right(channel));
                tiles!(first_integers!(&finish[0], 1), |line, sums, place| {
                    let mut end = finish[line];
                    end.iter_mut().for_each(|end| end.below(place * PIXELS));
                    if !store_integers!(end, PIXELS, 1, sums) {
                        let to = tile.accumulators.add(line * LINE_ROWS * BLOCK_STRIDE);
                        for r in 0..PIXELS {
                            let to = to.add(r * BLOCK_STRIDE + channel);
                            _mm512_storeu_epi32(to, sums[r][0]);
                        }
                    }
                });
            }
        }
    }
}
