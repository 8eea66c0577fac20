//! What can go wrong while a graph is compressed.

use lepton_ir::GraphError;
use lepton_passes::PassError;
use lepton_runtime::RuntimeError;
use lepton_tensor::TensorError;

/// Why a graph could not be compressed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// The graph refuses an edit, or the samples do not fit its inputs.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The samples could not be run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A tensor cannot be made.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The samples hold, or lead to, something that is not a number.
    #[error(
        "activation `{value}` of node `{node}` is not finite in calibration batch {batch}: \
         check the samples and their preprocessing"
    )]
    NotFinite {
        /// The activation.
        value: String,
        /// The node that makes it; `input` for inputs of the graph.
        node: String,
        /// The batch, from 0.
        batch: usize,
    },
    /// Nothing was observed about an activation that is to be quantised.
    #[error(
        "no range is known for activation `{value}` of node `{node}`: calibrate on the graph that \
         is quantised"
    )]
    NoRange {
        /// The activation.
        value: String,
        /// The node that makes it; `input` for inputs of the graph.
        node: String,
    },
    /// A method needs samples and got none.
    #[error("{what} needs samples, and there are none")]
    NoSamples {
        /// What needs them.
        what: &'static str,
    },
    /// The source of the samples failed.
    #[error("calibration samples: {0}")]
    Samples(String),
    /// There is no such method.
    #[error("there is no method `{name}`; there are {known}")]
    UnknownMethod {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A parameter of a method is unknown or has a bad value.
    #[error("method `{method}`, parameter `{parameter}`: {why}")]
    Parameter {
        /// The method.
        method: String,
        /// The parameter.
        parameter: String,
        /// What is wrong.
        why: String,
    },
}
