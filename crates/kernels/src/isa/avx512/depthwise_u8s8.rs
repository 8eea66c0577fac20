//! u8 × s8 depthwise kernels for AVX-512 VNNI: up to 4 pixels by 64 channels.

use std::arch::x86_64::*;

use crate::depthwise::{DepthwiseRun, Interleave, MicroDepthwiseU8S8};
use crate::tile::BLOCK_STRIDE;

pub(crate) static MICRO: MicroDepthwiseU8S8 = MicroDepthwiseU8S8 { interleave, run };

/// # Safety
/// Needs AVX-512 BW. As `Interleave` describes.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn interleave(call: &Interleave) {
    // SAFETY: the caller's promise.
    unsafe {
        match call.channels.div_ceil(16) {
            1 => interleave_panels::<1>(call),
            2 => interleave_panels::<2>(call),
            3 => interleave_panels::<3>(call),
            _ => interleave_panels::<4>(call),
        }
    }
}

/// # Safety
/// As [`interleave`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn interleave_panels<const PANELS: usize>(call: &Interleave) {
    let mask: __mmask64 = if call.channels >= 64 { u64::MAX } else { (1 << call.channels) - 1 };
    // Unpacking works within 128-bit lanes: with the double words transposed first, the four
    // results hold sixteen neighbouring channels each, in order.
    let transposed = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let mut sources = call.sources;
    let mut target = call.target;
    for _ in 0..call.pixels {
        let mut rows = [_mm512_setzero_si512(); 4];
        for i in 0..4 {
            // SAFETY: masked to the source's channels.
            let bytes = unsafe { _mm512_maskz_loadu_epi8(mask, sources[i].cast()) };
            rows[i] = _mm512_permutexvar_epi32(transposed, bytes);
            sources[i] = sources[i].wrapping_add(call.steps[i]);
        }
        let low = [_mm512_unpacklo_epi8(rows[0], rows[1]), _mm512_unpacklo_epi8(rows[2], rows[3])];
        let high = [_mm512_unpackhi_epi8(rows[0], rows[1]), _mm512_unpackhi_epi8(rows[2], rows[3])];
        let lines = [
            _mm512_unpacklo_epi16(low[0], low[1]),
            _mm512_unpackhi_epi16(low[0], low[1]),
            _mm512_unpacklo_epi16(high[0], high[1]),
            _mm512_unpackhi_epi16(high[0], high[1]),
        ];
        for p in 0..PANELS {
            // SAFETY: the target has whole panels for the channels.
            unsafe { _mm512_storeu_si512(target.add(p * 64).cast(), lines[p]) };
        }
        target = target.wrapping_add(call.target_step);
    }
}

/// # Safety
/// Needs AVX-512 VNNI; as `DepthwiseRun` describes.
unsafe fn run(call: &DepthwiseRun) {
    // SAFETY: the caller's promise.
    unsafe {
        match call.panels {
            1 => run_panels::<1>(call),
            2 => run_panels::<2>(call),
            3 => run_panels::<3>(call),
            _ => run_panels::<4>(call),
        }
    }
}

/// # Safety
/// As [`run`].
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn run_panels<const PANELS: usize>(call: &DepthwiseRun) {
    let mut pixel = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while pixel + 4 <= call.pixels {
            tile::<4, PANELS>(call, pixel);
            pixel += 4;
        }
        match call.pixels - pixel {
            0 => {}
            1 => tile::<1, PANELS>(call, pixel),
            2 => tile::<2, PANELS>(call, pixel),
            _ => tile::<3, PANELS>(call, pixel),
        }
    }
}

/// # Safety
/// As [`run`].
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn tile<const ROWS: usize, const PANELS: usize>(call: &DepthwiseRun, pixel: usize) {
    let mut sums = [[_mm512_setzero_si512(); PANELS]; ROWS];
    // SAFETY: the caller's promise.
    unsafe {
        let mut weight_line = call.weights;
        for column in 0..call.kernel_columns {
            let mut from = call.slots.add(pixel * call.pixel_bytes + column * call.column_bytes);
            for _ in 0..call.groups {
                let mut weights = [_mm512_setzero_si512(); PANELS];
                for p in 0..PANELS {
                    let line = weight_line.add(p * call.panel_bytes);
                    weights[p] = _mm512_loadu_si512(line.cast());
                }
                for r in 0..ROWS {
                    for p in 0..PANELS {
                        let line = from.add(r * call.pixel_bytes + p * 64);
                        let values = _mm512_loadu_si512(line.cast());
                        sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], values, weights[p]);
                    }
                }
                weight_line = weight_line.add(64);
                from = from.add(PANELS * 64);
            }
        }
        for r in 0..ROWS {
            for p in 0..PANELS {
                let to = call.accumulators.add((pixel + r) * BLOCK_STRIDE + p * 16);
                _mm512_storeu_epi32(to, sums[r][p]);
            }
        }
    }
}
