//! What can be wrong with a graph or a node.

use lepton_tensor::{DType, TensorError};

/// Why an operator cannot be inferred, evaluated or built. The caller adds which node it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// An input that the operator needs is not connected.
    #[error("input {index} (`{name}`) is missing")]
    MissingInput {
        /// Position.
        index: usize,
        /// The name in the operator's documentation.
        name: &'static str,
    },
    /// More or fewer inputs or outputs than the operator takes.
    #[error("takes {expected} {what}, found {found}")]
    Count {
        /// `inputs` or `outputs`.
        what: &'static str,
        /// Allowed number, in words.
        expected: String,
        /// Number there are.
        found: usize,
    },
    /// Shapes that do not fit together.
    #[error("{0}")]
    Shape(String),
    /// An element type the operator does not take.
    #[error("{what} must be {expected}, found {found}")]
    Type {
        /// Which operand.
        what: String,
        /// Types that are allowed, in words.
        expected: String,
        /// The type it has.
        found: DType,
    },
    /// An attribute that is missing, of the wrong kind or out of range.
    #[error("attribute `{name}`: {why}")]
    Attribute {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A value that is not allowed (an index out of range, a negative size).
    #[error("{0}")]
    Value(String),
    /// An operand that must be known before the model runs is not.
    #[error("`{0}` must be a constant or follow from shapes")]
    NotConstant(&'static str),
    /// Valid, but not something Lepton does.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// A tensor that cannot be made.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl Problem {
    /// Shorthand for a shape problem.
    pub fn shape(why: impl Into<String>) -> Self {
        Problem::Shape(why.into())
    }

    /// Shorthand for a value problem.
    pub fn value(why: impl Into<String>) -> Self {
        Problem::Value(why.into())
    }

    /// Shorthand for an attribute problem.
    pub fn attribute(name: impl Into<String>, why: impl Into<String>) -> Self {
        Problem::Attribute { name: name.into(), why: why.into() }
    }

    /// Shorthand for a type problem.
    pub fn dtype(what: impl Into<String>, expected: impl Into<String>, found: DType) -> Self {
        Problem::Type { what: what.into(), expected: expected.into(), found }
    }
}

/// What is wrong with a graph, and where.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// A node cannot be inferred or evaluated.
    #[error("node `{node}` ({op}): {problem}; its inputs are {inputs}")]
    Node {
        /// The node's name.
        node: String,
        /// Its operator.
        op: String,
        /// Types and shapes of its inputs.
        inputs: String,
        /// What is wrong.
        problem: Problem,
    },
    /// A broken invariant of the graph.
    #[error("invalid graph: {0}")]
    Structure(String),
    /// An input was not given, or has the wrong type or shape.
    #[error("input `{name}`: {why}")]
    Input {
        /// The input's name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A text that is not a graph.
    #[error("line {line}: {why}")]
    Text {
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}
