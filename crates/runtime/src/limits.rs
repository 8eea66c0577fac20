//! How near a step comes to what the machine can do.

use lepton_ir::Op;
use lepton_kernels::{Isa, peak};
use lepton_tensor::DType;

use crate::trace::StepProfile;

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
    /// Reading its bytes from the cache that cores share.
    FarCache,
    /// Reading its bytes from beyond.
    Memory,
}

impl Limit {
    /// The name users see.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Arithmetic => "arithmetic",
            Limit::Cache => "cache",
            Limit::FarCache => "far cache",
            Limit::Memory => "memory",
        }
    }
}

/// What the machine can do at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Of one core.
    pub core: peak::Peaks,
    /// Threads whose arithmetic and private caches add up; what lies beyond is shared.
    pub threads: usize,
    /// Bytes of all weights, each of which a run reads once.
    pub weight_bytes: u64,
}

impl Limits {
    /// Measures this machine for a model with so many bytes of weights.
    pub fn measure(isa: Isa, threads: usize, weight_bytes: u64) -> Self {
        Limits { core: peak::measure(isa), threads, weight_bytes }
    }

    /// The share (1 is the limit) a step reaches, and of which limit: the one that would take
    /// longest. Weights come from the nearest memory that holds those of the whole model, other
    /// operands from the nearest that holds those of the step. A step whose operands are nearer, or
    /// were brought near during the one before, can be above 1.
    pub fn share(&self, step: &StepProfile) -> (f64, Limit) {
        let runs = step.runs.max(1);
        let macs = self.threads as f64
            * match step.arithmetic {
                Arithmetic::F32 => self.core.f32,
                Arithmetic::Bf16 => self.core.bf16,
                Arithmetic::Integer => self.core.u8s8,
            };
        let least_us = |amount: u64, rate: f64| 1e6 * amount as f64 / rate;
        let others = step.bytes.saturating_sub(step.constant_bytes);
        // Weights that a step reads again and again are near after the first time.
        let weights = if runs > 1 { step.constant_bytes / runs } else { self.weight_bytes };
        let (weights_from, others_from) = (self.memory(weights), self.memory(others / runs));
        let weights_us = least_us(step.constant_bytes, weights_from.1);
        let others_us = least_us(others, others_from.1);
        let slower = if weights_us > others_us { weights_from.0 } else { others_from.0 };
        let (compute, move_) = (least_us(step.multiply_adds, macs), weights_us + others_us);
        let (least, limit) =
            if compute >= move_ { (compute, Limit::Arithmetic) } else { (move_, slower) };
        (least / step.time_us.max(1e-3), limit)
    }

    /// The nearest memory that holds so many bytes, and bytes a second from there.
    fn memory(&self, bytes: u64) -> (Limit, f64) {
        if bytes <= peak::CACHED as u64 {
            (Limit::Cache, self.threads as f64 * self.core.cached_bytes)
        } else if bytes <= peak::FAR_CACHED as u64 {
            (Limit::FarCache, self.core.far_cached_bytes)
        } else {
            (Limit::Memory, self.core.streamed_bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_two_limits_counts() {
        let core = peak::Peaks {
            f32: 1e9,
            bf16: 1e9,
            u8s8: 4e9,
            cached_bytes: 1e9,
            far_cached_bytes: 2e8,
            streamed_bytes: 1e8,
        };
        let limits = Limits { core, threads: 1, weight_bytes: 100 << 20 };
        let step = |multiply_adds, bytes| StepProfile {
            node: String::new(),
            op: String::new(),
            kernel: "",
            runs: 1,
            start_us: 0.0,
            time_us: 2000.0,
            multiply_adds,
            bytes,
            constant_bytes: 0,
            arithmetic: Arithmetic::F32,
        };
        assert_eq!(limits.share(&step(1_000_000, 1000)), (0.5, Limit::Arithmetic));
        assert_eq!(limits.share(&step(1000, 200_000)), (0.1, Limit::Cache));
        assert_eq!(limits.share(&step(1000, 400_000)), (1.0, Limit::FarCache));
        assert_eq!(limits.share(&step(1000, 40_000_000)), (200.0, Limit::Memory));
        let weights = StepProfile { constant_bytes: 100_000, ..step(1000, 200_000) };
        assert_eq!(limits.share(&weights), (0.55, Limit::Memory));
        // Ten runs of operands that are near.
        let again = StepProfile { runs: 10, ..step(1000, 400_000) };
        assert_eq!(limits.share(&again), (0.2, Limit::Cache));
    }
}
