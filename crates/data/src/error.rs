//! Why data could not be read.

use std::path::{Path, PathBuf};

/// Why data could not be read; each message names the file, the place in it and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The system refused a file.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A description that cannot be understood.
    #[error("{}:{line}: {message}", file.display())]
    Description {
        /// The TOML file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, and the nearest known key for an unknown one.
        message: String,
    },
    /// Options that do not fit the source or each other.
    #[error("{}: {message}", file.display())]
    Options {
        /// The source.
        file: PathBuf,
        /// What does not fit, and what to do.
        message: String,
    },
    /// The bytes are not what the kind of file promises.
    #[error("{}: {message}", file.display())]
    Broken {
        /// The file.
        file: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// A value is missing or is not a finite number.
    #[error("{}: row {row}, {column}: {message}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The row: the line from 1 in text files, else the index from 0.
        row: usize,
        /// The column, array or input.
        column: String,
        /// What is wrong with the value.
        message: String,
    },
    /// There are no rows.
    #[error("{}: no rows{hint}", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
        /// Why that may be.
        hint: String,
    },
    /// Something was asked for that needs labels.
    #[error("{}: the data has no labels; {hint}", file.display())]
    MissingLabels {
        /// The file.
        file: PathBuf,
        /// How to name them.
        hint: String,
    },
}

impl DataError {
    pub(crate) fn broken(file: &Path, message: impl ToString) -> Self {
        DataError::Broken { file: file.to_owned(), message: message.to_string() }
    }

    pub(crate) fn options(file: &Path, message: impl ToString) -> Self {
        DataError::Options { file: file.to_owned(), message: message.to_string() }
    }

    /// For `map_err` on what the system says about `file`.
    pub(crate) fn file(file: &Path) -> impl Fn(std::io::Error) -> DataError {
        move |source| DataError::File { file: file.to_owned(), source }
    }
}
