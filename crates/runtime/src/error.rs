//! What can go wrong between a graph and its answer.

use lepton_ir::GraphError;
use lepton_passes::PassError;
use lepton_tensor::TensorError;

/// Why a graph could not be planned or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The inputs do not fit, or a node cannot be evaluated.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// A tensor cannot be made.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The plan needs more memory than there may be.
    #[error("running this model needs an arena of {needed} bytes; the limit is {limit}")]
    Memory {
        /// Bytes it needs.
        needed: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Whoever ran it asked for an end.
    #[error("the run was stopped")]
    Stopped,
    /// The data of an operand are not what the operator can take.
    #[error("node `{node}`: {why}")]
    Data {
        /// The node.
        node: String,
        /// What is wrong with them.
        why: String,
    },
    /// A weight cannot be brought into the form a kernel takes.
    #[error("node `{node}`: {why}")]
    Kernel {
        /// The node.
        node: String,
        /// What the kernel refuses.
        why: String,
    },
}
