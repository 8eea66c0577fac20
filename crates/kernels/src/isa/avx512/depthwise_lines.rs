//! Depthwise kernels for AVX-512 over lines of output whose pixels lie evenly, f32: up to 12 vectors
//! of a pixel or of several, without a table of addresses.

use std::arch::x86_64::*;

use super::gemm_f32::store;
use crate::depthwise::{DepthwiseLine, MicroDepthwiseLine};

pub(crate) static MICRO: MicroDepthwiseLine = MicroDepthwiseLine { rows: 12, tile };

static ROWS: [unsafe fn(&DepthwiseLine); 12] = [
    rows::<1>, rows::<2>, rows::<3>, rows::<4>, rows::<5>, rows::<6>, rows::<7>, rows::<8>,
    rows::<9>, rows::<10>, rows::<11>, rows::<12>,
];

/// # Safety
/// Needs AVX-512 F; as `DepthwiseLine` describes.
unsafe fn tile(rows: usize, line: &DepthwiseLine) {
    // SAFETY: the caller's promise.
    unsafe { ROWS[rows - 1](line) }
}

/// # Safety
/// As [`tile`]; the masks keep reads within the image.
#[target_feature(enable = "avx512f")]
unsafe fn rows<const ROWS: usize>(call: &DepthwiseLine) {
    let mut sums = [_mm512_setzero_ps(); ROWS];
    // SAFETY: the caller's promise.
    unsafe {
        for &(address, tap) in call.lines {
            let address = address.wrapping_add(call.offset);
            let mut first = std::ptr::with_exposed_provenance::<u8>(address);
            let mut weights = call.weights.add(tap * 16);
            for tap in 0..call.taps {
                let weight = _mm512_loadu_ps(weights);
                let (head, tail) = (*call.ends[0].add(tap), *call.ends[1].add(tap));
                for r in 0..ROWS {
                    let mask = match r {
                        0 if ROWS == 1 => head & tail,
                        0 => head,
                        _ if r + 1 == ROWS => tail,
                        _ => u16::MAX,
                    };
                    let row = first.add(r * call.row_step);
                    let values = _mm512_maskz_loadu_ps(mask, row.cast());
                    sums[r] = _mm512_fmadd_ps(values, weight, sums[r]);
                }
                first = first.wrapping_add(call.tap_step);
                weights = weights.add(16);
            }
        }
        let finish = &call.finish;
        store!(finish, ROWS, 1, |r, _p| sums[r]);
    }
}
