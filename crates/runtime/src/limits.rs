//! How near a step comes to what the machine can do.

use lepton_ir::Op;
use lepton_kernels::{Isa, peak};
use lepton_tensor::DType;

use crate::session::StepProfile;

/// The kind of multiply–adds of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// f32.
    F32,
    /// Products of bf16, sums in f32.
    Bf16,
    /// Products of bytes, sums in s32.
    Integer,
}

impl Arithmetic {
    /// By the operator and the type of its weights.
    pub(crate) fn of(op: &Op, weights: Option<DType>) -> Self {
        match op {
            Op::IntegerConv(_) | Op::IntegerLinear(_) => Arithmetic::Integer,
            Op::DynamicConv(_) | Op::DynamicLinear(_) => Arithmetic::Integer,
            _ if weights == Some(DType::BF16) => Arithmetic::Bf16,
            _ => Arithmetic::F32,
        }
    }
}

/// What a step is limited by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Multiply–adds.
    Arithmetic,
    /// Reading its bytes from a private cache.
    Cache,
    /// Reading its bytes from beyond.
    Memory,
}

impl Limit {
    /// The name users see.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Arithmetic => "arithmetic",
            Limit::Cache => "cache",
            Limit::Memory => "memory",
        }
    }
}

/// What the machine can do at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Of one core.
    pub core: peak::Peaks,
    /// Threads whose arithmetic and caches add up; what lies beyond is shared.
    pub threads: usize,
}

impl Limits {
    /// Measures this machine.
    pub fn measure(isa: Isa, threads: usize) -> Self {
        Limits { core: peak::measure(isa), threads }
    }

    /// The share (1 is the limit) a step reaches, and of which limit: the one that would take
    /// longest. Steps whose bytes are in a nearer cache than assumed can be above 1.
    pub fn share(&self, step: &StepProfile) -> (f64, Limit) {
        let threads = self.threads as f64;
        let macs = threads
            * match step.arithmetic {
                Arithmetic::F32 => self.core.f32,
                Arithmetic::Bf16 => self.core.bf16,
                Arithmetic::Integer => self.core.u8s8,
            };
        let (bytes, place) = if step.bytes <= peak::CACHED as u64 {
            (threads * self.core.cached_bytes, Limit::Cache)
        } else {
            (self.core.streamed_bytes, Limit::Memory)
        };
        let least_us = |amount: u64, rate: f64| 1e6 * amount as f64 / rate;
        let (compute, move_) = (least_us(step.multiply_adds, macs), least_us(step.bytes, bytes));
        let (least, limit) =
            if compute >= move_ { (compute, Limit::Arithmetic) } else { (move_, place) };
        (least / step.time_us.max(1e-3), limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_two_limits_counts() {
        let core =
            peak::Peaks { f32: 1e9, bf16: 1e9, u8s8: 4e9, cached_bytes: 1e9, streamed_bytes: 1e8 };
        let limits = Limits { core, threads: 1 };
        let step = |multiply_adds, bytes| StepProfile {
            node: String::new(),
            op: String::new(),
            kernel: "",
            start_us: 0.0,
            time_us: 2000.0,
            multiply_adds,
            bytes,
            arithmetic: Arithmetic::F32,
        };
        assert_eq!(limits.share(&step(1_000_000, 1000)), (0.5, Limit::Arithmetic));
        assert_eq!(limits.share(&step(1000, 200_000)), (0.1, Limit::Cache));
        assert_eq!(limits.share(&step(1000, 400_000)), (2.0, Limit::Memory));
    }
}
