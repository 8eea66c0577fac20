//! Errors of the façade as the exceptions of `lepton_ai.errors`.

use lepton::{Error, FormatError, GraphError, NavigateError, RuntimeError};
use pyo3::prelude::*;

/// An instance of the exception `class` of `lepton_ai.errors`; `help` says what to do.
pub(crate) fn exception(py: Python<'_>, class: &str, message: String, help: String) -> PyErr {
    let made = || py.import("lepton_ai.errors")?.getattr(class)?.call1((message, help));
    match made() {
        Ok(instance) => PyErr::from_value(instance),
        Err(error) => error,
    }
}

/// The exception for an error of the façade.
pub(crate) fn raised(py: Python<'_>, error: Error) -> PyErr {
    let (class, help) = class_and_help(&error);
    exception(py, class, error.to_string(), help.to_owned())
}

fn class_and_help(error: &Error) -> (&'static str, &'static str) {
    match error {
        Error::File { .. } => ("FileError", "check that the file exists and may be read"),
        Error::UnknownFormat { .. } => {
            ("ModelError", "give an .onnx, .tflite or .lepton file, or export the model to ONNX")
        }
        Error::Format { error, .. } => of_format(error),
        Error::Runtime(error) => of_runtime(error),
        Error::Data(_) => ("DataError", "see the data description the message names"),
        Error::Measure(_) => ("UsageError", "lepton_ai.metrics() lists what can be measured"),
        Error::Navigate(error) => of_search(error),
        Error::Inputs(_) => ("UsageError", ""),
        _ => ("RunError", ""),
    }
}

fn of_format(error: &FormatError) -> (&'static str, &'static str) {
    if error.is_unsupported() {
        ("UnsupportedError", "export the model without what the message names")
    } else {
        ("ModelError", "export or download the model again")
    }
}

fn of_runtime(error: &RuntimeError) -> (&'static str, &'static str) {
    match error {
        RuntimeError::Graph(GraphError::Input { .. }) => {
            ("InputShapeError", "Session.inputs gives the shapes; equal names are equal extents")
        }
        RuntimeError::Memory { .. } => ("RunError", "run fewer rows at a time"),
        _ => ("RunError", "Session.inputs says what the model takes"),
    }
}

fn of_search(error: &NavigateError) -> (&'static str, &'static str) {
    match error {
        NavigateError::Goal(_) => ("UsageError", "see help(lepton_ai.optimize)"),
        NavigateError::Inputs(_) => {
            ("DataError", "the arrays' names, types and row shapes must be the model's inputs'")
        }
        NavigateError::Data(_) => ("DataError", "see the data description the message names"),
        NavigateError::Measure(_) => ("UsageError", "lepton_ai.metrics() lists the metrics"),
        NavigateError::File { .. } => ("FileError", "check that `out` may be written"),
        NavigateError::Journal { .. } => ("FileError", "choose another `out`, or move it away"),
        NavigateError::Runtime(error) => of_runtime(error),
        NavigateError::Format(error) => of_format(error),
        _ => ("RunError", ""),
    }
}
