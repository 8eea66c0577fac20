//! One error for every step from a file to an answer.

use std::path::PathBuf;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file that is not a model Lepton knows.
    #[error("{path}: {what}")]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What it seems to be, and what makes a model of it.
        what: String,
    },
    /// A model file that cannot be read.
    #[error("{path}: {error}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: lepton_formats::FormatError,
    },
    /// A model that cannot be planned or run.
    #[error(transparent)]
    Runtime(#[from] lepton_runtime::RuntimeError),
    /// A data set that cannot be read.
    #[error(transparent)]
    Data(#[from] lepton_data::DataError),
    /// A measurement that cannot be made.
    #[error(transparent)]
    Measure(#[from] lepton_measure::MeasureError),
    /// A search that could not be done.
    #[error(transparent)]
    Navigate(#[from] lepton_navigate::NavigateError),
    /// Inputs and model do not go together.
    #[error("{0}")]
    Inputs(String),
    /// A tensor that cannot be made.
    #[error(transparent)]
    Tensor(#[from] lepton_tensor::TensorError),
}

impl Error {
    /// The exit code of the command line: 3 for an invalid model, 5 for an unsupported one, 2
    /// for wrong usage, 1 for anything else.
    pub fn exit_code(&self) -> u8 {
        use lepton_ir::GraphError;
        use lepton_navigate::NavigateError;
        use lepton_runtime::RuntimeError;
        match self {
            Error::Format { error, .. } if error.is_unsupported() => 5,
            Error::Format { .. } => 3,
            Error::UnknownFormat { .. } => 3,
            Error::Inputs(_) => 2,
            Error::Runtime(RuntimeError::Graph(GraphError::Input { .. })) => 2,
            Error::Data(error) => data_code(error),
            Error::Measure(error) => measure_code(error),
            Error::Navigate(error) => match error {
                NavigateError::Goal(_) | NavigateError::Inputs(_) => 2,
                NavigateError::Data(error) => data_code(error),
                NavigateError::Runtime(RuntimeError::Graph(GraphError::Input { .. })) => 2,
                NavigateError::Measure(error) => measure_code(error),
                _ => 1,
            },
            _ => 1,
        }
    }
}

/// Data that do not answer the request are wrong usage; broken files are failures.
fn data_code(error: &lepton_data::DataError) -> u8 {
    use lepton_data::DataError;
    match error {
        DataError::MissingLabels { .. } | DataError::Options { .. } => 2,
        _ => 1,
    }
}

fn measure_code(error: &lepton_measure::MeasureError) -> u8 {
    use lepton_measure::MeasureError;
    match error {
        MeasureError::UnknownMetric { .. } | MeasureError::Argument(_) => 2,
        MeasureError::MissingLabels { .. } | MeasureError::PriceList(_) => 2,
        _ => 1,
    }
}
