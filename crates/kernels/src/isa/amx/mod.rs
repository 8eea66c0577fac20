//! Kernels on AMX tiles, above AVX-512. Instructions are written as assembly: the compiler knows
//! neither the tiles nor their configuration.

#[cfg(all(feature = "emulated-amx", target_os = "linux"))]
mod emulation;
pub(crate) mod gemm;
pub(crate) mod peak;
pub(crate) mod recurrent;
pub(crate) mod stem;

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

/// Linux's `arch_prctl` and what asks it for a state component.
const ARCH_PRCTL: usize = 158;
const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
/// The state component that holds the tiles.
const TILE_DATA: usize = 18;

/// True if tiles of integers and of bf16 may be used: the processor has them and the system lets this process
/// use them, or they are emulated. Asked where AVX-512 with BF16 is.
#[cfg(target_os = "linux")]
pub(crate) fn available() -> bool {
    if has_tiles() {
        return true;
    }
    #[cfg(feature = "emulated-amx")]
    return emulation::install();
    #[cfg(not(feature = "emulated-amx"))]
    false
}

/// True if tiles of integers and of bf16 may be used.
#[cfg(not(target_os = "linux"))]
pub(crate) fn available() -> bool {
    false
}

/// True if the processor has tiles and the system lets this process use them.
#[cfg(target_os = "linux")]
fn has_tiles() -> bool {
    const TILE_AND_PRODUCTS: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    const TILE_STATES: u32 = 1 << 17 | 1 << 18;
    if __cpuid_count(7, 0).edx & TILE_AND_PRODUCTS != TILE_AND_PRODUCTS {
        return false;
    }
    let (enabled, answer): (u32, usize);
    // SAFETY: a processor with tiles has `xgetbv`, and its system has turned it on; the call
    // changes nothing but what this process may use.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") enabled, out("edx") _, options(nomem, nostack));
        if enabled & TILE_STATES != TILE_STATES {
            return false;
        }
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}
