//! Running samples through a graph and recording what its activations do.

use std::collections::BTreeMap;

use lepton_ir::{Graph, Quant, ValueId};
use lepton_passes::{pipelines, run_pipeline};
use lepton_runtime::{Session, SessionOptions};
use lepton_tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::calibrate::{self, Calibration, Ranges};
use super::histogram::Histogram;
use crate::error::CompressError;

/// What was seen of every activation that may be quantised. Its size does not depend on the
/// number of samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observations {
    /// Histogram of each activation, by the label of its value.
    pub by_value: BTreeMap<String, Histogram>,
    /// Batches that were run.
    pub batches: usize,
}

impl Observations {
    /// The ranges these observations lead to.
    pub fn ranges(&self, calibration: Calibration) -> Ranges {
        let range = |(name, histogram): (&String, &Histogram)| {
            (name.clone(), calibrate::range(histogram, calibration))
        };
        Ranges { by_value: self.by_value.iter().map(range).collect() }
    }
}

/// The graph as every method here reads it: constants and batch normalisation folded.
pub fn simplified(graph: &Graph) -> Result<Graph, CompressError> {
    let mut graph = graph.clone();
    run_pipeline(pipelines::SIMPLIFY, &mut graph)?;
    Ok(graph)
}

/// Runs the batches (one tensor per graph input each) and records every f32 activation around
/// operators that can be quantised, by running the graph with those activations as outputs.
/// `keep_going` is told the number of batches done and stops the run by returning false.
///
/// # Errors
/// An activation that is not finite, a batch that does not fit, and no batch at all.
pub fn observe(
    graph: &Graph,
    batches: impl Iterator<Item = Result<Vec<Tensor>, CompressError>>,
    keep_going: &mut dyn FnMut(usize) -> bool,
) -> Result<Observations, CompressError> {
    let wanted = observable(graph);
    let session = Session::new(&watching(graph, &wanted), SessionOptions::default())?;
    let mut histograms = vec![Histogram::default(); wanted.len()];
    let mut done = 0;
    for batch in batches {
        let outputs = session.run(&batch?)?;
        for ((&value, tensor), histogram) in wanted.iter().zip(&outputs).zip(&mut histograms) {
            if !histogram.add(tensor.as_slice::<f32>()?) {
                let (value, node) = described(graph, value);
                return Err(CompressError::NotFinite { value, node, batch: done });
            }
        }
        done += 1;
        if !keep_going(done) {
            break;
        }
    }
    if done == 0 {
        return Err(CompressError::NoSamples { what: "calibration" });
    }
    let labels = wanted.iter().map(|&id| graph.value_label(id));
    Ok(Observations { by_value: labels.zip(histograms).collect(), batches: done })
}

/// [`observe`] and [`Observations::ranges`] in one.
///
/// # Errors
/// Those of [`observe`].
pub fn calibrate(
    graph: &Graph,
    batches: impl Iterator<Item = Result<Vec<Tensor>, CompressError>>,
    calibration: Calibration,
    keep_going: &mut dyn FnMut(usize) -> bool,
) -> Result<Ranges, CompressError> {
    Ok(observe(graph, batches, keep_going)?.ranges(calibration))
}

/// Label of a value and of the node that makes it.
pub(crate) fn described(graph: &Graph, value: ValueId) -> (String, String) {
    let node =
        graph.producer(value).map_or_else(|| "input".into(), |(_, node)| graph.node_label(node));
    (graph.value_label(value), node)
}

/// The graph with these values as its outputs, and nothing else in it.
pub(crate) fn watching(graph: &Graph, values: &[ValueId]) -> Graph {
    let mut watched = graph.clone();
    for &id in values {
        // Outputs must have names.
        if watched.value(id).name.is_empty() {
            watched.set_value_name(id, format!("#{}", id.index()));
        }
    }
    watched.set_outputs(values.to_vec());
    watched.remove_dead();
    watched
}

/// The f32 activations that operators which can be quantised read or make, each once.
fn observable(graph: &Graph) -> Vec<ValueId> {
    let mut seen = vec![false; graph.value_count()];
    let mut wanted = Vec::new();
    for (_, node) in graph.nodes() {
        if matches!(node.op.operator().quant(), Quant::FloatOnly(_) | Quant::NotApplicable) {
            continue;
        }
        for &id in node.inputs.iter().chain(&node.outputs).flatten() {
            let varies = graph.constant(id).is_none() && graph.fact(id).dtype == DType::F32;
            if varies && !std::mem::replace(&mut seen[id.index()], true) {
                wanted.push(id);
            }
        }
    }
    wanted
}
