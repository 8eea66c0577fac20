//! Two versions of a model side by side.

use lepton_data::Subset;
use lepton_ir::Graph;
use lepton_measure::{LayerDifference, MeasureError, compare_layers};
use lepton_navigate::{Feed, NavigateError};
use lepton_passes::{pipelines, run_pipeline};
use lepton_runtime::{RuntimeError, Session, SessionOptions};
use lepton_tensor::Tensor;

use crate::error::Error;
use crate::model::Model;

/// How `second` differs from `first`, layer by layer, on the first `samples` rows; in execution
/// order. Both are simplified first, so that a folded layer has the name it folded into.
pub fn diff(
    first: &Model,
    second: &Model,
    rows: &Subset,
    samples: usize,
) -> Result<Vec<LayerDifference>, Error> {
    let simplified = |model: &Model| -> Result<Graph, Error> {
        let mut graph = model.graph().clone();
        run_pipeline(pipelines::SIMPLIFY, &mut graph).map_err(RuntimeError::from)?;
        Ok(graph.compacted())
    };
    let (first, second) = (simplified(first)?, simplified(second)?);
    let session = Session::new(&first, SessionOptions::default())?;
    let feed = Feed::new(&session, rows)?;
    let mut inputs: Vec<Vec<Tensor>> = Vec::new();
    let mut taken = 0;
    for fed in feed.runs() {
        let fed = fed?;
        taken += fed.rows;
        inputs.push(fed.inputs);
        if taken >= samples {
            break;
        }
    }
    if inputs.is_empty() {
        return Err(NavigateError::Inputs("no rows".into()).into());
    }
    compare_layers(&first, &second, inputs.into_iter()).map_err(|error| match error {
        MeasureError::Run(why) => Error::Inputs(why),
        other => other.into(),
    })
}
