//! The façade's `Session` as a Python class.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Instant;

use lepton::{DType, Error, SessionOptions, Tensor};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use crate::arrays;
use crate::errors::{exception, raised};
use crate::model::Model;

/// An input or output of the model.
struct Port {
    name: Py<PyString>,
    dtype: DType,
    /// The fact in words, for messages.
    text: String,
}

/// Milliseconds between two looks at the interpreter's signals during a run. One that is done sooner is
/// not worth the interpreter lock.
const LOOK_EVERY_MS: u64 = 50;

/// Hears of signals during a run.
struct Watch {
    caller: ThreadId,
    begun: Instant,
    /// Milliseconds from then to the next look.
    next_ms: AtomicU64,
    signalled: Mutex<Option<PyErr>>,
}

impl Watch {
    fn new() -> Self {
        Watch {
            caller: thread::current().id(),
            begun: Instant::now(),
            next_ms: AtomicU64::new(LOOK_EVERY_MS),
            signalled: Mutex::new(None),
        }
    }

    /// False once there was a signal. The interpreter tells only its main thread of them.
    fn goes_on(&self) -> bool {
        let now_ms = self.begun.elapsed().as_millis() as u64;
        if now_ms < self.next_ms.load(Ordering::Relaxed) || thread::current().id() != self.caller {
            return true;
        }
        self.next_ms.store(now_ms + LOOK_EVERY_MS, Ordering::Relaxed);
        let Err(error) = Python::attach(|py| py.check_signals()) else { return true };
        *self.signalled.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
        false
    }

    fn signalled(self) -> Option<PyErr> {
        self.signalled.into_inner().unwrap_or_else(|e| e.into_inner())
    }
}

/// A model ready to run. May be used from several threads at once.
#[pyclass(subclass, frozen, module = "lepton_ai._native")]
pub(crate) struct Session {
    session: lepton::Session,
    model: Arc<lepton::Model>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    threads: usize,
    exact: bool,
}

#[pymethods]
impl Session {
    #[new]
    #[pyo3(signature = (model, threads=1, exact=false))]
    fn new(
        py: Python<'_>,
        model: &Bound<'_, Model>,
        threads: usize,
        exact: bool,
    ) -> PyResult<Self> {
        if threads == 0 || threads > 1024 {
            let message = format!("threads is {threads}; it must be from 1 to 1024");
            return Err(raised(py, Error::Inputs(message)));
        }
        let model = model.get().model.clone();
        let options = SessionOptions { threads, exact, ..SessionOptions::default() };
        let session = py.detach(|| model.session(options));
        let session = session.map_err(|error| raised(py, error))?;
        let ports = |specs: Vec<(String, lepton::Fact)>| {
            let port = |(name, fact): (String, lepton::Fact)| Port {
                name: PyString::intern(py, &name).unbind(),
                dtype: fact.dtype,
                text: fact.to_string(),
            };
            specs.into_iter().map(port).collect::<Vec<_>>()
        };
        let inputs = ports(model.graph().input_specs());
        let outputs = ports(model.graph().output_specs());
        Ok(Session { session, model, inputs, outputs, threads, exact })
    }

    #[getter]
    fn model(&self) -> Model {
        Model { model: self.model.clone() }
    }

    #[getter]
    fn threads(&self) -> usize {
        self.threads
    }

    #[getter]
    fn exact(&self) -> bool {
        self.exact
    }

    #[getter]
    fn instruction_set(&self) -> &'static str {
        self.session.isa().name()
    }

    /// Runs the model; the interpreter lock is released meanwhile, and signals end the run.
    fn run<'py>(&self, inputs: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
        let py = inputs.py();
        let tensors = self.tensors(inputs)?;
        let (outputs, signalled) = py.detach(|| {
            let watch = Watch::new();
            let outputs = self.session.run_while(&tensors, &|| watch.goes_on());
            (outputs, watch.signalled())
        });
        if let Some(signalled) = signalled {
            return Err(signalled);
        }
        self.named(py, outputs.map_err(|error| raised(py, error.into()))?)
    }

    /// The steps of one run: (node, operator, kernel, start in µs, time in µs, multiply-adds, bytes).
    #[pyo3(signature = (inputs=None))]
    fn profile_steps<'py>(
        &self,
        py: Python<'py>,
        inputs: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let tensors = match inputs {
            Some(inputs) => self.tensors(inputs)?,
            None => lepton::sample_inputs(self.model.graph(), &[]).map_err(|e| raised(py, e))?,
        };
        // Once before, so that planning and first touches of memory are not in the times.
        let profiled = py.detach(|| {
            self.session.run(&tensors)?;
            self.session.profile(&tensors)
        });
        let (_, steps) = profiled.map_err(|error| raised(py, error.into()))?;
        let rows = steps
            .into_iter()
            .map(|s| (s.node, s.op, s.kernel, s.start_us, s.time_us, s.multiply_adds, s.bytes));
        PyList::new(py, rows.collect::<Vec<_>>())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let session = slf.get();
        let arguments = (session.model(), session.threads, session.exact);
        (slf.get_type(), arguments).into_pyobject(slf.py())
    }
}

impl Session {
    /// One tensor per input of the model, in its order.
    fn tensors(&self, inputs: &Bound<'_, PyAny>) -> PyResult<Vec<Tensor>> {
        let py = inputs.py();
        let Ok(named) = inputs.cast::<PyDict>() else {
            let [port] = self.inputs.as_slice() else {
                let message = format!(
                    "the model has {} inputs: {}; they must be given by name",
                    self.inputs.len(),
                    self.names(py)
                );
                let help = "run({name: array, …})".to_owned();
                return Err(exception(py, "InputNameError", message, help));
            };
            return Ok(vec![self.tensor(port, inputs)?]);
        };
        let mut tensors = Vec::with_capacity(self.inputs.len());
        for port in &self.inputs {
            let Some(value) = named.get_item(port.name.bind(py))? else {
                return Err(self.wrong_names(named, port.name.bind(py)));
            };
            tensors.push(self.tensor(port, &value)?);
        }
        if named.len() != tensors.len() {
            let known = |key: &Bound<'_, PyAny>| {
                self.inputs.iter().any(|port| key.eq(port.name.bind(py)).unwrap_or(false))
            };
            let other = named.keys().iter().find(|key| !known(key));
            let other = other.map_or_else(String::new, |key| key.to_string());
            let message =
                format!("the model has no input `{other}`; its inputs are {}", self.names(py));
            return Err(exception(py, "InputNameError", message, "leave it out".to_owned()));
        }
        Ok(tensors)
    }

    fn tensor(&self, port: &Port, value: &Bound<'_, PyAny>) -> PyResult<Tensor> {
        let tensor = arrays::tensor(value, port.dtype)?;
        if tensor.dtype() == port.dtype {
            return Ok(tensor);
        }
        let (py, wanted) = (value.py(), arrays::name(port.dtype));
        let message = format!(
            "input `{}` takes {wanted} ({}); the array is {}",
            port.name.bind(py),
            port.text,
            arrays::name(tensor.dtype())
        );
        let help = format!("convert it: array.astype(\"{wanted}\")");
        Err(exception(py, "InputTypeError", message, help))
    }

    fn wrong_names(&self, named: &Bound<'_, PyDict>, missing: &Bound<'_, PyString>) -> PyErr {
        let py = named.py();
        let given: Vec<String> = named.keys().iter().map(|key| format!("`{key}`")).collect();
        let given = if given.is_empty() { "none".to_owned() } else { given.join(", ") };
        let message = format!("input `{missing}` is missing; given: {given}");
        let help = format!("the model's inputs are {}", self.names(py));
        exception(py, "InputNameError", message, help)
    }

    fn names(&self, py: Python<'_>) -> String {
        let name = |port: &Port| format!("`{}`", port.name.bind(py));
        self.inputs.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    fn named<'py>(&self, py: Python<'py>, tensors: Vec<Tensor>) -> PyResult<Bound<'py, PyDict>> {
        let answer = PyDict::new(py);
        for (port, tensor) in self.outputs.iter().zip(tensors) {
            answer.set_item(port.name.bind(py), arrays::array(py, tensor)?)?;
        }
        Ok(answer)
    }
}
