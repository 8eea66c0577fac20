//! The façade's `side_by_side` as a Python function.

use std::path::PathBuf;

use lepton::{Conditions, Error, sample_inputs, side_by_side};
use pyo3::prelude::*;

use crate::errors::raised;
use crate::model::Model;
use crate::search::{price, seconds};

/// Time, memory, cost and bytes of two models, measured in interleaved rounds on made-up inputs of
/// one row; JSON.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(crate) fn paired(
    py: Python<'_>,
    before: &Bound<'_, Model>,
    after: &Bound<'_, Model>,
    threads: usize,
    time_s: f64,
    instance: &str,
    prices: Option<PathBuf>,
    utilisation: f64,
) -> PyResult<String> {
    let (before, after) = (before.get().model.clone(), after.get().model.clone());
    let measured = py.detach(|| -> Result<_, Error> {
        let inputs = sample_inputs(before.graph(), &[])?;
        let conditions = Conditions {
            threads,
            budget: seconds("time_s", time_s)?,
            price: price(instance, prices.as_deref())?,
            utilisation,
        };
        side_by_side(&before, &after, &inputs, &conditions)
    });
    let sides = measured.map_err(|error| raised(py, error))?;
    Ok(serde_json::to_string(&sides).expect("times are JSON"))
}
