//! The rate of tiles without memory.

use std::arch::asm;

use super::gemm::configure;

/// Rounds of four products of tiles; fewer where each of them may be a signal.
const ROUNDS: usize = if cfg!(feature = "emulated-amx") { 100 } else { 10_000 };
/// Multiply–adds of a call for each element of a row of A.
pub(crate) const MACS_BY_DEPTH: usize = ROUNDS * 4 * 16 * 16;

macro_rules! peak_loop {
    ($name:ident, $product:literal) => {
        /// Four independent products of tiles a round; only called where tiles are available.
        pub(crate) fn $name() {
            // SAFETY: tiles are available, configured first and released last.
            unsafe {
                configure();
                asm!(
                    "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
                    "2:",
                    concat!($product, " tmm0, tmm4, tmm6"),
                    concat!($product, " tmm1, tmm4, tmm7"),
                    concat!($product, " tmm2, tmm5, tmm6"),
                    concat!($product, " tmm3, tmm5, tmm7"),
                    "dec {rounds}", "jnz 2b",
                    "tilerelease",
                    rounds = inout(reg) ROUNDS => _, options(nomem, nostack),
                );
            }
        }
    };
}

peak_loop!(u8s8, "tdpbusd");
peak_loop!(bf16, "tdpbf16ps");
