//! The native half of the Python package `lepton-ai`: the façade's types as Python classes, NumPy
//! arrays as tensors, errors as exceptions. It decides nothing; what is convenient is Python.

#![allow(clippy::result_large_err)]

mod arrays;
mod errors;
mod model;
mod pair;
mod recipe;
mod search;
mod session;

use pyo3::prelude::*;

/// `lepton_ai._native`.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<model::Model>()?;
    module.add_class::<session::Session>()?;
    module.add_function(wrap_pyfunction!(recipe::compressed, module)?)?;
    module.add_function(wrap_pyfunction!(recipe::coded_bytes, module)?)?;
    module.add_function(wrap_pyfunction!(pair::paired, module)?)?;
    module.add_function(wrap_pyfunction!(search::optimize, module)?)?;
    module.add_function(wrap_pyfunction!(search::evaluate, module)?)?;
    module.add_function(wrap_pyfunction!(search::metrics, module)?)?;
    module.add_function(wrap_pyfunction!(search::targets, module)?)
}
