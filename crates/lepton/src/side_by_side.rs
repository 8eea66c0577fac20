//! Two models measured side by side.

use std::time::Duration;

use lepton_measure::Price;
use lepton_navigate::{Timing, cost_usd, time};
use lepton_runtime::SessionOptions;
use lepton_tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::model::Model;

/// What one of the two takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Time of a run, and of the second how many times faster it is than the first.
    pub timing: Timing,
    /// US dollars per million samples.
    pub cost_usd_per_million: f64,
    /// Bytes of the file it was read from.
    pub file_bytes: usize,
}

/// How two models are run and priced.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// Threads of a run, the calling one included.
    pub threads: usize,
    /// Time for the two together, in interleaved rounds.
    pub budget: Duration,
    /// The machine that is paid for.
    pub price: Price,
    /// Share of the time the machine is busy, above 0 and up to 1.
    pub utilisation: f64,
}

/// Times `before` and `after` on the same inputs in interleaved rounds on this machine.
///
/// # Errors
/// Models that do not run on `inputs`, and conditions that make no sense.
pub fn side_by_side(
    before: &Model,
    after: &Model,
    inputs: &[Tensor],
    conditions: &Conditions,
) -> Result<[Side; 2], Error> {
    let options =
        || SessionOptions { threads: conditions.threads.max(1), ..SessionOptions::default() };
    let (first, second) = (before.session(options())?, after.session(options())?);
    let timings = time(&[&first, &second], inputs, conditions.budget)?;
    let rows = inputs.first().and_then(|t| t.shape().first().copied()).unwrap_or(1).max(1);
    let side = |model: &Model, timing: Timing| -> Result<Side, Error> {
        let Conditions { price, threads, utilisation, .. } = conditions;
        let cost = cost_usd(price, timing.latency.p50_us, rows, *threads, *utilisation)?;
        Ok(Side { timing, cost_usd_per_million: cost, file_bytes: model.file_bytes() })
    };
    let [one, other] = <[Timing; 2]>::try_from(timings).expect("a timing for each of two");
    Ok([side(before, one)?, side(after, other)?])
}
