//! Latency of a candidate, in rounds with the original.

use std::time::Duration;

use lepton_measure::{Latency, MeasureBudget, Price, Speedup, interleaved, usd_per_million};
use lepton_runtime::{RuntimeError, Session};
use lepton_tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::NavigateError;

/// Time of a run, and how it compares with the original's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Time of a run.
    pub latency: Latency,
    /// How many times faster than the original; none for the original itself.
    pub speedup: Option<Speedup>,
    /// Bytes of the weights and of the arena.
    pub memory_bytes: u64,
}

/// Times `session` on `inputs`, interleaved with `original` where there is one.
pub fn time(
    session: &Session,
    original: Option<&Session>,
    inputs: &[Tensor],
    budget: Duration,
) -> Result<Timing, NavigateError> {
    let budget = MeasureBudget { time: budget, ..MeasureBudget::default() };
    let mut run_candidate = || -> Result<(), RuntimeError> { session.run(inputs).map(drop) };
    let plan = session.summary(inputs)?;
    let memory_bytes = (plan.arena_bytes + plan.weight_bytes) as u64;
    let Some(original) = original else {
        let done = interleaved(&mut [&mut run_candidate], budget)?;
        return Ok(Timing { latency: done.latencies[0], speedup: None, memory_bytes });
    };
    let mut run_original = || -> Result<(), RuntimeError> { original.run(inputs).map(drop) };
    let done = interleaved(&mut [&mut run_original, &mut run_candidate], budget)?;
    Ok(Timing { latency: done.latencies[1], speedup: done.speedup(0, 1), memory_bytes })
}

/// US dollars per million inferences on `price`'s machine, were its cores as fast as this one's
/// and all busy with runs of `threads` threads for the share `utilisation` of the time.
pub fn cost_usd(
    price: &Price,
    latency_us: f64,
    samples_per_run: usize,
    threads: usize,
    utilisation: f64,
) -> Result<f64, NavigateError> {
    // Two hardware threads share a core on x86.
    let cores = if price.arch == "x86_64" { price.vcpu.div_ceil(2) } else { price.vcpu } as usize;
    let at_once = (cores / threads.max(1)).max(1);
    let rate = at_once as f64 * samples_per_run as f64 / (latency_us / 1e6);
    Ok(usd_per_million(price.usd_hour, rate, utilisation)?)
}
