//! What can be wrong with a file.

use std::fmt;

use lepton_ir::GraphError;

/// An operator of a file that Lepton does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownOperator {
    /// Its name.
    pub operator: String,
    /// Its domain; empty for ONNX's own.
    pub domain: String,
    /// The version of the domain's operator set that the file asks for.
    pub version: i64,
    /// The first node that uses it.
    pub node: String,
}

impl fmt::Display for UnknownOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domain = if self.domain.is_empty() { "ai.onnx" } else { &self.domain };
        write!(f, "{} ({domain} {}, node `{}`)", self.operator, self.version, self.node)
    }
}

fn joined(list: &[UnknownOperator]) -> String {
    list.iter().map(UnknownOperator::to_string).collect::<Vec<_>>().join(", ")
}

/// Why bytes are not a model, or a model cannot be written as bytes.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Bytes that do not follow the format.
    #[error("not a valid {format} file: at byte {offset}: {why}; fetch or export the file again")]
    Damaged {
        /// Which format.
        format: &'static str,
        /// Where, in bytes from the start; 0 where the position is not known.
        offset: usize,
        /// What is wrong.
        why: String,
    },
    /// More of something than is accepted.
    #[error("{what} is {found}, more than the limit of {limit}; no known model needs that")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: usize,
        /// How large it may be.
        limit: usize,
    },
    /// Operators that Lepton does not have, each named once.
    #[error("operators not supported: {}; export the model without them", joined(.0))]
    UnknownOperators(Vec<UnknownOperator>),
    /// A node that cannot be translated.
    #[error("node `{node}` ({operator}): {why}")]
    Node {
        /// The node's name.
        node: String,
        /// Its operator.
        operator: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A tensor that cannot be read.
    #[error("tensor `{name}`: {why}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Something valid that Lepton does not read or write.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// A graph that breaks the rules of graphs.
    #[error(transparent)]
    Graph(Box<GraphError>),
}

impl From<GraphError> for FormatError {
    fn from(error: GraphError) -> Self {
        FormatError::Graph(Box::new(error))
    }
}

impl FormatError {
    /// Shorthand for a tensor's problem.
    pub(crate) fn tensor(name: &str, why: impl Into<String>) -> Self {
        FormatError::Tensor { name: name.to_string(), why: why.into() }
    }
}

/// An error if `found` is more than `limit`.
pub(crate) fn at_most(what: &'static str, found: usize, limit: usize) -> Result<(), FormatError> {
    if found <= limit { Ok(()) } else { Err(FormatError::Limit { what, found, limit }) }
}
