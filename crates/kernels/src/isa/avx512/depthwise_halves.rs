//! bf16 depthwise kernels for AVX-512 BF16 over neighbours in a line of output: pairs of lines of the
//! image are multiplied at a time.

use std::arch::x86_64::*;

use super::columns::{by_pixels, by_size, micro};
use super::depthwise_shared::store_rows;
use super::epilogue::each;
use crate::depthwise_columns::{ColumnTile, LINE_ROWS, MicroColumns};
use crate::tile::BLOCK_STRIDE;

by_size!(f32, 2, 3, false, 1 2 3 4);

/// Sixteen channels of two lines of the image, interleaved; the second is zeros where there is none.
///
/// # Safety
/// Needs AVX-512 BW and VL. The channels in the mask are readable at the sources.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn interleaved(first: *const u8, second: Option<*const u8>, mask: __mmask16) -> __m512i {
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
        let load = |from: *const u8| match mask {
            u16::MAX => _mm256_loadu_epi16(from.cast()),
            _ => _mm256_maskz_loadu_epi16(mask, from.cast()),
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

/// Sixteen channels of a column of pixels, two lines of the image at a time.
///
/// # Safety
/// As [`neighbours`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn pixels<const PAIRS: usize>(
    tile: &ColumnTile<f32>,
    (at, channel): (usize, usize),
    image_lines: usize,
    mask: __mmask16,
) -> [__m512i; PAIRS] {
    let mut values = [_mm512_setzero_si512(); PAIRS];
    if !tile.inside.contains(&at) {
        let pixel = tile.padding.wrapping_add(channel * 2);
        // SAFETY: the caller's promise.
        return [unsafe { interleaved(pixel, Some(pixel), mask) }; PAIRS];
    }
    let source = |line: usize| tile.sources[line].wrapping_add(tile.offsets[at] + channel * 2);
    for i in 0..PAIRS {
        let second = (2 * i + 1 < image_lines).then(|| source(2 * i + 1));
        // SAFETY: the caller's promise.
        values[i] = unsafe { interleaved(source(2 * i), second, mask) };
    }
    values
}

/// All channels of `PIXELS` neighbours, `STEP` columns apart, in `LINES` lines of output; kernels of
/// `TAPS` by `TAPS` taps, which read `PAIRS` times two lines of the image.
///
/// # Safety
/// Needs AVX-512 F, BW, DQ, VL and BF16. Pixels, padding and weights are readable for all channels,
/// what is finished is there, accumulators are writable where nothing is.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn neighbours<
    const TAPS: usize,
    const STEP: usize,
    const LINES: usize,
    const PAIRS: usize,
    const PIXELS: usize,
>(
    tile: &ColumnTile<f32>,
) {
    for channel in (0..tile.channels).step_by(16) {
        let left = tile.channels - channel;
        let mask: __mmask16 = if left >= 16 { u16::MAX } else { (1 << left) - 1 };
        let mut sums = [[_mm512_setzero_ps(); PIXELS]; LINES];
        // SAFETY: the caller's promise; the mask keeps a tail within its channels. A register of
        // bf16 pairs and one of integers are the same bits.
        unsafe {
            let panel = tile.weights.add(channel / 16 * tile.panel_bytes);
            let weights = columns::<TAPS, LINES, PAIRS>(panel);
            each!(at in 0 1 2 3 4 5 6 7 8 9 10 11 => {
                if at < (PIXELS - 1) * STEP + TAPS {
                    let values = pixels::<PAIRS>(tile, (at, channel), TAPS + LINES - 1, mask);
                    each!(pixel in 0 1 2 3 4 5 6 7 => {
                        if pixel < PIXELS && at >= pixel * STEP && at - pixel * STEP < TAPS {
                            for line in 0..LINES {
                                for i in 0..PAIRS {
                                    let taps = weights[line][at - pixel * STEP][i];
                                    sums[line][pixel] = _mm512_dpbf16_ps(
                                        sums[line][pixel],
                                        std::mem::transmute::<__m512i, __m512bh>(values[i]),
                                        std::mem::transmute::<__m512i, __m512bh>(taps),
                                    );
                                }
                            }
                        }
                    });
                }
            });
            for line in 0..LINES {
                match &tile.finish[line] {
                    Some(finish) => {
                        store_rows!(finish, channel, mask, PIXELS, sums[line]);
                    }
                    None => {
                        let to = tile.accumulators.add(line * LINE_ROWS * BLOCK_STRIDE);
                        for r in 0..PIXELS {
                            _mm512_storeu_ps(to.add(r * BLOCK_STRIDE + channel), sums[line][r]);
                        }
                    }
                }
            }
        }
    }
}
