//! Instruction sets: detection, forcing by name, and one folder of kernels for each.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod portable;

use std::fmt;
use std::sync::OnceLock;

/// What a processor can do, as a ladder: each rung includes those below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Level {
    Portable,
    Avx2,
    Avx512,
    Amx,
}

/// A token that proves the running machine has an instruction set.
///
/// It can only be had from [`Isa::best`], [`Isa::available`] or [`Isa::named`], which ask the
/// processor; holding one is what makes calls into `#[target_feature]` code sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Isa {
    level: Level,
    bf16: bool,
    vbmi: bool,
}

impl Isa {
    /// Plain Rust, on any machine.
    pub const PORTABLE: Isa = Isa { level: Level::Portable, bf16: false, vbmi: false };

    /// The widest set this machine has.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| *Self::available().last().expect("the portable set is always there"))
    }

    /// Every set this machine has, narrowest first.
    pub fn available() -> Vec<Isa> {
        let mut sets = vec![Isa::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                sets.push(Isa { level: Level::Avx2, bf16: false, vbmi: false });
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
            {
                let vectors = Isa {
                    level: Level::Avx512,
                    bf16: is_x86_feature_detected!("avx512bf16"),
                    vbmi: is_x86_feature_detected!("avx512vbmi"),
                };
                sets.push(vectors);
                if vectors.bf16 && amx::available() {
                    sets.push(Isa { level: Level::Amx, ..vectors });
                }
            }
        }
        sets
    }

    /// The set of that name (`portable`, `avx2`, `avx512`, `amx`), if this machine has it.
    pub fn named(name: &str) -> Option<Isa> {
        Self::available().into_iter().find(|isa| isa.name() == name)
    }

    /// The name users see.
    pub fn name(self) -> &'static str {
        match self.level {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Amx => "amx",
        }
    }

    /// True if AVX2, FMA and F16C may be used.
    pub fn has_avx2(self) -> bool {
        self.level >= Level::Avx2
    }

    /// True if AVX-512 F, BW, DQ, VL and VNNI may be used.
    pub fn has_avx512(self) -> bool {
        self.level >= Level::Avx512
    }

    /// True if AMX's tiles of integers and of bf16 may be used.
    pub fn has_amx(self) -> bool {
        self.level >= Level::Amx
    }

    /// True if AVX-512 BF16 (`vdpbf16ps`) may be used.
    pub fn has_bf16(self) -> bool {
        self.bf16
    }

    /// True if AVX-512 VBMI (`vpermi2b`) may be used.
    pub fn has_vbmi(self) -> bool {
        self.vbmi
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_sets() {
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()), Some(isa));
        }
        assert_eq!(Isa::named("no such set"), None);
    }
}
