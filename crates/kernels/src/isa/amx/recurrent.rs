//! A state by a recurrent matrix of bf16 on AMX tiles. The state is three rows of A, whose sum it is
//! to the last bit, so that the product costs no precision and every line of the matrix is loaded
//! once.

use std::arch::asm;
use std::arch::x86_64::*;

use super::gemm::Configuration;

/// Parts of a state: 24 bits in threes of eight.
pub(crate) const PARTS: usize = 3;
/// Elements of K in a tile.
pub(crate) const TILE: usize = 32;

static CONFIGURATION: Configuration = Configuration::of_rows(PARTS);

/// Makes the tiles such as [`products`] needs them.
///
/// # Safety
/// [`super::available`] was true.
pub(crate) unsafe fn configure() {
    // SAFETY: the caller's promise.
    unsafe { CONFIGURATION.load() };
}

/// Ends what [`configure`] began.
///
/// # Safety
/// As [`configure`].
pub(crate) unsafe fn release() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tilerelease", options(nomem, nostack)) };
}

/// Writes the parts of a state as bf16, row by row.
///
/// # Safety
/// Needs AVX-512; `parts` has room for [`PARTS`] rows as long as the state, a multiple of 16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(crate) unsafe fn split(state: &[f32], parts: *mut u16) {
    let high = _mm512_set1_epi32(0xffff_0000u32 as i32);
    for i in (0..state.len()).step_by(16) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut left = _mm512_loadu_ps(state.as_ptr().add(i));
            for part in 0..PARTS {
                let taken = _mm512_and_si512(_mm512_castps_si512(left), high);
                let halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(taken));
                _mm256_storeu_si256(parts.add(part * state.len() + i).cast(), halves);
                left = _mm512_sub_ps(left, _mm512_castsi512_ps(taken));
            }
        }
    }
}

/// The loop over tiles of K for some gates.
macro_rules! gates_loop {
    ($parts:ident, $row:ident, $first:ident, $gate:ident, $tiles:ident, $sums:ident: $($last:literal)*) => {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a} + {row}*1]",
            "tileloaddt1 tmm5, [{b} + {line}*1]",
            "tdpbf16ps tmm0, tmm4, tmm5",
            "lea {next}, [{b} + {gate}]",
            "tileloaddt1 tmm6, [{next} + {line}*1]",
            "tdpbf16ps tmm1, tmm4, tmm6",
            "add {next}, {gate}",
            "tileloaddt1 tmm7, [{next} + {line}*1]",
            "tdpbf16ps tmm2, tmm4, tmm7",
            $($last,)*
            "add {a}, 64", "add {b}, 1024",
            "dec {tiles}", "jnz 2b",
            "tilestored [{sums} + {line}*1], tmm0",
            "tilestored [{sums} + {line}*1 + 192], tmm1",
            "tilestored [{sums} + {line}*1 + 384], tmm2",
            "tilestored [{sums} + {line}*1 + 576], tmm3",
            a = inout(reg) $parts => _, row = in(reg) $row, b = inout(reg) $first => _,
            gate = in(reg) $gate, next = out(reg) _, tiles = inout(reg) $tiles => _,
            line = in(reg) 64usize, sums = in(reg) $sums, options(nostack),
        )
    };
}

/// Products of the parts with three or four gates of a block of 16 units, `[gate][part][16]`; the
/// fourth is zero where there are three.
///
/// # Safety
/// [`configure`] was called. `parts` are of `tiles` times [`TILE`] elements; the lines of the gates,
/// `gate_bytes` apart, are readable.
pub(crate) unsafe fn products(
    parts: *const u16,
    tiles: usize,
    first: *const u8,
    gate_bytes: usize,
    four: bool,
    sums: &mut [[[f32; 16]; PARTS]; 4],
) {
    let row = tiles * TILE * 2;
    // SAFETY: the caller's promise; three rows of 64 bytes for each of four gates are written.
    unsafe {
        if four {
            gates_loop!(parts, row, first, gate_bytes, tiles, sums:
                "add {next}, {gate}" "tileloaddt1 tmm5, [{next} + {line}*1]" "tdpbf16ps tmm3, tmm4, tmm5");
        } else {
            gates_loop!(parts, row, first, gate_bytes, tiles, sums:);
        }
    }
}
