//! Latency of candidates, in rounds with the original, and what it costs.

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
    /// How many times faster than the first that was timed; none for that one.
    pub speedup: Option<Speedup>,
    /// Bytes of the weights and of the arena.
    pub memory_bytes: u64,
}

/// Times sessions on the same `inputs` in interleaved rounds; the first is what the others are
/// compared with.
///
/// # Errors
/// Inputs a session cannot run.
pub fn time(
    sessions: &[&Session],
    inputs: &[Tensor],
    budget: Duration,
) -> Result<Vec<Timing>, NavigateError> {
    let budget = MeasureBudget { time: budget, ..MeasureBudget::default() };
    let mut runs: Vec<_> = sessions
        .iter()
        .map(|session| || -> Result<(), RuntimeError> { session.run(inputs).map(drop) })
        .collect();
    let mut candidates: Vec<&mut dyn FnMut() -> Result<(), RuntimeError>> =
        runs.iter_mut().map(|run| run as &mut dyn FnMut() -> Result<(), RuntimeError>).collect();
    let done = interleaved(&mut candidates, budget)?;
    let timing = |(index, session): (usize, &&Session)| {
        let plan = session.summary(inputs)?;
        Ok(Timing {
            latency: done.latencies[index],
            speedup: if index == 0 { None } else { done.speedup(0, index) },
            memory_bytes: (plan.arena_bytes + plan.weight_bytes) as u64,
        })
    };
    sessions.iter().enumerate().map(timing).collect()
}

/// US dollars per million inferences on `price`'s machine, were its cores as fast as this one's
/// and all busy with runs of `threads` threads for the share `utilisation` of the time.
///
/// # Errors
/// Numbers that make no sense.
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
