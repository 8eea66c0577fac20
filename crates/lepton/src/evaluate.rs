//! Accuracy of a session over a data set.

use lepton_data::Subset;
use lepton_measure::{Accumulator, Evaluation, Metric};
use lepton_runtime::Session;
use lepton_tensor::Tensor;

use crate::error::Error;

/// An evaluation and how it was made.
pub struct Evaluated {
    /// The metric with its interval, and what paired tests need.
    pub evaluation: Evaluation,
    /// Samples that ran.
    pub samples: usize,
}

/// Runs `session` over the subset in batches of `batch` (falling back to what the model takes) and
/// accumulates the metric over its first output.
pub fn evaluate(
    session: &Session,
    subset: &Subset,
    metric: &'static Metric,
    batch: usize,
    mut progress: impl FnMut(usize),
) -> Result<Evaluated, Error> {
    let specs = session.lowered().input_specs();
    let names: Vec<&str> = specs.iter().map(|(name, _)| name.as_str()).collect();
    let subset = subset.for_inputs(&names)?;
    if metric.needs_labels() {
        subset.require_labels()?;
    }
    let fixed = specs.first().and_then(|(_, fact)| fact.dims.first()?.as_usize());
    let mut accumulator = Accumulator::new(metric);
    let mut samples = 0;
    for part in subset.batches(fixed.unwrap_or(batch)) {
        let part = part?;
        let inputs = ordered(&names, &part.inputs)?;
        let rows = inputs.first().and_then(|t| t.shape().first().copied()).unwrap_or(0);
        let outputs = session.run(&inputs)?;
        let output = outputs.first().ok_or_else(|| Error::Inputs("no outputs".into()))?;
        accumulator.update(output, part.labels.as_ref())?;
        samples += rows;
        progress(samples);
    }
    Ok(Evaluated { evaluation: accumulator.finish()?, samples })
}

fn ordered(names: &[&str], given: &[(String, Tensor)]) -> Result<Vec<Tensor>, Error> {
    let find = |name: &&str| {
        let found = given.iter().find(|(given, _)| given == name);
        found
            .map(|(_, tensor)| tensor.clone())
            .ok_or_else(|| Error::Inputs(format!("the data has no array for input `{name}`")))
    };
    names.iter().map(find).collect()
}
