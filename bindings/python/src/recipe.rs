//! The façade's `compressed` and `coded_bytes` as Python functions.

use lepton::{DType, Error, Recipe, Tensor};
use pyo3::prelude::*;

use crate::arrays;
use crate::errors::raised;
use crate::model::Model;

/// The bytes of the artefact of `model` after a recipe in JSON; `samples` are runs, each a list of one
/// array per input.
#[pyfunction]
pub(crate) fn compressed(
    py: Python<'_>,
    model: &Bound<'_, Model>,
    recipe: &str,
    samples: Vec<Vec<Bound<'_, PyAny>>>,
) -> PyResult<Vec<u8>> {
    let model = model.get().model.clone();
    let recipe: Recipe = serde_json::from_str(recipe)
        .map_err(|error| raised(py, Error::Inputs(format!("not a recipe: {error}"))))?;
    let specs = model.graph().input_specs();
    let run = |arrays: &Vec<Bound<'_, PyAny>>| -> PyResult<Vec<Tensor>> {
        if arrays.len() != specs.len() {
            let (found, wanted) = (arrays.len(), specs.len());
            let message = format!("a sample has {found} arrays, the model {wanted} inputs");
            return Err(raised(py, Error::Inputs(message)));
        }
        let each = arrays.iter().zip(&specs);
        each.map(|(array, (_, fact))| arrays::tensor(array, fact.dtype)).collect()
    };
    let samples = samples.iter().map(run).collect::<PyResult<Vec<_>>>()?;
    py.detach(|| lepton::compressed(&model, &recipe, &samples)).map_err(|error| raised(py, error))
}

/// Bytes that an artefact takes for the values of an int8 array, in the layout of the model's graph.
#[pyfunction]
pub(crate) fn coded_bytes(py: Python<'_>, values: &Bound<'_, PyAny>) -> PyResult<usize> {
    let tensor = arrays::tensor(values, DType::I8)?;
    Ok(py.detach(|| lepton::coded_bytes(&tensor)))
}
