//! The rate of integer tiles without memory.

use std::arch::asm;

use super::gemm_u8s8::configure;

/// Rounds of four products of tiles.
pub(crate) const ROUNDS: usize = 10_000;

/// Four independent products of tiles a round; only called where tiles are available.
pub(crate) fn u8s8() {
    // SAFETY: tiles are available, configured first and released last.
    unsafe {
        configure();
        asm!(
            "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
            "2:",
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "dec {rounds}", "jnz 2b",
            "tilerelease",
            rounds = inout(reg) ROUNDS => _, options(nomem, nostack),
        );
    }
}
