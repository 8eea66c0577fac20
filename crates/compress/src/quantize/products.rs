//! Matrix products with constant weights in their one form, `Linear`.

use lepton_ir::Graph;
use lepton_passes::{pipelines, run_pipeline};

use crate::error::CompressError;

/// The graph with its `MatMul` and `Gemm` nodes over constant weights as `Linear`, biases joined.
pub(crate) fn linear(graph: &Graph) -> Result<Graph, CompressError> {
    let mut graph = graph.clone();
    run_pipeline(pipelines::PRODUCTS, &mut graph)?;
    Ok(graph)
}

/// [`linear`], and sums behind products are theirs.
pub(crate) fn with_sums(graph: &Graph) -> Result<Graph, CompressError> {
    let mut graph = graph.clone();
    run_pipeline(pipelines::SUMS, &mut graph)?;
    Ok(graph)
}
