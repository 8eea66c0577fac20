//! What can be wrong with a file.

use std::fmt;

use lepton_ir::{GraphError, Problem};

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
        /// Its operator, and the version of the set it belongs to.
        operator: String,
        /// What is wrong, what its inputs are, and what to do.
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
    /// Weights of a file that do not go with a graph: each name that does not fit.
    #[error("the weights do not go with the model:{}", listed(.0))]
    Weights(Vec<String>),
    /// More than one problem, in the order of the file, each of them something else.
    #[error("{} problems:{}", .0.len(), numbered(.0))]
    Several(Vec<FormatError>),
}

/// So many problems of a file are enough to tell.
pub(crate) const MOST_PROBLEMS: usize = 50;

/// One line for each problem.
fn numbered(problems: &[FormatError]) -> String {
    let line = |(index, problem): (usize, &FormatError)| format!("\n  {}. {problem}", index + 1);
    problems.iter().enumerate().map(line).collect()
}

/// One line for each name.
fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("\n  {name}")).collect()
}

/// What helps against a problem of a node.
fn remedy(problem: &Problem) -> &'static str {
    match problem {
        Problem::NotConstant(_) => "fold constants before the export, or fix the input's value",
        Problem::Type { .. } => "cast the operand before this node",
        Problem::Unsupported(_) => {
            "export the model with another operator set, or replace the node"
        }
        _ => "no engine could run this node; correct it or export the model again",
    }
}

impl From<GraphError> for FormatError {
    fn from(error: GraphError) -> Self {
        FormatError::Graph(Box::new(error))
    }
}

impl FormatError {
    /// The problems this stands for: several, or itself.
    pub fn problems(&self) -> &[FormatError] {
        match self {
            FormatError::Several(problems) => problems,
            one => std::slice::from_ref(one),
        }
    }

    /// Nothing, the only problem there is, or several.
    pub(crate) fn of_all(mut problems: Vec<FormatError>) -> Result<(), FormatError> {
        match problems.len() {
            0 => Ok(()),
            1 => Err(problems.remove(0)),
            _ => Err(FormatError::Several(problems)),
        }
    }

    /// The same problem as one of that node of the file, with its operator set and its `inputs`.
    /// What is a problem of a node inside it stays that.
    pub(crate) fn of_node(self, label: &str, operator: &str, inputs: &str) -> Self {
        let inputs = if inputs.is_empty() { "none" } else { inputs };
        let told = |why: String, remedy: &str| FormatError::Node {
            node: label.to_string(),
            operator: operator.to_string(),
            why: format!("{why}; its inputs are {inputs}{remedy}"),
        };
        let beyond = |why: &str| {
            let remedy = remedy(&Problem::Unsupported(String::new()));
            FormatError::Unsupported(format!(
                "node `{label}` ({operator}): {why}; its inputs are {inputs}; {remedy}"
            ))
        };
        match self {
            FormatError::Node { node, why, .. } if node == label => told(why, ""),
            FormatError::Unsupported(why) => beyond(&why),
            FormatError::Graph(error) => match *error {
                GraphError::Node { problem: Problem::Unsupported(why), .. } => beyond(&why),
                GraphError::Node { problem, .. } => {
                    told(problem.to_string(), &format!("; {}", remedy(&problem)))
                }
                other => told(other.to_string(), ""),
            },
            other => other,
        }
    }

    /// True if the file may be right and Lepton does not have what it needs.
    pub fn is_unsupported(&self) -> bool {
        let one = |problem: &FormatError| {
            matches!(problem, FormatError::UnknownOperators(_) | FormatError::Unsupported(_))
        };
        self.problems().iter().all(one)
    }

    /// Shorthand for a tensor's problem.
    pub(crate) fn tensor(name: &str, why: impl Into<String>) -> Self {
        FormatError::Tensor { name: name.to_string(), why: why.into() }
    }
}

/// An error if `found` is more than `limit`.
pub(crate) fn at_most(what: &'static str, found: usize, limit: usize) -> Result<(), FormatError> {
    if found <= limit { Ok(()) } else { Err(FormatError::Limit { what, found, limit }) }
}
