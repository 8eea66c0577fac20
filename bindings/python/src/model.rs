//! The façade's `Model` as a Python class.

use std::path::PathBuf;
use std::sync::Arc;

use lepton::{Dim, Fact};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::arrays;
use crate::errors::raised;

/// A model that was read and verified. Immutable; may be used from several threads.
#[pyclass(frozen, module = "lepton_ai._native")]
pub(crate) struct Model {
    pub(crate) model: Arc<lepton::Model>,
}

#[pymethods]
impl Model {
    /// Reads an `.onnx`, `.tflite` or `.lepton` file.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let model = py.detach(|| lepton::Model::open(path)).map_err(|e| raised(py, e))?;
        Ok(Model { model: Arc::new(model) })
    }

    /// Reads a model from the bytes of such a file; `name` stands for the file in messages.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, name: PathBuf, bytes: &Bound<'_, PyBytes>) -> PyResult<Self> {
        let bytes = bytes.as_bytes().to_vec();
        let model = py.detach(|| lepton::Model::from_bytes(name, bytes));
        Ok(Model { model: Arc::new(model.map_err(|e| raised(py, e))?) })
    }

    #[getter]
    fn path(&self) -> String {
        self.model.path().to_string_lossy().into_owned()
    }

    #[getter]
    fn format(&self) -> &'static str {
        self.model.format()
    }

    #[getter]
    fn file_bytes(&self) -> usize {
        self.model.file_bytes()
    }

    #[getter]
    fn content_hash(&self, py: Python<'_>) -> String {
        py.detach(|| self.model.content_hash())
    }

    #[getter]
    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        specs(py, self.model.graph().input_specs())
    }

    #[getter]
    fn outputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        specs(py, self.model.graph().output_specs())
    }

    /// The graph in its text form.
    fn __str__(&self) -> String {
        lepton::print_graph(self.model.graph())
    }

    fn __repr__(&self) -> String {
        format!("Model('{}', {} bytes)", self.path(), self.model.file_bytes())
    }

    /// By its bytes, so that it can go to another machine; by its path where tensors lie beside it.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let class = py.get_type::<Model>();
        let path = self.model.path().to_path_buf();
        if self.model.file_bytes() != self.model.bytes().len() {
            return (class.getattr("open")?, (path,)).into_pyobject(py);
        }
        let bytes = PyBytes::new(py, self.model.bytes());
        (class.getattr("from_bytes")?, (path, bytes)).into_pyobject(py)
    }
}

/// `lepton_ai.TensorSpec` of each: name, NumPy type, extents. An extent is a number, the name or
/// formula of one that the inputs decide, or `None` where the data decide.
fn specs(py: Python<'_>, specs: Vec<(String, Fact)>) -> PyResult<Bound<'_, PyList>> {
    let class = py.import("lepton_ai._arrays")?.getattr("TensorSpec")?;
    let list = PyList::empty(py);
    for (name, fact) in specs {
        let dims = fact.dims.iter().map(|dim| extent(py, dim)).collect::<PyResult<Vec<_>>>()?;
        let shape = PyTuple::new(py, dims)?;
        list.append(class.call1((name, arrays::name(fact.dtype), shape))?)?;
    }
    Ok(list)
}

fn extent<'py>(py: Python<'py>, dim: &Dim) -> PyResult<Bound<'py, PyAny>> {
    match dim.as_known() {
        Some(known) => Ok(known.into_pyobject(py)?.into_any()),
        None if dim.is_unknown() => Ok(py.None().into_bound(py)),
        None => Ok(dim.to_string().into_pyobject(py)?.into_any()),
    }
}
