//! Why a search could not be done.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NavigateError {
    /// The goal makes no sense.
    #[error("{0}")]
    Goal(String),
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The journal was written by something else.
    #[error(
        "{path}: line {line} is not a journal entry ({why}); move the file away to start afresh"
    )]
    Journal {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The original model does not run on this data.
    #[error("the data does not fit the model: {0}")]
    Inputs(String),
    /// A recipe that cannot be applied.
    #[error(transparent)]
    Compress(#[from] lepton_compress::CompressError),
    /// A graph that cannot be planned or run.
    #[error(transparent)]
    Runtime(#[from] lepton_runtime::RuntimeError),
    /// A graph that cannot be simplified.
    #[error(transparent)]
    Pass(#[from] lepton_passes::PassError),
    /// Data that cannot be read.
    #[error(transparent)]
    Data(#[from] lepton_data::DataError),
    /// A measurement that cannot be made.
    #[error(transparent)]
    Measure(#[from] lepton_measure::MeasureError),
    /// A file format's error.
    #[error(transparent)]
    Format(#[from] lepton_formats::FormatError),
    /// A tensor that cannot be made.
    #[error(transparent)]
    Tensor(#[from] lepton_tensor::TensorError),
}

impl NavigateError {
    /// True where the machine, not the candidate, is to blame: going on would fail again.
    pub(crate) fn is_of_the_machine(&self) -> bool {
        matches!(
            self,
            NavigateError::File { .. } | NavigateError::Data(_) | NavigateError::Journal { .. }
        )
    }

    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |error| NavigateError::File { path, error }
    }
}
